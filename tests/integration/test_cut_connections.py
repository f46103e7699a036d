"""A connection that ends in the middle of an answer; see `telemq.store.reader.is_cut`."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from telemq.errors import StoreError
from telemq.store import latest
from telemq.store.latest import LatestReader
from telemq.store.reader import Reader, closing

#: Postgres sends the rows that were asked for, and in the same answer that it ends.
_ENDS = "SELECT s.id, pg_terminate_backend(pg_backend_pid()) FROM (SELECT 1 AS id) AS s "


@pytest.mark.parametrize("rows", [1, 2])
def test_rows_that_come_with_the_end_of_the_connection(dsn: str, rows: int) -> None:
    """A failover while an answer is read: with the last row asked for, or before there is one."""

    async def read() -> None:
        reader = Reader(dsn, connections=1, wait_s=5, statement_s_max=30)
        async with (
            reader,
            reader.snapshot() as conn,
            closing(conn.cursor("some", binary=True)) as cursor,
        ):
            await cursor.execute(_ENDS)
            await cursor.fetchmany(rows)

    with pytest.raises(StoreError, match="the connection to Postgres was lost"):
        asyncio.run(read())


def test_series_that_come_with_the_end_of_the_connection(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same while the gateway learns which series there are; the next look opens another."""
    query = latest._SERIES
    monkeypatch.setattr(latest, "_SERIES", _ENDS)
    monkeypatch.setattr(latest, "_SERIES_ROWS", 1)

    async def look() -> int:
        reader = LatestReader(dsn, wait_s=5, statement_s_max=30)
        with pytest.raises(StoreError, match="the connection was lost"):
            async with reader.look() as first:
                _ = [rows async for rows in first.series(0)]
        monkeypatch.setattr(latest, "_SERIES", query)
        async with reader.look() as second:
            assert [] == [rows async for rows in second.series(0)]
        await reader.close()
        return reader.connections

    assert 2 == asyncio.run(look())


def test_internal_error_of_postgres_itself_is_no_lost_connection(dsn: str) -> None:
    """A damaged index: to say that the connection was lost would hide it."""
    raise_it = "DO $$ BEGIN RAISE EXCEPTION 'index is damaged' USING ERRCODE = 'XX002'; END $$"

    async def read() -> None:
        reader = Reader(dsn, connections=1, wait_s=5, statement_s_max=30)
        async with reader, reader.snapshot() as conn:
            await conn.execute(raise_it)

    with pytest.raises(psycopg.errors.IndexCorrupted, match="index is damaged"):
        asyncio.run(read())
