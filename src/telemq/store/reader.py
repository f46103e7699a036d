"""What the store tells: the GPUs there are, and their telemetry in order of time.

Reads only: every session is read-only, has a statement timeout and UTC. A telemetry answer is one
transaction with a server-side cursor, so its memory is one chunk, whatever its size; the labels of
its series come once, before the samples.

Samples come from partitions and chunks by `samples_between`, which Postgres inlines: a query of a
window reads the partitions and chunks of the window.

Measured on a million samples of one GPU in ten daily partitions: the first chunk after 0.4 s, all
after 1.0 s. One statement that lets Postgres sort is as fast as a merge of one index scan a series
(0.45 s and 1.1 s), and stays so with hundreds of series.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString, Self

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from telemq.errors import SlowQueryError, StoreError
from telemq.record import SeriesLabels

__all__ = ["PoolStats", "Reader", "Sample", "Telemetry"]

#: A sample: when, series id, value.
Sample = tuple[datetime, int, float]

#: Requests that may wait for one of the pool's connections; more are told at once that it is full.
_WAITING_MAX = 200
#: Longest that `Reader.ready` waits: a probe does not wait longer for its answer.
_READY_S = 1.0
#: Connections beside the pool, for what must not wait behind long answers.
_SIDE = 2

_NO_SCHEMA = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
)
_LIMITS = """
SELECT set_config('timezone', 'UTC', false),
       set_config('statement_timeout', %(ms)s, false),
       set_config('idle_in_transaction_session_timeout', %(ms)s, false)"""
_SESSION = (
    _LIMITS
    + """,
       set_config('default_transaction_read_only', 'on', false),
       set_config('default_transaction_isolation', 'repeatable read', false)"""
)
_SERIES: LiteralString = """
SELECT s.id, s.metric_name, s.gpu_id, s.device, g.uuid, s.model_name, s.hostname,
       s.container, s.pod, s.namespace, s.labels_raw
FROM series s JOIN gpu g ON g.id = s.gpu
"""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The Postgres connections of a reader: open, of those unused, and requests that wait."""

    connections: int
    idle: int
    waiting: int


class Telemetry:
    """The samples of one answer; made by `Reader.telemetry`, valid inside its context.

    Attributes:
        labels: the labels of every series that can occur, by series id.
    """

    def __init__(
        self, labels: Mapping[int, SeriesLabels], cursor: psycopg.AsyncServerCursor[TupleRow]
    ) -> None:
        self.labels = labels
        self._cursor = cursor

    async def fetch(self, rows_max: int) -> list[Sample]:
        """Give the next samples by (time, series id), at most `rows_max`; none at the end."""
        return await self._cursor.fetchmany(rows_max)


class Reader:
    """Answers questions from the database; a context manager, needs a running event loop.

    It opens without the database, so that it may start first: questions then raise `StoreError`
    until there is one.

    Args:
        dsn: Postgres connection string or URL.
        connections: most connections.
        wait_s: longest wait for a connection.
        statement_s_max: longest run of one statement, and longest idle time within a transaction.
    """

    def __init__(
        self, dsn: str, *, connections: int, wait_s: float, statement_s_max: float
    ) -> None:
        self._wait_s = wait_s
        self._statement_s_max = statement_s_max
        self._connections = connections
        self._pool = self._make_pool(dsn, "reader", connections, _SESSION, statement_s_max)
        # What comes from clients waits for the pool; whether Postgres answers, and who a client
        # is, must be known while it is full.
        self._side = self._make_pool(dsn, "side", _SIDE, _LIMITS, _READY_S)
        self._asking: asyncio.Task[str | None] | None = None

    async def __aenter__(self) -> Self:
        await self._pool.open()
        await self._side.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._side.close()
        await self._pool.close()

    def stats(self) -> PoolStats:
        """Give the state of the connections now."""
        stats = self._pool.get_stats()
        return PoolStats(
            stats["pool_size"], stats["pool_available"], stats.get("requests_waiting", 0)
        )

    async def ready(self) -> str | None:
        """Say why questions cannot be answered now, or None; takes a second at most.

        That all connections are in use is no reason: whoever asks then waits for one.
        """
        # Many who ask at once get one answer, so that they cannot fill the connections beside.
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="ready")
        return await asyncio.shield(self._asking)

    async def _ask(self) -> str | None:
        try:
            async with self.side(min(_READY_S, self._wait_s)) as conn:
                await conn.execute("SELECT FROM telemetry LIMIT 0")
        except StoreError as error:
            return str(error)
        return None

    @asynccontextmanager
    async def side(
        self, wait_s: float | None = None
    ) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        """Give a connection beside the pool, for a short statement; it may write.

        Raises:
            StoreError: the database cannot be used.
        """
        with self._faults(wait_s or self._wait_s, _SIDE):
            async with self._side.connection(timeout=wait_s) as conn:
                try:
                    yield conn
                except psycopg.errors.QueryCanceled as error:
                    raise StoreError(f"Postgres did not answer within {_READY_S:g} s") from error

    async def uuids(self) -> list[str]:
        """Give every GPU's UUID, sorted by code point."""
        return await self._texts('SELECT uuid FROM gpu ORDER BY uuid COLLATE "C"')

    async def gpu_ids(self) -> list[str]:
        """Give the distinct indexes that GPUs have or had on their hosts, in no order."""
        return await self._texts("SELECT DISTINCT gpu_id FROM series WHERE gpu_id <> ''")

    @asynccontextmanager
    async def telemetry(
        self, gpu: str, start: datetime | None = None, end: datetime | None = None
    ) -> AsyncIterator[Telemetry | None]:
        """Open the telemetry of a GPU, or of all GPUs with that index; None if there is none.

        Args:
            gpu: a UUID; or, if no GPU has it, a ``gpu_id``.
            start: earliest time, inclusive.
            end: latest time, inclusive.

        Raises:
            StoreError: the database cannot be used.
            SlowQueryError: the query ran into its limit.
        """
        async with self._connection() as conn, conn.transaction():
            labels = await self._labels(conn, gpu)
            if labels is None:
                yield None
                return
            async with conn.cursor("telemetry", binary=True) as cursor:
                await cursor.execute(
                    "SELECT ts, series_id, value FROM samples_between("
                    "coalesce(%s, '-infinity'::timestamptz),"
                    " coalesce(%s, 'infinity'::timestamptz))"
                    " WHERE series_id = ANY(%s) ORDER BY ts, series_id",
                    [start, end, list(labels)],
                )
                yield Telemetry(labels, cursor)

    async def _labels(
        self, conn: psycopg.AsyncConnection[TupleRow], gpu: str
    ) -> dict[int, SeriesLabels] | None:
        if "\0" in gpu:  # Postgres text cannot hold it, so no GPU has it
            return None
        found = await conn.execute("SELECT id FROM gpu WHERE uuid = %s", [gpu])
        row = await found.fetchone()
        if row is not None:
            rows = await conn.execute(_SERIES + "WHERE s.gpu = %s", [row[0]])
        else:
            rows = await conn.execute(_SERIES + "WHERE s.gpu_id = %s", [gpu])
        labels = {series: SeriesLabels(*of) async for series, *of in rows}
        return labels if labels or row is not None else None

    async def _texts(self, query: LiteralString) -> list[str]:
        async with self._connection() as conn:
            return [text for (text,) in await (await conn.execute(query)).fetchall()]

    @asynccontextmanager
    async def _connection(
        self, wait_s: float | None = None
    ) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        with self._faults(wait_s or self._wait_s, self._connections):
            async with self._pool.connection(timeout=wait_s) as conn:
                yield conn

    @contextmanager
    def _faults(self, wait_s: float, connections: int) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.QueryCanceled as error:
            raise SlowQueryError(
                f"the query takes longer than the limit of {self._statement_s_max:g} s "
                "(--statement-s-max); ask for less, such as a shorter time window"
            ) from error
        except _NO_SCHEMA as error:
            raise StoreError(
                "the database has no telemq schema of this version yet; "
                "a streamer or collector makes it when it starts"
            ) from error
        except (PoolTimeout, PoolClosed, TooManyRequests) as error:
            raise StoreError(
                f"no connection to Postgres within {wait_s:g} s: it cannot be reached, "
                f"or all {connections} connections are in use"
            ) from error
        except psycopg.OperationalError as error:
            raise StoreError("the connection to Postgres was lost") from error

    def _make_pool(
        self, dsn: str, name: str, size: int, session: LiteralString, statement_s_max: float
    ) -> AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]]:
        async def configure(conn: psycopg.AsyncConnection[TupleRow]) -> None:
            await conn.execute(session, {"ms": str(round(statement_s_max * 1000))})

        async def check(conn: psycopg.AsyncConnection[TupleRow]) -> None:
            try:
                await pool.check_connection(conn)
            except psycopg.Error:
                # Postgres went away: the other idle connections are as dead as this one, and to
                # find them one by one would take a pause each.
                await pool.drain()
                raise

        pool = AsyncConnectionPool(
            dsn,
            open=False,
            name=name,
            min_size=1,
            max_size=size,
            max_waiting=_WAITING_MAX,
            timeout=self._wait_s,
            # The pool doubles its pauses up to this, so it bounds how late it sees Postgres again.
            reconnect_timeout=self._wait_s,
            configure=configure,
            check=check,
            kwargs={
                "autocommit": True,
                "application_name": "telemq gateway",  # see OLD_READERS of telemq.store.maintain
                "connect_timeout": max(2, math.ceil(self._wait_s)),  # libpq takes 1 for 2
            },
        )
        return pool
