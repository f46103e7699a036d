"""Partitions of the samples, each of a range of time, made before anybody needs them.

A partition is made as a table of its own and then attached, because ``CREATE TABLE … PARTITION
OF`` locks all samples against everybody: one idle reader would hold it up, and it everybody else.
Attaching only keeps others from attaching (`SHARE UPDATE EXCLUSIVE`), and it is free on an
empty table.

How wide a new one is may change from one start to the next, and differ between those who make
them: whoever makes one looks under a lock at what is there, and makes only what is not covered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

__all__ = [
    "AHEAD",
    "EXISTING",
    "Partition",
    "Partitions",
    "existing",
    "gaps",
    "moment",
    "partition_name",
]

#: Partitions made ahead of time, so that the end of one is like any other moment.
AHEAD = 7
#: Longest wait for the lock of another maker, or of maintenance on the table of samples.
_LOCK_MS = 10_000
#: Key of the advisory lock of those who make partitions; another than that of the migrations.
_MAKER = int.from_bytes(b"telemqpa")
_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Names and ranges of the partitions that have a range, by time.
# A bound is shown in the session's time zone and style, and read in the same.
EXISTING: LiteralString = r"""
WITH shown AS (
    SELECT c.relname::text AS name, regexp_match(
        pg_get_expr(c.relpartbound, c.oid), $$FROM \('(.*)'\) TO \('(.*)'\)$$) AS bound
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'sample'::regclass AND NOT i.inhdetachpending
)
SELECT name, (extract(epoch FROM bound[1]::timestamptz) * 1000000)::int8,
       (extract(epoch FROM bound[2]::timestamptz) * 1000000)::int8
FROM shown WHERE bound IS NOT NULL ORDER BY 2
"""


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of `sample`; its range in microseconds since 1970 UTC, the end excluded."""

    name: str
    start_us: int
    end_us: int


def existing(conn: psycopg.Connection[Any]) -> list[Partition]:
    """Give the partitions that have a range, by time.

    Args:
        conn: in a transaction, whose time zone and date style are set.
    """
    conn.execute("SELECT set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true)")
    return [Partition(*row) for row in conn.execute(EXISTING)]


def gaps(start_us: int, end_us: int, taken: Iterable[Partition]) -> list[tuple[int, int]]:
    """Give what of a range is in no partition, by time.

    Args:
        start_us: of the range.
        end_us: of the range, excluded.
        taken: without overlap, by time.
    """
    free = []
    for partition in taken:
        if partition.end_us <= start_us or partition.start_us >= end_us:
            continue
        if partition.start_us > start_us:
            free.append((start_us, partition.start_us))
        start_us = partition.end_us
    if start_us < end_us:
        free.append((start_us, end_us))
    return free


def partition_name(start_us: int, end_us: int) -> str:
    """Give the name of a range's partition; that of a day of UTC is ``sample_20260131``."""
    start = moment(start_us)
    if end_us - start_us == _DAY_US and start_us % _DAY_US == 0:
        return f"sample_{start:%Y%m%d}"
    return f"sample_{start:%Y%m%d_%H%M%S}_to_{moment(end_us):%Y%m%d_%H%M%S}"


def moment(time_us: int) -> datetime:
    """Give a time in microseconds since 1970 as a datetime in UTC."""
    return _EPOCH + timedelta(microseconds=time_us)


class Partitions:
    """Knows for which times there is a partition, and makes those that are missing.

    Args:
        conn: in autocommit mode, outside a transaction: making a partition has its own.
        hours: width of new ones; they begin at multiples of it since 1970 UTC.
    """

    def __init__(self, conn: psycopg.Connection[Any], hours: int = 24) -> None:
        self._conn = conn
        self._width_us = hours * _HOUR_US
        # Multiples of the width, of which every moment is in some partition.
        self._known: set[int] = set()
        self._ahead_of: int | None = None

    def ensure(self, times: Iterable[npt.NDArray[np.int64]], *, now_us: int) -> None:
        """Make what is missing for `times`, and from now to `AHEAD` partitions on.

        Costs nothing when all is known to be there.

        Args:
            times: in microseconds since 1970 UTC.
            now_us: the wall's clock.

        Raises:
            psycopg.Error: those made so far stay; ``LockNotAvailable`` when another maker or
                maintenance held its lock for too long.
        """
        wanted: set[int] = set()
        for time_us in times:
            wanted.update(np.unique(time_us // self._width_us).tolist())
        now = now_us // self._width_us
        if now != self._ahead_of:
            wanted.update(range(now, now + AHEAD + 1))
        missing = sorted(wanted - self._known)
        if missing:
            with self._conn.transaction():
                taken = existing(self._conn)
            for number in missing:
                if gaps(*self._range(number), taken):
                    self._make(number)
                self._known.add(number)
        self._ahead_of = now

    def forget(self) -> None:
        """Forget for which times there is a partition: somebody may have dropped one."""
        self._known.clear()
        self._ahead_of = None

    def _range(self, number: int) -> tuple[int, int]:
        return number * self._width_us, (number + 1) * self._width_us

    def _make(self, number: int) -> None:
        create = sql.SQL("CREATE TABLE {} (LIKE sample INCLUDING ALL)")
        attach = sql.SQL("ALTER TABLE sample ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})")
        with self._conn.transaction():
            self._conn.execute(
                "SELECT set_config('lock_timeout', %s, true), pg_advisory_xact_lock(%s)",
                (f"{_LOCK_MS}ms", _MAKER),
            )
            for start_us, end_us in gaps(*self._range(number), existing(self._conn)):
                table = sql.Identifier(partition_name(start_us, end_us))
                bounds = (sql.Literal(moment(time_us)) for time_us in (start_us, end_us))
                self._conn.execute(create.format(table))
                self._conn.execute(attach.format(table, *bounds))
