"""A broker's core driven by hand, as in a text book: a message in, the exact messages out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from telemq.broker.core import BrokerCore, Outgoing
from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import PeerId
from telemq.client.session import Delivered, Delivery
from telemq.protocol import (
    Credit,
    Frames,
    FromPeer,
    Hello,
    Payload,
    Publish,
    Role,
    Settle,
    Settlement,
    Want,
    Welcome,
)

__all__ = ["LIMITS", "Peer", "Scene", "delivered"]

#: Round numbers, so that what a test expects can be seen.
LIMITS = BrokerLimits(
    capacity_records=100,
    capacity_bytes=1000,
    message_bytes_max=200,
    credit_records_max=20,
    credit_bytes_max=200,
    lease_ns=30_000_000_000,
    attempts_max=3,
    heartbeat_ns=1_000_000_000,
    peers_max=10,
    retry_ns=100_000_000,
    retry_ns_max=1_000_000_000,
    errors_max=20,
    errors_ns=1_000_000_000,
)


class Peer:
    """One peer in a scene; it says what it is told, with the right session and number.

    Attributes:
        id: where it is.
        session: its token.
        said: number of its last message.
    """

    def __init__(self, scene: Scene, role: Role, route: bytes) -> None:
        self._scene = scene
        self.id = PeerId(role, route)
        self.session = ""
        self.said = 0

    def hello(self, version: str = "1.0") -> list[Outgoing]:
        """Say HELLO, and keep the session that WELCOME gives."""
        out = self._scene.receive(self.id, Hello("", 0, version, self.id.role, "somebody"))
        for one in out:
            if isinstance(one.message, Welcome) and one.peer == self.id:
                self.session, self.said = one.message.session, 0
        return out

    def say(
        self, kind: type[Any], *fields: object, payload: Payload | None = None, frames: Frames = ()
    ) -> list[Outgoing]:
        """Say one message, such as ``say(Ping)``, with a payload in one frame or in several."""
        self.said += 1
        frames = frames if payload is None else (payload,)
        return self._scene.receive(self.id, kind(self.session, self.said, *fields), frames)

    def want(self, records: int, size_bytes: int) -> list[Outgoing]:
        """Ask for exactly this much credit: less does not help."""
        return self.say(Want, records, size_bytes, records, size_bytes)

    def publish(self, id: str, payload: bytes = b"x", records: int = 1) -> list[Outgoing]:
        """Publish one message."""
        return self.say(Publish, id, records, "key", {"a": "b"}, payload=payload)

    def credit(self, records: int = 100, size_bytes: int = 1000) -> list[Outgoing]:
        """Accept deliveries."""
        return self.say(Credit, records, size_bytes)

    def settle(self, lease: int, outcome: Any = "ok", reason: str = "") -> list[Outgoing]:
        """Be done with one lease."""
        return self.say(Settle, (Settlement(lease, outcome, reason),))


class Scene:
    """A broker's core and a clock; every promise is checked after each event.

    Args:
        limits: what differs from `LIMITS`.

    Attributes:
        now: nanoseconds.
        checks: whether promises are checked; each time takes as long as there are messages.
    """

    def __init__(self, **limits: int) -> None:
        self.core = BrokerCore(replace(LIMITS, **limits), b"secret")
        self.now = 0
        self.checks = True
        self._routes = 0

    def peer(self, role: Role) -> Peer:
        """Make a peer that is connected, but has said nothing."""
        self._routes += 1
        return Peer(self, role, b"%d" % self._routes)

    def producer(self, records: int = 20, size_bytes: int = 200, version: str = "1.0") -> Peer:
        """Make a producer with a session and this much credit."""
        producer = self.peer("producer")
        producer.hello(version)
        if records:
            producer.say(Want, 1, 0, records, size_bytes)
        return producer

    def consumer(self, records: int = 100, size_bytes: int = 1000, version: str = "1.0") -> Peer:
        """Make a consumer with a session that accepts this much; one of 1.1 takes a PACK."""
        consumer = self.peer("consumer")
        consumer.hello(version)
        consumer.credit(records, size_bytes)
        return consumer

    def receive(self, id: PeerId, message: FromPeer, frames: Frames = ()) -> list[Outgoing]:
        """Let the core have a message."""
        out = self.core.receive(id, message, frames, self.now)
        if self.checks:
            self.core.check()
        return out

    def advance(self, by_ns: int) -> list[Outgoing]:
        """Let time pass."""
        self.now += by_ns
        out = self.core.advance(self.now)
        self.core.check()
        return out


def delivered(results: Iterable[object]) -> list[Delivery]:
    """Give the deliveries among what came of something."""
    return [d for one in results if isinstance(one, Delivered) for d in one.deliveries]
