"""Daily partitions of the samples, made before anybody needs them.

A partition is made as a table of its own and then attached, because ``CREATE TABLE … PARTITION
OF`` locks all samples against everybody: one idle reader would hold it up, and it everybody else.
Attaching only keeps others from attaching (`SHARE UPDATE EXCLUSIVE`), and it is free on an
empty table.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

import psycopg
from psycopg import sql

__all__ = ["DAYS_AHEAD", "Partitions", "partition_name"]

#: Days made ahead of time, so that midnight is like any other moment.
DAYS_AHEAD = 7
#: Longest wait for the lock of another maker, or of maintenance on the table of samples.
_LOCK_MS = 10_000
#: Key of the advisory lock of those who make partitions; another than that of the migrations.
_MAKER = int.from_bytes(b"telemqpa")


def partition_name(day: date) -> str:
    """Give the name of a day's partition: ``sample_20260131``. Days are those of UTC."""
    return f"sample_{day:%Y%m%d}"


class Partitions:
    """Knows which days have a partition, and makes those that have none.

    Args:
        conn: in autocommit mode, outside a transaction: making a partition has its own.
    """

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        self._known: set[str] = set()
        self._ahead_of: date | None = None

    def ensure(self, days: Iterable[date], *, today: date) -> None:
        """Make what is missing for `days`, and from yesterday to `DAYS_AHEAD` days on.

        Costs nothing when all is known to be there.

        Raises:
            psycopg.Error: those made so far stay; ``LockNotAvailable`` when another maker or
                maintenance held its lock for too long.
        """
        wanted = set(days)
        if today != self._ahead_of:
            wanted.update(today + timedelta(days=n) for n in range(-1, DAYS_AHEAD + 1))
        missing = {d for d in wanted if partition_name(d) not in self._known}
        if missing:
            self._look()
        for day in sorted(missing):
            if partition_name(day) not in self._known:
                self._make(day)
        self._ahead_of = today

    def forget(self) -> None:
        """Forget which days have a partition: somebody may have dropped one."""
        self._known.clear()
        self._ahead_of = None

    def _look(self) -> None:
        rows = self._conn.execute(
            """
            SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
            WHERE inhparent = 'sample'::regclass
            """
        )
        self._known = {name for (name,) in rows}

    def _make(self, day: date) -> None:
        name = partition_name(day)
        table = sql.Identifier(name)
        create = sql.SQL("CREATE TABLE {} (LIKE sample INCLUDING ALL)").format(table)
        attach = sql.SQL("ALTER TABLE sample ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})")
        bounds = (sql.Literal(f"{d} 00:00+00") for d in (day, day + timedelta(days=1)))
        with self._conn.transaction():
            self._conn.execute(
                "SELECT set_config('lock_timeout', %s, true), pg_advisory_xact_lock(%s)",
                (f"{_LOCK_MS}ms", _MAKER),
            )
            self._look()
            if name in self._known:
                return
            self._conn.execute(create)
            self._conn.execute(attach.format(table, *bounds))
        self._known.add(name)
