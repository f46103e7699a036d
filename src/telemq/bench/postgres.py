"""What the benchmarks ask of a Postgres: a database of their own, its CPU time, and a bare COPY."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from telemq.bench.measure import Part, Run, process_usage, usage
from telemq.errors import TelemqError

__all__ = [
    "COPY",
    "EPOCH_US",
    "HEADER",
    "TRAILER",
    "ServerUsage",
    "bench_copy",
    "copy_rows",
    "rows_of",
    "scratch_database",
]

#: The subject that others are compared with.
COPY = "COPY BINARY alone"

#: Postgres counts microseconds from 2000-01-01 UTC.
EPOCH_US = 946_684_800_000_000
#: What COPY BINARY begins and ends with.
HEADER, TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
#: One row of COPY BINARY: the count of fields, and before each field its length in bytes.
_ROW = np.dtype(
    [("fields", ">i2"), ("a", ">i4"), ("series_id", ">i4"), ("b", ">i4"), ("ts", ">i8"),
     ("c", ">i4"), ("value", ">f8")]
)  # fmt: skip


@contextlib.contextmanager
def scratch_database(dsn: str) -> Iterator[str]:
    """Yield the DSN of a new database on the server of `dsn`; it is dropped afterwards.

    Raises:
        psycopg.Error: the server cannot be used, or does not let this user make databases.
    """
    name = f"telemq_bench_{uuid4().hex[:12]}"
    database = sql.Identifier(name)
    # Not one connection for both: the server may have been restarted meanwhile.
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(database))
    try:
        yield make_conninfo(dsn, dbname=name)
    finally:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))


class ServerUsage:
    """CPU time of the whole server from its making on, if it is on this machine and a Linux.

    Args:
        conn: to the server.
    """

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        row = conn.execute("SELECT pg_backend_pid()").fetchone()
        self._postmaster = _parent_of(row[0]) if row else None
        self._before_s = self._cpu_s()

    def part(self) -> tuple[Part, ...]:
        """Give what was used since, as a part called ``postgres``; nothing if it is not known."""
        if self._postmaster is None:
            return ()
        return (Part("postgres", self._cpu_s() - self._before_s, 0),)

    def _cpu_s(self) -> float:
        if self._postmaster is None:
            return 0.0
        # What has ended is counted with the postmaster, which waited for it.
        used = process_usage("", self._postmaster).cpu_s
        for stat in Path("/proc").glob("[0-9]*/stat"):
            pid = int(stat.parent.name)
            with contextlib.suppress(OSError):
                if _parent_of(pid) == self._postmaster:
                    used += process_usage("", pid).cpu_s
        return used


def _parent_of(pid: int) -> int | None:
    """Give the parent of one of Postgres' processes; None for any other, or none."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return None
    return int(rest.split()[1]) if name.startswith("postgres") else None


def rows_of(
    series_id: npt.NDArray[np.int32], time_us: npt.NDArray[np.int64], value: npt.NDArray[np.float64]
) -> bytes:
    """Give rows of (series_id, ts, value) as COPY BINARY wants them, in the order given."""
    rows = np.empty(len(value), _ROW)
    rows["fields"], rows["a"], rows["b"], rows["c"] = 3, 4, 8, 8
    rows["series_id"], rows["ts"], rows["value"] = series_id, time_us - EPOCH_US, value
    return b"".join((HEADER, rows.data, TRAILER))


def copy_rows(conn: psycopg.Connection[Any], table: str, rows: bytes) -> None:
    """Copy ready-made rows into a table of (series_id, ts, value)."""
    into = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(sql.Identifier(table))
    with conn.cursor().copy(into) as copy:
        copy.write(rows)


def bench_copy(dsn: str, rows: bytes, records: int) -> Run:
    """Copy ready-made rows, in one statement, into a table like `sample`: its columns and index.

    Args:
        dsn: of a database with the schema.
        rows: as of `rows_of`.
        records: how many that are.

    Raises:
        TelemqError: they are not all there afterwards.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("DROP TABLE IF EXISTS bench_copy")
        conn.execute(
            "CREATE TABLE bench_copy (LIKE sample INCLUDING ALL) PARTITION BY RANGE (ts);"
            "CREATE TABLE bench_copy_all PARTITION OF bench_copy DEFAULT;"
            "CHECKPOINT"
        )
        server, before = ServerUsage(conn), usage("client")
        began = time.monotonic()
        copy_rows(conn, "bench_copy", rows)
        ended = time.monotonic()
        after, used = usage("client"), server.part()
        found = conn.execute("SELECT count(*) FROM bench_copy").fetchone()
        conn.execute("DROP TABLE bench_copy")
    if not found or found[0] != records:
        raise TelemqError(f"of {records} rows {found and found[0]} were copied")
    client = Part("client", after.cpu_s - before.cpu_s, after.peak_bytes)
    return Run(COPY, records, ended - began, (client, *used))
