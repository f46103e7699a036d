"""A made-up fleet in a database, as a collector would have stored it."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import numpy as np
import psycopg

from telemq.record import BatchId, RecordBatch, SeriesLabels
from telemq.sources.synthetic import generate
from telemq.store.writer import StoredBatch, Writer

__all__ = ["store_fleet"]

_BATCH_ROWS = 20_000


def store_fleet(
    conn: psycopg.Connection[Any],
    *,
    hosts: int = 2,
    gpus_per_host: int = 4,
    minutes: float = 6,
    interval_s: int = 30,
    end: datetime | None = None,
) -> int:
    """Store what the GPUs of `telemq sample` measured until `end`, or now; give the row count."""
    end = (end or datetime.now(UTC)).replace(microsecond=0)
    text = io.StringIO()
    generate(
        text,
        hosts=hosts,
        gpus_per_host=gpus_per_host,
        minutes=minutes,
        interval_s=interval_s,
        # A scrape takes three seconds.
        start=end - timedelta(minutes=minutes) + timedelta(seconds=interval_s - 3),
    )
    text.seek(0)
    rows = csv.reader(text)
    next(rows)
    writer, first = Writer(conn), 0
    while some := list(islice(rows, _BATCH_ROWS)):
        writer.store([StoredBatch(BatchId("fleet", first), len(some), b"", _batch(some))])
        first += len(some)
    return first


def _batch(rows: list[list[str]]) -> RecordBatch:
    places: dict[SeriesLabels, int] = {}
    index, times, values = [], [], []
    for stamp, *labels, value, labels_raw in rows:
        series = SeriesLabels._make([*labels, labels_raw])
        index.append(places.setdefault(series, len(places)))
        times.append(int(datetime.fromisoformat(stamp).timestamp()) * 1_000_000)
        values.append(float(value))
    return RecordBatch(
        tuple(places),
        np.array(index, np.int32),
        np.array(times, np.int64),
        np.array(values, np.float64),
    )
