"""How fast the broker carries records, beside libzmq's own proxy in the same run.

The subject does all that telemq promises: bounded, credit both ways, leases, confirm on settle.
`zmq.proxy` is a loop in C between the same kinds of socket that only copies frames: it keeps
nothing, confirms nothing and bounds nothing but messages. It is the limit for a broker on ZeroMQ.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import zmq

from telemq.bench.carrier import Carrier, Load, carry
from telemq.bench.measure import Run, count_from_here, stop_event
from telemq.broker.server import BrokerServer
from telemq.engine.base import Delivery
from telemq.engine.select import open_consumer, open_producer
from telemq.errors import TelemqError
from telemq.keys import KeyDirectory, write_pair
from telemq.log import configure
from telemq.protocol import Payload
from telemq.settings import BrokerSettings, CollectorSettings, StreamerSettings

__all__ = ["BROKER", "CURVE", "JOURNALED", "PROXY", "Proxy", "bench_broker", "bench_curve"]

_CREDIT_RECORDS = 100_000_000
_KEY = "bench"
#: A payload up to here is copied into Python's memory: above, the bookkeeping costs less.
_COPY_BYTES_MAX = 32_768
#: Messages that a proxy's consumer takes at a time.
_TAKEN_MAX = 1000


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


def _serve_broker(pipe: Connection, load: Load, journal: str = "", keys: str = "") -> None:
    configure("warning")
    settings = BrokerSettings(
        producer_bind="tcp://127.0.0.1:0",
        consumer_bind="tcp://127.0.0.1:0",
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
        while not self._link.connected:
            self._link.poll(0.1)

    def room(self) -> int:
        return self._link.room_records() // self._records

    def send(self, payload: bytes) -> None:
        self._link.publish(self._prefix + str(self._sent), self._records, payload)
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


class Proxy:
    """`zmq.proxy` between two kinds of socket, and ends that only send and receive.

    Args:
        front: type of the socket that producers connect to.
        back: type of the socket that consumers connect to.
    """

    def __init__(self, front: int, back: int) -> None:
        self._front, self._back = front, back

    def serve(self, pipe: Connection, load: Load) -> None:
        """Forward until told to stop."""
        context = zmq.Context()
        front, back = context.socket(self._front), context.socket(self._back)
        for side in (front, back):
            side.set_hwm(load.window_messages)
            side.setsockopt(zmq.LINGER, 0)
            side.bind("tcp://127.0.0.1:0")
        pipe.send(tuple(side.getsockopt_string(zmq.LAST_ENDPOINT) for side in (front, back)))
        count_from_here()

        def forward() -> None:
            # It ends when the context does: the steerable proxy of libzmq 4.3.5 was seen to miss
            # its TERMINATE after a run of small messages.
            with front, back, contextlib.suppress(zmq.ContextTerminated):
                zmq.proxy(front, back)

        forwarder = threading.Thread(target=forward, name="proxy")
        forwarder.start()
        pipe.recv()
        context.term()
        forwarder.join()

    def sender(self, address: tuple[str, str], load: Load) -> _ProxySender:
        """Connect a producer."""
        kind = zmq.DEALER if self._front == zmq.ROUTER else zmq.PUSH
        return _ProxySender(kind, address[0], load)

    def receiver(self, address: tuple[str, str], load: Load) -> _ProxyReceiver:
        """Connect a consumer."""
        kind = zmq.DEALER if self._back == zmq.DEALER else zmq.PULL
        return _ProxyReceiver(kind, address[1], load, has_sender=self._front == zmq.ROUTER)


class _ProxySender:
    """Sends frames; a high-water mark holds it up, and nothing is ever confirmed."""

    def __init__(self, kind: int, endpoint: str, load: Load) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.set_hwm(load.window_messages)
        self._socket.connect(endpoint)
        self._copies = load.message_bytes <= _COPY_BYTES_MAX
        self._sent = 0

    def room(self) -> int:
        """Tell that `send` waits by itself."""
        return 1_000_000

    def send(self, payload: bytes) -> None:
        """Send, as soon as there is room."""
        self._socket.send(payload, 0, copy=self._copies)
        self._sent += 1

    def poll(self, _timeout_s: float) -> int:
        """Give what was sent since: there are no confirms."""
        sent, self._sent = self._sent, 0
        return sent

    def close(self) -> None:
        """Close once all is sent."""
        self._socket.close(linger=-1)
        self._context.term()


class _ProxyReceiver:
    """Receives frames, and settles nothing."""

    def __init__(self, kind: int, endpoint: str, load: Load, *, has_sender: bool) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.set_hwm(1000)
        self._socket.connect(endpoint)
        self._copies = load.message_bytes <= _COPY_BYTES_MAX
        self._has_sender = has_sender

    def take(self, timeout_s: float) -> list[Payload]:
        """Receive all that is there."""
        receive, wait_ms = self._socket.recv, int(1000 * timeout_s)
        taken: list[Payload] = []
        # A receive in vain costs twice as much as asking first.
        while len(taken) < _TAKEN_MAX and self._socket.poll(wait_ms):
            wait_ms = 0
            if self._has_sender:  # what a ROUTER puts in front
                receive()
            taken.append(receive() if self._copies else receive(copy=False).buffer)
        return taken

    def settle(self) -> None:
        """Do nothing: a proxy keeps nothing."""

    def close(self) -> None:
        """Close."""
        self._socket.close(linger=0)
        self._context.term()


_ROUTER_DEALER = Proxy(zmq.ROUTER, zmq.DEALER)

BROKER = Carrier("telemq", _serve_broker, _Producer, _Consumer)
JOURNALED = Carrier("telemq, journal", _serve_journaled, _Producer, _Consumer)
CURVE = Carrier("telemq, CURVE", _serve_curve, _Producer, _Consumer)
PROXY = Carrier(
    "zmq.proxy ROUTER/DEALER", _ROUTER_DEALER.serve, _ROUTER_DEALER.sender, _ROUTER_DEALER.receiver
)
