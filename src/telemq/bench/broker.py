"""How fast the broker carries records, beside libzmq's own proxy in the same run.

The subject does all that telemq promises: bounded, credit both ways, leases, confirm on settle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from telemq.bench.carrier import Carrier, Load, carry
from telemq.bench.measure import Run
from telemq.bench.proxy import PROXY
from telemq.bench.worker import count_from_here, stop_event
from telemq.broker.server import BrokerServer
from telemq.engine.base import Delivery
from telemq.engine.select import open_consumer, open_producer
from telemq.errors import TelemqError
from telemq.keys import KeyDirectory, write_pair
from telemq.log import configure
from telemq.protocol import Payload
from telemq.settings import BrokerSettings, CollectorSettings, StreamerSettings

__all__ = ["BROKER", "CURVE", "JOURNALED", "UNIX", "bench_broker", "bench_curve"]

_CREDIT_RECORDS = 100_000_000
_KEY = "bench"
_ANY = "tcp://127.0.0.1:0"


def bench_broker(load: Load, runs: int, *, journal: bool = False) -> Iterator[Run]:
    """Measure `runs` times, turn by turn, the broker, and the proxy or the broker with a journal.

    Raises:
        TelemqError: a message was lost or doubled, or a process died.
    """
    for _ in range(runs):
        yield carry(BROKER, load)
        yield carry(JOURNALED if journal else PROXY, load)


def bench_curve(load: Load, runs: int) -> Iterator[Run]:
    """Measure `runs` times, turn by turn, the broker with CURVE and without.

    Raises:
        TelemqError: a message was lost or doubled, or a process died.
    """
    for _ in range(runs):
        yield carry(CURVE, load)
        yield carry(BROKER, load)


class _Address(NamedTuple):
    """Where a broker listens.

    Attributes:
        producers: endpoint.
        consumers: endpoint.
        keys: its key directory, or empty.
    """

    producers: str
    consumers: str
    keys: str = ""

    def flags(self) -> dict[str, Any]:
        """Give the settings of a peer that has a key, if it takes one."""
        if not self.keys:
            return {}
        keys = Path(self.keys)
        return {"key": str(keys / f"{_KEY}.key_secret"), "broker_key": str(keys / "broker.key")}


def _serve_broker(
    pipe: Connection,
    load: Load,
    journal: str = "",
    keys: str = "",
    binds: tuple[str, str] = (_ANY, _ANY),
) -> None:
    configure("warning")
    settings = BrokerSettings(
        producer_bind=binds[0],
        consumer_bind=binds[1],
        message_bytes_max=max(8 * 2**20, load.message_bytes),
        journal=journal,
        keys=keys,
    )
    server = BrokerServer(settings)
    pipe.send(_Address(server.producer_endpoint, server.consumer_endpoint, keys))
    count_from_here()
    stop = stop_event(pipe)
    while not stop.is_set():
        server.step(100)
    server.close()


def _serve_journaled(pipe: Connection, load: Load) -> None:
    with TemporaryDirectory(prefix="telemq-bench-") as directory:
        _serve_broker(pipe, load, journal=directory)


def _serve_unix(pipe: Connection, load: Load) -> None:
    with TemporaryDirectory(prefix="telemq-bench-") as folder:
        _serve_broker(pipe, load, binds=(f"ipc://{folder}/producers", f"ipc://{folder}/consumers"))


def _serve_curve(pipe: Connection, load: Load) -> None:
    with TemporaryDirectory(prefix="telemq-bench-") as scratch:
        directory = KeyDirectory(Path(scratch))
        directory.create()
        directory.allow(write_pair(directory.path, _KEY, "admin"))
        _serve_broker(pipe, load, keys=scratch)


class _Producer:
    def __init__(self, address: _Address, load: Load) -> None:
        configure("warning")
        self._records = load.batch_records
        self._prefix = f"{id(self)}#"
        self._sent = 0
        settings = StreamerSettings(
            broker=address.producers,
            window_records=_CREDIT_RECORDS,  # bytes are what bounds it
            window_bytes=max(load.window_bytes, 4 * load.message_bytes),
        )
        self._link = open_producer(replace(settings, **address.flags()), name="bench")
        self._publish = self._link.publish
        while not self._link.connected:
            self._link.poll(0.1)

    def room(self) -> int:
        return self._link.room_records() // self._records

    def send(self, payload: bytes) -> None:
        self._publish(f"{self._prefix}{self._sent}", self._records, payload)
        self._sent += self._records

    def poll(self, timeout_s: float) -> int:
        return len(self._link.poll(timeout_s))

    def close(self) -> None:
        self._link.close()


class _Consumer:
    def __init__(self, address: _Address, load: Load) -> None:
        configure("warning")
        self._taken: Sequence[Delivery] = ()
        settings = CollectorSettings(
            broker=address.consumers,
            credit_records=_CREDIT_RECORDS,
            credit_bytes=load.window_bytes,
        )
        self._link = open_consumer(replace(settings, **address.flags()), name="bench")
        while not self._link.connected:
            self._link.poll(0.1)

    def take(self, timeout_s: float) -> list[Payload]:
        self._taken = self._link.poll(timeout_s)
        if lost := self._link.lost():
            raise TelemqError(f"the session ended, and {len(lost)} messages come again")
        return [delivery.payload for delivery in self._taken]

    def settle(self) -> None:
        self._link.settle(self._taken)

    def close(self) -> None:
        self._link.close()


BROKER = Carrier("telemq", _serve_broker, _Producer, _Consumer)
JOURNALED = Carrier("telemq, journal", _serve_journaled, _Producer, _Consumer)
UNIX = Carrier("telemq, Unix sockets", _serve_unix, _Producer, _Consumer)
CURVE = Carrier("telemq, CURVE", _serve_curve, _Producer, _Consumer)
