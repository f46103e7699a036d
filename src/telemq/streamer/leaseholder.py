"""The thread that keeps a streamer supplied with leases, and its leases alive.

It has its own Postgres connection, so that no wait for the database holds up the broker's link, nor
the other way round. It reserves ahead, takes over leases that ran out, and renews all of its own
three times a lease. While Postgres is away it tries again for ever, with growing pauses; the
streamer meanwhile publishes what is leased.

It renews only as long as the main thread reports itself at work with a broker (`working`). A
streamer that hangs or is cut off from the broker so lets its leases run out, and others go on.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from telemq import log
from telemq.clock import monotonic_ns
from telemq.errors import SettingError, StoreError
from telemq.settings import StreamerSettings
from telemq.store import leases
from telemq.store.leases import Lease, StreamState
from telemq.store.migrate import migrate
from telemq.streamer.book import LeaseBook
from telemq.streamer.pacing import batch_records_at, batches_ahead

__all__ = ["LeaseStats", "Leaseholder"]

#: How often leases that ran out are looked for, and how far the stream is.
_LOOK_S = 0.5
#: The same at the end of the stream, when everybody waits for it.
_END_LOOK_S = 0.1
#: The first pause after Postgres was lost, and the longest.
_PAUSE_S, _PAUSE_S_MAX = 0.1, 5.0
#: No statement here takes longer than some milliseconds on a database that is well.
_STATEMENT_MS = 10_000
_SECOND = 1_000_000_000
#: What a DSN can say otherwise. Without limits a cut network holds a statement for a quarter hour.
_CONNECTION: dict[str, str | int] = {
    "application_name": "telemq streamer",
    "connect_timeout": 5,
    "tcp_user_timeout": _STATEMENT_MS,
}


@dataclass(frozen=True, slots=True)
class LeaseStats:
    """A leaseholder at one moment.

    Attributes:
        ready: leases whose batches are not published yet.
        published: leases whose batches are published and not confirmed.
        lost: leases that ended otherwise than by a confirm, so far.
        retries: how often Postgres was tried again, so far.
        fault: why Postgres cannot be used, in words; empty when it can.
    """

    ready: int
    published: int
    lost: int
    retries: int
    fault: str


class Leaseholder:
    """Holds leases of one stream for one owner; begins at once, ends with `close`.

    Args:
        settings: of the streamer, with a DSN.
        batch_records: most rows a batch.
        stream_id: the stream's name.
        source: fingerprint of what its rows are read from.
        owner: this process, unlike any other.
        on_change: called from the thread when there is something new for the main thread.

    Raises:
        SettingError: the DSN is malformed.
    """

    def __init__(
        self,
        settings: StreamerSettings,
        *,
        batch_records: int,
        stream_id: str,
        source: str,
        owner: str,
        on_change: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._stream_id, self._source, self._owner = stream_id, source, owner
        self._on_change = on_change
        self._batch_records_max = batch_records
        self._conninfo = _conninfo(settings.dsn)
        self._log = log.get(stream=stream_id)
        self._lease_ns = int(settings.lease_s * _SECOND)

        self._lock = threading.Lock()
        self._book = LeaseBook()
        self._forgotten: list[int] = []
        self._plan(behind=0)
        self._worked_ns: int | None = None
        self._state: StreamState | None = None
        self._lost = self._retries = 0
        self._fault = "not connected yet"

        # Of the thread only.
        self._reserved_all = self._released = False
        self._renew_ns = self._look_ns = self._take_ns = 0
        self._pause_s = _PAUSE_S

        self._wake, self._draining, self._closing = (threading.Event() for _ in range(3))
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="leases")
        self._future: Future[None] = self._executor.submit(self._run)

    # Called from the main thread.

    def check(self) -> None:
        """Raise what ended the thread, if it has ended.

        Raises:
            StreamError: the stream was begun from another source.
            StoreError: this code cannot use that database, now or later.
        """
        if self._future.done():
            self._future.result()

    def next_ready(self) -> Lease | None:
        """Give the lease to publish next, or None; it stays ready until `publish`."""
        with self._lock:
            return self._book.next_ready()

    def publish(self, lease: Lease, behind: int = 0) -> bool:
        """Note that `lease` is published; False if it is no longer ours and must not be.

        Args:
            lease: that of `next_ready`.
            behind: records that should have been published by now; they make batches larger.
        """
        with self._lock:
            self._plan(behind)
            ours = self._book.publish(lease)
            is_low = self._book.ready <= self._ahead // 2
        if is_low:
            self._wake.set()
        return ours

    def confirm(self, first_row: int) -> Lease | None:
        """Note that a batch is safe, and give its lease; None if it is not known any more."""
        with self._lock:
            lease = self._book.confirm(first_row)
            is_idle = not self._book.published
        if is_idle and self._settings.rows:
            self._wake.set()  # the stream may have come to its end
        return lease

    def forgotten(self) -> list[int]:
        """Give the first rows of published batches that others see to, once each."""
        with self._lock:
            rows, self._forgotten = self._forgotten, []
            return rows

    def working(self) -> None:
        """Tell that the main thread is at work and has a session with a broker."""
        if self._worked_ns is None:
            self._wake.set()
        self._worked_ns = monotonic_ns()

    def state(self) -> StreamState | None:
        """Give how far the stream was when last looked; None without ``--rows`` or before."""
        return self._state

    def is_complete(self) -> bool:
        """Tell whether the stream has all rows of ``--rows``, and all of them are stored."""
        state, rows = self._state, self._settings.rows
        return bool(rows and state and state.next_row >= rows and not state.open_leases)

    def stats(self) -> LeaseStats:
        """Give a frozen snapshot."""
        with self._lock:
            ready, published = self._book.ready, self._book.published
            return LeaseStats(ready, published, self._lost, self._retries, self._fault)

    def drain(self) -> None:
        """Take no more leases, and give back at once those that are not published."""
        self._draining.set()
        self._wake.set()

    def close(self) -> None:
        """Give back all leases, if Postgres answers, and end the thread."""
        self._closing.set()
        self._wake.set()
        self._executor.shutdown()

    def _plan(self, behind: int) -> None:
        settings = self._settings
        self._batch_records = batch_records_at(
            settings.rate, self._batch_records_max, settings.linger_ms, behind
        )
        self._ahead = batches_ahead(settings.rate, self._batch_records, settings.window_records)

    # The thread.

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._try()
        finally:
            self._on_change()

    def _try(self) -> None:
        """Hold leases until closed or until Postgres is lost; then pause."""
        try:
            with psycopg.connect(self._conninfo, autocommit=True) as conn:
                migrate(conn)
                conn.execute(
                    "SELECT set_config('statement_timeout', %s, false)", [str(_STATEMENT_MS)]
                )
                leases.open_stream(conn, self._stream_id, self._source)
                self._hold(conn)
                return
        except StoreError as error:
            # Raised by migrations. An old server or an edited migration will not mend itself.
            if not isinstance(error.__cause__, psycopg.OperationalError):
                raise
            fault = str(error)
        except psycopg.Error as error:
            fault = str(error)
        fault = " ".join(fault.split())
        pause_s = self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(2 * self._pause_s, _PAUSE_S_MAX)
        with self._lock:
            self._retries += 1
            self._fault = fault
        self._log.warning("postgres away", reason=fault, retry_s=round(pause_s, 3))
        self._closing.wait(pause_s)

    def _hold(self, conn: psycopg.Connection) -> None:
        self._renew_ns = 0
        while True:
            self._wake.clear()
            if self._closing.is_set():
                leases.release(conn, self._stream_id, self._owner)
                return
            wait_s = self._step(conn)
            # Only now: a database that is there and refuses the work must not be hammered.
            self._pause_s = _PAUSE_S
            if self._fault:
                self._log.info("postgres ready")
                with self._lock:
                    self._fault = ""
            self._wake.wait(wait_s)

    def _step(self, conn: psycopg.Connection) -> float:
        """Do what is due, and give the seconds until something is due again."""
        if self._draining.is_set() and not self._released:
            with self._lock:
                self._book.drop_ready()
                keep = self._book.known()
            leases.release(conn, self._stream_id, self._owner, keep=keep)
            self._released = True
        now_ns = monotonic_ns()
        wait_s = self._look(conn, now_ns) if self._settings.rows else _LOOK_S
        if self._worked_ns is None or now_ns - self._worked_ns >= self._lease_ns:
            return wait_s
        if now_ns >= self._renew_ns:
            self._renew(conn)
            self._renew_ns = now_ns + self._lease_ns // 3
        if not self._draining.is_set():
            self._refill(conn, now_ns)
        return max(0.0, min(wait_s, (self._renew_ns - now_ns) / _SECOND))

    def _renew(self, conn: psycopg.Connection) -> None:
        with self._lock:
            before = self._book.known()
        lease_s = self._settings.lease_s
        ours = leases.renew(conn, self._stream_id, self._owner, lease_s=lease_s)
        with self._lock:
            renewal = self._book.renewed(before, ours)
            self._forgotten += renewal.lost
            lost = renewal.dropped + len(renewal.lost)
            self._lost += lost
            keep = self._book.known()
        if lost:
            self._log.warning("leases lost", published=len(renewal.lost), ready=renewal.dropped)
            self._on_change()
        if renewal.strays:
            leases.release(conn, self._stream_id, self._owner, keep=keep)

    def _refill(self, conn: psycopg.Connection, now_ns: int) -> None:
        with self._lock:
            ready, ahead, batch_records = self._book.ready, self._ahead, self._batch_records
        if ready > ahead // 2:
            return
        wanted, lease_s = ahead - ready, self._settings.lease_s
        found: list[Lease] = []
        if now_ns >= self._take_ns:
            self._take_ns = now_ns + int(_LOOK_S * _SECOND)
            found = leases.take_over(
                conn, self._stream_id, self._owner, batches=wanted, lease_s=lease_s
            )
            if found:
                self._log.info("leases taken over", count=len(found), first_row=found[0].first_row)
        if len(found) < wanted and not self._reserved_all:
            reserved = leases.reserve(
                conn,
                self._stream_id,
                self._owner,
                batch_records=batch_records,
                batches=wanted - len(found),
                rows_max=self._settings.rows,
                lease_s=lease_s,
            )
            self._reserved_all = len(reserved) < wanted - len(found)
            found += reserved
        with self._lock:
            added = self._book.add(found)
        if added:
            self._on_change()

    def _look(self, conn: psycopg.Connection, now_ns: int) -> float:
        with self._lock:
            is_idle = self._reserved_all and not self._book.ready and not self._book.published
        look_s = _END_LOOK_S if is_idle or self._draining.is_set() else _LOOK_S
        if is_idle or now_ns >= self._look_ns:
            self._state = leases.state(conn, self._stream_id)
            self._look_ns = now_ns + int(look_s * _SECOND)
            self._on_change()
        return look_s


def _conninfo(dsn: str) -> str:
    try:
        return make_conninfo("", **(_CONNECTION | conninfo_to_dict(dsn)))
    except psycopg.ProgrammingError:
        # Not the error's text, nor the error: both may hold the password.
        raise SettingError("--dsn", "(secret)", "a connection string or URL of Postgres") from None
