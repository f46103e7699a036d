"""How fast the broker carries records, beside libzmq's own proxy in the same run.

The subject does all that telemq promises: bounded, credit both ways, leases, confirm on settle.
`zmq.proxy` is a loop in C between the same kinds of socket that only copies frames: it keeps
nothing, confirms nothing and bounds nothing but messages. It is the limit for a broker on ZeroMQ.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import zmq

from telemq.bench.measure import Run, Worker, stop_event
from telemq.broker.server import BrokerServer
from telemq.client.link import ConsumerLink, ProducerLink
from telemq.errors import TelemqError
from telemq.keys import KeyDirectory, LinkKeys, load_link_keys, write_pair
from telemq.log import configure
from telemq.settings import BrokerSettings

__all__ = ["BrokerLoad", "bench_broker", "bench_curve"]

_WINDOW_BYTES = 4 * 2**20
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class BrokerLoad:
    """What is carried.

    Attributes:
        records: in all; rounded up to whole messages.
        batch_records: records a message.
        record_bytes: bytes a record.
        producers: producer processes.
        consumers: consumer processes.
        keys: directory with a broker's keys and those of an admin, ``bench``; None is without.
    """

    records: int
    batch_records: int
    record_bytes: int
    producers: int
    consumers: int
    keys: Path | None = None

    @property
    def messages(self) -> int:
        """Messages of each producer."""
        return -(-self.records // (self.batch_records * self.producers))

    @property
    def message_bytes(self) -> int:
        """Payload bytes of one message."""
        return self.batch_records * self.record_bytes

    @property
    def total_messages(self) -> int:
        """Messages of all producers."""
        return self.messages * self.producers


def bench_broker(load: BrokerLoad, runs: int, *, journal: bool = False) -> Iterator[Run]:
    """Measure `runs` times, turn by turn, the broker, and the proxy or the broker with a journal.

    Raises:
        TelemqError: a record was lost or doubled, or a process died.
    """
    for _ in range(runs):
        yield _run("telemq broker", _serve_broker, _produce, _consume, load)
        if journal:
            yield _run("with a journal", _serve_journaled, _produce, _consume, load)
            continue
        yield _run("zmq.proxy", _serve_proxy, _push, _pull, load)


def bench_curve(load: BrokerLoad, runs: int) -> Iterator[Run]:
    """Measure `runs` times, turn by turn, the broker with CURVE and without.

    Raises:
        TelemqError: a record was lost or doubled, or a process died.
    """
    with TemporaryDirectory(prefix="telemq-bench-") as scratch:
        directory = KeyDirectory(Path(scratch))
        directory.create()
        directory.allow(write_pair(directory.path, "bench", "admin"))
        with_keys = replace(load, keys=directory.path)
        for _ in range(runs):
            yield _run("with CURVE", _serve_broker, _produce, _consume, with_keys)
            yield _run("without", _serve_broker, _produce, _consume, load)


def _run(
    subject: str,
    serve: Callable[..., None],
    produce: Callable[..., float],
    consume: Callable[..., tuple[int, float]],
    load: BrokerLoad,
) -> Run:
    with ExitStack() as stack:

        def start(name: str, function: Callable[..., object], *args: object) -> Worker:
            worker = Worker(name, function, *args)
            stack.callback(worker.close)
            return worker

        broker = start("broker", serve, load)
        producer_end, consumer_end = broker.receive(_TIMEOUT_S)
        consumers = [start("consumer", consume, consumer_end, load) for _ in range(load.consumers)]
        producers = [start("producer", produce, producer_end, load, n)
                     for n in range(load.producers)]  # fmt: skip
        for worker in (*consumers, *producers):
            worker.receive(_TIMEOUT_S)
        for worker in producers:
            worker.pipe.send("go")
        begun = [worker.receive(_TIMEOUT_S) for worker in producers]
        sent = [worker.result(_TIMEOUT_S) for worker in producers]
        for worker in consumers:
            worker.pipe.send("stop")
        received = [worker.result(_TIMEOUT_S) for worker in consumers]
        # Only now: a proxy has still to carry what its producers have sent.
        broker.pipe.send("stop")
        _, broker_part = broker.result(_TIMEOUT_S)
    count = sum(messages for (messages, _), _ in received)
    if count != load.total_messages:
        raise TelemqError(f"{subject}: sent {load.total_messages} messages, received {count}")
    ended = max([at for (_, at), _ in received] + [at for at, _ in sent])
    parts = (broker_part, *(part for _, part in sent), *(part for _, part in received))
    records = load.total_messages * load.batch_records
    return Run(subject, records, ended - min(begun), parts)


def _serve_journaled(pipe: Connection, load: BrokerLoad) -> None:
    with TemporaryDirectory(prefix="telemq-bench-") as directory:
        _serve_broker(pipe, load, directory)


def _serve_broker(pipe: Connection, load: BrokerLoad, journal: str = "") -> None:
    configure("warning")
    settings = BrokerSettings(
        producer_bind="tcp://127.0.0.1:0",
        consumer_bind="tcp://127.0.0.1:0",
        message_bytes_max=max(8 * 2**20, load.message_bytes),
        journal=journal,
        keys=str(load.keys or ""),
    )
    server = BrokerServer(settings)
    pipe.send((server.producer_endpoint, server.consumer_endpoint))
    stop = stop_event(pipe)
    while not stop.is_set():
        server.step(100)
    server.close()


def _produce(pipe: Connection, endpoint: str, load: BrokerLoad, number: int) -> float:
    configure("warning")
    link = ProducerLink(
        endpoint,
        name=f"bench {number}",
        window_records=max(100_000, 4 * load.batch_records),
        window_bytes=max(_WINDOW_BYTES, 4 * load.message_bytes),
        keys=_link_keys(load),
    )
    payload = bytes(load.message_bytes)
    while not link.connected:
        link.poll(0.1)
    pipe.send("ready")
    pipe.recv()
    pipe.send(time.monotonic())
    published = confirmed = 0
    while confirmed < load.messages:
        while published < load.messages and link.room_records() >= load.batch_records:
            id = f"bench/{number}#{published * load.batch_records}"
            link.publish(id, load.batch_records, payload)
            published += 1
        confirmed += len(link.poll(1.0))
    ended = time.monotonic()
    link.close()
    return ended


def _consume(pipe: Connection, endpoint: str, load: BrokerLoad) -> tuple[int, float]:
    configure("warning")
    link = ConsumerLink(
        endpoint,
        name="bench",
        credit_records=100_000_000,
        credit_bytes=_WINDOW_BYTES,
        keys=_link_keys(load),
    )
    while not link.connected:
        link.poll(0.1)
    pipe.send("ready")
    stop = stop_event(pipe)
    messages, at = 0, time.monotonic()
    while not stop.is_set():
        if deliveries := link.poll(0.1):
            messages += len(deliveries)
            at = time.monotonic()
            link.settle(deliveries)
    link.close()
    return messages, at


def _link_keys(load: BrokerLoad) -> LinkKeys | None:
    if load.keys is None:
        return None
    return load_link_keys(str(load.keys / "bench.key_secret"), str(load.keys / "broker.key"))


def _hwm(load: BrokerLoad) -> int:
    """Messages that may wait at each end of the proxy: as many bytes as our credit allows."""
    return max(4, _WINDOW_BYTES // load.message_bytes)


def _serve_proxy(pipe: Connection, load: BrokerLoad) -> None:
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    for side in (front, back):
        side.set_hwm(_hwm(load))
        side.setsockopt(zmq.LINGER, 0)
        side.bind("tcp://127.0.0.1:0")
    pipe.send(tuple(side.getsockopt_string(zmq.LAST_ENDPOINT) for side in (front, back)))

    def forward() -> None:
        # It ends when the context does: the steerable proxy of libzmq 4.3.5 was seen to miss its
        # TERMINATE after a run of small messages.
        with front, back, contextlib.suppress(zmq.ContextTerminated):
            zmq.proxy(front, back)

    forwarder = threading.Thread(target=forward, name="proxy")
    forwarder.start()
    pipe.recv()
    context.term()
    forwarder.join()


def _push(pipe: Connection, endpoint: str, load: BrokerLoad, number: int) -> float:
    with zmq.Context() as context, context.socket(zmq.DEALER) as link:
        link.set_hwm(_hwm(load))
        link.setsockopt(zmq.LINGER, -1)
        link.connect(endpoint)
        payload = bytes(load.message_bytes)
        pipe.send("ready")
        pipe.recv()
        pipe.send(time.monotonic())
        for at in range(load.messages):
            link.send(b"bench/%d#%d" % (number, at), zmq.SNDMORE)
            link.send(payload, 0, copy=len(payload) <= 32_768)
        return time.monotonic()


def _pull(pipe: Connection, endpoint: str, _load: BrokerLoad) -> tuple[int, float]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as link:
        link.set_hwm(1000)
        link.setsockopt(zmq.LINGER, 0)
        link.connect(endpoint)
        pipe.send("ready")
        stop = stop_event(pipe)
        messages, at = 0, time.monotonic()
        idle = 0
        # A proxy confirms nothing, so what is still under way at the stop must be waited for.
        while not stop.is_set() or idle < 5:
            if not link.poll(100):
                idle += 1
                continue
            idle = 0
            while link.poll(0):
                link.recv_multipart(copy=False)
                messages += 1
            at = time.monotonic()
        return messages, at
