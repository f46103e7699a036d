"""How fast telemetry is read, and what it takes on disk, beside the table that people make first.

Both hold the same samples (`telemq.bench.layouts`), and each question's answers are checked to be
the same. The store is measured once more when `telemq maintain` has compacted it. A question is
*cold* when it is the first one that a server which has nothing in memory is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg_pool import AsyncConnectionPool

from telemq.bench.fleet import METRICS, START_US, Fleet
from telemq.bench.layouts import StoreSize, fill_store, fill_wide, store_bytes, wide_bytes
from telemq.bench.measure import Part, Quantiles, Run, usage
from telemq.bench.postgres import ServerUsage
from telemq.errors import TelemqError
from telemq.store.migrate import migrate
from telemq.store.reader import Reader
from telemq.store.telemetry import telemetry
from telemq.store.telemetry_query import Question

__all__ = ["QUERIES", "QueryLoad", "StoreSize", "bench_query"]

_START = datetime.fromtimestamp(START_US / 1e6, UTC)
_DAY_END = _START + timedelta(days=1) - timedelta(microseconds=1)
_STATEMENT_S = 300.0
_MAINTAIN_S = 1800.0
_FETCH_ROWS = 5000
#: So many times longer than questions of a kind may cold ones take: a restart is part of each.
_COLD = 4

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

#: What is asked.
QUERIES = ("one GPU, one hour", "one series, one day by minute", "list of GPUs")
#: The number of rows and the sum of their values.
_Answer = tuple[int, float]
#: Asks, for one choice of GPU and metric.
_Ask = Callable[[int, int], Awaitable[_Answer]]
_STORE, _CHUNKS, _WIDE = "telemq", "telemq, compacted", "wide table"


@dataclass(frozen=True, slots=True)
class QueryLoad:
    """What is stored and asked.

    Attributes:
        samples: stored, rounded up to whole scrapes.
        fleet: whose.
        concurrency: questions under way at any time.
        questions: asked of each kind, in each run.
        asking_s: after which no more of a kind are asked in a run; four times that for cold ones.
        filling_s: after which no more is stored; 0 is no limit.
        cold: times that each question is asked cold, where that can be.
        beside: whether the wide table is made and asked too.
    """

    samples: int
    fleet: Fleet = field(default_factory=Fleet)
    concurrency: int = 4
    questions: int = 100
    asking_s: float = 10.0
    filling_s: float = 0.0
    cold: int = 3
    beside: bool = True

    @property
    def scrapes(self) -> int:
        """Scrapes of the whole fleet."""
        return -(-self.samples // self.fleet.series)


def bench_query(
    load: QueryLoad, dsn: str, runs: int, chill: Callable[[], None] | None = None
) -> Iterator[Run | StoreSize]:
    """Fill an empty database, and ask, turn by turn, the store and the wide table.

    Args:
        load: what is stored and asked.
        dsn: of an empty database.
        runs: of each question and layout.
        chill: restarts the server with nothing in memory; without it nothing is asked cold.

    Raises:
        TelemqError: two layouts answer differently.
        psycopg.Error: the database cannot be used.
    """
    layouts = _Layouts(load, dsn, runs, chill)
    with psycopg.connect(dsn, autocommit=True) as conn:
        migrate(conn)
        layouts.scrapes = fill_store(conn, load.fleet, load.scrapes, load.filling_s)
        count = layouts.scrapes * load.fleet.series
        yield StoreSize(_STORE, count, store_bytes(conn))
        if load.beside:
            fill_wide(conn, load.fleet, layouts.scrapes)
            yield StoreSize(_WIDE, count, wide_bytes(conn))
    first = (_STORE, _WIDE) if load.beside else (_STORE,)
    yield from asyncio.run(layouts.ask(first))
    yield from layouts.ask_cold(first)
    if not _can_maintain():
        return
    for _ in range(2):  # what the first pass has emptied, the second one may free
        _maintain(dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("VACUUM (ANALYZE)")
        yield StoreSize(_CHUNKS, count, store_bytes(conn))
    yield from asyncio.run(layouts.ask((_CHUNKS,)))
    yield from layouts.ask_cold((_CHUNKS,))


def _can_maintain() -> bool:
    """Tell whether this telemq has a `telemq maintain`."""
    command = [sys.executable, "-m", "telemq_cli", "maintain", "--help"]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def _maintain(dsn: str) -> None:
    command = [sys.executable, "-m", "telemq_cli", "maintain", "--dsn", dsn]
    ran = subprocess.run(command, capture_output=True, check=False, timeout=_MAINTAIN_S, text=True)
    if ran.returncode:
        raise TelemqError(f"telemq maintain failed: {ran.stderr[-1000:]}")


class _Layouts:
    """Asks the layouts of one database, and compares what they answer."""

    def __init__(
        self, load: QueryLoad, dsn: str, runs: int, chill: Callable[[], None] | None
    ) -> None:
        self._load, self._dsn, self._runs, self._chill = load, dsn, runs, chill
        #: Stored.
        self.scrapes = 0
        #: What was answered first, by the question and the choice of GPU and metric.
        self._answers: dict[tuple[str, tuple[int, int]], _Answer] = {}

    async def ask(self, layouts: Sequence[str]) -> list[Run]:
        """Ask all questions, turn by turn."""
        done = []
        async with self._opened(self._load.concurrency) as asks:
            for run in range(self._runs):
                for query in QUERIES:
                    for layout in layouts:
                        ask = asks[_table(layout)][query]
                        done.append(await self._measure(f"{layout}: {query}", query, ask, run))
        return done

    def ask_cold(self, layouts: Sequence[str]) -> Iterator[Run]:
        """Ask each question as the first one of a server that has nothing in memory."""
        if self._chill is None:
            return
        for query in QUERIES:
            for layout in layouts:
                began = time.monotonic()
                asked: list[Run] = []
                for choice in self._choices(seed=self._runs)[: self._load.cold]:
                    if asked and time.monotonic() > began + _COLD * self._load.asking_s:
                        break
                    self._chill()
                    asked.append(asyncio.run(self._ask_once(layout, query, choice)))
                if asked:
                    yield _all_of(f"{layout}, cold: {query}", asked)

    async def _ask_once(self, layout: str, query: str, choice: tuple[int, int]) -> Run:
        async with self._opened(1) as asks:
            with psycopg.connect(self._dsn, autocommit=True) as conn:
                server, before, began = ServerUsage(conn), usage("client"), time.monotonic()
                answer = await asks[_table(layout)][query](*choice)
                seconds, after = time.monotonic() - began, usage("client")
                used = server.part()
        self._compare(query, choice, answer)
        client = Part("client", after.cpu_s - before.cpu_s, after.peak_bytes)
        return Run(layout, answer[0], seconds, (client, *used))

    @contextlib.asynccontextmanager
    async def _opened(self, connections: int) -> AsyncIterator[dict[str, dict[str, _Ask]]]:
        """Yield how each table is asked each question."""
        reader = Reader(self._dsn, connections=connections, wait_s=60, statement_s_max=_STATEMENT_S)
        pool = AsyncConnectionPool(
            self._dsn,
            open=False,
            min_size=connections,
            max_size=connections,
            kwargs={"autocommit": True},
        )
        async with reader, pool:
            await pool.wait()
            async with pool.connection() as conn:
                row = await (await conn.execute(_HAS_WINDOW)).fetchone()
            source = _WINDOW if row and row[0] else "sample"
            hour = _hour(self.scrapes * self._load.fleet.interval_s)
            own = _of_store(self._load.fleet, hour, reader, pool, source)
            wide = _of_wide(self._load.fleet, hour, pool)
            yield {
                _STORE: dict(zip(QUERIES, own, strict=True)),
                _WIDE: dict(zip(QUERIES, wide, strict=True)),
            }

    def _choices(self, seed: int) -> list[tuple[int, int]]:
        chance = random.Random(seed)
        return [
            (chance.randrange(self._load.fleet.gpus), chance.randrange(METRICS))
            for _ in range(self._load.questions)
        ]

    def _compare(self, query: str, choice: tuple[int, int], answer: _Answer) -> None:
        rows, total = answer
        first_rows, first_total = self._answers.setdefault((query, choice), answer)
        if rows != first_rows or abs(total - first_total) > 1e-6 * max(1.0, abs(total)):
            raise TelemqError(
                f"{query}: one layout gives {first_rows} rows, sum {first_total}; "
                f"another {rows}, sum {total}"
            )

    async def _measure(self, subject: str, query: str, ask: _Ask, seed: int) -> Run:
        choices = self._choices(seed)
        took_ms: list[float] = []
        waiting = iter(choices)
        rows = 0

        async def work() -> None:
            nonlocal rows
            for choice in waiting:
                began = time.perf_counter()
                answer = await ask(*choice)
                took_ms.append((time.perf_counter() - began) * 1000)
                rows += answer[0]
                self._compare(query, choice, answer)
                if time.monotonic() > until:
                    return

        await ask(*choices[0])  # plans and catalogues are in every long-lived connection's memory
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            server, before, began = ServerUsage(conn), usage("client"), time.monotonic()
            until = began + self._load.asking_s
            try:
                async with asyncio.TaskGroup() as tasks:
                    for _ in range(self._load.concurrency):
                        tasks.create_task(work())
            except ExceptionGroup as group:
                raise group.exceptions[0] from None
            seconds, after = time.monotonic() - began, usage("client")
            used = server.part()
        client = Part("client", after.cpu_s - before.cpu_s, after.peak_bytes)
        return Run(subject, rows, seconds, (client, *used), Quantiles.of(took_ms))


def _all_of(subject: str, asked: Sequence[Run]) -> Run:
    """Give single questions as one run."""
    parts = [
        Part(name, sum(p.cpu_s for run in asked for p in run.parts if p.name == name), 0)
        for name in dict.fromkeys(part.name for part in asked[0].parts)
    ]
    seconds = [run.seconds for run in asked]
    times = Quantiles.of([1000 * one for one in seconds])
    return Run(subject, sum(run.records for run in asked), sum(seconds), tuple(parts), times)


def _table(layout: str) -> str:
    return _WIDE if layout == _WIDE else _STORE


def _hour(whole_s: float) -> tuple[datetime, datetime]:
    """Give the hour in the middle, or all if there is less; both ends inclusive."""
    start = _START + timedelta(seconds=max(0.0, (whole_s - 3600) // 2))
    return start, start + timedelta(seconds=3600) - timedelta(microseconds=1)


def _of_store(
    fleet: Fleet,
    hour: tuple[datetime, datetime],
    reader: Reader,
    pool: AsyncConnectionPool,
    source: str,
) -> tuple[_Ask, ...]:
    start, end = hour
    minutes = _MINUTES.replace("{source}", source).encode()

    async def gpu_hour(gpu: int, _metric: int) -> _Answer:
        rows, total = 0, 0.0
        async with telemetry(reader, Question(fleet.gpu(gpu), start, end)) as found:
            while found is not None and (chunk := await found.fetch(_FETCH_ROWS)):
                rows += len(chunk)
                total += float(chunk.values.sum())
        return rows, total

    async def series_day(gpu: int, metric: int) -> _Answer:
        named = [fleet.gpu(gpu), fleet.metric(metric)]
        async with pool.connection() as conn, conn.cursor(binary=True) as cursor:
            await cursor.execute(_SERIES, named)
            series = [id for (id,) in await cursor.fetchall()]
            wanted = {"series": series, "start": _START, "end": _DAY_END}
            await cursor.execute(minutes, wanted)
            rows = await cursor.fetchall()
        return len(rows), sum(value for _, value in rows)

    async def gpus(_gpu: int, _metric: int) -> _Answer:
        return len(await reader.uuids()), 0.0

    return gpu_hour, series_day, gpus


def _of_wide(
    fleet: Fleet, hour: tuple[datetime, datetime], pool: AsyncConnectionPool
) -> tuple[_Ask, ...]:
    start, end = hour

    async def gpu_hour(gpu: int, _metric: int) -> _Answer:
        async with pool.connection() as conn, conn.cursor(binary=True) as cursor:
            await cursor.execute(_WIDE_GPU, [fleet.gpu(gpu), start, end])
            rows = await cursor.fetchall()
        return len(rows), sum(row[10] for row in rows)

    async def series_day(gpu: int, metric: int) -> _Answer:
        wanted = [fleet.gpu(gpu), fleet.metric(metric), _START, _DAY_END]
        async with pool.connection() as conn, conn.cursor(binary=True) as cursor:
            await cursor.execute(_WIDE_MINUTES, wanted)
            rows = await cursor.fetchall()
        return len(rows), sum(value for _, value in rows)

    async def gpus(_gpu: int, _metric: int) -> _Answer:
        async with pool.connection() as conn:
            return len(await (await conn.execute(_DISTINCT)).fetchall()), 0.0

    return gpu_hour, series_day, gpus
