"""What people do first: one wide table of text, filled by COPY, or by one INSERT a record.

COPY gets ready-made CSV in one statement, into a table without an index. INSERT has eight clients,
each a process with a connection of its own, prepared statements, and a commit a record, since a
record that was accepted must not be lost.
"""

from __future__ import annotations

import csv
import time
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path

import psycopg

from telemq.bench.measure import Part, Run, usage
from telemq.bench.postgres import ServerUsage
from telemq.bench.worker import Crew, count_from_here
from telemq.errors import TelemqError
from telemq.sources.csv_replay import COLUMNS

__all__ = ["INSERTS", "WIDE_COPY", "insert_each", "wide_copy"]

WIDE_COPY = "COPY of the wide table"
INSERTS = "INSERT a record, 8 clients"
_CLIENTS = 8
_TIMEOUT_S = 600.0
_TABLE = f"CREATE TABLE wide ({', '.join(f'{name} text' for name in COLUMNS)})"
_INSERT = f"INSERT INTO wide VALUES ({', '.join(['%s'] * len(COLUMNS))})"


def wide_copy(dsn: str, source: Path, records: int) -> Run:
    """Copy the file's rows, again and again, into an empty database.

    Raises:
        TelemqError: they are not all there afterwards.
    """
    with source.open("rb") as file:
        next(file)
        lines = list(file)
    rows = b"".join(islice(cycle(lines), records))
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(_TABLE)
        conn.execute("CHECKPOINT")
        server, before, began = ServerUsage(conn), usage("client"), time.monotonic()
        with conn.cursor().copy("COPY wide FROM STDIN (FORMAT csv)") as copy:
            copy.write(rows)
        seconds, after = time.monotonic() - began, usage("client")
        used = server.part()
        _check(conn, records)
    client = Part("client", after.cpu_s - before.cpu_s, after.peak_bytes)
    return Run(WIDE_COPY, records, seconds, (client, *used))


def insert_each(dsn: str, source: Path, records: int) -> Run:
    """Insert the file's rows, again and again, into an empty database.

    Raises:
        TelemqError: they are not all there afterwards.
    """
    each = -(-records // _CLIENTS)
    with psycopg.connect(dsn, autocommit=True) as conn, Crew() as crew:
        conn.execute(_TABLE)
        conn.execute("CHECKPOINT")
        clients = [crew.start("client", _insert, dsn, source, each) for _ in range(_CLIENTS)]
        for client in clients:
            client.receive(_TIMEOUT_S)
        server = ServerUsage(conn)
        for client in clients:
            client.pipe.send("go")
        done = [client.result(_TIMEOUT_S) for client in clients]
        used = server.part()
        _check(conn, each * _CLIENTS)
    # Not of their ends: a process takes a while for that.
    seconds = max(at for (_, at), _ in done) - min(began for (began, _), _ in done)
    return Run(INSERTS, each * _CLIENTS, seconds, (*(part for _, part in done), *used))


def _insert(pipe: Connection, dsn: str, source: Path, records: int) -> tuple[float, float]:
    with source.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as conn:
        pipe.send("ready")
        pipe.recv()
        count_from_here()
        began = time.monotonic()
        for row in islice(cycle(rows), records):
            conn.execute(_INSERT, row)
        return began, time.monotonic()


def _check(conn: psycopg.Connection, records: int) -> None:
    row = conn.execute("SELECT count(*) FROM wide").fetchone()
    if row is None or row[0] != records:
        raise TelemqError(f"of {records} rows the wide table has {row and row[0]}")
