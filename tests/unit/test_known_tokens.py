"""What a gateway remembers of tokens, without a store and without a clock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from telemq.errors import StoreError
from telemq.gateway.tokens import KnownTokens
from telemq.token import Presented, Token

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _line(id: int) -> Token:
    return Token(id, f"t{id}", "read", b"d" * 32, _NOW, None, None, None)


class _Store:
    """Counts what it is asked; knows the even numbers, fails for 13, waits while held."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.held = asyncio.Event()
        self.held.set()

    async def find(self, presented: Presented) -> Token | None:
        self.asked.append(presented.id)
        await self.held.wait()
        if presented.id == 13:
            raise StoreError("down")
        return None if presented.id % 2 else _line(presented.id)


def _ask(id: int) -> Presented:
    return Presented(id, b"x")


def test_a_line_is_remembered_for_its_time_and_so_is_that_there_is_none() -> None:
    """A client with a token of yesterday asks every second."""

    async def run() -> None:
        store = _Store()
        known = KnownTokens(store.find, keep_s=5, tokens_max=10)
        assert (False, None) == known.recall(2, 100.0)
        await known.ask(_ask(2), 100.0)
        await known.ask(_ask(3), 100.0)
        assert (True, _line(2)) == known.recall(2, 104.9)
        assert (True, None) == known.recall(3, 104.9)
        assert not known.recall(2, 105.0)[0]
        assert [2, 3] == store.asked

    asyncio.run(run())


def test_many_at_once_are_one_question_and_who_leaves_takes_nothing_along() -> None:
    """A page's twenty requests after a pause; the browser closes one of them."""

    async def run() -> None:
        store = _Store()
        store.held.clear()
        known = KnownTokens(store.find, keep_s=5, tokens_max=10)
        asking = [asyncio.create_task(known.ask(_ask(2), 0.0)) for _ in range(20)]
        await asyncio.sleep(0)
        asking[0].cancel()
        store.held.set()
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert [_line(2)] * 19 == found[1:]
        assert [2] == store.asked

    asyncio.run(run())


def test_a_store_that_fails_is_asked_again() -> None:
    """Postgres restarts: nobody is refused for five seconds because of it."""

    async def run() -> None:
        store = _Store()
        known = KnownTokens(store.find, keep_s=5, tokens_max=10)
        for _ in range(2):
            with pytest.raises(StoreError):
                await known.ask(_ask(13), 0.0)
        assert [13, 13] == store.asked
        assert 0 == len(known)

    asyncio.run(run())


def test_memory_is_bounded_by_the_oldest() -> None:
    """Somebody counts through the numbers."""

    async def run() -> None:
        known = KnownTokens(_Store().find, keep_s=5, tokens_max=10)
        for id in range(20, 120):
            await known.ask(_ask(id), id / 1000)
            assert len(known) <= 10
        assert known.recall(118, 0.2)[0]
        assert not known.recall(20, 0.2)[0]

    asyncio.run(run())
