"""Keeps a broker's messages in its journal, from a thread of its own.

An fsync may take seconds on a disk that is busy or failing; the broker's loop must go on meanwhile,
or its peers would take it for dead. So the loop only hands over notes and picks up how far the
journal has come; the journal belongs to the thread. All that arrives during one fsync is covered by
the next (group commit).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from telemq.broker.core import Outgoing
from telemq.broker.disk import Disk
from telemq.broker.entries import Note
from telemq.broker.journal import Journal
from telemq.broker.journaled import JournaledCore
from telemq.clock import monotonic_ns
from telemq.log import get
from telemq.settings import BrokerSettings

__all__ = ["JournalStats", "Keeper", "journal_metrics"]

#: How often a journal that is stalled is tried again.
_RETRY_S = 0.25
#: Longest wait at the end for what is not on disk yet.
_CLOSE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStats:
    """A journal at one moment.

    Attributes:
        synced_place: all messages up to this one are on disk, or done with.
        stalled: why nothing can be written, or empty.
        size_bytes: of all files.
        live_bytes: of what is held in them.
        segments: files.
        live_messages: held in them.
        syncs: fsyncs so far.
        sync_s: time spent in writing and fsync so far.
        corrupt_entries: skipped at the start.
        stalls: times that it became stalled.
    """

    synced_place: int
    stalled: str
    size_bytes: int
    live_bytes: int
    segments: int
    live_messages: int
    syncs: int
    sync_s: float
    corrupt_entries: int
    stalls: int


class Keeper:
    """Opens the journal, brings back what is in it, and writes what the core notes.

    Args:
        settings: of the broker.
        core: gets the messages that are found.
        disk: the file system of the journal.

    Raises:
        SettingError: the journal's settings cannot be used.
        BusyError: another broker uses the directory.

    Attributes:
        wakeup: a descriptor that can be read when there is something to pick up.
    """

    def __init__(
        self, settings: BrokerSettings, core: JournaledCore, disk: Disk | None = None
    ) -> None:
        now_ns = monotonic_ns()
        directory = Path(settings.journal).expanduser()
        self._journal = Journal(
            directory,
            segment_bytes=settings.journal_segment_bytes,
            bytes_max=settings.journal_bytes_max,
            payload_bytes_max=core.limits.largest_bytes,
            now_ns=now_ns,
            disk=disk,
        )
        self._corrupt_entries = self._journal.found.corrupt_entries
        self._tell_findings(directory)
        core.restore(self._journal.messages, self._journal.synced_place(), now_ns)
        self._journal.messages = []
        self._sync_s = settings.journal_sync_ms / 1000
        self._syncs, self._spent_s, self._stalls = 0, 0.0, 0
        self._log = get(journal=str(directory))
        self.stats = self._snapshot()
        self._picked_up = self.stats
        self._failure: BaseException | None = None
        self._notes: list[Note] = []
        self._closing = False
        self._condition = threading.Condition()
        self._waker, self.wakeup = socket.socketpair()
        self._waker.setblocking(False)
        self.wakeup.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def exchange(self, core: JournaledCore, now_ns: int) -> list[Outgoing]:
        """Hand over what the core noted, and tell the core how far the journal has come.

        Raises:
            Exception: whatever ended the journal's thread.
        """
        if self._failure is not None:
            raise self._failure
        if notes := core.notes():
            with self._condition:
                self._notes += notes
                self._condition.notify()
        # Drained before it is read: what is set after this reading wakes the loop again.
        with contextlib.suppress(BlockingIOError):
            self.wakeup.recv(4096)
        stats, before = self.stats, self._picked_up
        self._picked_up = stats
        out = []
        if bool(stats.stalled) != bool(before.stalled):
            out += core.stall(bool(stats.stalled), now_ns)
        if stats.synced_place != before.synced_place:
            out += core.synced(stats.synced_place, now_ns)
        return out

    def close(self) -> None:
        """Write what was handed over, if that is possible within a moment, and free everything."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(_CLOSE_S)
        if not self._thread.is_alive():
            self._journal.close()
        self._waker.close()
        self.wakeup.close()

    def _tell_findings(self, directory: Path) -> None:
        log, found = get(), self._journal.found
        for segment in found.segments:
            for damage in segment.corrupt:
                log.error(
                    "journal entry corrupt and skipped",
                    segment=segment.number,
                    offset=damage.offset,
                    bytes=damage.size_bytes,
                )
            if segment.torn is not None:
                log.warning(
                    "journal's torn end cut off",
                    segment=segment.number,
                    offset=segment.torn.offset,
                    bytes=segment.torn.size_bytes,
                )
        if found.missing:
            log.error("journal segments missing", numbers=found.missing)
        log.info(
            "journal read",
            directory=str(directory),
            messages=len(self._journal.messages),
            segments=len(found.segments),
            corrupt=found.corrupt_entries,
        )

    # ---- the journal's thread --------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:  # noqa: BLE001  # the broker's thread raises it
            self._failure = error
            self._wake()

    def _turn(self) -> bool:
        """Write once; tell whether to go on."""
        with self._condition:
            if not self._notes and not self._closing:
                self._condition.wait(self._pause_s())
            notes, self._notes = self._notes, []
            closing = self._closing
        self._journal.keep(notes)
        began = time.monotonic()
        if self._journal.has_pending and self._journal.sync():
            self._syncs += 1
        spent_s = time.monotonic() - began
        self._spent_s += spent_s
        self._publish()
        if closing:
            return False
        if spent_s < self._sync_s:
            with self._condition:
                self._condition.wait_for(lambda: self._closing, self._sync_s - spent_s)
        return True

    def _pause_s(self) -> float | None:
        if not self._journal.has_pending:
            return None
        return _RETRY_S if self._journal.stalled else 0

    def _publish(self) -> None:
        before, self.stats = self.stats, self._snapshot()
        if self.stats.stalled and not before.stalled:
            self._stalls += 1
            self._log.error("journal stalled", reason=self.stats.stalled)
        elif before.stalled and not self.stats.stalled:
            self._log.info("journal goes on")
        if (before.synced_place, before.stalled) != (self.stats.synced_place, self.stats.stalled):
            self._wake()

    def _wake(self) -> None:
        # A full buffer means that it is to wake already.
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"\0")

    def _snapshot(self) -> JournalStats:
        journal = self._journal
        return JournalStats(
            synced_place=journal.synced_place(),
            stalled=journal.stalled,
            size_bytes=journal.used_bytes,
            live_bytes=journal.live_bytes,
            segments=journal.segments,
            live_messages=journal.live_messages,
            syncs=self._syncs,
            sync_s=self._spent_s,
            corrupt_entries=self._corrupt_entries,
            stalls=self._stalls,
        )


def journal_metrics(stats: JournalStats) -> Iterator[Metric]:
    """Yield ``telemq_broker_journal_*``."""
    for name, help, value in (
        ("bytes", "Bytes of all journal files.", stats.size_bytes),
        ("live_bytes", "Bytes of messages in them that are not settled.", stats.live_bytes),
        ("segments", "Journal files.", stats.segments),
        ("messages", "Messages in them that are not settled.", stats.live_messages),
        ("corrupt_entries", "Damaged entries skipped at the start.", stats.corrupt_entries),
        ("stalled", "1 while nothing can be written, else 0.", int(bool(stats.stalled))),
    ):
        yield GaugeMetricFamily(f"telemq_broker_journal_{name}", help, value=value)
    for name, help, total in (
        ("syncs", "Group commits.", stats.syncs),
        ("sync_seconds", "Time spent in writing and fsync.", stats.sync_s),
        ("stalls", "Times that nothing could be written any more.", stats.stalls),
    ):
        yield CounterMetricFamily(f"telemq_broker_journal_{name}", help, value=total)
