"""Two layouts of the same samples in one database: telemq's store, and the table people make first.

That is one wide table: a row a sample, all labels as text, an index on (uuid, timestamp). Both get
the samples in the order of scrapes, as they would have come in life: the store through its own
writer, in commits as large as a busy collector's; the wide table in one COPY of ready-made rows.
The wide table is not logged and its rows are frozen as they come, which saves writing them two more
times, and changes neither its size nor how it is read.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from telemq.bench.fleet import START_US, Fleet, value_of
from telemq.bench.postgres import EPOCH_US, HEADER, TRAILER
from telemq.codec import BATCH
from telemq.record import BatchId
from telemq.store.writer import StoredBatch, Writer

__all__ = ["StoreSize", "fill_store", "fill_wide", "store_bytes", "wide_bytes"]

#: Records of a commit while the store is filled, and of a batch: whole scrapes where they fit.
_COMMIT_RECORDS, _BATCH_RECORDS = 100_000, 25_000
#: Series of one piece of ready-made rows, of 520 bytes each.
_PIECE_SERIES = 10_000

_WIDE = """
CREATE UNLOGGED TABLE wide (
    timestamp timestamptz, metric_name text, gpu_id text, device text, uuid text, model_name text,
    hostname text, container text, pod text, namespace text, value double precision,
    labels_raw text
)
"""
_COPY_WIDE = "COPY wide FROM STDIN (FORMAT binary, FREEZE)"
_STORE_BYTES = """
SELECT coalesce(sum(pg_table_size(c.oid) + pg_indexes_size(c.oid)), 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  AND c.relkind IN ('r', 'm') AND c.relname <> 'wide'
"""
_WIDE_BYTES = "SELECT pg_total_relation_size('wide')"


@dataclass(frozen=True, slots=True)
class StoreSize:
    """What one layout takes.

    Attributes:
        layout: which.
        samples: stored.
        disk_bytes: tables and indexes.
    """

    layout: str
    samples: int
    disk_bytes: int

    @property
    def sample_bytes(self) -> float:
        """Bytes a sample."""
        return self.disk_bytes / self.samples


def fill_store(
    conn: psycopg.Connection[Any], fleet: Fleet, scrapes: int, seconds_max: float = 0.0
) -> int:
    """Store scrapes of the whole fleet.

    Args:
        conn: to a database with the schema.
        fleet: that is scraped.
        scrapes: how many.
        seconds_max: after which no more are begun; 0 is no limit.

    Returns:
        How many there are now, which is more than none.
    """
    writer = Writer(conn)
    end = time.monotonic() + seconds_max
    batch_records = max(1, _BATCH_RECORDS // fleet.series) * fleet.series
    batches = fleet.batches(scrapes * fleet.series, min(batch_records, _BATCH_RECORDS))
    stored = 0
    while some := list(islice(batches, max(1, _COMMIT_RECORDS // batch_records))):
        ready = []
        for batch in some:
            ready.append(
                StoredBatch(BatchId("bench", stored), batch.row_count, BATCH.encode(), batch)
            )
            stored += batch.row_count
        writer.store(ready)
        if seconds_max and time.monotonic() > end and not stored % fleet.series:
            break
    conn.execute("VACUUM (ANALYZE)")
    return stored // fleet.series


def fill_wide(conn: psycopg.Connection[Any], fleet: Fleet, scrapes: int) -> None:
    """Make the wide table of the same scrapes, and its index."""
    pieces = [
        _Piece(fleet, range(first, min(first + _PIECE_SERIES, fleet.series)))
        for first in range(0, fleet.series, _PIECE_SERIES)
    ]
    with conn.transaction():
        conn.execute(_WIDE)
        with conn.cursor().copy(_COPY_WIDE) as copy:
            copy.write(HEADER)
            for scrape in range(scrapes):
                for piece in pieces:
                    copy.write(piece.rows(scrape))
            copy.write(TRAILER)
    conn.execute("SET maintenance_work_mem = '1GB'")
    conn.execute("CREATE INDEX wide_uuid_timestamp ON wide (uuid, timestamp)")
    conn.execute("RESET maintenance_work_mem")
    conn.execute("VACUUM (ANALYZE) wide")


def store_bytes(conn: psycopg.Connection[Any]) -> int:
    """Give what the store's tables and indexes take."""
    return _one(conn, _STORE_BYTES)


def wide_bytes(conn: psycopg.Connection[Any]) -> int:
    """Give what the wide table and its index take."""
    return _one(conn, _WIDE_BYTES)


def _one(conn: psycopg.Connection[Any], question: str) -> int:
    row = conn.execute(question.encode()).fetchone()
    assert row is not None
    return int(row[0])


class _Piece:
    """Rows of some series of a fleet for COPY BINARY, in which only times and values change."""

    def __init__(self, fleet: Fleet, numbers: range) -> None:
        self._step_us = int(fleet.interval_s * 1e6)
        self._numbers = np.arange(numbers.start, numbers.stop)
        rows = [list(_row_of(fleet, number)) for number in numbers]
        self._rows = np.frombuffer(b"".join(b"".join(row) for row in rows), np.uint8).copy()
        ends = np.cumsum([sum(map(len, row)) for row in rows])
        begins = np.concatenate([[0], ends[:-1]])
        # Before the time: the count of fields and a length; behind the value: one field more.
        self._times = _eight_from(begins + 6)
        self._values = _eight_from(ends - [len(row[-1]) + 8 for row in rows])

    def rows(self, scrape: int) -> bytes:
        """Give those of one scrape."""
        time_us = START_US + scrape * self._step_us - EPOCH_US
        self._rows[self._times] = np.frombuffer(struct.pack(">q", time_us), np.uint8)
        values = value_of(np.int64(scrape), self._numbers).astype(">f8")
        self._rows[self._values] = values.view(np.uint8).reshape(-1, 8)
        return self._rows.tobytes()


def _row_of(fleet: Fleet, number: int) -> Iterator[bytes]:
    """Yield the count of fields, and each field after its length, time and value being zero."""
    labels = fleet.labels(number)
    yield struct.pack(">h", 12)
    yield _field(bytes(8))
    for label in labels[:-1]:
        yield _field(label.encode())
    yield _field(bytes(8))
    yield _field(labels.labels_raw.encode())


def _field(value: bytes) -> bytes:
    return struct.pack(">i", len(value)) + value


def _eight_from(places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return places[:, np.newaxis] + np.arange(8)
