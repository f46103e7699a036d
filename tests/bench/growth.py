"""How rate, latency and memory grow with what there is more of, one thing at a time.

::

    python -m tests.bench.growth                                  small: what can be said in minutes
    python -m tests.bench.growth --full --page docs/performance.md     some ten minutes

Everything else stays as it is: one producer, one consumer, 256 records of 400 bytes a message.
Turn by turn within each table, medians of the turns. Below each table is how far its last line is
from straight. What grows in the database is in `tests.bench.growth_store`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
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
from telemq.bench.measure import Run
from telemq.store.embedded import database
from tests.bench.growth_store import days, gpus, series
from tests.bench.page import GROWTH, insert, straight

__all__ = ["FULL", "SMALL", "Growth", "grow"]


@dataclass(frozen=True, slots=True)
class Growth:
    """How much is measured, and at which points.

    Attributes:
        size: its name.
        turns: of each point.
        messages: carried in a run, if that is not more than `records`.
        records: carried in a run.
        stored: records stored where the number of series grows, if that is more than two a series.
        latency_s: length of a run at a rate.
        peers: producers, and consumers.
        batches: records a message.
        rates: records a second.
        backlogs: records that wait, 256 a message.
        singles: records that wait, one a message.
        new_gpus: GPUs whose series, ten each, come for the first time.
        gpus: GPUs whose last hour is asked for.
        days: stored.
    """

    size: str
    turns: int
    messages: int
    records: int
    stored: int
    latency_s: float
    peers: tuple[int, ...]
    batches: tuple[int, ...]
    rates: tuple[int, ...]
    backlogs: tuple[int, ...]
    singles: tuple[int, ...]
    new_gpus: tuple[int, ...]
    gpus: tuple[int, ...]
    days: tuple[int, ...]

    def load(self, batch: int, *, producers: int = 1, consumers: int = 1) -> Load:
        """Give what is carried as fast as it goes."""
        records = max(batch, min(self.records, self.messages * batch))
        return Load(records, batch, producers=producers, consumers=consumers)

    def paced(self, rate: int, *, peers: int = 1) -> Load:
        """Give what is carried at a rate."""
        records = max(10, int(rate * self.latency_s))
        return Load(records, producers=peers, consumers=peers, rate=rate)


SMALL = Growth(
    size="small", turns=1, messages=2000, records=200_000, stored=100_000, latency_s=0.5,
    peers=(1, 2, 4), batches=(1, 16, 256, 1024), rates=(1000, 5000),
    backlogs=(10_000, 100_000, 1_000_000), singles=(10_000, 100_000),
    new_gpus=(10, 100, 1000), gpus=(10, 100, 1000), days=(1, 3),
)  # fmt: skip
FULL = Growth(
    size="full", turns=3, messages=20_000, records=2_000_000, stored=1_000_000, latency_s=2,
    peers=(1, 2, 4, 8), batches=(1, 4, 16, 64, 256, 1024, 4096), rates=(1000, 5000, 10_000),
    backlogs=(10_000, 100_000, 1_000_000, 10_000_000), singles=(10_000, 100_000, 1_000_000),
    new_gpus=(10, 100, 1000, 10_000, 100_000), gpus=(10, 100, 1000, 10_000), days=(1, 3, 10, 30),
)  # fmt: skip


def grow(growth: Growth, dsn: str) -> Iterator[str]:
    """Measure everything; gives the Markdown, line by line.

    Raises:
        TelemqError: a record was lost or doubled, or a process died.
    """
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    yield f"Date: {today}; {growth.size} size, medians of {growth.turns} turns."
    yield f"Load of the machine before: {load:.1f} on {cores} cores."
    if load > 0.5 * cores:
        yield "**Other work had most of the machine meanwhile: read their shape only.**"
    yield ""
    yield from _rates(growth, "producers", growth.peers, lambda n: growth.load(256, producers=n))
    yield from _rates(growth, "consumers", growth.peers, lambda n: growth.load(256, consumers=n))
    yield from _rates(growth, "records a message", growth.batches, growth.load)
    yield from _latencies(growth, "records/s", growth.rates, growth.paced)
    yield from _latencies(
        growth,
        "producers and consumers, 5,000 records/s",
        growth.peers,
        lambda n: growth.paced(5000, peers=n),
    )
    yield from _backlogs(256, growth.backlogs)
    yield from _backlogs(1, growth.singles)
    yield from series(growth.new_gpus, growth.stored, dsn)
    yield from gpus(growth.gpus, dsn)
    yield from days(growth.days, dsn)


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
    costs = {}
    for point, runs in _turns(growth, points, load_of).items():
        rate = statistics.median(run.records_per_s for run in runs)
        broker = statistics.median(run.parts[0].cpu_s * 1e6 / run.records for run in runs)
        cpu_s = statistics.median(run.cpu_s_per_million for run in runs)
        peak = max(run.parts[0].peak_bytes for run in runs) / 1e6
        limit = runs[-1].to_dict()["limit"]
        costs[point] = broker
        yield f"| {point:,} | {rate:,.0f} | {broker:.2f}, {cpu_s:.2f} | {peak:.0f} | {limit} |"
    yield straight("a record costs the broker", costs)


def _latencies(
    growth: Growth, what: str, points: Sequence[int], load_of: Callable[[int], Load]
) -> Iterator[str]:
    yield f"| {what} | until delivery: p50, p99 ms | until confirm: p50, p99 ms | kept up |"
    yield "|---|---|---|---|"
    costs = {}
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
        costs[point] = times[0]
        yield "| {:,} | {:.2f}, {:.2f} | {:.2f}, {:.2f} | {:,.0f} |".format(point, *times, rate)
    yield straight("half of the records take, until delivery,", costs)


def _backlogs(batch: int, points: Sequence[int]) -> Iterator[str]:
    yield (
        f"| records that wait, {batch} a message | payload MB | broker's MB more | above payload "
        "| in, records/s | out, records/s |"
    )
    yield "|---|---|---|---|---|---|"
    costs = {}
    for records in points:
        (run,) = bench_backlog(Load(max(batch, records), batch), 1)
        more = (run.full_bytes - run.empty_bytes) / 1e6
        rates = [run.records / (s or 1e-9) for s in (run.filling_s, run.draining_s)]
        costs[run.records] = run.draining_s / run.records
        yield (
            f"| {run.records:,} | {run.payload_bytes / 1e6:.0f} | {more:.0f} "
            f"| {run.overhead:.1%} | {rates[0]:,.0f} | {rates[1]:,.0f} |"
        )
    yield straight("a record that waited takes, on its way out,", costs)


def main(words: Sequence[str]) -> int:
    """Measure, print, and put the tables where they are wanted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="to a million series and a month")
    parser.add_argument("--page", type=Path, help="write the tables into this page")
    asked = parser.parse_args(words)
    if asked.page:
        insert(asked.page.read_text(), "", GROWTH)  # now, not after all the work
    log.configure("warning")
    lines, began = [], time.monotonic()
    with TemporaryDirectory(prefix="telemq-bench-") as scratch, database("", scratch) as server:
        for line in grow(FULL if asked.full else SMALL, server):
            print(line, flush=True)
            lines.append(line)
    print(f"took {(time.monotonic() - began) / 60:.1f} minutes", file=sys.stderr)
    if asked.page:
        part = "\n".join(lines).rstrip("\n") + "\n\n"
        asked.page.write_text(insert(asked.page.read_text(), part, GROWTH))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
