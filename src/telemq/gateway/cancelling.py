"""How a task is ended for certain: one cancellation may be lost.

Who waits for a connection of psycopg's pool waits in `asyncio.wait_for`. On Python 3.11 that drops
a cancellation that comes in the very moment in which the connection does, and the task goes on as
if nothing had been said: to a statement that may take as long as `--statement-s-max`.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["cancelled"]

#: How often a task is told to end.
_AGAIN_S = 1.0


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, again and again, until all have ended; what they raise stays with them."""
    waiting = {task for task in tasks if not task.done()}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
