"""How one broker carries very many peers: rate, memory, descriptors, and whether shares are even.

Producers are greedy: each always has more to publish than the broker's credit lets it, so credit is
what all of them wait for, and how evenly it is given is what decides who gets how much done. A few
processes carry them all, each many links in one thread; every link is a real peer to the broker,
with its own connection, session and heartbeat.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import zmq

from telemq.bench.measure import Part, rss_bytes
from telemq.bench.worker import Crew, Worker, stop_event
from telemq.broker.descriptors import ensure_descriptors
from telemq.broker.server import BrokerServer
from telemq.client.link import ConsumerLink, ProducerLink
from telemq.client.many import ManyLinks, context_for
from telemq.clock import monotonic_ns
from telemq.log import configure
from telemq.settings import BrokerSettings

__all__ = ["PeerLoad", "PeerRun", "bench_peers"]

_TIMEOUT_S = 120.0
_RECORD_BYTES = 100
#: Links of one process: few enough that a round through them all is a small part of a heartbeat.
_LINKS_MAX = 500
#: Of a link: its connection, its waker's two ends, and what its ZeroMQ sockets wake each other by.
_DESCRIPTORS = 8
#: Left out at the beginning, while sessions open and the first credit is given.
_WARM_S = 2.0


@dataclass(frozen=True, slots=True)
class PeerLoad:
    """What is carried.

    Attributes:
        producers: how many.
        consumers: how many.
        batch_records: records a message.
        seconds: how long it is measured.
    """

    producers: int
    consumers: int
    batch_records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PeerRun:
    """What was seen.

    Attributes:
        connected_s: until all had a session, all at once and from nothing.
        records_per_s: confirmed, of all producers together.
        shares: records of each producer confirmed while measured: least, mean, greatest, deviation.
        consumed: messages of each consumer: least, mean, greatest.
        broker_bytes: resident size of the broker: with no peer, with all of them idle, at its peak.
        broker_descriptors: open at its peak.
        broker_cpu_share: of one core, while measured.
        lost: sessions that were lost, of all peers.
        parts: what each process used.
    """

    connected_s: float
    records_per_s: float
    shares: tuple[int, float, int, float]
    consumed: tuple[int, float, int]
    broker_bytes: tuple[int, int, int]
    broker_descriptors: int
    broker_cpu_share: float
    lost: int
    parts: tuple[Part, ...]


def bench_peers(load: PeerLoad) -> PeerRun:
    """Run all peers against one broker.

    Raises:
        TelemqError: a process died, the peers could not all connect in time, or this is no Linux.
    """
    with Crew() as crew:
        broker = crew.start("broker", _serve, load)
        front, back, empty_bytes = broker.receive(_TIMEOUT_S)
        began = time.monotonic()
        consumers = [crew.start("consumers", _consume, back, n) for n in _split(load.consumers)]
        producers = [
            crew.start("producers", _produce, front, n, load) for n in _split(load.producers)
        ]
        workers = (*consumers, *producers)
        connected_s = max(worker.receive(_TIMEOUT_S) for worker in workers) - began
        broker.pipe.send("all there")
        idle_bytes = broker.receive(_TIMEOUT_S)
        for worker in producers:
            worker.pipe.send("go")
        _wait(_WARM_S, workers)
        for worker in (broker, *workers):
            worker.pipe.send("measure")
        _wait(load.seconds, workers)
        for worker in (*workers, broker):
            worker.pipe.send("stop")
        produced = [worker.result(_TIMEOUT_S) for worker in producers]
        consumed = [worker.result(_TIMEOUT_S) for worker in consumers]
        (peak_bytes, descriptors, cpu_share), broker_part = broker.result(_TIMEOUT_S)
    shares = [count * load.batch_records for (counts, _), _ in produced for count in counts]
    taken = [count for (counts, _), _ in consumed for count in counts]
    return PeerRun(
        connected_s,
        sum(shares) / load.seconds,
        (min(shares), statistics.mean(shares), max(shares), statistics.pstdev(shares)),
        (min(taken), statistics.mean(taken), max(taken)),
        (empty_bytes, idle_bytes, peak_bytes),
        descriptors,
        cpu_share,
        sum(lost for (_, lost), _ in (*produced, *consumed)),
        (broker_part, *(part for _, part in (*produced, *consumed))),
    )


def _wait(seconds: float, workers: Sequence[Worker]) -> None:
    """Let time pass; a worker says nothing now, unless it failed."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        for worker in workers:
            worker.check()
        time.sleep(min(left, 0.1))


def _split(count: int) -> list[int]:
    """Spread peers over as few processes as can hold them."""
    processes = -(-count // _LINKS_MAX)
    return [count // processes + (n < count % processes) for n in range(processes)]


def _serve(pipe: Connection, load: PeerLoad) -> tuple[int, int, float]:
    configure("error")
    server = BrokerServer(
        BrokerSettings(
            producer_bind="tcp://127.0.0.1:0",
            consumer_bind="tcp://127.0.0.1:0",
            peers_max=load.producers + load.consumers + 100,
        )
    )
    pipe.send((server.producer_endpoint, server.consumer_endpoint, rss_bytes()))
    _step_until_told(server, pipe)
    pipe.send(rss_bytes())
    _step_until_told(server, pipe)
    cpu_s, began = time.process_time(), time.monotonic()
    stop = stop_event(pipe)
    peak_bytes = descriptors = 0
    looked_at = 0.0
    while not stop.is_set():
        server.step(50)
        now = time.monotonic()
        if now >= looked_at + 0.5:
            looked_at = now
            peak_bytes = max(peak_bytes, rss_bytes())
            descriptors = max(descriptors, len(os.listdir("/proc/self/fd")))
    cpu_share = (time.process_time() - cpu_s) / (time.monotonic() - began)
    server.close()
    return peak_bytes, descriptors, cpu_share


def _step_until_told(server: BrokerServer, pipe: Connection) -> None:
    while not pipe.poll(0):
        server.step(50)
    pipe.recv()


def _produce(pipe: Connection, endpoint: str, count: int, load: PeerLoad) -> tuple[list[int], int]:
    configure("error")
    ensure_descriptors(_DESCRIPTORS * count)
    context = context_for(count)
    links = [
        ProducerLink(
            endpoint,
            name=f"bench {n}",
            window_records=8 * load.batch_records,
            window_bytes=8 * load.batch_records * _RECORD_BYTES,
            context=context,
        )
        for n in range(count)
    ]
    many = ManyLinks(links)
    _connect(many, links)
    pipe.send(time.monotonic())
    while not pipe.poll(0):
        for link in many.due(0.05):
            link.poll(0)
    pipe.recv()
    payload = bytes(load.batch_records * _RECORD_BYTES)
    prefix = f"{os.getpid()}-{monotonic_ns()}"
    confirmed = dict.fromkeys(links, 0)
    published, measured = 0, dict(confirmed)
    stop, measuring = None, False
    while stop is None or not stop.is_set():
        for link in many.due(0.05):
            while link.room_records() >= load.batch_records:
                link.publish(f"{prefix}#{published}", load.batch_records, payload)
                published += 1
            confirmed[link] += len(link.poll(0))
        if not measuring and pipe.poll(0):
            pipe.recv()
            measuring, measured, stop = True, dict(confirmed), stop_event(pipe)
    shares = [confirmed[link] - measured[link] for link in links]
    lost = sum(link.stats().sessions - 1 for link in links)
    _close(links, context)
    return shares, lost


def _consume(pipe: Connection, endpoint: str, count: int) -> tuple[list[int], int]:
    configure("error")
    ensure_descriptors(_DESCRIPTORS * count)
    context = context_for(count)
    links = [
        ConsumerLink(
            endpoint,
            name=f"bench {n}",
            credit_records=100_000,
            credit_bytes=2**20,
            context=context,
        )
        for n in range(count)
    ]
    many = ManyLinks(links)
    _connect(many, links)
    pipe.send(time.monotonic())
    taken = dict.fromkeys(links, 0)
    measured, stop = dict(taken), None
    while stop is None or not stop.is_set():
        for link in many.due(0.05):
            if deliveries := link.poll(0):
                taken[link] += len(deliveries)
                link.settle(deliveries)
        if stop is None and pipe.poll(0):
            pipe.recv()
            measured, stop = dict(taken), stop_event(pipe)
    counts = [taken[link] - measured[link] for link in links]
    lost = sum(link.stats().sessions - 1 for link in links)
    _close(links, context)
    return counts, lost


def _connect(
    many: ManyLinks[ProducerLink] | ManyLinks[ConsumerLink],
    links: Sequence[ProducerLink | ConsumerLink],
) -> None:
    while not all(link.connected for link in links):
        for link in many.due(0.05):
            link.poll(0)


def _close(
    links: Sequence[ProducerLink | ConsumerLink], context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    for link in links:
        link.close()
    context.destroy(linger=0)
