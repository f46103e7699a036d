"""What a witness of a broker keeps account of: messages to be held, sessions to be open."""

from __future__ import annotations

from dataclasses import dataclass, field

from telemq.broker.peers import PeerId
from telemq.protocol import Want

__all__ = ["Held", "Seat", "promised"]


def promised(kept: bool, promise: str, broken: str) -> None:
    """Fail with the name of the promise, if it is not kept."""
    if not kept:
        raise AssertionError(f"{promise}: {broken}")


@dataclass(eq=False)
class Held:
    """A message that the broker must hold."""

    id: str
    records: int
    payload: bytes
    place: int
    session: str
    number: int
    tries: int = 0
    dead: bool = False
    lease: int = 0
    #: It does not leave before this moment.
    due_ns: int = 0
    synced: bool = False

    @property
    def size(self) -> int:
        """Bytes of its payload."""
        return len(self.payload)


@dataclass(eq=False)
class Seat:
    """A session that must be open."""

    id: PeerId
    session: str
    heard_ns: int
    said_ns: int
    heard: int = 0
    said: int = 1
    #: Of a producer: unspent. Of a consumer: what it allows.
    records: int = 0
    size: int = 0
    wish: Want | None = None
    leases: dict[int, Held] = field(default_factory=dict)
    #: It said that it speaks PACK.
    packs: bool = False
