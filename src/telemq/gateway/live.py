"""``/api/v1/live``: what the GPUs measure, as it comes, as server-sent events.

A client begins with the latest values of all series that it wants, and then hears of every sample
that is newer. Each ``samples`` event whose samples are whole has an id; who comes back with it in
``Last-Event-ID`` gets from Postgres what came meanwhile, or, after too long an absence, the event
``missed`` and the latest values again. The same happens to one that reads too slowly.

An id is a moment of the database's clock, so that any gateway can resume. Of each series it
resumes from that moment by the series' own clock: as long before its latest sample as the moment
is before now, and a little more. So a sample may come twice; it is the same one if GPU, metric and
time are the same.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
import orjson
from litestar.types import Receive, Scope, Send

from telemq import log
from telemq.errors import StoreError
from telemq.gateway.cancelling import cancelled
from telemq.gateway.fanout import Filter, Picked, Watcher
from telemq.gateway.follower import Follower
from telemq.settings import ApiSettings
from telemq.store.columns import NEVER_US
from telemq.store.latest import newer
from telemq.store.reader import Reader

__all__ = ["LiveAnswer", "event_id", "moment_of"]

#: Of each series this much more is given than was missed: batches do not come in order of time.
_OVERLAP_US = 10_000_000
#: Most samples of one series that a client who comes back is given: five minutes of four a second.
_EACH_RESUMED = 1200
#: A client that takes nothing for this long is cut off.
_STALL_S = 60.0
#: When a client should come back after the gateway ended, in milliseconds.
_RETRY_MS = 2000
_ID = re.compile(r"t([0-9a-f]{1,14})", re.ASCII)


@dataclass(eq=False)
class LiveAnswer:
    """An ASGI response: the events for one client.

    Attributes:
        follower: what is followed.
        reader: for what was missed.
        settings: of the gateway.
        wanted: which series.
        last_id: of the last event that the client has; empty if there is none.
    """

    follower: Follower
    reader: Reader
    settings: ApiSettings
    wanted: Filter
    last_id: str
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client goes away or the gateway stops."""
        fanout = self.follower.fanout
        watcher = fanout.watch(self.wanted, self._wake.set)
        answer = asyncio.create_task(self._answer(watcher, send), name="live answer")
        gone = asyncio.create_task(_client_gone(receive), name="live client")
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            fanout.leave(watcher)
            await cancelled(answer, gone)
        if not answer.cancelled() and (error := answer.exception()):
            log.get().warning("live client cut off", error=str(error) or type(error).__name__)

    async def _answer(self, watcher: Watcher, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # nginx would hold events back
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _send(send, b"retry: %d\n\n" % _RETRY_MS)
        async for event in self._events(watcher):
            await _send(send, event)
            await asyncio.sleep(0)  # a send that need not wait gives nobody else a turn
        await _send(send, b": the gateway stops\n\n", more=False)

    async def _events(self, watcher: Watcher) -> AsyncIterator[bytes]:
        began = await self._missed() if self.last_id else self._latest()
        if began is None:
            yield _missed_event(0)
            began = self._latest()
        for event in _samples(began):
            yield event
        while not watcher.closed:
            self._wake.clear()
            if missed := watcher.take_missed():
                yield _missed_event(missed)
                for event in _samples(self._latest()):
                    yield event
            elif picked := watcher.take():
                for event in _samples(picked):
                    yield event
            elif not await self._woken():
                yield b": still here\n\n"

    async def _woken(self) -> bool:
        try:
            async with asyncio.timeout(self.settings.live_heartbeat_s):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    def _latest(self) -> Picked:
        """Give the latest values of what is wanted."""
        board = self.follower.now
        slots = np.flatnonzero(self.wanted.mask(board) & (board.last_us != NEVER_US))
        slots = slots[np.argsort(board.last_us[slots], kind="stable")]
        return Picked(board.series, slots, board.last_us[slots], board.value[slots], board.at_us)

    async def _missed(self) -> Picked | None:
        """Give what came since the last event; None if that is too much, or cannot be told."""
        board, since_us = self.follower.now, moment_of(self.last_id)
        away_us = board.at_us - since_us if since_us is not None else -1
        if not 0 <= away_us <= self.settings.live_resume_s * 1e6:
            return None
        slots = np.flatnonzero(self.wanted.mask(board) & (board.last_us != NEVER_US))
        ids, until_us, at_us = board.ids(slots), board.last_us[slots], board.at_us
        samples_max = self.settings.live_samples_max
        each = min(_EACH_RESUMED, samples_max // max(1, len(slots)) + 1)
        try:
            async with self.reader.connection() as conn, conn.transaction():
                found = await newer(conn, ids, until_us - away_us - _OVERLAP_US, each=each)
        except StoreError:
            return None
        order = np.argsort(ids)
        places = order[np.searchsorted(ids, found.series, sorter=order)]
        if len(places) > samples_max or np.bincount(places, minlength=1).max() >= each:
            return None
        # What is newer waits for the client already.
        kept = np.flatnonzero(found.time_us <= until_us[places])
        kept = kept[np.argsort(found.time_us[kept], kind="stable")]
        return Picked(
            board.series, slots[places[kept]], found.time_us[kept], found.value[kept], at_us
        )


def event_id(at_us: int) -> str:
    """Give the id of what is whole up to a moment, in microseconds since 1970 UTC."""
    return f"t{at_us:x}"


def moment_of(last_id: str) -> int | None:
    """Give the moment that an id names; None if it is none of ours."""
    found = _ID.fullmatch(last_id)
    return int(found[1], 16) if found else None


def _samples(picked: Picked) -> list[bytes]:
    """Give the events of some samples; the last one has the id."""
    documents = list(picked.pieces()) or [b'{"samples":[]}']
    events = [b"event: samples\ndata: %s\n\n" % document for document in documents]
    events[-1] = f"id: {event_id(picked.at_us)}\n".encode() + events[-1]
    return events


def _missed_event(samples: int) -> bytes:
    return b"event: missed\ndata: %s\n\n" % orjson.dumps({"samples": samples})


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    async with asyncio.timeout(_STALL_S):
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
