"""The tokens that a gateway knows: looked up once in a few seconds, however often they come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from telemq.token import Presented, Token

__all__ = ["Find", "KnownTokens"]

#: Asks the store for the line that a client claims.
Find: TypeAlias = Callable[[Presented], Awaitable[Token | None]]


class KnownTokens:
    """Remembers tokens for a short time, those that are not there, too.

    It is the lines of the store that are remembered, by their numbers, so a wrong secret neither
    asks the store again nor pushes out a line.

    Args:
        find: asks the store.
        keep_s: how long an answer holds; so long a token may open something after it was revoked.
        tokens_max: remembered at once; beyond that the oldest are forgotten.
    """

    def __init__(self, find: Find, *, keep_s: float, tokens_max: int) -> None:
        self._find = find
        self._keep_s = keep_s
        self._tokens_max = tokens_max
        # Number to line, and until when it holds; the oldest first.
        self._known: dict[int, tuple[Token | None, float]] = {}
        self._asking: dict[int, asyncio.Task[Token | None]] = {}

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def recall(self, id: int, now_s: float) -> tuple[bool, Token | None]:
        """Give whether a line is remembered, and the line; it may be that there is none."""
        token, until_s = self._known.get(id, (None, now_s))
        return now_s < until_s, token

    async def ask(self, presented: Presented, now_s: float) -> Token | None:
        """Ask the store for a line; many who ask for the same at once are one question.

        Raises:
            StoreError: the store cannot be asked.
        """
        task = self._asking.get(presented.id)
        if task is None:
            task = asyncio.ensure_future(self._find(presented))
            task.add_done_callback(lambda _: self._asking.pop(presented.id, None))
            self._asking[presented.id] = task
        # A client that goes away takes nothing from the others that wait.
        token = await asyncio.shield(task)
        self._known.pop(presented.id, None)
        self._known[presented.id] = token, now_s + self._keep_s
        if len(self._known) > self._tokens_max:
            del self._known[next(iter(self._known))]
        return token
