"""A peer's side of a session: greeting, numbering, heartbeats, and coming back after a loss.

::

    PAUSED --pause over--> GREETING --WELCOME--> OPEN
      ^                        |                   |
      '--- no answer, ERROR ---'-- silence, gap, --'
                                   ERROR, BYE

Every way out of GREETING and OPEN leads to a new connection after a pause that doubles with each
failure since the last WELCOME, with jitter, so that a thousand peers do not come back at once.
Only a HELLO without an answer does not let the pause grow: it has taken long enough by itself, and
a broker that was stopped and goes on is to find most of its peers waiting at the door.
Pure: the time and the seed are arguments; what to do comes out as values.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from telemq.protocol import (
    FINAL_ERRORS,
    SILENT_BEATS,
    VERSION,
    Bye,
    DeliverPack,
    Error,
    Frames,
    FromBroker,
    FromPeer,
    Hello,
    Payload,
    Ping,
    Role,
    Welcome,
    speaks_packs,
)

__all__ = [
    "Command",
    "Confirmed",
    "Delivered",
    "Delivery",
    "Lost",
    "Reconnect",
    "Session",
    "Transmit",
]

_SECOND = 1_000_000_000
#: The first pause and the longest; docs/protocol.md, Session.
_PAUSE_NS, _PAUSE_MAX_NS = _SECOND // 10, 5 * _SECOND
#: How long a HELLO may go unanswered. libzmq itself connects again meanwhile.
_GREETING_NS = 5 * _SECOND


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send this over the current connection."""

    message: FromPeer
    frames: Frames = ()


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Close the connection, if there is one, and make a new one."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The messages with these ids are safe."""

    ids: list[str]


class Delivery(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One message, lent to this consumer; a struct, since thousands are made a second.

    Attributes:
        session: in which it was delivered; settling it in a later one has no effect.
        lease: the lease's number.
        lease_ms: how long it lasts from its arrival.
        id: the message's identity.
        records: how many records it counts.
        key: as published.
        metadata: as published.
        payload: as published; a large one is a view of what came with it, up to sixteen times as
            long, which stays in memory as long as the view does.
        attempt: 1 for the first delivery.
        dead: empty, or why this is a dead letter that must be kept, not processed.
    """

    session: str
    lease: int
    lease_ms: int
    id: str
    records: int
    key: str
    metadata: dict[str, str]
    payload: Payload
    attempt: int
    dead: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """These messages came, in this order; at least one."""

    deliveries: list[Delivery]


@dataclass(frozen=True, slots=True)
class Lost:
    """These deliveries ended with their session, unsettled: they will be delivered again."""

    deliveries: list[Delivery]


Command = Transmit | Reconnect | Confirmed | Delivered | Lost


class Session:
    """Keeps one session at a time alive.

    Args:
        role: what this peer is.
        name: for the broker's log.
        seed: for the jitter.

    Attributes:
        token: the open session, or empty.
        welcome: what the broker said at its beginning, or None.
        fault: why there is no session, in words; empty when there is one.
        is_final: the broker will never take this peer as it is.
        pause_ns: the last pause before a new connection; 0 before the first.
    """

    def __init__(self, role: Role, name: str, seed: int) -> None:
        self._role: Role = role
        self._name = name[:200]
        self._seed = seed
        self._losses = 0
        self._failures = 0
        self._heard = self._said = 0
        self._heard_ns = self._said_ns = 0
        self._until_ns: int | None = 0
        self._greeting = False
        self.token = ""
        self.welcome: Welcome | None = None
        self.fault = "not connected yet"
        self.is_final = False
        self.pause_ns = 0

    def number(self, now_ns: int, numbers: int = 1) -> int:
        """Take the number of the next message to send, or the first of a pack of so many.

        There must be an open session.
        """
        assert self.token, "only an open session has numbers"
        first = self._said + 1
        self._said += numbers
        self._said_ns = now_ns
        return first

    @property
    def packs(self) -> bool:
        """Whether the broker of the open session takes a PACK."""
        return self.welcome is not None and speaks_packs(self.welcome.version)

    def accept(self, message: FromBroker, now_ns: int) -> bool:
        """Take note of a message; tell whether its content is to be acted upon.

        After a WELCOME that is to be acted upon, a new session is open. A message that is not to
        be acted upon may have ended the session: see `token`.
        """
        if isinstance(message, Welcome):
            return self._open(message, now_ns)
        if message.session != self.token:
            return False
        if isinstance(message, Error):
            self.is_final = message.code in FINAL_ERRORS
            self._lose(f"the broker says {message.code}: {message.detail}", now_ns)
            return False
        if message.number != self._heard + 1:
            self._lose(f"the link lost something before number {message.number}", now_ns)
            return False
        numbers = len(message.messages) if isinstance(message, DeliverPack) else 1
        self._heard += numbers
        self._heard_ns = now_ns
        if isinstance(message, Bye):
            self._lose("the broker said BYE", now_ns)
            return False
        return True

    def turned_away(self, why: str, now_ns: int) -> None:
        """Take note that the connection did not come about; the next try is after a pause."""
        if not self.is_final:
            self._lose(why, now_ns)

    def advance(self, now_ns: int) -> list[Command]:
        """Let time pass: notice silence, send what is due, begin again after a pause."""
        if self.is_final:
            return []
        if self.token:
            if now_ns >= self._heard_ns + SILENT_BEATS * self._beat_ns:
                self._lose("the broker fell silent", now_ns)
            elif now_ns >= self._said_ns + self._beat_ns:
                return [Transmit(Ping(self.token, self.number(now_ns)))]
            return []
        if self._until_ns is not None and now_ns < self._until_ns:
            return []
        if self._greeting:
            self._lose("the broker does not answer", now_ns, grows=False)
            return []
        self._greeting = True
        self._until_ns = now_ns + _GREETING_NS
        return [Reconnect(), Transmit(Hello("", 0, VERSION, self._role, self._name))]

    def next_deadline_ns(self) -> int | None:
        """Give when `advance` has something to do next; None when it never will."""
        if self.is_final:
            return None
        if self.token:
            return min(self._heard_ns + SILENT_BEATS * self._beat_ns, self._said_ns + self._beat_ns)
        return self._until_ns

    def bye(self, now_ns: int) -> list[Command]:
        """End on purpose, for good."""
        commands: list[Command] = []
        if self.token:
            commands.append(Transmit(Bye(self.token, self.number(now_ns))))
        self.token, self.is_final, self.fault = "", True, "closed"
        return commands

    @property
    def _beat_ns(self) -> int:
        assert self.welcome is not None
        return self.welcome.heartbeat_ms * 1_000_000

    def _open(self, welcome: Welcome, now_ns: int) -> bool:
        if welcome.number != 1 or not welcome.session or not (self._greeting or self.token):
            return False
        self.token, self.welcome, self.fault = welcome.session, welcome, ""
        self._heard, self._said = 1, 0
        self._heard_ns = self._said_ns = now_ns
        self._failures, self._greeting, self._until_ns = 0, False, None
        return True

    def _lose(self, why: str, now_ns: int, *, grows: bool = True) -> None:
        self.token, self.fault, self._greeting = "", why, False
        most_ns = min(_PAUSE_NS << min(self._failures, 10), _PAUSE_MAX_NS) if grows else _PAUSE_NS
        self._failures += grows
        self._losses += 1
        self.pause_ns = most_ns * (256 + self._jitter()) // 512
        self._until_ns = now_ns + self.pause_ns

    def _jitter(self) -> int:
        """Give 0 to 255, the same for the same seed and loss, unrelated between peers."""
        return hashlib.blake2b(f"{self._seed}/{self._losses}".encode(), digest_size=1).digest()[0]
