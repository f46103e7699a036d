"""``/api/v1/integrity``: what `telemq verify` says, for programs that have no command line.

Verifying reads every sample, so it is done for all who ask at the same time, in a thread, and kept
for a while: at least a few seconds, and as long again as it took.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Annotated, Any, LiteralString

import msgspec
import psycopg
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import SkipValidation

from telemq.errors import StoreError
from telemq.gateway.query import only
from telemq.store.reader import CLIENT_CHECK
from telemq.store.verify import DAMAGES_MAX, STREAMS_MAX, verify
from telemq.web.problems import described

__all__ = ["ROUTES", "DamageSeen", "Integrity", "StreamIntegrity", "Verifier", "get_integrity"]

#: Shortest time for which a report is kept.
_KEPT_S = 5.0
_SESSION: LiteralString = f"SELECT set_config('statement_timeout', %s, false), {CLIENT_CHECK}"


def _meta(description: str, *examples: object) -> msgspec.Meta:
    return msgspec.Meta(description=description, examples=list(examples))


class DamageSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A range of rows of a stream that is not covered exactly once."""

    kind: Annotated[
        str,
        _meta("`gap`: in no batch; `overlap`: in several; `beyond`: never reserved.", "gap"),
    ]
    first_row: Annotated[int, _meta("The first of the rows.", 100)]
    end_row: Annotated[int, _meta("The row after the last.", 200)]


class StreamIntegrity(msgspec.Struct, frozen=True, kw_only=True):
    """What the database says of one stream."""

    stream_id: Annotated[str, _meta("Its name.", "dcgm_sample-1f0c")]
    next_row: Annotated[
        int | None, _meta("Rows reserved so far; null if its producer keeps no cursor.", 2340)
    ]
    batches: Annotated[int, _meta("Batches stored.", 3)]
    rows: Annotated[int, _meta("Rows that these account for.", 2340)]
    stored: Annotated[int, _meta("Records that are samples.", 2339)]
    rejected: Annotated[int, _meta("Rows that are dead letters.", 1)]
    dead_letter_rows: Annotated[int, _meta("Rows that the dead letters account for.", 1)]
    leases: Annotated[int, _meta("Batches in flight.", 0)]
    lease_rows: Annotated[int, _meta("Rows of these.", 0)]
    damages: Annotated[
        list[DamageSeen],
        _meta(f"What is damaged, ascending; {DAMAGES_MAX} at most.", []),
    ]
    damage_count: Annotated[int, _meta("How many damages there are.", 0)]
    problems: Annotated[list[str], _meta("What is wrong, in words; empty if nothing is.", [])]


class Integrity(msgspec.Struct, frozen=True, kw_only=True):
    """Whether every row of every stream is stored exactly once, in flight, or a dead letter."""

    complete: Annotated[
        bool, _meta("Whether all is covered once and in balance; what is in flight may be.", True)
    ]
    problems: Annotated[list[str], _meta("What is wrong with the samples, in words.", [])]
    streams: Annotated[
        list[StreamIntegrity], _meta(f"The damaged ones first; {STREAMS_MAX} at most.", [])
    ]
    stream_count: Annotated[int, _meta("How many streams there are.", 1)]
    damaged_count: Annotated[int, _meta("How many of them have problems.", 0)]
    stored: Annotated[int, _meta("Records that the ledger says are samples.", 2339)]
    samples: Annotated[int, _meta("Samples that are there.", 2339)]
    samples_without_series: Annotated[int, _meta("Those of them that no query shows.", 0)]
    lease_rows: Annotated[int, _meta("Rows in flight.", 0)]
    chunked: Annotated[int, _meta("Samples that are in chunks.", 0)]
    chunks_damaged: Annotated[int, _meta("Chunks that do not hold the samples they say.", 0)]
    dropped: Annotated[int, _meta("Samples dropped because of their age.", 0)]


class Verifier:
    """Verifies the database, once for all who ask.

    Args:
        dsn: Postgres connection string or URL.
        wait_s: longest wait for a connection.
        statement_s_max: longest run of one statement.
    """

    def __init__(self, dsn: str, *, wait_s: float, statement_s_max: float) -> None:
        self._dsn = dsn
        self._wait_s = wait_s
        self._statement_s_max = statement_s_max
        self._task: asyncio.Task[Integrity] | None = None
        self._conn: psycopg.Connection[Any] | None = None
        self._fresh_until_s = 0.0
        self._closed = False

    async def report(self) -> Integrity:
        """Give what is known, or find out.

        Raises:
            StoreError: the database cannot be used, or is too large for the time limit.
        """
        task = self._task
        if task is None or (task.done() and time.monotonic() >= self._fresh_until_s):
            task = self._task = asyncio.create_task(self._verify(), name="verify")
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End a verification that is under way."""
        self._closed = True
        task, conn = self._task, self._conn
        if task is not None and not task.done():
            if conn is not None:
                with contextlib.suppress(psycopg.Error):
                    conn.cancel()
            with contextlib.suppress(StoreError):
                await task

    async def _verify(self) -> Integrity:
        began_s = time.monotonic()
        try:
            return await asyncio.to_thread(self._read)
        finally:
            ended_s = time.monotonic()
            self._fresh_until_s = ended_s + max(_KEPT_S, ended_s - began_s)

    def _read(self) -> Integrity:
        limit = str(round(self._statement_s_max * 1000))
        try:
            with psycopg.connect(
                self._dsn,
                autocommit=True,
                application_name="telemq gateway",  # see OLD_READERS of telemq.store.maintain
                connect_timeout=max(2, round(self._wait_s)),
            ) as conn:
                self._conn = conn
                if self._closed:  # before there was something to cancel
                    raise StoreError("the gateway is stopping")
                conn.execute(_SESSION, [limit])
                return msgspec.convert(verify(conn).to_dict(), Integrity)
        except StoreError as error:
            if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
                raise StoreError(
                    "verifying takes longer than the limit of "
                    f"{self._statement_s_max:g} s (--statement-s-max); telemq verify has no limit"
                ) from error
            raise
        except psycopg.Error as error:
            raise StoreError("Postgres cannot be reached") from error
        finally:
            self._conn = None


@get(
    "/api/v1/integrity",
    tags=["operation"],
    operation_id="get_integrity",
    summary="Is every record stored exactly once?",
    description="What `telemq verify --json` says, from the database alone. It reads every sample, "
    "so a report is some seconds old at most, or as old as it took to make. 200 also when there "
    "is damage: `complete` says so.",
    response_description="The report.",
    responses=described(
        BAD_REQUEST="A parameter is not accepted.",
        INTERNAL_SERVER_ERROR="The gateway failed; its log says why.",
        SERVICE_UNAVAILABLE="The database cannot be used now, or it is too large for the time "
        "limit of one query.",
    ),
)
async def get_integrity(
    request: Request[Any, Any, Any], verifier: NamedDependency[SkipValidation[Verifier]]
) -> Integrity:
    """Answer what verifying finds."""
    only(request.query_params.multi_items())
    return await verifier.report()


ROUTES: tuple[HTTPRouteHandler, ...] = (get_integrity,)
