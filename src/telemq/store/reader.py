"""The connections over which the store is read, and the GPUs there are.

Reads only: every session is read-only, has a statement timeout and UTC. What larger questions ask
stands in modules of their own, which get a `Reader`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString, Self

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from telemq.errors import AggregateError, SlowQueryError, StoreError

__all__ = ["PoolStats", "Reader"]

#: Requests that may wait for one of the pool's connections; more are told at once that it is full.
_WAITING_MAX = 200
#: Longest that `Reader.ready` waits: a probe does not wait longer for its answer.
_READY_S = 1.0

_NO_SCHEMA = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
)
_SESSION = """
SELECT set_config('default_transaction_read_only', 'on', false),
       set_config('default_transaction_isolation', 'repeatable read', false),
       set_config('timezone', 'UTC', false),
       set_config('statement_timeout', %(ms)s, false),
       set_config('idle_in_transaction_session_timeout', %(ms)s, false)
"""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The Postgres connections of a reader: open, of those unused, and requests that wait."""

    connections: int
    idle: int
    waiting: int


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
        self._pool = AsyncConnectionPool(
            dsn,
            open=False,
            name="reader",
            min_size=1,
            max_size=connections,
            max_waiting=_WAITING_MAX,
            timeout=wait_s,
            # The pool doubles its pauses up to this, so it bounds how late it sees Postgres again.
            reconnect_timeout=wait_s,
            configure=self._configure,
            check=self._check,
            kwargs={
                "autocommit": True,
                "application_name": "telemq gateway",  # see OLD_READERS of telemq.store.maintain
                "connect_timeout": max(2, math.ceil(wait_s)),  # libpq takes 1 for 2
            },
        )

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._pool.close()

    def stats(self) -> PoolStats:
        """Give the state of the connections now."""
        stats = self._pool.get_stats()
        return PoolStats(
            stats["pool_size"], stats["pool_available"], stats.get("requests_waiting", 0)
        )

    async def ready(self) -> str | None:
        """Say why questions cannot be answered now, or None; takes a second at most."""
        try:
            async with self._connection(min(_READY_S, self._wait_s)) as conn:
                await conn.execute("SELECT FROM telemetry LIMIT 0")
        except StoreError as error:
            return str(error)
        return None

    async def uuids(self) -> list[str]:
        """Give every GPU's UUID, sorted by code point."""
        return await self._texts('SELECT uuid FROM gpu ORDER BY uuid COLLATE "C"')

    async def gpu_ids(self) -> list[str]:
        """Give the distinct indexes that GPUs have or had on their hosts, in no order."""
        return await self._texts("SELECT DISTINCT gpu_id FROM series WHERE gpu_id <> ''")

    async def rows(
        self, query: LiteralString, values: Mapping[str, Any] | None = None
    ) -> list[TupleRow]:
        """Give all rows of one query, which are few.

        Raises:
            StoreError: the database cannot be used.
            SlowQueryError: the query ran into its limit.
        """
        async with self._connection() as conn, conn.cursor(binary=True) as cursor:
            # Never prepared: a plan made for any window reads all partitions of all windows.
            return await (await cursor.execute(query, values, prepare=False)).fetchall()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        """Give a connection in a transaction, in which every query sees the same.

        Raises:
            StoreError: the database cannot be used.
            SlowQueryError: a query ran into its limit.
            AggregateError: an aggregate is no number.
        """
        async with self._connection() as conn, conn.transaction():
            yield conn

    async def _texts(self, query: LiteralString) -> list[str]:
        return [text for (text,) in await self.rows(query)]

    @asynccontextmanager
    async def _connection(
        self, wait_s: float | None = None
    ) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        with self._faults(wait_s or self._wait_s):
            async with self._pool.connection(timeout=wait_s) as conn:
                yield conn

    @contextmanager
    def _faults(self, wait_s: float) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.QueryCanceled as error:
            raise SlowQueryError(
                f"the query takes longer than the limit of {self._statement_s_max:g} s "
                "(--statement-s-max); ask for less, such as a shorter time window"
            ) from error
        except psycopg.errors.NumericValueOutOfRange as error:
            raise AggregateError(
                "the sum of these values is too large for a number; ask for agg=min, max, last or "
                "p95, or for the samples as they are"
            ) from error
        except _NO_SCHEMA as error:
            raise StoreError(
                "the database has no telemq schema of this version yet; "
                "a streamer or collector makes it when it starts"
            ) from error
        except (PoolTimeout, PoolClosed, TooManyRequests) as error:
            raise StoreError(
                f"no connection to Postgres within {wait_s:g} s: it cannot be reached, "
                f"or all {self._connections} connections are in use"
            ) from error
        except psycopg.OperationalError as error:
            raise StoreError("the connection to Postgres was lost") from error

    async def _configure(self, conn: psycopg.AsyncConnection[TupleRow]) -> None:
        await conn.execute(_SESSION, {"ms": str(round(self._statement_s_max * 1000))})

    async def _check(self, conn: psycopg.AsyncConnection[TupleRow]) -> None:
        try:
            await self._pool.check_connection(conn)
        except psycopg.Error:
            # Postgres went away: the other idle connections are as dead as this one, and to find
            # them one by one would take a pause each.
            await self._pool.drain()
            raise
