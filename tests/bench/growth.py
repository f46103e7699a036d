"""How rate, latency and memory grow with what there is more of, one thing at a time.

::

    python -m tests.bench.growth --page docs/performance.md       some ten minutes
    python -m tests.bench.growth --share 0.02                     to see that it works

Everything else stays as it is: one producer, one consumer, 256 records of 400 bytes a message.
Turn by turn within each table, medians of the turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from telemq import log
from telemq.bench.backlog import bench_backlog
from telemq.bench.broker import BROKER
from telemq.bench.carrier import Load, carry
from telemq.bench.fleet import METRICS, Fleet
from telemq.bench.ingest import IngestLoad, bench_ingest
from telemq.bench.measure import Run
from telemq.store.embedded import database
from tests.bench.page import GROWTH, insert

__all__ = ["Growth", "Points", "grow"]

#: Messages of a run: with single records the broker is that much slower.
_MESSAGES, _RECORDS = 20_000, 2_000_000
#: Of each series at least this many records, so that most of the work is not learning labels.
_RECORDS_A_SERIES = 2


@dataclass(frozen=True, slots=True)
class Growth:
    """How it is measured.

    Attributes:
        turns: of each point.
        share: of the full size of every run.
        series: most series.
    """

    turns: int = 3
    share: float = 1.0
    series: int = 1_000_000

    def records(self, batch: int) -> int:
        """Give the records of a run."""
        return max(batch, int(self.share * min(_RECORDS, _MESSAGES * batch)))


@dataclass(frozen=True, slots=True)
class Points:
    """Where it is measured: how many of each."""

    peers: tuple[int, ...] = (1, 2, 4, 8)
    batches: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)
    backlogs: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    rates: tuple[int, ...] = (1000, 5000, 10_000)
    gpus: tuple[int, ...] = (10, 100, 1000, 10_000, 100_000)


def grow(growth: Growth, dsn: str, points: Points | None = None) -> Iterator[str]:
    """Measure everything; gives the Markdown, line by line.

    Raises:
        TelemqError: a record was lost or doubled, or a process died.
    """
    share, points = growth.share, points or Points()
    yield f"Date: {datetime.now(UTC):%Y-%m-%d}; medians of {growth.turns} turns.\n"
    yield from _rates(
        growth, "producers", points.peers, lambda n: Load(growth.records(256), 256, producers=n)
    )
    yield from _rates(
        growth, "consumers", points.peers, lambda n: Load(growth.records(256), 256, consumers=n)
    )
    yield from _rates(
        growth, "records a message", points.batches, lambda n: Load(growth.records(n), n)
    )
    yield from _latencies(
        growth, "records/s", points.rates, lambda n: Load(max(10, int(share * 2 * n)), rate=n)
    )
    yield from _latencies(
        growth,
        "producers and consumers, 5,000 records/s",
        points.peers,
        lambda n: Load(max(80, int(share * 10_000)), producers=n, consumers=n, rate=5000),
    )
    yield from _backlogs(share, points.backlogs)
    yield from _series(growth, points.gpus, dsn)


def _turns(
    growth: Growth, points: Sequence[int], load_of: Callable[[int], Load]
) -> dict[int, list[Run]]:
    seen = defaultdict(list)
    for _ in range(growth.turns):
        for point in points:
            seen[point].append(carry(BROKER, load_of(point)))
    return seen


def _rates(
    growth: Growth, what: str, points: Sequence[int], load_of: Callable[[int], Load]
) -> Iterator[str]:
    yield f"| {what} | records/s | CPU s a million: broker, all | broker's peak MB | limited by |"
    yield "|---|---|---|---|---|"
    for point, runs in _turns(growth, points, load_of).items():
        rate = statistics.median(run.records_per_s for run in runs)
        broker = statistics.median(run.parts[0].cpu_s * 1e6 / run.records for run in runs)
        cpu_s = statistics.median(run.cpu_s_per_million for run in runs)
        peak = max(run.parts[0].peak_bytes for run in runs) / 1e6
        limit = runs[-1].to_dict()["limit"]
        yield f"| {point:,} | {rate:,.0f} | {broker:.2f}, {cpu_s:.2f} | {peak:.0f} | {limit} |"
    yield ""


def _latencies(
    growth: Growth, what: str, points: Sequence[int], load_of: Callable[[int], Load]
) -> Iterator[str]:
    yield f"| {what} | until delivery: p50, p99 ms | until confirm: p50, p99 ms | kept up |"
    yield "|---|---|---|---|"
    for point, runs in _turns(growth, points, load_of).items():
        times = [
            statistics.median(getattr(quantiles, name) for quantiles in measured)
            for measured in (
                [run.delivered_ms for run in runs],
                [run.confirmed_ms for run in runs],
            )
            for name in ("p50", "p99")
        ]
        rate = statistics.median(run.records_per_s for run in runs)
        yield "| {:,} | {:.2f}, {:.2f} | {:.2f}, {:.2f} | {:,.0f} |".format(point, *times, rate)
    yield ""


def _backlogs(share: float, points: Sequence[int]) -> Iterator[str]:
    yield "| records that wait | a message | payload MB | broker's MB more | above payload |"
    yield "|---|---|---|---|---|"
    for batch in (256, 1):
        for records in points:
            (run,) = bench_backlog(Load(max(batch, int(share * records)), batch), 1)
            more = (run.full_bytes - run.empty_bytes) / 1e6
            yield (
                f"| {run.records:,} | {batch} | {run.payload_bytes / 1e6:.0f} | {more:.0f} "
                f"| {run.overhead:.1%} |"
            )
    yield ""


def _series(growth: Growth, points: Sequence[int], dsn: str) -> Iterator[str]:
    yield "| series | records | one collector, rows/s | COPY BINARY, rows/s | collector's MB |"
    yield "|---|---|---|---|---|"
    for gpus in points:
        series = gpus * METRICS
        if series > growth.series:
            continue
        records = int(max(growth.share * _RECORDS / 2, _RECORDS_A_SERIES * series))
        runs = list(bench_ingest(IngestLoad(records, 8192, Fleet(gpus)), dsn, 1))
        collected, copied = runs
        peak = max(part.peak_bytes for part in collected.parts if part.name == "collector")
        yield (
            f"| {series:,} | {records:,} | {collected.records_per_s:,.0f} "
            f"| {copied.records_per_s:,.0f} | {peak / 1e6:.0f} |"
        )
    yield ""


def main(words: Sequence[str]) -> int:
    """Measure, print, and put the tables where they are wanted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the size of every run")
    parser.add_argument("--series", type=int, default=1_000_000, help="most series")
    parser.add_argument("--page", type=Path, help="write the tables into this page")
    asked = parser.parse_args(words)
    log.configure("warning")
    growth = Growth(asked.turns, asked.share, asked.series)
    lines = []
    with TemporaryDirectory(prefix="telemq-bench-") as scratch, database("", scratch) as server:
        for line in grow(growth, server):
            print(line, flush=True)
            lines.append(line)
    if asked.page:
        part = "\n".join(lines).rstrip("\n") + "\n\n"
        asked.page.write_text(insert(asked.page.read_text(), part, GROWTH))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
