"""Answers that cost much, found once for all who ask the same within a short time.

While one is being found, whoever asks the same waits for it; when the last one who waits has gone
away, the search is given up. What is found is kept for a while; what fails is not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from telemq.gateway.cancelling import cancelled

__all__ = ["Memo"]

T = TypeVar("T")

#: Answers kept; the oldest goes first.
_ANSWERS_MAX = 64


@dataclass(eq=False)
class _Search(Generic[T]):
    task: asyncio.Task[T]
    until_s: float
    waiting: int = 0


class Memo(Generic[T]):
    """Finds answers, and keeps them.

    Args:
        keep_s: for how long, from the moment that somebody began to look.
        now_s: a clock that does not go back.
    """

    def __init__(self, keep_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._keep_s = keep_s
        self._now_s = now_s
        self._searches: dict[Hashable, _Search[T]] = {}

    async def get(self, question: Hashable, find: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Give an answer that is not too old.

        Args:
            question: says all that the answer depends on.
            find: finds it; what it raises, all who wait for it get.
        """
        search = self._searches.get(question)
        if search is None or (search.task.done() and search.until_s <= self._now_s()):
            search = self._begin(question, find)
        search.waiting += 1
        try:
            return await asyncio.shield(search.task)
        finally:
            search.waiting -= 1
            if not search.waiting and not search.task.done():
                self._drop(question, search)
                await cancelled(search.task)  # until its connection is back

    def _begin(self, question: Hashable, find: Callable[[], Coroutine[Any, Any, T]]) -> _Search[T]:
        task = asyncio.create_task(find(), name="memo")
        search = _Search(task, self._now_s() + self._keep_s)
        self._searches.pop(question, None)
        self._searches[question] = search
        task.add_done_callback(lambda done: self._ended(question, search, done))
        while len(self._searches) > _ANSWERS_MAX:
            del self._searches[next(iter(self._searches))]
        return search

    def _ended(self, question: Hashable, search: _Search[T], done: asyncio.Task[T]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._drop(question, search)

    def _drop(self, question: Hashable, search: _Search[T]) -> None:
        if self._searches.get(question) is search:
            del self._searches[question]
