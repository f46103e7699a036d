"""Keeps the board true while somebody looks at it: one query a turn, whoever asks.

The first question loads the board; from then on a turn every `follow_s` brings what is new, until
nobody has asked for `_UNUSED_S` and no live client is there. Then it rests and keeps what it
knows: the next question asks for what came since. Over another connection it begins anew.

A turn takes as long as it takes, and the pause after it is at least as long: a Postgres that is
slow is not asked more than half of the time. A turn that fails leaves the board as it was; those
who ask meanwhile are told why.
"""

from __future__ import annotations

import asyncio

import numpy as np

from telemq import log
from telemq.clock import monotonic_ns
from telemq.errors import StoreError
from telemq.gateway.board import Board, Due, Update
from telemq.gateway.devices import Devices
from telemq.gateway.exposition import Exposition
from telemq.gateway.fanout import Fanout
from telemq.settings import ApiSettings
from telemq.store.latest import Found, LatestReader, Look

__all__ = ["Follower"]

#: Questions that come closer together than this find the board followed: a person who reads a page.
_UNUSED_S = 30.0
#: Samples of one series that one turn gives to live clients at most: 64 a second is no telemetry.
_EACH_LIVE = 64
#: And without them: two tell the interval.
_EACH = 2
#: Turns between two checks that no series was overlooked: ids are not committed in their order.
_COUNT_TURNS = 30


class Follower:
    """The board, and the task that keeps it true.

    Args:
        settings: of the gateway.

    Attributes:
        fanout: tells live clients what each turn brought.
        turn_s: how long the last turn took.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self.fanout = Fanout(settings.live_samples_max, settings.live_clients_max)
        self.turn_s = 0.0
        self._settings = settings
        self._reader = LatestReader(
            settings.dsn, wait_s=settings.pool_wait_s, statement_s_max=settings.statement_s_max
        )
        self._board, self._devices, self._exposition = _views(Board(settings.board_series_max))
        self._connection = 0
        self._snapshot = ""
        #: Turns until the series are counted again, and the snapshot of the last count.
        self._count_turns, self._counted = 0, ""
        self._wanted = asyncio.Event()
        self._used_s = -_UNUSED_S
        #: When the last turn began that was right, by the loop's clock; and the reason if the
        #: latest was not.
        self._right_s = -1e9
        self._fault: StoreError | None = None
        self._turn: asyncio.Future[None] | None = None

    @property
    def series(self) -> int:
        """How many series the board has."""
        return len(self._board)

    @property
    def now(self) -> Board:
        """The board as it is, for those whom `board` let in."""
        return self._board

    async def board(self) -> Board:
        """Give the board, at most a few turns old.

        Raises:
            StoreError: the database cannot be used.
        """
        loop = asyncio.get_running_loop()
        self._used_s = loop.time()
        if not self._followed(loop.time()):
            if self._turn is None:
                self._turn = loop.create_future()
            self._wanted.set()
            await asyncio.shield(self._turn)
        if self._fault is not None:
            raise self._fault
        return self._board

    async def devices(self) -> Devices:
        """Give the GPUs of the board, as `board` does."""
        await self.board()
        return self._devices

    async def exposition(self) -> Exposition:
        """Give the text of the board for Prometheus, as `board` does."""
        await self.board()
        return self._exposition

    async def run(self) -> None:
        """Follow for ever; runs as a task as long as the gateway does."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._wanted.wait()
                began = loop.time()
                await self._one_turn(began)
                self.turn_s = loop.time() - began
                await asyncio.sleep(max(self._settings.follow_s - self.turn_s, self.turn_s))
                if not self._in_use(loop.time()):
                    self._wanted.clear()
        finally:
            self._fault = StoreError("the gateway is stopping")
            self._answer()
            await self._reader.close()

    def _in_use(self, now_s: float) -> bool:
        waiting = self._turn is not None
        return waiting or self.fanout.clients > 0 or now_s - self._used_s < _UNUSED_S

    def _followed(self, now_s: float) -> bool:
        """Tell whether the last turn is good enough, or failed just now."""
        age_s = now_s - self._right_s
        return self._wanted.is_set() and age_s < 2 * (self._settings.follow_s + self.turn_s)

    async def _one_turn(self, began_s: float) -> None:
        try:
            # Live clients want each sample; after a pause, that would be all of the pause.
            each = _EACH_LIVE if self.fanout.clients and self._followed(began_s) else _EACH
            update = await self._look(each)
            self._fault = None
            if update is not None:
                self.fanout.publish(self._board, update)
        except StoreError as error:
            self._fault = error
        except Exception as error:  # noqa: BLE001  # the task must outlive a fault of ours
            log.get().error("latest values not read", exc_info=error)
            self._fault = StoreError("the latest values cannot be read; the gateway's log says why")
        self._right_s = began_s
        self._answer()

    def _answer(self) -> None:
        """Let those go on who wait for a turn."""
        turn, self._turn = self._turn, None
        if turn is not None and not turn.done():
            turn.set_result(None)

    async def _look(self, each: int) -> Update | None:
        async with self._reader.look() as look:
            anew = self._connection != self._reader.connections
            board = Board(self._settings.board_series_max) if anew else self._board
            committed = anew or look.snapshot != self._snapshot
            self._count_turns -= 1
            counts = anew or (self._count_turns <= 0 and look.snapshot != self._counted)
            if committed or counts:
                await self._add_series(look, board, counts=counts)
            now_ns = monotonic_ns()
            due = board.due(now_ns, committed=committed)
            if not committed and not len(due):
                board.at_us = look.now_us
                return None
            found = await _found(look, board, due, each)
        # All or nothing: a look that fails half way is done again.
        update = board.take(found, due, now_ns=now_ns, at_us=look.now_us)
        self._snapshot = look.snapshot
        if anew:  # until now, those who asked saw the other one
            self._board, self._devices, self._exposition = _views(board)
            self._connection = self._reader.connections
        return update

    async def _add_series(self, look: Look, board: Board, *, counts: bool) -> None:
        after = board.last_id
        if counts:
            count = await look.series_count()
            board.check(count)  # before a million of them are read
            if count != len(board):
                after = 0
        async for rows in look.series(after):
            board.add(rows, now_ns=monotonic_ns())
        if counts:
            self._count_turns, self._counted = _COUNT_TURNS, look.snapshot


def _views(board: Board) -> tuple[Board, Devices, Exposition]:
    return board, Devices(board), Exposition(board)


async def _found(look: Look, board: Board, due: Due, each: int) -> Found:
    hot = await look.newer(board.ids(due.hot), board.last_us[due.hot], each=each)
    cold = await look.newer(board.ids(due.cold), board.last_us[due.cold], each=_EACH, chunks=True)
    return Found(
        np.concatenate([hot.series, cold.series]),
        np.concatenate([hot.time_us, cold.time_us]),
        np.concatenate([hot.value, cold.value]),
    )
