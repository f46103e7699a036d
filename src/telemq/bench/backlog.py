"""How much memory a broker takes for messages that wait, beside what is in them.

Nobody consumes until all messages are there; then a consumer takes them all, and they are counted.
The producer gives the same payload again and again, so that it costs the producer nothing; the
broker receives each message as bytes of its own.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

from telemq.bench.carrier import Load
from telemq.bench.measure import rss_bytes
from telemq.bench.worker import Crew, stop_event
from telemq.broker.server import BrokerServer
from telemq.client.link import ConsumerLink
from telemq.engine.select import open_producer
from telemq.errors import TelemqError
from telemq.log import configure
from telemq.settings import BrokerSettings, CollectorSettings, StreamerSettings

__all__ = ["BacklogRun", "bench_backlog"]

_TIMEOUT_S = 600.0
_CREDIT_RECORDS = 100_000_000
_WINDOW_BYTES = 2**34


@dataclass(frozen=True, slots=True)
class BacklogRun:
    """What was seen.

    Attributes:
        records: that waited.
        batch_records: records a message.
        payload_bytes: of all messages that waited.
        empty_bytes: resident size of the broker before.
        full_bytes: the same with all messages waiting.
        drained_bytes: the same after all were delivered and settled.
        filling_s: from when the first message came, to within a millisecond, to the last one.
        draining_s: from when a connected consumer accepts deliveries to the last one.
    """

    records: int
    batch_records: int
    payload_bytes: int
    empty_bytes: int
    full_bytes: int
    drained_bytes: int
    filling_s: float
    draining_s: float

    @property
    def overhead(self) -> float:
        """Bytes that a waiting byte of payload costs beside itself."""
        return (self.full_bytes - self.empty_bytes) / self.payload_bytes - 1


def bench_backlog(load: Load, runs: int) -> Iterator[BacklogRun]:
    """Fill a broker `runs` times with `load`, one producer, and drain it, one consumer.

    Raises:
        TelemqError: not all came out again, a process died, or this is no Linux.
    """
    for _ in range(runs):
        with Crew() as crew:
            broker = crew.start("broker", _serve, load)
            front, back, empty = broker.receive(_TIMEOUT_S)
            producer = crew.start("producer", _produce, front, load)
            full, filling_s = broker.receive(_TIMEOUT_S)
            consumer = crew.start("consumer", _consume, back, load)
            (taken, draining_s), _ = consumer.result(_TIMEOUT_S)
            producer.result(_TIMEOUT_S)
            broker.pipe.send("stop")
            drained, _ = broker.result(_TIMEOUT_S)
        if taken != load.messages:
            raise TelemqError(f"of {load.messages} messages that waited {taken} came out")
        yield BacklogRun(
            load.messages * load.batch_records,
            load.batch_records,
            load.messages * load.message_bytes,
            empty,
            full,
            drained,
            filling_s,
            draining_s,
        )


def _serve(pipe: Connection, load: Load) -> int:
    configure("warning")
    server = BrokerServer(
        BrokerSettings(
            producer_bind="tcp://127.0.0.1:0",
            consumer_bind="tcp://127.0.0.1:0",
            message_bytes_max=max(8 * 2**20, load.message_bytes),
            # All of it must fit, credit for more included.
            capacity_records=2 * load.records + 1_000_000,
            capacity_bytes=2 * load.messages * load.message_bytes + 2**30,
        )
    )
    server.step(0)
    pipe.send((server.producer_endpoint, server.consumer_endpoint, rss_bytes()))
    began = time.monotonic()
    while not server.core.stats().ready_messages:
        began = time.monotonic()
        server.step(1)
    while server.core.stats().ready_messages < load.messages:
        server.step(100)
    filling_s = time.monotonic() - began
    gc.collect()
    pipe.send((rss_bytes(), filling_s))
    stop = stop_event(pipe)
    while not stop.is_set():
        server.step(100)
    gc.collect()
    size = rss_bytes()
    server.close()
    return size


def _produce(_pipe: Connection, endpoint: str, load: Load) -> None:
    configure("warning")
    settings = StreamerSettings(
        broker=endpoint, window_records=_CREDIT_RECORDS, window_bytes=_WINDOW_BYTES
    )
    link = open_producer(settings, name="bench")
    payload = bytes(load.message_bytes)
    confirmed = 0
    for number in range(load.messages):
        link.publish(f"bench#{number * load.batch_records}", load.batch_records, payload)
        if number % 64 == 0:
            confirmed += len(link.poll(0.0))
    while confirmed < load.messages:
        confirmed += len(link.poll(1.0))
    link.close()


def _consume(_pipe: Connection, endpoint: str, load: Load) -> tuple[int, float]:
    configure("warning")
    size_bytes = CollectorSettings().credit_bytes
    link = ConsumerLink(
        endpoint, name="bench", credit_records=_CREDIT_RECORDS, credit_bytes=size_bytes
    )
    link.pause()
    while not link.connected:
        link.poll(0.01)
    began, taken = time.monotonic(), 0
    link.allow(_CREDIT_RECORDS, size_bytes)
    while taken < load.messages and (deliveries := link.poll(10.0)):
        taken += len(deliveries)
        link.settle(deliveries)
    draining_s = time.monotonic() - began
    link.close()
    return taken, draining_s
