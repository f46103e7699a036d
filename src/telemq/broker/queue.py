"""The messages a broker holds, and the order in which they leave.

What arrived together is a bundle (see `bundle`) and leaves as one, unless it is cut. A message is
READY (here), LEASED (with a consumer, see `lease`) or gone. First deliveries leave in order of
arrival. A message that came back leaves before all that were never delivered, and those that came
back leave in order of arrival among themselves: a consumer's death must not send its work to the
end of a long queue.

A message that its consumer wants to be *tried again later* comes back with a moment before which
it does not leave; it is READY all the while, so it takes room, but nobody waits behind it.
"""

from __future__ import annotations

import heapq
from collections import deque

from telemq.broker.bundle import Bundle

__all__ = ["ReadyQueue"]


class ReadyQueue:
    """Bundles that wait for a consumer; knows its messages, records and bytes."""

    def __init__(self) -> None:
        self._fresh: deque[Bundle] = deque()
        self._returned: list[tuple[int, Bundle]] = []
        #: By the moment when the pause is over; those with the same moment in order of arrival.
        self._paused: list[tuple[int, int, Bundle]] = []
        self.messages = self.records = self.size_bytes = 0

    def append(self, bundle: Bundle) -> None:
        """Add messages that were never delivered; arrivals come in order of `place`."""
        self._fresh.append(bundle)
        self._count(bundle, 1)

    def give_back(self, bundle: Bundle) -> None:
        """Add messages that were delivered before: ahead of all that were not."""
        heapq.heappush(self._returned, (bundle.place, bundle))
        self._count(bundle, 1)

    def pause(self, bundle: Bundle, until_ns: int) -> None:
        """Add messages that were delivered before and do not leave before a moment."""
        heapq.heappush(self._paused, (until_ns, bundle.place, bundle))
        self._count(bundle, 1)

    def put_back(self, rest: Bundle) -> None:
        """Add what was cut off the head and stays, where it was."""
        if rest.attempt:
            self.give_back(rest)
            return
        self._fresh.appendleft(rest)
        self._count(rest, 1)

    def wake(self, now_ns: int) -> None:
        """Let those whose pause is over by now leave, ahead of all that were never delivered."""
        while self._paused and self._paused[0][0] <= now_ns:
            _, place, bundle = heapq.heappop(self._paused)
            heapq.heappush(self._returned, (place, bundle))

    def next_wake_ns(self) -> int | None:
        """Give when the next pause is over, or None when there is none."""
        return self._paused[0][0] if self._paused else None

    def head(self) -> Bundle | None:
        """Show the next to leave, or None if there is none or all are paused."""
        if self._returned:
            return self._returned[0][1]
        return self._fresh[0] if self._fresh else None

    def pop(self) -> Bundle:
        """Take the bundle that is the head; there must be one."""
        bundle = heapq.heappop(self._returned)[1] if self._returned else self._fresh.popleft()
        self._count(bundle, -1)
        return bundle

    def in_order(self) -> list[Bundle]:
        """List all, next to leave first, paused ones last; for checks, not for the hot path."""
        returned = [b for _, b in sorted(self._returned, key=lambda e: e[0])]
        paused = [b for _, _, b in sorted(self._paused, key=lambda e: e[:2])]
        return [*returned, *self._fresh, *paused]

    def _count(self, bundle: Bundle, sign: int) -> None:
        self.messages += sign * len(bundle.messages)
        self.records += sign * bundle.records
        self.size_bytes += sign * bundle.size_bytes
