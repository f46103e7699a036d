"""What the store needs now and then: partitions ahead, closed ones compacted, old ones dropped.

One pass does what is due and ends. Any number of passes may run at any time, on any machine, and
be killed at any moment: each step is a transaction that leaves the samples whole, and steps of two
passes exclude each other (`telemq.store.compact`).
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import IsolationLevel

from telemq import log
from telemq.errors import SettingError, StoreError
from telemq.settings_store import KeepSettings, MaintainSettings
from telemq.store import emptied, retention
from telemq.store.compact import Moved, compact
from telemq.store.migrate import migrate
from telemq.store.partitions import Partition, Partitions, existing, moment

__all__ = ["OLD_READERS", "Maintained", "connect", "maintain", "run"]

#: The name of the sessions of gateways that do not know of chunks yet.
OLD_READERS = "telemq api"
#: Longest wait of an ordinary statement for a lock.
_LOCK_MS = 5000
_ANOTHER = "another telemq maintain is at work"


@dataclass(frozen=True, slots=True)
class Maintained:
    """What a pass did; all of it is committed.

    Attributes:
        moved: samples moved into chunks.
        merged: samples of chunks that took in others.
        chunks: chunks written.
        dropped: samples dropped because of their age.
        partitions: partitions dropped.
        freed_bytes: of partitions that were emptied.
        waiting: partitions that were left for the next pass, because somebody used them.
        held_up: why nothing, or not all, was compacted; empty if all was.
    """

    moved: int = 0
    merged: int = 0
    chunks: int = 0
    dropped: int = 0
    partitions: int = 0
    freed_bytes: int = 0
    waiting: int = 0
    held_up: str = ""


def run(settings: MaintainSettings, stop: threading.Event) -> int:
    """Maintain the store, once or until `stop`; gives 0.

    Args:
        settings: with `dsn` resolved.
        stop: ends it, at the end of the step that it is in.

    Raises:
        SettingError: the DSN is malformed.
        StoreError: the database cannot be used. With `every_s` it is tried again instead.
    """
    while True:
        try:
            with connect(settings.dsn) as conn:
                done = maintain(conn, settings, go_on=lambda: not stop.is_set())
            log.get().info("maintained", **dataclasses.asdict(done))
        except (psycopg.Error, StoreError) as error:
            text = str(error).strip() or type(error).__name__
            if not settings.every_s:
                raise StoreError(f"cannot maintain: {text}") from error
            log.get().warning("not maintained", reason=text, again_in_s=settings.every_s)
        if not settings.every_s or stop.wait(settings.every_s):
            return 0


def connect(dsn: str) -> psycopg.Connection[Any]:
    """Open a connection that is fit for `maintain`, to an up-to-date schema.

    Raises:
        SettingError: the DSN is malformed.
        StoreError: the schema cannot be brought up to date.
        psycopg.Error: no connection.
    """
    try:
        conn = psycopg.connect(dsn, autocommit=True, application_name="telemq maintain")
    except psycopg.ProgrammingError as error:
        accepted = "a Postgres connection string or URL"
        raise SettingError("--dsn", "(secret)", accepted) from error
    try:
        migrate(conn)
        # A statement must see what was there when it began, not when its transaction did.
        conn.isolation_level = IsolationLevel.READ_COMMITTED
        conn.execute("SELECT set_config('lock_timeout', %s, false)", [f"{_LOCK_MS}ms"])
    except BaseException:
        conn.close()
        raise
    return conn


def maintain(
    conn: psycopg.Connection[Any],
    settings: KeepSettings,
    *,
    now: datetime | None = None,
    go_on: Callable[[], bool] = lambda: True,
    fail_point: Callable[[str], None] = lambda _: None,
) -> Maintained:
    """Make one pass.

    Args:
        conn: made by `connect`.
        settings: what is closed, and what is kept for how long.
        now: the wall's clock; the database's unless given.
        go_on: asked between steps.
        fail_point: called within and between the steps; for tests.

    Raises:
        psycopg.Error: what was done before stays done.
        StoreError: a count does not agree; the step is undone.
    """
    step = _Pass(conn, settings, now or _clock(conn), go_on, fail_point)
    Partitions(conn, settings.partition_hours).ensure([], now_us=step.now_us)
    fail_point("ahead")
    try:
        if settings.keep_days:
            step.drop_old()
        if not settings.keep_raw:
            step.compact()
        step.free()
    except psycopg.errors.UndefinedTable:
        if step.all_there():
            raise
        step.hold_up(_ANOTHER)  # it dropped a partition that was still there a moment ago
    return step.done


class _Pass:
    """One pass and what it has done so far."""

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        settings: KeepSettings,
        now: datetime,
        go_on: Callable[[], bool],
        fail_point: Callable[[str], None],
    ) -> None:
        self._conn = conn
        self._settings = settings
        self._now = now
        self._go_on = go_on
        self._fail_point = fail_point
        self.now_us = (now - moment(0)) // timedelta(microseconds=1)
        self.done = Maintained()
        self._seen: list[Partition] = []

    def drop_old(self) -> None:
        """Drop partitions and chunks that are too old."""
        before = self._now - timedelta(days=self._settings.keep_days)
        for partition in self._partitions():
            if moment(partition.end_us) <= before and self._go_on():
                with self._unless_in_use():
                    samples = retention.drop_partition(
                        self._conn,
                        partition.name,
                        moment(partition.end_us),
                        fail_point=self._fail_point,
                    )
                    if samples is not None:
                        self._add(dropped=samples, partitions=1)
        samples = retention.drop_chunks(self._conn, before, fail_point=self._fail_point)
        self._add(dropped=samples)

    def compact(self) -> None:
        """Move what closed partitions hold into chunks."""
        row = self._conn.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = %s",
            [OLD_READERS],
        ).fetchone()
        if row is not None and row[0]:
            self.hold_up("a gateway of an older version is connected, which sees no chunks")
            return
        for partition in self._closed():
            if not self._go_on() or not emptied.has_samples(self._conn, partition.name):
                continue
            moved: Moved | None = Moved()
            with self._unless_in_use():
                moved = compact(
                    self._conn, partition.name, go_on=self._go_on, fail_point=self._fail_point
                )
            if moved is None:
                self.hold_up(_ANOTHER)
                return
            self._count(moved)

    def free(self) -> None:
        """Truncate and then drop closed partitions that are empty."""
        empty = [p.name for p in self._closed() if not emptied.has_samples(self._conn, p.name)]
        emptied.note_empty(self._conn, empty)
        self._fail_point("empty noted")
        quiet = self._now - timedelta(seconds=self._settings.close_after_s)
        unseen = emptied.unseen(self._conn, empty)
        droppable = [name for name, at in unseen.items() if at <= quiet]
        for name in unseen.keys() - set(droppable):
            with self._unless_in_use():
                self._add(freed_bytes=emptied.truncate(self._conn, name))
            self._fail_point("truncated")
        if droppable:
            with self._unless_in_use():
                self._add(partitions=len(emptied.drop(self._conn, droppable)))
            self._fail_point("partitions dropped")

    def hold_up(self, why: str) -> None:
        """Note why not all was done."""
        self.done = dataclasses.replace(self.done, held_up=why)

    def all_there(self) -> bool:
        """Tell whether the partitions are those that were last seen."""
        seen = self._seen
        return seen == self._partitions()

    def _partitions(self) -> list[Partition]:
        with self._conn.transaction():
            self._seen = existing(self._conn)
        return self._seen

    def _closed(self) -> list[Partition]:
        end_us = self.now_us - int(self._settings.close_after_s * 1_000_000)
        return [p for p in self._partitions() if p.end_us <= end_us]

    def _count(self, moved: Moved) -> None:
        self._add(moved=moved.samples, merged=moved.merged, chunks=moved.chunks)

    def _add(self, **counts: int) -> None:
        values = {name: getattr(self.done, name) + count for name, count in counts.items()}
        self.done = dataclasses.replace(self.done, **values)

    @contextmanager
    def _unless_in_use(self) -> Iterator[None]:
        """Leave a partition for the next pass if its lock is not had."""
        try:
            yield
        except psycopg.errors.LockNotAvailable:
            self._add(waiting=1)


def _clock(conn: psycopg.Connection[Any]) -> datetime:
    row = conn.execute("SELECT now()").fetchone()
    assert row is not None  # no FROM
    now: datetime = row[0]
    return now
