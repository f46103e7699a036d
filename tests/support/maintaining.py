"""A store with samples at chosen times, one pass of maintenance, and all that a query sees."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg

from telemq.record import BatchId, RecordBatch
from telemq.settings import KeepSettings
from telemq.store.maintain import Maintained, connect, maintain
from telemq.store.writer import StoredBatch, Writer
from tests.support.batches import labels

__all__ = ["DAY", "NOW", "Seen", "batch_at", "fail_at", "pass_over", "put", "seen"]

#: A day whose partition is closed at `NOW`.
DAY = datetime(2026, 3, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)

#: Series, time, and the eight bytes of the value; how often each is there.
Seen = Counter[tuple[int, datetime, bytes]]
_rows = itertools.count(0, 1_000_000)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def batch_at(samples: Sequence[tuple[int, datetime, float]], stream: str = "s") -> StoredBatch:
    """A batch of samples, each of a series, a time and a value."""
    count = 1 + max(series for series, _, _ in samples)
    batch = RecordBatch(
        tuple(labels(gpu) for gpu in range(count)),
        np.array([series for series, _, _ in samples], np.int32),
        np.array([(at - _EPOCH) // timedelta(microseconds=1) for _, at, _ in samples], np.int64),
        np.array([value for _, _, value in samples], np.float64),
        (),
    )
    return StoredBatch(BatchId(stream, next(_rows)), len(samples), b"", batch)


def put(conn: psycopg.Connection[Any], samples: Sequence[tuple[int, datetime, float]]) -> None:
    """Store samples as a collector does."""
    if samples:
        Writer(conn).store([batch_at(samples)])


def seen(conn: psycopg.Connection[Any]) -> Seen:
    """Every sample that the view shows, with the bits of its value."""
    rows = conn.execute("SELECT series_id, ts, float8send(value) FROM every_sample")
    return Counter((series, at, bytes(value)) for series, at, value in rows)


def pass_over(
    dsn: str,
    *,
    now: datetime = NOW,
    fail_point: Callable[[str], None] = lambda _: None,
    conn: psycopg.Connection[Any] | None = None,
    **settings: Any,
) -> Maintained:
    """One pass, over a connection of its own unless one is given."""
    if conn is not None:
        return maintain(conn, KeepSettings(**settings), now=now, fail_point=fail_point)
    with connect(dsn) as own:
        return maintain(own, KeepSettings(**settings), now=now, fail_point=fail_point)


class fail_at:  # reads as a verb where it is used
    """A fail point that does something at the n-th moment."""

    def __init__(self, number: int, action: Callable[[], None]) -> None:
        self.left = number
        self._action = action

    def __call__(self, _moment: str) -> None:
        """Count one moment."""
        self.left -= 1
        if self.left == 0:
            self._action()
