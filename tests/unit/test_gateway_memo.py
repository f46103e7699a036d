"""Costly answers are found once for all who ask, and given up when nobody waits any more."""

from __future__ import annotations

import asyncio

from telemq.gateway.memo import Memo


class _Finder:
    """Counts how often it is asked, and answers when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.given_up = 0
        self.may_end = asyncio.Event()
        self.now_s = 0.0

    def memo(self, keep_s: float = 10.0) -> Memo[int]:
        return Memo(keep_s, lambda: self.now_s)

    async def __call__(self) -> int:
        self.asked += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        return self.asked


async def _ticks() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_all_who_ask_at_once_get_one_answer() -> None:
    """Twenty dashboards are opened in a meeting."""

    async def scene() -> None:
        find = _Finder()
        memo = find.memo()
        asking = [asyncio.create_task(memo.get("q", find)) for _ in range(20)]
        await _ticks()
        find.may_end.set()
        assert [1] * 20 == await asyncio.gather(*asking)
        assert 2 == await memo.get("other", find)

    asyncio.run(scene())


def test_an_answer_is_kept_until_it_is_too_old() -> None:
    """From when its search began: what it says is no newer."""

    async def scene() -> None:
        find = _Finder()
        find.may_end.set()
        memo = find.memo(10)
        for now_s, expected in ((0, 1), (9.9, 1), (10, 2), (19.9, 2), (30, 3)):
            find.now_s = now_s
            assert expected == await memo.get("q", find)

    asyncio.run(scene())


def test_a_search_is_given_up_when_the_last_one_who_waits_goes_away() -> None:
    """A browser is closed; another one that asked the same gets its answer."""

    async def scene() -> None:
        find = _Finder()
        memo = find.memo()
        first, second = (asyncio.create_task(memo.get("q", find)) for _ in range(2))
        await _ticks()
        first.cancel()
        await _ticks()
        assert 0 == find.given_up
        second.cancel()
        await asyncio.wait({first, second})
        assert 1 == find.given_up
        find.may_end.set()
        assert 2 == await memo.get("q", find)

    asyncio.run(scene())


def test_a_fault_is_told_to_all_who_wait_and_is_not_kept() -> None:
    """The database restarts."""

    async def scene() -> None:
        asked = 0

        async def find() -> int:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0)
            if asked == 1:
                raise OSError("gone")
            return asked

        memo: Memo[int] = Memo(10, lambda: 0.0)
        told = await asyncio.gather(
            *(memo.get("q", find) for _ in range(3)), return_exceptions=True
        )
        assert [OSError] * 3 == [type(error) for error in told]
        assert 2 == await memo.get("q", find)

    asyncio.run(scene())


def test_a_thousand_questions_do_not_fill_the_memory() -> None:
    """Somebody asks for another window each time."""

    async def scene() -> None:
        find = _Finder()
        find.may_end.set()
        memo = find.memo()
        for question in range(1000):
            await memo.get(question, find)
        assert 1000 == find.asked
        assert 1000 == await memo.get(999, find)
        assert 1001 == await memo.get(0, find)

    asyncio.run(scene())


def test_nothing_is_kept_for_no_time() -> None:
    """The setting is 0."""

    async def scene() -> None:
        find = _Finder()
        find.may_end.set()
        memo = find.memo(0)
        assert [1, 2] == [await memo.get("q", find) for _ in range(2)]

    asyncio.run(scene())
