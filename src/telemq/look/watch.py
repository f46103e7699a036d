"""`telemq gpus`: reads the last minutes from Postgres, and again until it is stopped."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import psycopg

from telemq.errors import SettingError, StoreError
from telemq.look.board import METRICS, Wanted, ordered, rows_of
from telemq.look.screen import View
from telemq.settings import GpusSettings
from telemq.store import recent

__all__ = ["SLOTS", "once", "watch"]

#: Parts of a sparkline.
SLOTS = 20
#: Longest wait for Postgres to take a cancel.
_CANCEL_S = 2.0


def once(settings: GpusSettings, wanted: Wanted) -> View:
    """Read once.

    Args:
        settings: with `dsn` resolved.
        wanted: which GPUs.

    Raises:
        SettingError: there are GPUs, but none that is wanted; or the DSN is malformed.
        StoreError: the database is none of telemq's, or too slow.
        psycopg.OperationalError: it cannot be reached.
    """
    with _connected(settings) as conn:
        return _Fleet(settings, wanted).read(conn)


def watch(settings: GpusSettings, wanted: Wanted, stop: threading.Event) -> Iterator[View]:
    """Read over and over until `stop`; a database that goes away is told in the view.

    Raises:
        As `once`, if not even the first reading could be had.
    """
    fleet = _Fleet(settings, wanted)
    threading.Thread(target=fleet.cancel_at, args=(stop,), name="canceller", daemon=True).start()
    view: View | None = None
    while True:
        try:
            with _connected(settings) as conn:
                while True:
                    view = fleet.read(conn)
                    yield view
                    if stop.wait(settings.interval_s):
                        return
        except (psycopg.OperationalError, StoreError, SettingError) as error:
            if stop.is_set():  # so this is our own cancel
                return
            if view is None:
                raise
            fault = str(error).strip().partition("\n")[0]
            yield View(view.rows, view.at, view.window_s, f"not read since then: {fault}")
        if stop.wait(settings.interval_s):
            return


class _Fleet:
    """The wanted GPUs over time; remembers when those were seen that are silent."""

    def __init__(self, settings: GpusSettings, wanted: Wanted) -> None:
        self._settings = settings
        self._wanted = wanted
        self._last_seen: dict[int, datetime] = {}
        self._reads: psycopg.Connection[Any] | None = None

    def read(self, conn: psycopg.Connection[Any]) -> View:
        """Read one moment, in one snapshot."""
        self._reads = conn
        try:
            with conn.transaction():
                return self._read(conn)
        finally:
            self._reads = None

    def cancel_at(self, stop: threading.Event) -> None:
        """Wait for `stop`, and end the question that is being asked then."""
        stop.wait()
        if (conn := self._reads) is not None:
            with contextlib.suppress(psycopg.Error):  # it ended meanwhile
                conn.cancel_safe(timeout=_CANCEL_S)

    def _read(self, conn: psycopg.Connection[Any]) -> View:
        settings = self._settings
        window = timedelta(minutes=settings.minutes)
        until = recent.now(conn)
        since = until - window
        gpus = self._wanted.of(recent.gpus(conn))
        ids = [gpu.id for gpu in gpus]
        newest = recent.newest(conn, ids, METRICS, since, until)
        slots = recent.slots(conn, ids, METRICS[0], since, until, count=SLOTS)
        self._look_for(conn, {*ids} - {sample.gpu for sample in newest}, since, until)
        rows = rows_of(gpus, newest, slots, self._last_seen, SLOTS)
        self._last_seen |= {row.gpu.id: row.last_seen for row in rows if row.last_seen}
        shown = ordered(filter(self._wanted.has, rows), settings.sort)
        return View(shown, until, window.total_seconds())

    def _look_for(
        self, conn: psycopg.Connection[Any], quiet: set[int], since: datetime, until: datetime
    ) -> None:
        """Find out when GPUs were seen last that have none of the shown metrics in the window."""
        if quiet:
            self._last_seen |= recent.seen(conn, quiet, since, until)
        # To look through all partitions takes long, and need be done once.
        if unknown := quiet - self._last_seen.keys():
            self._last_seen |= recent.last_seen(conn, unknown)


def _connected(
    settings: GpusSettings,
) -> AbstractContextManager[psycopg.Connection[tuple[Any, ...]]]:
    return recent.connect(
        settings.dsn, name="telemq gpus", statement_s_max=settings.statement_s_max
    )
