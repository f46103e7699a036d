"""What is kept under numbers in a row: a producer's messages, a consumer's deliveries; pure.

What came together is kept together and is taken out together as a rule: so that costs as much as a
batch, not as what is in it. To take out some of them cuts the batch.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import Generic, TypeVar

__all__ = ["Numbered"]

#: First numbers of batches that are gone, beside as many as there are batches.
_GONE_MAX = 1000

_Kept = TypeVar("_Kept")


class Numbered(Generic[_Kept]):
    """Batches by the number of the first in each; the others follow."""

    def __init__(self) -> None:
        self._batches: dict[int, list[_Kept]] = {}
        #: The first number of every batch there was, ascending, until most of them are gone.
        self._firsts: list[int] = []

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        # What is gone has nothing behind its first number, nor has any number before it.
        return at >= 0 and number < self._firsts[at] + len(self._batches.get(self._firsts[at], ()))

    def add(self, first: int, batch: list[_Kept]) -> None:
        """Keep a batch under numbers that nothing has had before."""
        if self._firsts and first < self._firsts[-1]:
            insort(self._firsts, first)
        else:
            self._firsts.append(first)
        self._batches[first] = batch
        if len(self._firsts) > 2 * len(self._batches) + _GONE_MAX:
            self._firsts = sorted(self._batches)

    def take(self, first: int, count: int) -> list[_Kept]:
        """Take out what is here of so many numbers from `first` on, in order."""
        batch = self._batches.get(first)
        if batch is None or len(batch) != count:
            return self._take_some(first, first + count)
        del self._batches[first]
        return batch

    def all(self) -> list[tuple[int, _Kept]]:
        """List all with their numbers, in order."""
        batches = self._batches
        return [pair for first in sorted(batches) for pair in enumerate(batches[first], first)]

    def clear(self) -> None:
        """Drop all, and begin anew: numbers may come again."""
        self._batches.clear()
        self._firsts.clear()

    def _take_some(self, first: int, end: int) -> list[_Kept]:
        taken: list[_Kept] = []
        at = max(0, bisect_right(self._firsts, first) - 1)
        while at < len(self._firsts) and self._firsts[at] < end:
            start = self._firsts[at]
            at += 1
            batch = self._batches.pop(start, [])
            low, high = max(0, first - start), min(len(batch), end - start)
            if front := batch[:low]:
                self._batches[start] = front
            taken += batch[low:high]
            if back := batch[max(low, high) :]:
                insort(self._firsts, start + high)
                self._batches[start + high] = back
        return taken
