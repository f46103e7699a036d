"""The latest value of every series, out of partitions and chunks of a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import psycopg
import pytest

from telemq.errors import StoreError
from telemq.store.columns import NEVER_US, register
from telemq.store.compact import compact
from telemq.store.latest import Found, LatestReader, Look, SeriesRow
from telemq.store.maintain import connect
from tests.support.fleet import EPOCH, gpu, store
from tests.support.maintaining import DAY, NOW, pass_over
from tests.support.postgres import Databases

T = TypeVar("T")
US = timedelta(microseconds=1)
S = timedelta(seconds=1)


def looking(dsn: str, ask: Callable[[Look], Awaitable[T]]) -> T:
    """Ask one look of a reader of its own."""

    async def run() -> T:
        reader = LatestReader(dsn, wait_s=2, statement_s_max=30)
        try:
            async with reader.look() as look:
                return await ask(look)
        finally:
            await reader.close()

    return asyncio.run(run())


async def _series(look: Look) -> list[SeriesRow]:
    return [row async for rows in look.series(0) for row in rows]


def latest(
    dsn: str,
    after: datetime | None = None,
    *,
    each: int = 2,
    chunks: bool = True,
    of: int | None = None,
) -> list[tuple[str, datetime, float]]:
    """UUID, time and value of what is newer than `after`, by UUID and time."""

    async def ask(look: Look) -> tuple[list[SeriesRow], Found]:
        rows = (await _series(look))[:of]
        ids = np.array([row.id for row in rows], np.int32)
        after_us = NEVER_US if after is None else (after - EPOCH) // US
        given = np.full(len(ids), after_us)
        return rows, await look.newer(ids, given, each=each, chunks=chunks)

    rows, found = looking(dsn, ask)
    uuids = {row.id: row.uuid for row in rows}
    return sorted(
        (uuids[series], EPOCH + time * US, value)
        for series, time, value in zip(
            found.series.tolist(), found.time_us.tolist(), found.value.tolist(), strict=True
        )
    )


def test_numbers_come_back_from_postgres_as_they_were(dsn: str) -> None:
    """Extremes of each type, an infinite time, and empty arrays."""
    arrays: list[Any] = [
        np.array([-(2**31), 0, 2**31 - 1], np.int32),
        np.array([0.1, -0.0, 1e308, 5e-324]),
        np.array([NEVER_US, 0, 1, 4_102_444_800_000_001], "M8[us]"),
        np.array([], np.int32),
        np.array([], "M8[us]"),
    ]
    types = ["int4", "float8", "timestamptz", "int4", "timestamptz"]

    async def ask() -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            register(conn)
            await conn.execute("SET timezone = 'Asia/Kathmandu'")
            query = ", ".join(f"%b::{type}[], (%b::{type}[])::text" for type in types)
            given = [array for array in arrays for _ in range(2)]
            async with conn.cursor(binary=True) as cursor:
                await cursor.execute(f"SELECT {query}".encode(), given)
                return await cursor.fetchall()

    ((*answers,),) = asyncio.run(ask())
    for array, (back, _) in zip(arrays, zip(answers[::2], answers[1::2], strict=True), strict=True):
        assert back.dtype == array.dtype
        assert back.tobytes() == array.tobytes()
    assert "{-2147483648,0,2147483647}" == answers[1]
    assert answers[5].startswith('{-infinity,"1970-01-01 05:30:00+05:30"')


def test_series_come_with_their_labels_and_driver(dsn: str, conn: psycopg.Connection) -> None:
    """One whose exporter tells no driver, and one with odd labels."""
    raw = 'a="1",DCGM_FI_DRIVER_VERSION="550.54.15",b="2"'
    odd = gpu("GPU-2", pod='p"\n<script>', container="c", namespace="n", labels_raw="")
    store(conn, [(gpu("GPU-1", labels_raw=raw), DAY, 1), (odd, DAY, 2)])
    one, two = sorted(looking(dsn, _series), key=lambda row: row.uuid)
    assert ("GPU-1", "550.54.15", "host-1") == (one.uuid, one.driver, one.hostname)
    assert ("", 'p"\n<script>', "c", "n") == (two.driver, two.pod, two.container, two.namespace)

    async def rest(look: Look) -> list[list[SeriesRow]]:
        return [rows async for rows in look.series(max(one.id, two.id))]

    assert [] == looking(dsn, rest)


@pytest.mark.parametrize("compacted", [False, True])
def test_the_latest_is_found_wherever_it_lies(
    dsn: str, conn: psycopg.Connection, compacted: bool
) -> None:
    """Today's, one that is gone since yesterday, one since days; in partitions and in chunks."""
    store(conn, [(gpu("GPU-1"), DAY + n * S, n) for n in range(5)])
    store(conn, [(gpu("GPU-2"), DAY + timedelta(hours=1) + n * S, n / 4) for n in range(5)])
    store(conn, [(gpu("GPU-2"), DAY + timedelta(days=1, hours=3), 7.0)])
    store(conn, [(gpu("GPU-3"), NOW - n * S, n) for n in range(5)])
    store(conn, [(gpu("GPU-3"), DAY, 99.0)])
    if compacted:
        assert pass_over(dsn).chunks
    newest = {uuid: (at, value) for uuid, at, value in latest(dsn)}
    assert {
        "GPU-1": (DAY + 4 * S, 4.0),
        "GPU-2": (DAY + timedelta(days=1, hours=3), 7.0),
        "GPU-3": (NOW, 0.0),
    } == newest


def test_the_latest_of_an_hour_with_several_chunks_is_found(
    dsn: str, conn: psycopg.Connection
) -> None:
    """So many samples, and late ones, that the hour has parts, which overlap in time."""
    partition = f"sample_{DAY:%Y%m%d}"
    with connect(dsn) as own:
        store(conn, [(gpu("GPU-1"), DAY + (2 * n) * S, n) for n in range(6)])
        compact(own, partition, chunk_samples=3)
        store(conn, [(gpu("GPU-1"), DAY + (2 * n + 1) * S, 100 + n) for n in range(5)])
        compact(own, partition, chunk_samples=3)
    assert conn.execute("SELECT FROM chunk WHERE part > 1").fetchone() is not None
    assert [("GPU-1", DAY + 10 * S, 5.0)] == latest(dsn)
    assert [] == latest(dsn, DAY + 10 * S)
    assert [("GPU-1", DAY + 10 * S, 5.0)] == latest(dsn, DAY + 10 * S - US)
    assert [] == latest(dsn, DAY, chunks=False)


def test_only_what_is_newer_is_given_and_so_much_of_each(
    dsn: str, conn: psycopg.Connection
) -> None:
    """A turn: two of one series as a rule, all of it for live clients."""
    store(conn, [(gpu("GPU-1"), NOW + n * S, n) for n in range(9)])
    assert [] == latest(dsn, NOW + 8 * S)
    assert [8.0] == [value for _, _, value in latest(dsn, NOW + 8 * S - US)]
    assert [7.0, 8.0] == [value for _, _, value in latest(dsn, NOW)]
    assert list(range(4, 9)) == [value for _, _, value in latest(dsn, NOW + 3 * S, each=64)]


def test_what_comes_over_midnight_is_all_there(dsn: str, conn: psycopg.Connection) -> None:
    """The samples of one turn are in two partitions."""
    midnight = NOW.replace(hour=0)
    store(conn, [(gpu("GPU-1"), midnight + n * S, n) for n in range(-3, 3)])
    assert [-1, 0, 1, 2] == [value for _, _, value in latest(dsn, midnight - 2 * S, each=64)]
    assert [1, 2] == [value for _, _, value in latest(dsn)]


def test_late_samples_and_wrong_clocks_are_seen_by_their_own_series(
    dsn: str, conn: psycopg.Connection
) -> None:
    """One host's clock is an hour behind, and a collector was down for a day."""
    store(conn, [(gpu("GPU-1"), NOW, 1), (gpu("GPU-2"), NOW - timedelta(hours=1), 1)])

    async def ask(look: Look) -> list[float]:
        rows = sorted(await _series(look), key=lambda row: row.uuid)
        known = [(NOW - EPOCH) // US, (NOW - timedelta(days=1) - EPOCH) // US]
        ids = np.array([row.id for row in rows], np.int32)
        found = await look.newer(ids, np.array(known), each=2)
        values: list[float] = found.value.tolist()
        return values

    assert [1.0] == looking(dsn, ask)


def test_equal_snapshots_say_that_nothing_was_committed(dsn: str, conn: psycopg.Connection) -> None:
    """Nights and weekends of a small fleet cost one small query a turn."""

    async def snapshots() -> list[str]:
        reader = LatestReader(dsn, wait_s=2, statement_s_max=30)
        seen = []
        for step in range(4):
            async with reader.look() as look:
                seen.append(look.snapshot)
            if step == 1:
                await asyncio.to_thread(store, conn, [(gpu("GPU-1"), NOW, 1)])
        await reader.close()
        assert 1 == reader.connections
        return seen

    first, second, third, fourth = asyncio.run(snapshots())
    assert first == second != third == fourth


def test_a_connection_that_was_cut_is_opened_again(dsn: str, conn: psycopg.Connection) -> None:
    """A firewall forgets idle connections; Postgres was restarted while nobody asked."""

    async def twice() -> int:
        reader = LatestReader(dsn, wait_s=2, statement_s_max=30)
        async with reader.look():
            pass
        await asyncio.to_thread(
            conn.execute,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'telemq gateway' AND datname = current_database()",
        )
        async with reader.look():
            pass
        await reader.close()
        return reader.connections

    assert 2 == asyncio.run(twice())


def test_what_is_wrong_is_said(postgres: Databases, dsn: str, conn: psycopg.Connection) -> None:
    """No database, no schema, and a query that takes too long."""
    with pytest.raises(StoreError, match="cannot be reached"):
        latest("host=127.0.0.1 port=1")
    with (
        postgres.fresh(migrated=False) as empty,
        pytest.raises(StoreError, match="no telemq schema"),
    ):
        latest(empty)

    async def slowly() -> None:
        reader = LatestReader(dsn, wait_s=2, statement_s_max=0.1)
        try:
            async with reader.look() as look:
                await look.series_count()
        finally:
            await reader.close()

    with psycopg.connect(dsn) as locker:
        locker.execute("LOCK TABLE series IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreError, match="--statement-s-max"):
            asyncio.run(slowly())


def test_time_of_a_look_is_that_of_the_database(dsn: str) -> None:
    """Ids of live events are moments that all gateways share."""

    async def now(look: Look) -> int:
        return look.now_us

    told = EPOCH + looking(dsn, now) * US
    assert abs(told - datetime.now(UTC)) < timedelta(minutes=1)
