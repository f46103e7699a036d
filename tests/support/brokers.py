"""A real broker in a thread of the test, and peers that know nothing but docs/protocol.md."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import zmq

from telemq.broker.peers import PeerId
from telemq.broker.server import BrokerServer
from telemq.broker.stats import BrokerStats
from telemq.settings import BrokerSettings

__all__ = ["DEADLINE_S", "PlainPeer", "RunningBroker", "running_broker", "until"]

#: Longest wait for what must happen; far longer than it takes on a busy machine.
DEADLINE_S = 20.0


def until(condition: Callable[[], object], what: str, *act: Callable[[], object]) -> None:
    """Do some things again and again until a condition holds; fails after `DEADLINE_S`."""
    end = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, f"it never came to this: {what}"
        for one in act:
            one()
        if not act:
            pause.wait(0.005)


class RunningBroker:
    """A broker that serves in a thread of its own until stopped.

    Attributes:
        producers: endpoint.
        consumers: endpoint.
        ways: what is on of PULL, PUSH and HTTP.
        stats: the latest snapshot.
        stalled: why its journal takes nothing, or empty.
        door: the same of its door; None without keys.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self._server = BrokerServer(settings)
        self.producers = self._server.producer_endpoint
        self.consumers = self._server.consumer_endpoint
        self.ways = self._server.ways
        self.stats: BrokerStats = self._server.core.stats()
        self.stalled = ""
        self.door = self._server.door_stats()
        self._stop = threading.Event()
        self._bye = True
        self._thread = threading.Thread(target=self._serve, name="broker", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._server.step(10)
            self._server.core.check()
            self.stats = self._server.core.stats()
            if journal := self._server.journal_stats():
                self.stalled = journal.stalled
            self.door = self._server.door_stats()
        if self._bye:
            self._server.close()
        else:
            self._server._routers._context.destroy(linger=0)
            if self._server._keeper is not None:
                self._server._keeper.close()

    def peers(self) -> list[PeerId]:
        """Where its peers with a session are."""
        return [peer.id for peer in self._server.core._peers.all()]

    def stop(self, *, bye: bool = True) -> None:
        """End it; without `bye` as by SIGKILL."""
        self._bye = bye
        self._stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the broker's thread hangs"


@contextmanager
def running_broker(**settings: Any) -> Iterator[RunningBroker]:
    """Run a broker on free ports."""
    defaults = {
        "producer_bind": "tcp://127.0.0.1:*",
        "consumer_bind": "tcp://127.0.0.1:*",
        "message_bytes_max": 300_000,
    }
    broker = RunningBroker(BrokerSettings(**{**defaults, **settings}))
    try:
        yield broker
    finally:
        broker.stop()


class PlainPeer:
    """A DEALER socket and JSON; a context manager.

    Attributes:
        session: as WELCOME gave it.
        numbers: of all that the broker said in this session.
    """

    def __init__(self, endpoint: str, role: str) -> None:
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 0)
        # libzmq takes the pipe of a peer that was denied: sending would wait for ever.
        self._socket.setsockopt(zmq.SNDTIMEO, 5000)
        self._prepare(self._socket)
        self._socket.connect(endpoint)
        self._role = role
        self._said = 0
        self.session = ""
        self.numbers: list[int] = []

    def _prepare(self, link: zmq.Socket[bytes]) -> None:
        """Set what the socket needs before it connects."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def hello(self) -> list[Any]:
        """Open a session; gives WELCOME."""
        self.send_hello()
        return self.welcome()

    def send_hello(self) -> None:
        """Say HELLO, and do not wait."""
        self.send(["HELLO", "", 0, "1.0", self._role, "plain"])

    def welcome(self) -> list[Any]:
        """Wait for WELCOME, and take its session."""
        welcome = self.hear("WELCOME")
        self.session, self._said = welcome[1], 0
        return welcome

    def say(self, kind: str, *fields: Any, payload: bytes | None = None) -> int:
        """Say one message in the session; gives its number."""
        self._said += 1
        self.send([kind, self.session, self._said, *fields], payload)
        return self._said

    def send(self, message: Any, payload: bytes | None = None) -> None:
        """Send one message as it is."""
        frames = [json.dumps(message).encode()]
        self.send_frames(*frames, *([] if payload is None else [payload]))

    def send_frames(self, *frames: bytes) -> None:
        """Send any frames."""
        self._socket.send_multipart(frames)

    def hear(self, kind: str) -> list[Any]:
        """Wait for the next message of a kind; a payload is put at its end."""
        end = time.monotonic() + DEADLINE_S
        while self._socket.poll(int(max(0.0, end - time.monotonic()) * 1000)):
            control, *payload = self._socket.recv_multipart()
            message: list[Any] = json.loads(control)
            if message[0] != "ERROR":
                self.numbers.append(message[2])
            if message[0] == kind:
                return [*message, *payload]
        raise AssertionError(f"no {kind} came")
