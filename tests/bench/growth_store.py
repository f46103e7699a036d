"""How storing and reading grow with series, GPUs and days; see `tests.bench.growth`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from telemq.bench.fleet import METRICS, Fleet
from telemq.bench.ingest import IngestLoad, bench_ingest
from telemq.bench.measure import Run
from telemq.bench.postgres import scratch_database
from telemq.bench.query import QUERIES, QueryLoad, StoreSize, bench_query
from tests.bench.page import straight

__all__ = ["days", "gpus", "series"]

#: Of each series at least this many records, so that there is more to do than learning its labels.
_RECORDS_A_SERIES = 2
#: Of a GPU: an hour at one scrape a minute.
_HOUR_SCRAPES, _INTERVAL_S = 60, 60.0
#: GPUs whose days are stored.
_DAYS_GPUS, _DAY_SCRAPES = 25, 1440


def series(points: Sequence[int], stored: int, dsn: str) -> Iterator[str]:
    """Store records of GPUs that nobody has seen before."""
    yield "| series | records | one collector, rows/s | COPY BINARY, rows/s | collector's MB |"
    yield "|---|---|---|---|---|"
    costs = {}
    for count in points:
        records = max(stored, _RECORDS_A_SERIES * count * METRICS)
        collected, copied = bench_ingest(
            IngestLoad(records, fleet=Fleet(count), collectors=(1,)), dsn, 1
        )
        peak = max(part.peak_bytes for part in collected.parts if part.name == "collector")
        costs[count * METRICS] = collected.seconds / records
        yield (
            f"| {count * METRICS:,} | {records:,} | {collected.records_per_s:,.0f} "
            f"| {copied.records_per_s:,.0f} | {peak / 1e6:.0f} |"
        )
    yield straight("a row takes a collector", costs)


def gpus(points: Sequence[int], dsn: str) -> Iterator[str]:
    """Ask for one GPU's hour among that of all."""
    yield "| GPUs, an hour stored | samples | one GPU, one hour: p50 ms | list of GPUs: p50 ms |"
    yield "|---|---|---|---|"
    costs = {}
    for count in points:
        seen = _asked(Fleet(count, _INTERVAL_S), _HOUR_SCRAPES, dsn)
        costs[count] = seen.p50_ms("telemq", QUERIES[0])
        listed = seen.p50_ms("telemq", QUERIES[2])
        yield f"| {count:,} | {seen.samples:,} | {costs[count]:.2f} | {listed:.2f} |"
    yield straight("one GPU's hour takes", costs)


def days(points: Sequence[int], dsn: str) -> Iterator[str]:
    """Ask for one GPU's hour among more and more days, before and after they are compacted."""
    yield (
        f"| days stored, {_DAYS_GPUS} GPUs | samples | one GPU, one hour: p50 ms | compacted "
        "| one series, one day: p50 ms | compacted | bytes a sample | compacted |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    costs = {}
    for count in points:
        seen = _asked(Fleet(_DAYS_GPUS, _INTERVAL_S), count * _DAY_SCRAPES, dsn)
        times = [
            seen.p50_ms(layout, query)
            for query in QUERIES[:2]
            for layout in ("telemq", "telemq, compacted")
        ]
        costs[count] = times[1]
        yield "| {:,} | {:,} | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.1f} | {:.1f} |".format(
            count, seen.samples, *times, seen.sizes["telemq"], seen.sizes["telemq, compacted"]
        )
    yield straight("one GPU's hour takes, compacted,", costs)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was seen of a store.

    Attributes:
        samples: stored.
        sizes: bytes a sample, by layout.
        runs: of the questions.
    """

    samples: int
    sizes: dict[str, float]
    runs: list[Run]

    def p50_ms(self, layout: str, query: str) -> float:
        """Give the median of a question; NaN if it was not asked."""
        subject = f"{layout}: {query}"
        times = [
            run.delivered_ms.p50 for run in self.runs if run.subject == subject and run.delivered_ms
        ]
        return statistics.median(times) if times else math.nan


def _asked(fleet: Fleet, scrapes: int, dsn: str) -> _Asked:
    load = QueryLoad(
        scrapes * fleet.series, fleet, concurrency=1, questions=30, asking_s=3, beside=False
    )
    with scratch_database(dsn) as scratch:
        seen = list(bench_query(load, scratch, 1))
    sizes = [one for one in seen if isinstance(one, StoreSize)]
    return _Asked(
        sizes[0].samples,
        {size.layout: size.sample_bytes for size in sizes},
        [one for one in seen if isinstance(one, Run)],
    )
