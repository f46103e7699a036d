"""The connections over which the store is read, and the GPUs there are.

Reads only: every session is read-only, has a statement timeout and UTC. What larger questions ask
stands in modules of their own, which get a `Reader`.
"""

from __future__ import annotations

import asyncio
import math
import select
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString, Self, TypeVar

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from telemq.errors import AggregateError, SlowQueryError, StoreError

__all__ = ["CLIENT_CHECK", "PoolStats", "Reader", "closing", "is_cut"]

T = TypeVar("T")

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
#: Lets Postgres look every second, while it works, whether who asks is still there. A cancellation
#: that comes between two statements does nothing, and psycopg closes the connection after a while;
#: and a gateway that is killed cancels nothing. A server on Windows cannot look.
CLIENT_CHECK: LiteralString = """set_config('client_connection_check_interval',
    CASE WHEN version() ~* 'windows|mingw|visual c' THEN '0' ELSE '1s' END, false)"""
_LIMITS = f"""
SELECT set_config('timezone', 'UTC', false),
       set_config('statement_timeout', %(ms)s, false),
       set_config('idle_in_transaction_session_timeout', %(ms)s, false),
       {CLIENT_CHECK}"""
_SESSION = (
    _LIMITS
    + """,
       set_config('default_transaction_read_only', 'on', false),
       set_config('default_transaction_isolation', 'repeatable read', false)"""
)


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

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[TupleRow]]:
        """Lend a connection for reading, in autocommit mode.

        Raises:
            StoreError: the database cannot be used.
            SlowQueryError: a query ran into its limit.
        """
        async with self._connection() as conn:
            yield conn

    async def _texts(self, query: LiteralString) -> list[str]:
        return [text for (text,) in await self.rows(query)]

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
                f"or all {connections} connections are in use"
            ) from error
        except psycopg.Error as error:
            if not is_cut(error):
                raise
            raise StoreError("the connection to Postgres was lost") from error

    def _make_pool(
        self, dsn: str, name: str, size: int, session: LiteralString, statement_s_max: float
    ) -> AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]]:
        async def configure(conn: psycopg.AsyncConnection[TupleRow]) -> None:
            await conn.execute(session, {"ms": str(round(statement_s_max * 1000))})

        async def check(conn: psycopg.AsyncConnection[TupleRow]) -> None:
            if _is_silent(conn):
                return
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


@asynccontextmanager
async def closing(
    cursor: psycopg.AsyncServerCursor[T],
) -> AsyncIterator[psycopg.AsyncServerCursor[T]]:
    """Close a cursor of the server at the end, whatever comes in between."""
    try:
        yield cursor
    finally:
        try:
            await cursor.close()
        except BaseException:
            # A client left at this moment, or the connection ended. The transaction's end closes it
            # there; this, here.
            await psycopg.AsyncCursor.close(cursor)
            raise


def is_cut(error: psycopg.Error) -> bool:
    """Tell whether an error says that the connection ended.

    Rows of a cursor and word of the end in one answer are to psycopg an internal error, but none of
    Postgres', which would have a code.
    """
    if isinstance(error, psycopg.InternalError):
        return error.sqlstate is None
    return isinstance(error, psycopg.OperationalError)


def _is_silent(conn: psycopg.AsyncConnection[TupleRow]) -> bool:
    """Tell whether nothing came on an idle connection, such as word of its end.

    To ask Postgres instead is a quarter of a short question, and finds no more: where a machine
    vanishes without a word, who asks waits in vain, too.
    """
    if not hasattr(select, "poll"):  # Windows
        return False
    came = select.poll()
    came.register(conn.fileno(), select.POLLIN)
    return not came.poll(0)
