"""How fast collectors bring prepared batches from a queue into Postgres, beside a bare COPY.

The broker is filled first, by a producer that is done with its work then, and delivers nothing
until all collectors are connected to Postgres, as whoever copies is too. The time runs from the
first delivery to the last settle, as the broker sees them. So it holds all that a collector does
with a record, making partitions and learning the series included, and nothing of a source. The bare
COPY puts the same rows, ready-made, in the order in which they arrived, into a table with the same
index; its time is that of the statement with its commit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psycopg

from telemq.bench.fleet import Fleet
from telemq.bench.measure import Run
from telemq.bench.postgres import ServerUsage, bench_copy, rows_of, scratch_database
from telemq.bench.worker import Crew, Worker, count_from_here, stop_event
from telemq.broker.server import BrokerServer
from telemq.codec import BATCH, Encoder
from telemq.collector import service as collector
from telemq.engine.select import open_producer
from telemq.errors import TelemqError
from telemq.log import configure
from telemq.settings import BrokerSettings, CollectorSettings, StreamerSettings
from telemq.store.migrate import migrate
from telemq.store.series import SeriesIds
from telemq.store.verify import verify

__all__ = ["IngestLoad", "bench_ingest", "copy_prepared", "run_ingest", "subject"]

_TIMEOUT_S = 3600.0
_ANY = "127.0.0.1:0"
_STREAM = "bench"
_CONNECT_S = 30.0
_IDLE_COLLECTORS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'telemq collector' AND state = 'idle'
"""


@dataclass(frozen=True, slots=True)
class IngestLoad:
    """What is stored.

    Attributes:
        records: in all.
        batch_records: records a batch.
        fleet: whose.
        collectors: how many processes, for each subject.
    """

    records: int
    batch_records: int = 8192
    fleet: Fleet = field(default_factory=Fleet)
    collectors: tuple[int, ...] = (1,)


def bench_ingest(load: IngestLoad, dsn: str, runs: int) -> Iterator[Run]:
    """Measure `runs` times, turn by turn, each number of collectors, and the bare COPY.

    Each run has a database of its own on the server of `dsn`, which is dropped after it.

    Raises:
        TelemqError: a row was lost or doubled, or a process died.
        psycopg.Error: the server cannot be used, or does not let this user make databases.
    """
    for _ in range(runs):
        for count in load.collectors:
            with scratch_database(dsn) as scratch:
                yield run_ingest(load, count, scratch)
        with scratch_database(dsn) as scratch:
            yield copy_prepared(load, scratch)


def subject(count: int) -> str:
    """Give the name of so many collectors."""
    return f"{count} collector{'s' if count > 1 else ''}"


def run_ingest(load: IngestLoad, count: int, dsn: str) -> Run:
    """Store the load with so many collectors in an empty database.

    Raises:
        TelemqError: a row was lost or doubled, or a process died.
    """
    with psycopg.connect(dsn, autocommit=True) as conn, Crew() as crew:
        migrate(conn)
        broker = crew.start("broker", _serve, load)
        producers, consumers = broker.receive(_TIMEOUT_S)
        feeder = crew.start("feeder", _feed, producers, load)
        broker.receive(_TIMEOUT_S)
        conn.execute("CHECKPOINT")
        collectors = [crew.start("collector", _collect, dsn, consumers) for _ in range(count)]
        _wait_for_sessions(conn, count, collectors)
        server = ServerUsage(conn)
        broker.pipe.send("deliver")
        began, ended = broker.receive(_TIMEOUT_S)
        used = server.part()
        feeder.result(_TIMEOUT_S)
        parts = []
        for worker in (*collectors, broker):
            worker.pipe.send("stop")
            parts.append(worker.result(_TIMEOUT_S)[1])
        report = verify(conn)
        row = conn.execute("SELECT sum(stored) FROM ledger").fetchone()
        found = conn.execute("SELECT count(*) FROM telemetry").fetchone()
    if not report.complete or (row and row[0]) != load.records or found != row:
        raise TelemqError(f"of {load.records} rows the ledger has {row}, samples {found}: {report}")
    return Run(subject(count), load.records, ended - began, (*parts, *used))


def _wait_for_sessions(
    conn: psycopg.Connection[Any], count: int, collectors: Sequence[Worker]
) -> None:
    """Wait until the collectors are connected to Postgres and have nothing to do."""
    end = time.monotonic() + _CONNECT_S
    while True:
        row = conn.execute(_IDLE_COLLECTORS).fetchone()
        if row and row[0] >= count:
            return
        for worker in collectors:
            worker.check()
        if time.monotonic() > end:
            raise TelemqError(f"after {_CONNECT_S:g} s collectors are not connected to Postgres")
        time.sleep(0.02)


def copy_prepared(load: IngestLoad, dsn: str) -> Run:
    """Copy the rows of the load, in the order in which they come, into an empty database.

    Raises:
        TelemqError: they are not all there afterwards.
    """
    batches = list(load.fleet.batches(load.records, load.batch_records))
    with psycopg.connect(dsn, autocommit=True) as conn:
        migrate(conn)
        ids = SeriesIds(conn).of(batches)
    rows = rows_of(
        np.concatenate([of[b.series_index] for of, b in zip(ids, batches, strict=True)]),
        np.concatenate([batch.time_us for batch in batches]),
        np.concatenate([batch.value for batch in batches]),
    )
    return bench_copy(dsn, rows, load.records)


def _serve(pipe: Connection, load: IngestLoad) -> None:
    configure("warning")
    server = BrokerServer(
        BrokerSettings(
            producer_bind=f"tcp://{_ANY}",
            consumer_bind=f"tcp://{_ANY}",
            heartbeat_s=_CONNECT_S,  # nobody is heard while collectors connect
            # All of it must fit, credit for the next message included.
            capacity_records=2 * load.records + 1_000_000,
            capacity_bytes=2**34,
        )
    )
    pipe.send((server.producer_endpoint, server.consumer_endpoint))
    total = -(-load.records // load.batch_records)
    began = ended = 0.0
    stop: threading.Event | None = None
    is_full = False
    while stop is None or not stop.is_set():
        server.step(100)
        stats = server.core.stats()
        held = stats.ready_messages + stats.leased_messages
        if not is_full and held == total:
            is_full = True
            count_from_here()
            pipe.send("full")
            pipe.recv()
        if is_full and not began and stats.leased_messages:
            began = time.monotonic()
        if began and not ended and not held:
            ended = time.monotonic()
            pipe.send((began, ended))
            stop = stop_event(pipe)
    server.close()


def _feed(_pipe: Connection, endpoint: str, load: IngestLoad) -> None:
    configure("warning")
    settings = StreamerSettings(
        broker=endpoint, window_records=100_000_000, window_bytes=2**34, drain_s=0
    )
    link = open_producer(settings, name="bench")
    encoder = Encoder()
    first_row = confirmed = 0
    for batch in load.fleet.batches(load.records, load.batch_records):
        link.publish(
            f"{_STREAM}#{first_row}",
            batch.row_count,
            encoder.encode(batch),
            metadata={"content-type": BATCH},
        )
        first_row += batch.row_count
        confirmed += len(link.poll(0.0))
    total = -(-load.records // load.batch_records)
    while confirmed < total:
        confirmed += len(link.poll(1.0))
    link.close()


def _collect(pipe: Connection, dsn: str, endpoint: str) -> None:
    configure("warning")
    settings = CollectorSettings(dsn=dsn, broker=endpoint, ops_address=_ANY)
    count_from_here()
    collector.run(settings, stop_event(pipe))
