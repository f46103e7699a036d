"""What the store tells of a whole fleet in a window of time.

One answer is one transaction, so that its parts fit together. What these facts mean is not decided
here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import TupleRow

from telemq.store import fleet_query
from telemq.store.reader import Reader
from telemq.store.telemetry_query import Statement

__all__ = ["Covered", "Fleet", "FleetSeries", "Over", "Seen", "Span", "Tracks", "fleet"]

#: Track of each series; see `telemq.store.fleet_query`.
Tracks = Mapping[int, int]


class FleetSeries(NamedTuple):
    """One series of the fleet; its labels, and the id of its GPU."""

    id: int
    gpu: int
    uuid: str
    gpu_id: str
    model_name: str
    hostname: str
    namespace: str
    pod: str
    container: str
    metric_name: str


class Covered(NamedTuple):
    """For how long a track was there, in seconds; of these measured; values times seconds."""

    seconds: float
    measured_s: float
    integral: float


class Over(NamedTuple):
    """A track's samples over its limit: highest value, last one, first and last time."""

    highest: float
    latest: float
    first: datetime
    last: datetime


class Seen(NamedTuple):
    """When a track had its last sample, and the interval of its samples; None if it has one."""

    last: datetime
    interval_s: float | None


class Span(NamedTuple):
    """How a track ends below a limit: since when, until when, number of samples, their mean."""

    first: datetime
    last: datetime
    samples: int
    mean: float

    @property
    def interval_s(self) -> float:
        """Mean gap of its samples; 0 of a single one."""
        return (self.last - self.first).total_seconds() / max(1, self.samples - 1)


class Fleet:
    """Answers about the fleet, all of one moment; made by `fleet`, valid inside its context."""

    def __init__(self, conn: psycopg.AsyncConnection[TupleRow]) -> None:
        self._conn = conn

    async def series(self, metrics: Collection[str]) -> list[FleetSeries]:
        """Give the series of some metrics; of a GPU that has none of these, those of another."""
        rows = await self._rows(fleet_query.series_of(list(metrics)))
        return [FleetSeries(*row) for row in rows]

    async def covered(
        self, tracks: Tracks, start: datetime, end: datetime, gap: timedelta
    ) -> dict[int, Covered]:
        """Give for how long each track that has samples was there, and the sum of its values.

        Args:
            tracks: of series.
            start: of the window, inclusive.
            end: of the window, inclusive.
            gap: the longest time between two samples that counts.
        """
        rows = await self._rows(fleet_query.covered(tracks, start, end, gap), tracks)
        return {track: Covered(*of) for track, *of in rows}

    async def risen(
        self, tracks: Tracks, start: datetime, end: datetime, gap: timedelta
    ) -> dict[int, Covered]:
        """Give the same of counters; the integral is what they rose by."""
        rows = await self._rows(fleet_query.risen(tracks, start, end, gap), tracks)
        return {track: Covered(seconds, seconds, rise) for track, seconds, rise in rows}

    async def over(
        self, tracks: Tracks, limits: Mapping[int, float], start: datetime, end: datetime
    ) -> dict[int, Over]:
        """Give the tracks that have samples over the limits of their series."""
        rows = await self._rows(fleet_query.over(tracks, limits, start, end), tracks)
        return {track: Over(*of) for track, *of in rows}

    async def seen(self, tracks: Tracks, start: datetime, end: datetime) -> dict[int, Seen]:
        """Give when each track that has samples had its last one, and their interval.

        The interval is the median gap of the last samples, so that an outage does not stretch it.
        """
        latest: dict[int, tuple[int, datetime, timedelta | None]] = {}
        for track, series, last, mean in await self._rows(
            fleet_query.last_seen(tracks, start, end), tracks, plan=False
        ):
            if track not in latest or latest[track][1] < last:
                latest[track] = (series, last, mean)
        known = {series: (last, mean) for series, last, mean in latest.values() if mean is not None}
        gaps: dict[int, float] = dict(
            await self._rows(fleet_query.intervals(known), known, plan=False)
        )
        return {track: Seen(last, gaps.get(series)) for track, (series, last, _) in latest.items()}

    async def busy(self, tracks: Tracks, start: datetime, end: datetime, below: float) -> set[int]:
        """Give the tracks that have a sample that is not below a limit."""
        rows = await self._rows(fleet_query.busy(tracks, start, end, below), tracks)
        return {track for (track,) in rows}

    async def idle_spans(
        self, tracks: Tracks, start: datetime, end: datetime, below: float
    ) -> dict[int, Span]:
        """Give the tracks that end below a limit, and since when they are."""
        rows = await self._rows(fleet_query.idle_spans(tracks, start, end, below), tracks)
        return {track: Span(*of) for track, *of in rows}

    async def _rows(
        self, statement: Statement, of: Collection[Any] = (1,), *, plan: bool = True
    ) -> list[TupleRow]:
        """Give all rows; none if it is asked of nothing."""
        if not of:
            return []
        # Rolled back, since the plan settings are of this query only.
        alone = self._conn.transaction(force_rollback=True)
        async with alone, self._conn.cursor(binary=True) as cursor:
            if plan:
                await cursor.execute(fleet_query.PLAN)
            await cursor.execute(*statement, prepare=False)
            return await cursor.fetchall()


@asynccontextmanager
async def fleet(reader: Reader) -> AsyncIterator[Fleet]:
    """Open the fleet as it is at one moment.

    Raises:
        StoreError: the database cannot be used.
        SlowQueryError: a query ran into its limit.
    """
    async with reader.snapshot() as conn:
        yield Fleet(conn)
