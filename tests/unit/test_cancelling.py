"""A task is ended, whatever becomes of the first cancellation."""

from __future__ import annotations

import asyncio

import pytest

from telemq.gateway.cancelling import cancelled


def test_a_task_that_misses_its_cancellation_is_told_again() -> None:
    """A client leaves in the very moment in which the pool has a connection for it."""

    async def late() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    async def scene() -> None:
        task = asyncio.create_task(late())
        await asyncio.sleep(0)
        await asyncio.wait_for(cancelled(task), 30)
        assert task.cancelled()

    asyncio.run(scene())


def test_what_ended_before_keeps_what_it_raised() -> None:
    """The answer failed, and its client has gone since."""

    async def failing() -> None:
        raise ValueError("no")

    async def scene() -> None:
        done, waits = asyncio.create_task(failing()), asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        await cancelled(done, waits)
        assert waits.cancelled()
        with pytest.raises(ValueError, match="no"):
            done.result()

    asyncio.run(scene())
