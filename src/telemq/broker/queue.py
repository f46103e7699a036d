"""The messages a broker holds, and the order in which they leave.

A message is READY (here), LEASED (with a consumer, see `lease`) or gone. First deliveries leave in
order of arrival. A message that came back leaves before all that were never delivered, and those
that came back leave in order of arrival among themselves: a consumer's death must not send its
work to the end of a long queue.

A message that its consumer wants to be *tried again later* comes back with a moment before which
it does not leave; it is READY all the while, so it takes room, but nobody waits behind it.
"""

from __future__ import annotations

import heapq
from collections import deque

import msgspec

from telemq.protocol import Payload

__all__ = ["Message", "ReadyQueue"]


class Message(msgspec.Struct, eq=False, gc=False):
    """One message that the broker holds; a struct, since thousands are made a second.

    Attributes:
        id: identity; one message of an id is held at a time.
        records: how many records it counts.
        size_bytes: length of the payload.
        key: for consumers.
        metadata: for consumers.
        payload: opaque.
        place: number of arrival, from 1.
        arrived_ns: when it arrived, monotonic.
        session: session of its latest publisher, who gets the confirm.
        number: number of that PUBLISH in that session.
        attempt: deliveries so far.
        dead: why it is a dead letter, or empty.
    """

    id: str
    records: int
    size_bytes: int
    key: str
    metadata: dict[str, str]
    payload: Payload
    place: int
    arrived_ns: int
    session: str
    number: int
    attempt: int = 0
    dead: str = ""


class ReadyQueue:
    """Messages that wait for a consumer; knows its own length, records and bytes."""

    def __init__(self) -> None:
        self._fresh: deque[Message] = deque()
        self._returned: list[tuple[int, Message]] = []
        #: By the moment when the pause is over; those with the same moment in order of arrival.
        self._paused: list[tuple[int, int, Message]] = []
        self.records = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._fresh) + len(self._returned) + len(self._paused)

    def append(self, message: Message) -> None:
        """Add a message that was never delivered; arrivals come in order of `place`."""
        self._fresh.append(message)
        self._count(message, 1)

    def give_back(self, message: Message) -> None:
        """Add a message that was delivered before: ahead of all that were not."""
        heapq.heappush(self._returned, (message.place, message))
        self._count(message, 1)

    def pause(self, message: Message, until_ns: int) -> None:
        """Add a message that was delivered before and does not leave before a moment."""
        heapq.heappush(self._paused, (until_ns, message.place, message))
        self._count(message, 1)

    def wake(self, now_ns: int) -> None:
        """Let those whose pause is over by now leave, ahead of all that were never delivered."""
        while self._paused and self._paused[0][0] <= now_ns:
            _, place, message = heapq.heappop(self._paused)
            heapq.heappush(self._returned, (place, message))

    def next_wake_ns(self) -> int | None:
        """Give when the next pause is over, or None when there is none."""
        return self._paused[0][0] if self._paused else None

    def head(self) -> Message | None:
        """Show the next message to leave, or None if there is none or all are paused."""
        if self._returned:
            return self._returned[0][1]
        return self._fresh[0] if self._fresh else None

    def pop(self) -> Message:
        """Take the message that is the head; there must be one."""
        message = heapq.heappop(self._returned)[1] if self._returned else self._fresh.popleft()
        self._count(message, -1)
        return message

    def in_order(self) -> list[Message]:
        """List all, next to leave first, paused ones last; for checks, not for the hot path."""
        returned = [m for _, m in sorted(self._returned, key=lambda e: e[0])]
        paused = [m for _, _, m in sorted(self._paused, key=lambda e: e[:2])]
        return [*returned, *self._fresh, *paused]

    def _count(self, message: Message, sign: int) -> None:
        self.records += sign * message.records
        self.size_bytes += sign * message.size_bytes
