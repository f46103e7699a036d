"""How fast the whole pipeline is, from a CSV to committed rows, beside a bare COPY of them.

Every part is the real one in a process of its own, with the exactly-once machinery on and Postgres
as durable as it comes. The time is that of reading the file, and from the first lease to the last
commit, as streamers see them; processes, connections and ops servers are there before, as those of
whoever copies are. The bare COPY puts the same rows, as ready-made binary, into a table with
the same partitions and index, in one statement: no source, no queue, no labels, no ledger. It is
what this database on this machine can take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg

from telemq.bench.measure import Part, Run
from telemq.bench.postgres import ServerUsage, bench_copy, rows_of, scratch_database
from telemq.bench.worker import Crew, count_from_here, stop_event
from telemq.broker.server import BrokerServer
from telemq.clock import utc_us
from telemq.collector import service as collector
from telemq.errors import TelemqError
from telemq.log import configure
from telemq.settings import BrokerSettings, CollectorSettings, StreamerSettings
from telemq.sources.csv_replay import read_csv
from telemq.store.migrate import migrate
from telemq.store.series import SeriesIds
from telemq.store.verify import verify
from telemq.streamer import service as streamer
from telemq.streamer.pacing import stamps_us

__all__ = ["BROKER", "PipelineLoad", "Queue", "bench_pipeline", "copy_arrived", "run_pipeline"]

_TIMEOUT_S = 3600.0
_ANY = "127.0.0.1:0"
#: Which queue streamers and collectors use, as their settings say it.
Flags = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PipelineLoad:
    """What is carried.

    Attributes:
        csv: the file that is replayed.
        records: rows in all.
        batch_records: rows a batch.
        streamers: processes.
        collectors: processes.
    """

    csv: Path
    records: int
    batch_records: int
    streamers: int
    collectors: int


@dataclass(frozen=True, slots=True)
class Queue:
    """What lies between streamers and collectors.

    Attributes:
        name: for the report.
        serve: runs it: sends the settings of streamers and those of collectors through the pipe,
            and something more when all collectors are there; ends when something comes.
    """

    name: str
    serve: Callable[[Connection, int], Part | None]


def bench_pipeline(load: PipelineLoad, dsn: str, runs: int) -> Iterator[Run]:
    """Measure `runs` times, turn by turn, the pipeline and the bare COPY.

    Each run has a database of its own on the server of `dsn`, which is dropped after it.

    Args:
        load: what is carried.
        dsn: of a server where databases may be made.
        runs: of each.

    Raises:
        TelemqError: a row was lost or doubled, or a process died.
        psycopg.Error: the server cannot be used, or does not let this user make databases.
    """
    for _ in range(runs):
        with scratch_database(dsn) as scratch:
            yield run_pipeline(BROKER, load, scratch)
        with scratch_database(dsn) as scratch:
            yield copy_arrived(load, scratch)


def run_pipeline(queue: Queue, load: PipelineLoad, dsn: str) -> Run:
    """Carry the load once, into an empty database.

    Raises:
        TelemqError: a row was lost or doubled, or a process died.
    """
    with psycopg.connect(dsn, autocommit=True) as conn, Crew() as crew:
        migrate(conn)
        broker = crew.start("broker", queue.serve, load.collectors)
        producers, consumers = broker.receive(_TIMEOUT_S)
        collectors = [
            crew.start("collector", _collect, dsn, consumers) for _ in range(load.collectors)
        ]
        broker.receive(_TIMEOUT_S)
        streamers = [
            crew.start("streamer", _stream, dsn, producers, load) for _ in range(load.streamers)
        ]
        for worker in streamers:
            worker.receive(_TIMEOUT_S)
        conn.execute("CHECKPOINT")  # as before the COPY
        server = ServerUsage(conn)
        for worker in streamers:
            worker.pipe.send("go")
        done = [worker.result(_TIMEOUT_S) for worker in streamers]
        used = server.part()
        stopped = []
        for worker in (*collectors, broker):
            worker.pipe.send("stop")
            stopped.append(worker.result(_TIMEOUT_S))
        report = verify(conn)
        row = conn.execute("SELECT sum(row_count) FROM ledger").fetchone()
    if not report.complete or row is None or row[0] != load.records:
        raise TelemqError(f"of {load.records} rows the ledger has {row and row[0]}: {report}")
    # That all is stored is seen by one streamer a little earlier than by the others.
    began, ended = min(began for (began, _), _ in done), min(at for (_, at), _ in done)
    parts = [told if isinstance(told, Part) else own for told, own in stopped]
    parts += [part for _, part in done]
    return Run(queue.name, load.records, ended - began, (*parts, *used))


def copy_arrived(load: PipelineLoad, dsn: str) -> Run:
    """Copy the rows of the load, in the order in which they come, into an empty database.

    Raises:
        TelemqError: they are not all there afterwards.
    """
    replay = read_csv(load.csv)
    batch = replay.batch(0, load.records, stamps_us(0, utc_us(), load.records))
    with psycopg.connect(dsn, autocommit=True) as conn:
        migrate(conn)
        (ids,) = SeriesIds(conn).of([batch])
    return bench_copy(
        dsn, rows_of(ids[batch.series_index], batch.time_us, batch.value), load.records
    )


def _serve_broker(pipe: Connection, collectors: int) -> None:
    configure("warning")
    server = BrokerServer(
        BrokerSettings(producer_bind=f"tcp://{_ANY}", consumer_bind=f"tcp://{_ANY}")
    )
    pipe.send(({"broker": server.producer_endpoint}, {"broker": server.consumer_endpoint}))
    while server.core.stats().consumers < collectors:
        server.step(100)
    pipe.send("all collectors are here")
    count_from_here()
    stop = stop_event(pipe)
    while not stop.is_set():
        server.step(100)
    server.close()


def _collect(pipe: Connection, dsn: str, flags: Flags) -> None:
    configure("warning")
    settings = CollectorSettings(dsn=dsn, ops_address=_ANY)
    count_from_here()
    collector.run(replace(settings, **flags), stop_event(pipe))


class _Watch:
    """Notes when a streamer first knew its stream, and when all of it was stored."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0

    def __call__(self, stored: int, rows: int) -> None:
        now = time.monotonic()
        self.began = self.began or now
        if stored >= rows:
            self.ended = self.ended or now


def _stream(pipe: Connection, dsn: str, flags: Flags, load: PipelineLoad) -> tuple[float, float]:
    configure("warning")
    settings = StreamerSettings(
        dsn=dsn, ops_address=_ANY, rows=load.records, batch_records=load.batch_records
    )
    began = time.monotonic()
    read_csv(load.csv)
    reading_s = time.monotonic() - began
    pipe.send("ready")
    stop, watch = stop_event(pipe, first="go"), _Watch()
    count_from_here()
    began = time.monotonic()
    streamer.run(replace(settings, **flags), load.csv, stop, watch)
    return (watch.began or began) - reading_s, watch.ended or time.monotonic()


BROKER = Queue("telemq pipeline", _serve_broker)
