"""Natural batching: a commit takes whatever has piled up while the one before was running.

There is no waiting for more: a slow stream is stored at once, in small commits, and a fast one in
large commits, because more has come meanwhile. What may pile up is bounded by the credit that the
collector gives the broker; one message alone may be larger (docs/protocol.md, Consumers).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from telemq.errors import RemoteProtocolError

__all__ = ["Backlog"]

T = TypeVar("T")


class Backlog(Generic[T]):
    """What waits to be stored, in the order in which it came.

    Args:
        commit_records: most records that `take` gives, unless its first item has more.
        records_max: most records that wait, unless a single item has more.
        count: gives the records of an item.
    """

    def __init__(self, *, commit_records: int, records_max: int, count: Callable[[T], int]) -> None:
        self._commit_records = commit_records
        self._records_max = records_max
        self._count = count
        self._items: deque[T] = deque()
        self.records = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item at the end.

        Raises:
            RemoteProtocolError: ``over_credit``; nothing was added.
        """
        records = self._count(item)
        if self._items and self.records + records > self._records_max:
            raise RemoteProtocolError(
                "over_credit",
                f"{self.records + records} records delivered, credit is {self._records_max}",
            )
        self._items.append(item)
        self.records += records

    def take(self) -> list[T]:
        """Take from the front what one commit may hold: at least one item, unless none waits."""
        taken: list[T] = []
        room = self._commit_records
        while self._items and (not taken or self._count(self._items[0]) <= room):
            item = self._items.popleft()
            taken.append(item)
            room -= self._count(item)
        self.records -= sum(map(self._count, taken))
        return taken

    def drop(self, is_dropped: Callable[[T], bool]) -> None:
        """Take out every item that `is_dropped` says so of; the others stay in order."""
        self._items = deque(item for item in self._items if not is_dropped(item))
        self.records = sum(map(self._count, self._items))
