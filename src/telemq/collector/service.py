"""The collector: the main thread owns the engine's end, the writer thread that of Postgres.

A delivery is held from its arrival until it is settled, which is after the commit. As long as it is
held its lease is renewed, so a slow or absent database delays batches but does not send them round.
When the session with a broker ends, all that it lent goes back to its queue by itself; what of it
no commit has taken yet is dropped here, since it will be delivered again, to us or to another.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Sequence

from telemq import log
from telemq.clock import monotonic_ns, utc_us
from telemq.collector.intake import Intake
from telemq.collector.stats import CollectorMetrics, CollectorStats, StorerStats
from telemq.collector.storer import Storer, Work
from telemq.engine.base import ConsumerEngine, Delivery
from telemq.engine.select import open_consumer
from telemq.errors import RemoteProtocolError
from telemq.health import OpsServer
from telemq.settings import CollectorSettings

__all__ = ["run"]

#: Longest wait in one poll, so that a stop is noticed.
_WAIT_S_MAX = 0.1
#: How often the snapshot that metrics read is renewed.
_SNAPSHOT_S = 0.25
#: Least time between two summaries in the log.
_SUMMARY_S = 10.0


class _Collector:
    """The main thread's state; one `step` after the other."""

    def __init__(self, settings: CollectorSettings, engine: ConsumerEngine) -> None:
        self._engine = engine
        self._settings = settings
        self._intake = Intake(
            age_days_max=settings.record_age_days_max,
            ahead_s_max=settings.record_ahead_s_max,
            series_max=settings.series_cache_max,
        )
        self.metrics = CollectorMetrics(CollectorStats(StorerStats()))
        self.storer = Storer(
            settings.dsn,
            commit_records=settings.commit_records,
            records_max=settings.credit_records,
            series_max=settings.series_cache_max,
            partition_hours=settings.partition_hours,
            on_done=engine.wake,
            observe_s=self.metrics.commit_seconds.observe,
        )
        self._log = log.get()
        self._held: set[Delivery] = set()
        self._renew_ns = 0
        self._undecoded = self._sessions_lost = 0
        self._snapshot_at = self._summary_at = 0.0
        self._summed = StorerStats()

    @property
    def held(self) -> int:
        """Deliveries that are not settled."""
        return len(self._held)

    def step(self) -> None:
        """Wait for something to happen, and do what is to be done then.

        Raises:
            RemoteProtocolError: the broker will never take this collector.
            BaseException: what the writer thread died of.
        """
        deliveries = self._engine.poll(self._wait_s())
        if self._engine.refused:
            raise RemoteProtocolError("refused", self._engine.fault)
        self._drop(self._engine.lost())
        for delivery in deliveries:
            self._take_in(delivery)
        done = [work.delivery for work in self.storer.done()]
        self._engine.settle(done)
        self._held.difference_update(done)
        self._renew()
        self._report()
        self.storer.check()

    def _wait_s(self) -> float:
        if not self._held:
            return _WAIT_S_MAX
        return min(_WAIT_S_MAX, max(0.0, (self._renew_ns - monotonic_ns()) / 1e9))

    def _drop(self, lost: Sequence[Delivery]) -> None:
        """Forget what will be delivered again."""
        if lost:
            gone = set(lost)
            self._log.info("session ended, its batches go back to the queue", batches=len(gone))
            self._sessions_lost += 1
            self.storer.drop(gone)
            self._held -= gone

    def _take_in(self, delivery: Delivery) -> None:
        batch = self._intake.read(delivery, utc_us())
        self._undecoded += batch.batch is None
        self.storer.put(Work(delivery, batch))
        if not self._held:
            self._renew_ns = monotonic_ns() + _renewal_ns(delivery)
        self._held.add(delivery)

    def _renew(self) -> None:
        if self._held and monotonic_ns() >= self._renew_ns:
            self._engine.renew(self._held)
            self._renew_ns = monotonic_ns() + min(map(_renewal_ns, self._held))

    def _report(self) -> None:
        now = time.monotonic()
        if now < self._snapshot_at:
            return
        self._snapshot_at = now + _SNAPSHOT_S
        self.metrics.snapshot = self.stats()
        if now >= self._summary_at:
            self._summary_at = now + _SUMMARY_S
            self.summarise()

    def summarise(self) -> None:
        """Log what was stored since the last summary, if anything was."""
        new, old = self.storer.stats(), self._summed
        if new != old:
            self._summed = new
            self._log.info(
                "stored",
                records=new.records - old.records,
                rejected=new.rejected - old.rejected,
                batches=new.batches - old.batches,
                duplicates=new.duplicates - old.duplicates,
                commits=new.commits - old.commits,
                records_total=new.records,
            )

    def stats(self) -> CollectorStats:
        """Give a frozen snapshot."""
        return CollectorStats(
            storer=self.storer.stats(),
            undecoded=self._undecoded,
            sessions_lost=self._sessions_lost,
            held_batches=self.held,
            held_records=sum(delivery.records for delivery in self._held),
            backlog_records=self.storer.backlog_records,
            credit_records=self._settings.credit_records,
            connected=self._engine.connected,
            store_fault=self.storer.fault,
        )


def _renewal_ns(delivery: Delivery) -> int:
    return delivery.lease_ms * 1_000_000 // 3


def run(settings: CollectorSettings, stop: threading.Event) -> int:
    """Run one collector worker until stopped and drained; gives the exit code.

    On a stop no more is taken, and what was delivered is stored and settled, for up to `drain_s`;
    what is not finished then goes back to the queue.

    Args:
        settings: with a `dsn` that is not empty.
        stop: set from outside.

    Raises:
        SettingError: a setting is not accepted.
        BusyError: the ops address is in use.
        RemoteProtocolError: the broker refuses this collector for good.
        Exception: whatever the writer thread died of.
    """
    engine = open_consumer(settings, name=f"collector {socket.gethostname()}:{os.getpid()}")
    with contextlib.closing(engine):
        collector = _Collector(settings, engine)
        ops = OpsServer(
            settings.ops_address,
            ready=collector.metrics.not_ready,
            registry=collector.metrics.registry,
            insecure=settings.insecure,
        )
        with ops, contextlib.closing(collector.storer):
            log.get().info("collector started", engine=engine.shown, ops=ops.address)
            collector.storer.start()
            while not stop.is_set():
                collector.step()
            engine.pause()
            log.get().info("collector draining", held=collector.held)
            deadline = time.monotonic() + settings.drain_s
            while collector.held and time.monotonic() < deadline:
                collector.step()
            collector.summarise()
            log.get().info("collector stopped", given_back=collector.held)
    return 0
