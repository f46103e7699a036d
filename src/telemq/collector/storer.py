"""The writer thread of a collector: everything that waits for Postgres, waits here.

The main thread puts in what was delivered and takes back what is committed. Decoding and Postgres'
work overlap that way, and heartbeats and lease renewals go on however long a commit takes.

::

    main thread   put ──> backlog ──take──> writer thread: store, again until it succeeds
                  done <── finished <───────────┘
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from telemq import log
from telemq.collector.batcher import Backlog
from telemq.collector.stats import StorerStats
from telemq.engine.base import Delivery
from telemq.errors import SettingError, StoreError
from telemq.store.migrate import migrate
from telemq.store.writer import Stored, StoredBatch, Writer

__all__ = ["Storer", "Work", "connect"]

#: The first pause after a failure and the longest; it doubles, and is shortened by up to half at
#: random so that all collectors do not come back at once.
_PAUSE_S, _PAUSE_S_MAX = 0.1, 5.0
#: How often an idle connection is tried, so that readiness tells the truth.
_IDLE_S = 5.0
#: A commit that takes longer than this makes the collector not ready.
_SLOW_S = 30.0
#: Longest wait for the thread to end once its statement was cancelled; it may be connecting.
_JOIN_S = 6.0

#: What a DSN does not say otherwise. A server that vanishes without a word is noticed in 30 s.
_CONNECT: dict[str, Any] = {
    "connect_timeout": 5,
    "application_name": "telemq collector",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
#: For each session. A collector that stands still in the middle of a transaction holds keys of
#: the ledger that others wait for: Postgres ends it. A commit takes a second; minutes are a fault.
_SESSION = """
SELECT set_config('idle_in_transaction_session_timeout', '30s', false),
       set_config('lock_timeout', '60s', false), set_config('statement_timeout', '300s', false)
"""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A delivery and what is to be stored for it."""

    delivery: Delivery
    batch: StoredBatch


def connect(dsn: str) -> psycopg.Connection[Any]:
    """Open a connection in autocommit mode, with limits on every wait, to an up-to-date schema.

    Raises:
        SettingError: the DSN is malformed.
        StoreError: the schema cannot be brought up to date.
        psycopg.Error: no connection.
    """
    try:
        full = make_conninfo(**{**_CONNECT, **conninfo_to_dict(dsn), "client_encoding": "utf8"})
    except psycopg.ProgrammingError as error:
        accepted = "a Postgres connection string or URL"
        raise SettingError("--dsn", "(secret)", accepted) from error
    conn = psycopg.connect(full, autocommit=True)
    try:
        migrate(conn)
        conn.execute(_SESSION)
    except BaseException:
        conn.close()
        raise
    return conn


class Storer:
    """Stores work in a thread of its own, from `start` to `close`.

    All methods are for one other thread. Made again after `close`, not started again.

    Args:
        dsn: of the database.
        commit_records: most records a commit.
        records_max: most records that may wait.
        series_max: series ids remembered.
        partition_hours: width of new partitions.
        on_done: called by the writer thread when there is something for `done` or `check`.
        observe_s: called with the seconds of each store.
    """

    def __init__(
        self,
        dsn: str,
        *,
        commit_records: int,
        records_max: int,
        series_max: int,
        partition_hours: int = 24,
        on_done: Callable[[], None],
        observe_s: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._dsn = dsn
        self._series_max = series_max
        self._partition_hours = partition_hours
        self._on_done = on_done
        self._observe_s = observe_s
        self._backlog: Backlog[Work] = Backlog(
            commit_records=commit_records,
            records_max=records_max,
            count=lambda work: work.delivery.records,
        )
        self._finished: list[Work] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._error: BaseException | None = None
        self._conn: psycopg.Connection[Any] | None = None
        self._writer: Writer | None = None
        self._stats = StorerStats()
        self._log = log.get()
        self._thread = threading.Thread(target=self._run, name="storer", daemon=True)
        self._fault = "not connected yet"
        self._began_at: float | None = None

    def start(self) -> None:
        """Begin: connect, and store what is put in."""
        self._thread.start()

    def put(self, work: Work) -> None:
        """Hand over one delivery.

        Raises:
            RemoteProtocolError: the broker delivered more than its credit.
        """
        with self._changed:
            self._backlog.put(work)
            self._changed.notify()

    def drop(self, deliveries: Collection[Delivery]) -> None:
        """Forget those of them that wait; what is being stored is still finished."""
        with self._changed:
            self._backlog.drop(lambda work: work.delivery in deliveries)

    def done(self) -> list[Work]:
        """Take what has been committed since the last call."""
        with self._changed:
            finished, self._finished = self._finished, []
        return finished

    def check(self) -> None:
        """Raise what the thread died of, if it did."""
        if self._error is not None:
            raise self._error

    @property
    def backlog_records(self) -> int:
        """Records that wait for the next commit."""
        return self._backlog.records

    @property
    def fault(self) -> str:
        """Why the database cannot be used, as far as it is known; empty if it can."""
        began_at = self._began_at
        if not self._fault and began_at is not None:
            took_s = time.monotonic() - began_at
            return f"a commit has taken {took_s:.0f} s so far" if took_s > _SLOW_S else ""
        return self._fault

    def stats(self) -> StorerStats:
        """Give a snapshot."""
        return dataclasses.replace(self._stats)

    def close(self) -> None:
        """End the thread: a store that runs is cancelled, what waits is left."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        if not self._thread.is_alive():
            return
        conn = self._conn
        if conn is not None:
            with contextlib.suppress(psycopg.Error):
                conn.cancel_safe(timeout=_JOIN_S)
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            self._log.warning("store did not end", waited_s=_JOIN_S)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                work = self._take()
                if self._store(work) and work:
                    with self._changed:
                        self._finished += work
                    self._on_done()
        except BaseException as error:  # noqa: BLE001  # `check` raises it in the main thread
            self._error = error
        finally:
            self._disconnect()
            self._on_done()

    def _take(self) -> list[Work]:
        with self._changed:
            if self._writer is not None:
                self._changed.wait_for(
                    lambda: len(self._backlog) or self._closing.is_set(), timeout=_IDLE_S
                )
            return self._backlog.take()

    def _store(self, work: list[Work]) -> bool:
        """Store, however often it takes; tell whether it was done before the storer closed."""
        pause_s = _PAUSE_S
        while not self._closing.is_set():
            try:
                self._store_once(work)
            except (StoreError, psycopg.Error) as error:
                if self._closing.is_set():
                    return False
                self._fault = str(error) or type(error).__name__
                self._stats.retries += 1
                self._log.warning("postgres not usable", fault=self._fault, again_in_s=pause_s)
                if self._conn is None or self._conn.closed:
                    self._disconnect()
                self._on_done()
            else:
                self._fault = ""
                return True
            self._closing.wait(pause_s * random.uniform(0.5, 1))
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)
        return False

    def _store_once(self, work: list[Work]) -> None:
        if self._writer is None:
            self._conn = connect(self._dsn)
            self._writer = Writer(
                self._conn, series_max=self._series_max, partition_hours=self._partition_hours
            )
            self._log.info("postgres connected")
        if not work:
            assert self._conn is not None
            self._conn.execute("SELECT")
            return
        self._began_at = began_at = time.monotonic()
        try:
            stored = self._writer.store([w.batch for w in work])
        finally:
            self._began_at = None
        took_s = time.monotonic() - began_at
        self._observe_s(took_s)
        self._note(stored, took_s)

    def _note(self, stored: Stored, took_s: float) -> None:
        stats = self._stats
        stats.commits += stored.batches > 0
        stats.batches += stored.batches
        stats.duplicates += stored.duplicates
        stats.disputed += len(stored.disputed)
        stats.refused += len(stored.refused)
        stats.records += stored.records
        stats.rejected += stored.rejected
        self._log.debug(
            "batches stored",
            batches=stored.batches,
            records=stored.records,
            rejected=stored.rejected,
            duplicates=stored.duplicates,
            store_ms=round(took_s * 1000, 1),
        )
        for batch, reason in stored.refused:
            self._log.warning("batch refused by postgres", batch=str(batch), reason=reason)
        for batch in stored.disputed:
            self._log.warning("batch was stored with another row count", batch=str(batch))

    def _disconnect(self) -> None:
        conn, self._conn, self._writer = self._conn, None, None
        if conn is not None:
            conn.close()
