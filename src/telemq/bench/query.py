"""How fast telemetry is read, and what it takes on disk, beside the table that people make first.

That is one wide table: a row a sample, all labels as text, an index on (uuid, timestamp). It is
filled in the order of scrapes, as it would be in life. Both hold the same samples, and each query's
answers are checked to be the same. Where `telemq maintain` is there, the store is measured once
more after it.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice

import psycopg
from psycopg_pool import AsyncConnectionPool

from telemq.bench.fleet import METRICS, START_US, VALUE_SQL, Fleet
from telemq.bench.measure import Part, Quantiles, Run, usage
from telemq.bench.postgres import ServerUsage
from telemq.codec import BATCH
from telemq.errors import TelemqError
from telemq.record import BatchId
from telemq.store.migrate import migrate
from telemq.store.reader import Reader
from telemq.store.telemetry import telemetry
from telemq.store.telemetry_query import Question
from telemq.store.writer import StoredBatch, Writer

__all__ = ["QUERIES", "QueryLoad", "StoreSize", "bench_query"]

_START = datetime.fromtimestamp(START_US / 1e6, UTC)
_DAY_END = _START + timedelta(days=1) - timedelta(microseconds=1)
_STATEMENT_S = 300.0
_MAINTAIN_S = 3600.0
#: Batches of one transaction while the store is filled, and their records.
_COMMIT_BATCHES, _BATCH_RECORDS = 20, 5000
_FETCH_ROWS = 5000

_WIDE = """
CREATE TABLE wide (
    timestamp timestamptz, metric_name text, gpu_id text, device text, uuid text, model_name text,
    hostname text, container text, pod text, namespace text, value double precision,
    labels_raw text
)
"""
#: Scrape after scrape, so that rows lie as they would have come.
_FILL = f"""
DO $$
BEGIN
    CREATE TEMP TABLE labels AS
        SELECT row_number() OVER (ORDER BY s.id) - 1 AS place, s.*, g.uuid,
               (regexp_match(s.metric_name, '[0-9]+$'))[1]::int
                   + {METRICS} * ('x' || right(replace(g.uuid, '-', ''), 8))::bit(32)::int
                   - {METRICS} AS number
        FROM series s JOIN gpu g ON g.id = s.gpu;
    FOR scrape IN 0 .. $scrapes$ - 1 LOOP
        INSERT INTO wide
        SELECT '$start$'::timestamptz + scrape * '$interval$ s'::interval, metric_name, gpu_id,
               device, uuid, model_name, hostname, container, pod, namespace, {VALUE_SQL},
               labels_raw
        FROM labels;
    END LOOP;
END $$
"""
_WIDE_GPU = """
SELECT timestamp, metric_name, gpu_id, device, uuid, model_name, hostname, container, pod,
       namespace, value, labels_raw
FROM wide WHERE uuid = %s AND timestamp >= %s AND timestamp <= %s ORDER BY timestamp
"""
#: The series first, and then only narrow rows: what the gateway does too.
_SERIES = """
SELECT s.id FROM series s JOIN gpu g ON g.id = s.gpu WHERE g.uuid = %s AND s.metric_name = %s
"""
_MINUTES = """
SELECT date_bin('1 minute', ts, '2000-01-01+00'), avg(value) FROM {source}
WHERE series_id = ANY(%(series)s) AND ts >= %(start)s AND ts <= %(end)s GROUP BY 1 ORDER BY 1
"""
_WIDE_MINUTES = """
SELECT date_bin('1 minute', timestamp, '2000-01-01+00'), avg(value) FROM wide
WHERE uuid = %s AND metric_name = %s AND timestamp >= %s AND timestamp <= %s
GROUP BY 1 ORDER BY 1
"""
#: Of a store with chunks: reads only those of the window, which a view cannot say.
_WINDOW = "samples_between(%(start)s, %(end)s)"
_HAS_WINDOW = "SELECT to_regprocedure('samples_between(timestamptz, timestamptz)') IS NOT NULL"
_DISTINCT = "SELECT DISTINCT uuid FROM wide"
_OWN_SIZE = """
SELECT coalesce(sum(pg_table_size(c.oid) + pg_indexes_size(c.oid)), 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  AND c.relkind IN ('r', 'm') AND c.relname <> 'wide'
"""

#: What is asked.
QUERIES = ("one GPU, one hour", "one series, one day by minute", "list of GPUs")
#: Gives the number of rows and the sum of their values, for one choice of GPU and metric.
_Ask = Callable[[int, int], Awaitable[tuple[int, float]]]


@dataclass(frozen=True, slots=True)
class QueryLoad:
    """What is stored and asked.

    Attributes:
        samples: stored, rounded up to whole scrapes.
        fleet: whose.
        concurrency: questions under way at any time.
        questions: asked of each kind, in each run.
    """

    samples: int
    fleet: Fleet = field(default_factory=Fleet)
    concurrency: int = 4
    questions: int = 100

    @property
    def scrapes(self) -> int:
        """Scrapes of the whole fleet."""
        return -(-self.samples // self.fleet.series)


@dataclass(frozen=True, slots=True)
class StoreSize:
    """What one layout takes.

    Attributes:
        layout: which.
        samples: stored.
        disk_bytes: tables and indexes.
    """

    layout: str
    samples: int
    disk_bytes: int

    @property
    def sample_bytes(self) -> float:
        """Bytes a sample."""
        return self.disk_bytes / self.samples


def bench_query(load: QueryLoad, dsn: str, runs: int) -> Iterator[Run | StoreSize]:
    """Fill an empty database, and ask, turn by turn, the store and the wide table.

    Args:
        load: what is stored and asked.
        dsn: of an empty database.
        runs: of each question and layout.

    Raises:
        TelemqError: two layouts answer differently.
        psycopg.Error: the database cannot be used.
    """
    count = load.scrapes * load.fleet.series
    with psycopg.connect(dsn, autocommit=True) as conn:
        migrate(conn)
        _fill(conn, load)
        row = conn.execute(_OWN_SIZE).fetchone()
        yield StoreSize("telemq", count, row[0] if row else 0)
        _fill_wide(conn, load)
        row = conn.execute("SELECT pg_total_relation_size('wide')").fetchone()
        yield StoreSize("wide table", count, row[0] if row else 0)
        yield from asyncio.run(_ask_all(load, dsn, runs, "telemq", "wide table"))
        if not _can_maintain():
            return
        for _ in range(2):  # what the first pass has emptied, the second one may free
            _maintain(dsn)
        conn.execute("VACUUM (ANALYZE)")
        row = conn.execute(_OWN_SIZE).fetchone()
        yield StoreSize("telemq, compacted", count, row[0] if row else 0)
        yield from asyncio.run(
            _ask_all(load, dsn, runs, "telemq, compacted", "wide table, once more")
        )


def _fill(conn: psycopg.Connection, load: QueryLoad) -> None:
    writer = Writer(conn)
    batches = load.fleet.batches(load.scrapes * load.fleet.series, _BATCH_RECORDS)
    first_row = 0
    while some := list(islice(batches, _COMMIT_BATCHES)):
        stored = []
        for batch in some:
            id = BatchId("bench", first_row)
            stored.append(StoredBatch(id, batch.row_count, BATCH.encode(), batch))
            first_row += batch.row_count
        writer.store(stored)
    conn.execute("VACUUM (ANALYZE)")


def _fill_wide(conn: psycopg.Connection, load: QueryLoad) -> None:
    fill = _FILL
    values = {
        "$scrapes$": load.scrapes,
        "$start$": _START.isoformat(),
        "$interval$": load.fleet.interval_s,
    }
    for name, value in values.items():
        fill = fill.replace(name, str(value))
    conn.execute(_WIDE)
    conn.execute(fill)
    conn.execute("CREATE INDEX wide_uuid_timestamp ON wide (uuid, timestamp)")
    conn.execute("VACUUM (ANALYZE) wide")


def _can_maintain() -> bool:
    """Tell whether this telemq has a `telemq maintain`."""
    command = [sys.executable, "-m", "telemq_cli", "maintain", "--help"]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def _maintain(dsn: str) -> None:
    command = [sys.executable, "-m", "telemq_cli", "maintain", "--dsn", dsn]
    ran = subprocess.run(command, capture_output=True, check=False, timeout=_MAINTAIN_S, text=True)
    if ran.returncode:
        raise TelemqError(f"telemq maintain failed: {ran.stderr[-1000:]}")


async def _ask_all(load: QueryLoad, dsn: str, runs: int, layout: str, beside: str) -> list[Run]:
    reader = Reader(dsn, connections=load.concurrency, wait_s=60, statement_s_max=_STATEMENT_S)
    pool = AsyncConnectionPool(
        dsn,
        open=False,
        min_size=load.concurrency,
        max_size=load.concurrency,
        kwargs={"autocommit": True},
    )
    done = []
    async with reader, pool:
        await pool.wait()
        async with pool.connection() as conn:
            row = await (await conn.execute(_HAS_WINDOW)).fetchone()
        source = _WINDOW if row and row[0] else "sample"
        own = dict(zip(QUERIES, _of_store(load, reader, pool, source), strict=True))
        wide = dict(zip(QUERIES, _of_wide(load, pool), strict=True))
        for run in range(runs):
            for query in QUERIES:
                answers = []
                for name, ask in ((layout, own[query]), (beside, wide[query])):
                    asked, answer = await _measure(load, dsn, f"{name}: {query}", ask, seed=run)
                    done.append(asked)
                    answers.append(answer)
                _compare(query, *answers)
    return done


def _compare(query: str, own: list[tuple[int, float]], wide: list[tuple[int, float]]) -> None:
    for (rows, total), (wide_rows, wide_total) in zip(own, wide, strict=True):
        if rows != wide_rows or abs(total - wide_total) > 1e-6 * max(1.0, abs(total)):
            raise TelemqError(
                f"{query}: the store gives {rows} rows, sum {total}; "
                f"the wide table {wide_rows}, sum {wide_total}"
            )


async def _measure(
    load: QueryLoad, dsn: str, subject: str, ask: _Ask, seed: int
) -> tuple[Run, list[tuple[int, float]]]:
    chance = random.Random(seed)
    choices = [
        (chance.randrange(load.fleet.gpus), chance.randrange(METRICS))
        for _ in range(load.questions)
    ]
    took_ms: list[float] = []
    answers: list[tuple[int, float]] = [(0, 0.0)] * len(choices)
    waiting = iter(enumerate(choices))

    async def work() -> None:
        for place, (gpu, metric) in waiting:
            began = time.perf_counter()
            answers[place] = await ask(gpu, metric)
            took_ms.append((time.perf_counter() - began) * 1000)

    await ask(*choices[0])  # plans and catalogues are in every long-lived connection's memory
    with psycopg.connect(dsn, autocommit=True) as conn:
        server, before, began = ServerUsage(conn), usage("client"), time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(load.concurrency):
                tasks.create_task(work())
        seconds, after = time.monotonic() - began, usage("client")
        used = server.part()
    client = Part("client", after.cpu_s - before.cpu_s, after.peak_bytes)
    rows = sum(rows for rows, _ in answers)
    return Run(subject, rows, seconds, (client, *used), Quantiles.of(took_ms)), answers


def _hour(load: QueryLoad) -> tuple[datetime, datetime]:
    """Give the hour in the middle, or all if there is less; both ends inclusive."""
    whole_s = load.scrapes * load.fleet.interval_s
    start = _START + timedelta(seconds=max(0.0, (whole_s - 3600) // 2))
    return start, start + timedelta(seconds=3600) - timedelta(microseconds=1)


def _of_store(
    load: QueryLoad, reader: Reader, pool: AsyncConnectionPool, source: str
) -> tuple[_Ask, ...]:
    start, end = _hour(load)
    minutes = _MINUTES.replace("{source}", source).encode()

    async def gpu_hour(gpu: int, _metric: int) -> tuple[int, float]:
        rows, total = 0, 0.0
        async with telemetry(reader, Question(load.fleet.gpu(gpu), start, end)) as found:
            while found is not None and (chunk := await found.fetch(_FETCH_ROWS)):
                rows += len(chunk)
                total += sum(value for *_, value in chunk)
        return rows, total

    async def series_day(gpu: int, metric: int) -> tuple[int, float]:
        named = [load.fleet.gpu(gpu), load.fleet.metric(metric)]
        async with pool.connection() as conn, conn.cursor(binary=True) as cursor:
            await cursor.execute(_SERIES, named)
            series = [id for (id,) in await cursor.fetchall()]
            wanted = {"series": series, "start": _START, "end": _DAY_END}
            await cursor.execute(minutes, wanted)
            rows = await cursor.fetchall()
        return len(rows), sum(value for _, value in rows)

    async def gpus(_gpu: int, _metric: int) -> tuple[int, float]:
        return len(await reader.uuids()), 0.0

    return gpu_hour, series_day, gpus


def _of_wide(load: QueryLoad, pool: AsyncConnectionPool) -> tuple[_Ask, ...]:
    start, end = _hour(load)

    async def gpu_hour(gpu: int, _metric: int) -> tuple[int, float]:
        async with pool.connection() as conn, conn.cursor(binary=True) as cursor:
            await cursor.execute(_WIDE_GPU, [load.fleet.gpu(gpu), start, end])
            rows = await cursor.fetchall()
        return len(rows), sum(row[10] for row in rows)

    async def series_day(gpu: int, metric: int) -> tuple[int, float]:
        wanted = [load.fleet.gpu(gpu), load.fleet.metric(metric), _START, _DAY_END]
        async with pool.connection() as conn, conn.cursor(binary=True) as cursor:
            await cursor.execute(_WIDE_MINUTES, wanted)
            rows = await cursor.fetchall()
        return len(rows), sum(value for _, value in rows)

    async def gpus(_gpu: int, _metric: int) -> tuple[int, float]:
        async with pool.connection() as conn:
            return len(await (await conn.execute(_DISTINCT)).fetchall()), 0.0

    return gpu_hour, series_day, gpus
