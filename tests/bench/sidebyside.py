"""``nox -s bench``: telemq beside its rivals, turn by turn, in one run.

::

    python -m tests.bench.sidebyside                    what can be said in four minutes
    python -m tests.bench.sidebyside --full             figures to quote; below twenty minutes
        --json FILE --page docs/performance.md          and where to put them

In each group every subject has its turn before the first has its next, so that a noisy moment of
the machine meets them all. What is not installed is skipped, with the reason; what fails is told,
and the others go on. A bar whose load was too small to mean anything is not judged.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import psycopg

from telemq import log
from telemq.bench import broker, ingest, pipeline, proxy
from telemq.bench.backlog import bench_backlog
from telemq.bench.carrier import Carrier, Load, carry
from telemq.bench.cold import ColdPostgres
from telemq.bench.ingest import IngestLoad
from telemq.bench.measure import Run, limit
from telemq.bench.postgres import COPY, scratch_database
from telemq.bench.query import QueryLoad, StoreSize, bench_query
from telemq.errors import TelemqError
from telemq.sources.csv_replay import bundled_sample
from tests.bench import about
from tests.bench.page import insert, render
from tests.bench.rivals import (
    beanstalk,
    http,
    jetstream,
    natspipeline,
    proxies,
    rabbitmq,
    redisstreams,
    relay,
    wide,
)

__all__ = ["FULL", "QUICK", "Plan", "Session"]

CARRIERS = (
    broker.BROKER, broker.UNIX, broker.JOURNALED, broker.CURVE,
    proxy.PROXY, proxies.ENCRYPTED, proxies.PUSHPULL, relay.RELAY,
    jetstream.MEMORY, jetstream.FILE, redisstreams.MEMORY, redisstreams.APPENDONLY,
    rabbitmq.RABBITMQ, beanstalk.BEANSTALKD, http.HTTP,
)  # fmt: skip
#: The others cannot, or do not say more.
PROMPT = (
    broker.BROKER, broker.JOURNALED, proxy.PROXY, redisstreams.MEMORY, redisstreams.APPENDONLY,
    beanstalk.BEANSTALKD, jetstream.MEMORY, rabbitmq.RABBITMQ,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        mode: its name.
        turns: of each subject.
        seconds: that a carrier is to be busy in a turn; 0 carries `probe_messages` and no more.
        probe_messages: of a first turn that is not counted, to find out the rate.
        rate: records a second, for latency.
        latency_records: carried at that rate.
        ingest_records: stored from a queue.
        pipeline_records: through the whole pipeline.
        inserts: records inserted one by one.
        query: what is stored and asked.
        backlog_records: that wait.
        minutes: after which no more turns begin, except each subject's first.
    """

    mode: str
    turns: int
    seconds: float
    probe_messages: int
    latency_records: int
    ingest_records: int
    pipeline_records: int
    inserts: int
    query: QueryLoad
    backlog_records: int
    minutes: float
    rate: float = 5000.0


#: So many times more single messages than large ones find out a rate.
_SINGLES = 5
#: On disk, in both layouts and in the write-ahead log.
_SAMPLE_BYTES = 1000
#: A turn of questions holds many of each; more of them would not say more.
_QUERY_TURNS = 3
#: By which part of the time a group is to be done; one that is not takes no more turns.
_SHARES = {
    "carry 256": 0.27,
    "carry 1": 0.55,
    "latency": 0.72,
    "ingest": 0.85,
    "pipeline": 1.0,  # queries and the backlog come after it, and bound themselves
}
#: What there is to measure, in order.
GROUPS = (*_SHARES, "query", "backlog")

#: The bench's own questions come one at a time; at 20 million samples the disk is what holds up
#: filling, and where it is slow there are fewer.
QUICK = Plan(
    mode="quick", turns=1, seconds=0.5, probe_messages=1000, latency_records=5000,
    ingest_records=500_000, pipeline_records=400_000, inserts=2000,
    query=QueryLoad(250_000, concurrency=1, questions=20, asking_s=2, cold=1),
    backlog_records=1_000_000, minutes=3,
)  # fmt: skip
FULL = Plan(
    mode="full", turns=5, seconds=1.0, probe_messages=2000, latency_records=10_000,
    ingest_records=1_500_000, pipeline_records=1_500_000, inserts=6000,
    query=QueryLoad(
        20_000_000, concurrency=1, questions=50, asking_s=3, filling_s=120, cold=3
    ),
    backlog_records=1_000_000, minutes=16,
)  # fmt: skip


class Session:
    """One run of everything.

    Args:
        plan: how much.
        say: told what is being done.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan, self._say = plan, say
        self._began = self._end = time.monotonic()
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    def run(self, server: ColdPostgres, only: Collection[str] = GROUPS) -> dict[str, Any]:
        """Measure everything, or some groups only; gives the figures."""
        dsn, plan, load = server.dsn, self._plan, os.getloadavg()[0]
        self._began, found = time.monotonic(), about.versions(server.dsn)
        figures: dict[str, Any] = {}
        groups: dict[str, Callable[[], list[Run]]] = {
            "carry 256": lambda: self.carried(CARRIERS, 256),
            "carry 1": lambda: self.carried(CARRIERS, 1),
            "latency": lambda: self.prompt(PROMPT),
            "ingest": lambda: self.ingested(dsn),
            "pipeline": lambda: self.piped(dsn),
        }
        for group, measure in groups.items():
            self._end = self._began + 60 * plan.minutes * _SHARES[group]
            if group in only:
                figures[group] = digest(measure())
        if "query" in only:
            seen = list(self._seen("query", lambda: self._asked(server)))
            figures["query"] = digest([one for one in seen if isinstance(one, Run)])
            figures["sizes"] = {
                one.layout: asdict(one) | {"sample_bytes": one.sample_bytes}
                for one in seen
                if isinstance(one, StoreSize)
            }
        if "backlog" in only:
            waiting = Load(plan.backlog_records, 256)
            waited = self._seen("backlog", lambda: bench_backlog(waiting, 1))
            figures["backlog"] = [asdict(run) | {"overhead": run.overhead} for run in waited]
        told = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "mode": plan.mode,
            "rate": plan.rate,
            "minutes": (time.monotonic() - self._began) / 60,
            "machine": about.machine(),
            "versions": found,
            "busy": load > 0.5 * (os.cpu_count() or 1),
            "load": f"{load:.1f} and {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        }
        return {"about": told, **figures, "skipped": self.skipped, "failed": self.failed}

    def carried(self, carriers: Sequence[Carrier], batch: int) -> list[Run]:
        """Carry as fast as it goes."""
        loads = {}
        for carrier in self._here(carriers):
            messages = self._plan.probe_messages * (1 if batch > 1 else _SINGLES)
            load = Load(messages * batch, batch)
            if self._plan.seconds and (probe := self._try(carrier.name, _carry(carrier, load))):
                records = int(probe[0].records_per_s * self._plan.seconds)
                load = replace(load, records=max(load.records, records))
            loads[carrier] = load
        return self.turns({one.name: _carry(one, load) for one, load in loads.items()})

    def prompt(self, carriers: Sequence[Carrier]) -> list[Run]:
        """Carry single records at a rate."""
        load = Load(self._plan.latency_records, rate=self._plan.rate)
        return self.turns({one.name: _carry(one, load) for one in self._here(carriers)})

    def ingested(self, dsn: str) -> list[Run]:
        """Store what waits in a queue."""
        load = IngestLoad(self._plan.ingest_records)
        subjects: dict[str, Callable[[str], Run]] = {
            ingest.subject(count): partial(ingest.run_ingest, load, count) for count in (1, 2)
        }
        return self._stored(dsn, subjects | {COPY: partial(ingest.copy_prepared, load)})

    def piped(self, dsn: str) -> list[Run]:
        """Bring a CSV into Postgres, in all ways."""
        plan, source = self._plan, bundled_sample()
        load = pipeline.PipelineLoad(source, plan.pipeline_records, 8192, 1, 1)
        queues = [pipeline.BROKER]
        if reason := jetstream.missing():
            self.skipped[natspipeline.JETSTREAM.name] = reason
        else:
            queues.append(natspipeline.JETSTREAM)
        subjects: dict[str, Callable[[str], Run]] = {
            queue.name: partial(pipeline.run_pipeline, queue, load) for queue in queues
        }
        subjects |= {
            COPY: partial(pipeline.copy_arrived, load),
            wide.WIDE_COPY: partial(wide.wide_copy, source=source, records=plan.pipeline_records),
            wide.INSERTS: partial(wide.insert_each, source=source, records=plan.inserts),
        }
        return self._stored(dsn, subjects)

    def _stored(self, dsn: str, subjects: dict[str, Callable[[str], Run]]) -> list[Run]:
        def fresh(measure: Callable[[str], Run]) -> Run:
            with scratch_database(dsn) as scratch:
                return measure(scratch)

        return self.turns({name: partial(fresh, one) for name, one in subjects.items()})

    def _asked(self, server: ColdPostgres) -> Iterator[Run | StoreSize]:
        load, chill = self._plan.query, server.chill
        need, free = load.samples * _SAMPLE_BYTES, shutil.disk_usage(gettempdir()).free
        if free < need:
            raise TelemqError(
                f"{load.samples:,} samples in two layouts take {need / 1e9:.0f} GB of disk; "
                f"{gettempdir()} has {free / 1e9:.0f}; TMPDIR names another place"
            )
        try:
            chill()
        except TelemqError as error:
            self.skipped["cold reads"], load = str(error), replace(load, cold=0)
        turns = min(self._plan.turns, _QUERY_TURNS)
        with scratch_database(server.dsn) as scratch:
            yield from bench_query(load, scratch, turns, chill if load.cold else None)

    def _here(self, carriers: Sequence[Carrier]) -> Iterator[Carrier]:
        for carrier in carriers:
            if reason := carrier.missing():
                self.skipped[carrier.name] = reason
            elif carrier.name not in self.failed:
                yield carrier

    def turns(self, subjects: Mapping[str, Callable[[], Run]]) -> list[Run]:
        """Measure all subjects once, and again while there is time; those that fail drop out."""
        done: list[Run] = []
        for turn in range(self._plan.turns):
            if turn and time.monotonic() > self._end:
                break
            for name, measure in subjects.items():
                if name not in self.failed:
                    done += self._try(name, measure)
        return [run for run in done if run.subject not in self.failed]

    def _try(self, name: str, measure: Callable[[], Run]) -> list[Run]:
        return list(self._seen(name, lambda: iter([measure()])))

    def _seen(self, name: str, measure: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """Give what is measured; what fails is noted, and the others go on."""
        try:
            for seen in measure():
                if isinstance(seen, Run):
                    self._say(f"{seen.subject}: {seen.records_per_s:,.0f} records/s")
                yield seen
        except (TelemqError, psycopg.Error, OSError, subprocess.SubprocessError) as error:
            self.failed[name] = " ".join(str(error).split())
            self._say(f"{name} FAILED: {error}")


def _carry(carrier: Carrier, load: Load) -> Callable[[], Run]:
    return partial(carry, carrier, load)


def digest(runs: Sequence[Run]) -> dict[str, Any]:
    """Give the figures of all turns of each subject."""
    figures = {}
    for subject in dict.fromkeys(run.subject for run in runs):
        own = [run for run in runs if run.subject == subject]
        seen: dict[str, Any] = {
            "records": own[-1].records,
            "records_per_s": [round(run.records_per_s, 1) for run in own],
            "cpu_s_per_million": [round(run.cpu_s_per_million, 4) for run in own],
            "parts": {
                name: {
                    "cpu_s_per_million": round(
                        statistics.median(
                            sum(p.cpu_s for p in run.parts if p.name == name) * 1e6 / run.records
                            for run in own
                        ),
                        4,
                    ),
                    "peak_bytes": max(
                        p.peak_bytes for run in own for p in run.parts if p.name == name
                    ),
                }
                for name in dict.fromkeys(part.name for part in own[0].parts)
            },
            "limit": limit(sorted(own, key=lambda run: run.records_per_s)[len(own) // 2]),
        }
        for what in ("delivered", "confirmed"):
            if quantiles := [q for run in own if (q := getattr(run, f"{what}_ms"))]:
                seen[f"{what}_p50_ms"] = [round(q.p50, 4) for q in quantiles]
                seen[f"{what}_p99_ms"] = [round(q.p99, 4) for q in quantiles]
        figures[subject] = seen
    return figures


def main(words: Sequence[str]) -> int:
    """Measure, print the page's part, and put the figures where they are wanted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="take figures")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--page", type=Path, help="write the tables into this page")
    parser.add_argument("--only", choices=GROUPS, action="append", help="a group; again for more")
    parser.add_argument("--samples", type=int, help="that queries are asked of")
    asked = parser.parse_args(words)
    plan = FULL if asked.full else QUICK
    if asked.samples:
        plan = replace(plan, query=replace(plan.query, samples=asked.samples))
    if asked.page:
        insert(asked.page.read_text(), "")  # now, not after all the work
    log.configure("warning")
    session = Session(plan, lambda line: print(line, file=sys.stderr, flush=True))
    with TemporaryDirectory(prefix="telemq-bench-") as folder, ColdPostgres(Path(folder)) as server:
        figures = session.run(server, asked.only or GROUPS)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")
    part = render(figures)
    print(part)
    if asked.page:
        asked.page.write_text(insert(asked.page.read_text(), part))
    for name, reason in session.failed.items():  # last, where a log that was cut still has it
        print(f"FAILED: {name}: {reason}", file=sys.stderr)
    return 1 if session.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
