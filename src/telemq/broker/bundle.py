"""What arrived together, held as one.

To queue, lend and settle a thousand small messages one by one costs a broker more than to carry
them. So what came in one frame is a *bundle*: it waits, is lent and is settled as one, and what its
messages share is kept once. A message that came alone is a bundle of one. A bundle is cut in two
where its messages are to be treated differently: a consumer has room for some of them only, or
settles some of them. It is never joined again::

    messages   a b c d e f             cut(2)     a b  |  c d e f
    place      7 8 9 ...                          7      9
    payload    aaabbccccdddef                     aaabb  ccccdddef
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from telemq.protocol import Packed, Payload

__all__ = ["Bundle", "Claim"]


class Claim(NamedTuple):
    """Whose word it is to be confirmed: of a PUBLISH, or of several in a row.

    Attributes:
        session: of the publisher; empty when nobody waits.
        number: of the first PUBLISH in that session.
        messages: how many.
        records: records in them.
    """

    session: str
    number: int
    messages: int
    records: int


class Bundle(msgspec.Struct, eq=False, gc=False):
    """Messages with places in a row that are all ready, or all with one consumer.

    Attributes:
        messages: id, records, length of the payload, key and metadata of each.
        payload: theirs, end to end.
        records: in all of them.
        size_bytes: length of the payload.
        place: number of arrival of the first, from 1.
        arrived_ns: when they arrived, monotonic.
        session: session of their publisher.
        number: number of the first one's PUBLISH in that session.
        attempt: deliveries so far.
        dead: why they are dead letters, or empty.
        again: who is to be confirmed, by id, once one of them was published again.
    """

    messages: tuple[Packed, ...]
    payload: Payload
    records: int
    size_bytes: int
    place: int
    arrived_ns: int
    session: str
    number: int
    attempt: int = 0
    dead: str = ""
    again: dict[str, Claim] | None = None

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def end(self) -> int:
        """The place after the last one's."""
        return self.place + len(self.messages)

    @property
    def id(self) -> str:
        """Identity of its message; only of a bundle of one."""
        (message,) = self.messages
        return message.id

    def claims(self) -> Iterable[Claim]:
        """Give who is to be told when these messages are safe."""
        if self.again is not None:
            return self.again.values()
        return (Claim(self.session, self.number, len(self.messages), self.records),)

    def claim(self, id: str, session: str, number: int) -> Claim:
        """Let one message be confirmed to whoever published it again; gives whose it was."""
        if self.again is None:
            self.again = {
                message.id: Claim(self.session, self.number + at, 1, message.records)
                for at, message in enumerate(self.messages)
            }
        before = self.again[id]
        self.again[id] = Claim(session, number, 1, before.records)
        return before

    def unclaim(self) -> None:
        """Forget whose they are: all have been confirmed."""
        self.session, self.again = "", None

    def cut(self, at: int) -> tuple[Bundle, Bundle]:
        """Cut in two before the message `at`, which must leave something on both sides.

        The longer part is this very bundle and only the shorter one is new. So whatever points to a
        message's bundle must be changed for those few, and whoever cuts a bundle up one by one
        pays for each message, not for the square of them.
        """
        front, back = self.messages[:at], self.messages[at:]
        is_front_new = len(front) <= len(back)
        moved = front if is_front_new else back
        records = sum([message.records for message in moved])
        size_bytes = sum([message.bytes for message in moved])
        edge = size_bytes if is_front_new else self.size_bytes - size_bytes
        payload = _part(self.payload, 0, edge)
        rest = _part(self.payload, edge, self.size_bytes)
        if not is_front_new:
            payload, rest = rest, payload
        new = Bundle(
            moved,
            payload,
            records,
            size_bytes,
            self.place if is_front_new else self.place + at,
            self.arrived_ns,
            self.session,
            self.number if is_front_new else self.number + at,
            self.attempt,
            self.dead,
            self.again and {message.id: self.again.pop(message.id) for message in moved},
        )
        self.messages = back if is_front_new else front
        self.payload = rest
        self.records -= records
        self.size_bytes -= size_bytes
        if is_front_new:
            self.place += at
            self.number += at
            return new, self
        return self, new


def _part(payload: Payload, start: int, stop: int) -> Payload:
    """Give a part: a view if that is most of the memory it would keep, else a copy.

    So no more than twice what is held is kept, and cutting off the first of what is left again and
    again does not copy the rest each time.
    """
    kept: Any = payload.obj if isinstance(payload, memoryview) else payload
    if 2 * (stop - start) > len(kept):
        return memoryview(payload)[start:stop]
    return bytes(payload[start:stop])
