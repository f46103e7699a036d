"""How fast the whole pipeline is, from a CSV to committed rows, beside a bare COPY of them.

Every part is the real one in a process of its own, with the exactly-once machinery on and Postgres
as durable as it comes. The bare COPY puts the same rows, as ready-made binary, into a table with
the same partitions and index, in one statement: no source, no queue, no labels, no ledger. It is
what this database on this machine can take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from telemq.bench.measure import Part, Run, Worker, stop_event, usage
from telemq.broker.server import BrokerServer
from telemq.collector import service as collector
from telemq.errors import TelemqError
from telemq.log import configure
from telemq.settings import BrokerSettings, CollectorSettings, StreamerSettings
from telemq.store.migrate import migrate
from telemq.store.verify import verify
from telemq.streamer import service as streamer

__all__ = ["PipelineLoad", "bench_pipeline"]

_TIMEOUT_S = 3600.0
_ANY = "127.0.0.1:0"


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


def bench_pipeline(load: PipelineLoad, dsn: str, runs: int) -> Iterator[Run]:
    """Measure `runs` times, turn by turn, the pipeline and the bare COPY.

    Each run has a database of its own on the server of `dsn`, which is dropped after it.

    Raises:
        TelemqError: a row was lost or doubled, or a process died.
        psycopg.Error: the server cannot be used, or does not let this user make databases.
    """
    for _ in range(runs):
        name = f"telemq_bench_{uuid4().hex[:12]}"
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            try:
                scratch = make_conninfo(dsn, dbname=name)
                yield _run(load, scratch)
                yield _copy(scratch)
            finally:
                drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
                admin.execute(drop)


def _run(load: PipelineLoad, dsn: str) -> Run:
    with psycopg.connect(dsn, autocommit=True) as conn:
        migrate(conn)
    with ExitStack() as stack:

        def start(name: str, *args: object) -> Worker:
            worker = Worker(name, _PARTS[name], *args)
            stack.callback(worker.close)
            return worker

        broker = start("broker", load.collectors)
        producers, consumers = broker.receive(_TIMEOUT_S)
        collectors = [start("collector", dsn, consumers) for _ in range(load.collectors)]
        broker.receive(_TIMEOUT_S)
        streamers = [start("streamer", dsn, producers, load) for _ in range(load.streamers)]
        for worker in streamers:
            worker.receive(_TIMEOUT_S)
        for worker in streamers:
            worker.pipe.send("go")
        done = [worker.result(_TIMEOUT_S) for worker in streamers]
        ended = max(at for (_, at), _ in done)
        parts = []
        for worker in (*collectors, broker):
            worker.pipe.send("stop")
            parts.append(worker.result(_TIMEOUT_S)[1])
    with psycopg.connect(dsn, autocommit=True) as conn:
        report = verify(conn)
        row = conn.execute("SELECT sum(row_count) FROM ledger").fetchone()
    if not report.complete or row is None or row[0] != load.records:
        raise TelemqError(f"of {load.records} rows the ledger has {row and row[0]}: {report}")
    parts += [part for _, part in done]
    return Run("telemq pipeline", load.records, ended - min(at for (at, _), _ in done), (*parts,))


def _copy(dsn: str) -> Run:
    """Copy the rows of the run before once more, into a table like theirs."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        with conn.cursor().copy("COPY (SELECT * FROM sample) TO STDOUT (FORMAT binary)") as copy:
            rows = b"".join(bytes(part) for part in copy)
        conn.execute("ALTER TABLE sample RENAME TO sample_done")
        conn.execute("CREATE TABLE sample (LIKE sample_done INCLUDING ALL) PARTITION BY RANGE (ts)")
        conn.execute("CREATE TABLE sample_all PARTITION OF sample DEFAULT")
        conn.execute("CHECKPOINT")
        before = usage("client")
        begun = time.monotonic()
        with conn.cursor().copy("COPY sample FROM STDIN (FORMAT binary)") as copy:
            copy.write(rows)
        ended = time.monotonic()
        row = conn.execute("SELECT count(*) FROM sample").fetchone()
        after = usage("client")
    used = Part("client", after.cpu_s - before.cpu_s, after.peak_bytes)
    return Run("COPY BINARY alone", row[0] if row else 0, ended - begun, (used,))


def _serve_broker(pipe: Connection, collectors: int) -> None:
    configure("warning")
    server = BrokerServer(
        BrokerSettings(producer_bind=f"tcp://{_ANY}", consumer_bind=f"tcp://{_ANY}")
    )
    pipe.send((server.producer_endpoint, server.consumer_endpoint))
    while server.core.stats().consumers < collectors:
        server.step(100)
    pipe.send("all collectors are here")
    stop = stop_event(pipe)
    while not stop.is_set():
        server.step(100)
    server.close()


def _collect(pipe: Connection, dsn: str, broker: str) -> None:
    configure("warning")
    settings = CollectorSettings(dsn=dsn, broker=broker, ops_address=_ANY)
    collector.run(settings, stop_event(pipe))


def _stream(pipe: Connection, dsn: str, broker: str, load: PipelineLoad) -> tuple[float, float]:
    configure("warning")
    settings = StreamerSettings(
        dsn=dsn,
        broker=broker,
        ops_address=_ANY,
        rows=load.records,
        batch_records=load.batch_records,
    )
    pipe.send("ready")
    stop = stop_event(pipe, first="go")
    begun = time.monotonic()
    streamer.run(settings, load.csv, stop)
    return begun, time.monotonic()


_PARTS: dict[str, Callable[..., Any]] = {
    "broker": _serve_broker,
    "collector": _collect,
    "streamer": _stream,
}
