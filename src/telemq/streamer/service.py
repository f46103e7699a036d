"""The streamer's process: a replayed file goes batch by batch to the broker.

Two threads. This one owns the end of the queue: it paces, cuts, stamps, encodes, publishes and
takes in confirms. The other (`leaseholder`) owns the Postgres connection and sees to it that there
are leases to publish. What a batch is was decided when its lease was reserved, so any number of
streamers, old and new, cut the same batches from the same file.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from telemq import log
from telemq.clock import monotonic_ns, utc_us
from telemq.codec import BATCH, Encoder
from telemq.engine.base import ProducerEngine
from telemq.engine.select import open_producer
from telemq.errors import LocalProtocolError, SettingError
from telemq.health import OpsServer
from telemq.record import BatchId
from telemq.settings import StreamerSettings
from telemq.sources.csv_replay import CsvReplay, read_csv
from telemq.store.leases import Lease
from telemq.streamer.leaseholder import Leaseholder
from telemq.streamer.metrics import StreamerMetrics, StreamerStats
from telemq.streamer.pacing import Pacer, batch_records_within, stamps_us

__all__ = ["STREAM_ID_CHARS_MAX", "run"]

#: Longest stream id: with ``#`` and a row number it must fit into a message id of 512.
STREAM_ID_CHARS_MAX = 480
#: Batches published before confirms and heartbeats have their turn.
_TURN_BATCHES = 16
#: Longest sleep, so that a stop is noticed.
_LOOK_S = 0.2
#: How often the snapshot that metrics read is renewed.
_SNAPSHOT_S = 0.25
#: How often a line is logged.
_LOG_S = 10.0


def run(
    settings: StreamerSettings,
    csv: Path,
    stop: threading.Event,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Stream a file until its stream has ``--rows`` rows and all are stored, or until stopped.

    Args:
        settings: with a DSN.
        csv: a DCGM CSV; see `telemq.sources.csv_replay`.
        stop: when set, what was published is waited for, and the leases are given back.
        on_progress: with ``--rows``, called with the rows of the stream that are stored, whoever
            streamed them, and with ``--rows``.

    Returns:
        The exit code: 0.

    Raises:
        SourceError: the file cannot be used.
        SettingError: a setting is not accepted.
        StreamError: the stream was begun from another file.
        StoreError: this code cannot use that database, now or later.
        ProtocolError: the broker does not take this streamer, or not batches of this size.
        BusyError: the ops address is in use.
    """
    replay = read_csv(csv, bytes_max=settings.file_bytes_max)
    stream_id = settings.stream or replay.stream_id
    if len(stream_id) > STREAM_ID_CHARS_MAX or "\0" in stream_id:
        accepted = f"at most {STREAM_ID_CHARS_MAX} characters, without U+0000"
        raise SettingError("--stream", stream_id, accepted)
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    metrics = StreamerMetrics()
    with ExitStack() as stack:
        ops = OpsServer(
            settings.ops_address,
            ready=metrics.not_ready,
            registry=metrics.registry,
            insecure=settings.insecure,
        )
        stack.enter_context(ops)
        engine = open_producer(settings, name=owner)
        stack.callback(engine.close)
        holder = Leaseholder(
            settings,
            batch_records=_batch_records(settings, replay),
            stream_id=stream_id,
            source=replay.fingerprint,
            owner=owner,
            on_change=engine.wake,
        )
        stack.callback(holder.close)
        log.get().info(
            "streaming",
            file=str(csv),
            stream=stream_id,
            source_rows=replay.rows,
            bad_rows=len(replay.bad),
            owner=owner,
            engine=engine.shown,
            ops=ops.address,
        )
        streamer = _Streamer(
            settings, replay, stream_id=stream_id, engine=engine, holder=holder, metrics=metrics
        )
        streamer.stream(stop, on_progress)
    return 0


def _batch_records(settings: StreamerSettings, replay: CsvReplay) -> int:
    """Give the most records a batch: the setting, or what is sure to fit into a message."""
    label_chars = sum(map(len, chain.from_iterable(replay.series)))
    return batch_records_within(
        settings.batch_bytes, settings.batch_records, len(replay.series), label_chars
    )


class _Streamer:
    def __init__(
        self,
        settings: StreamerSettings,
        replay: CsvReplay,
        *,
        stream_id: str,
        engine: ProducerEngine,
        holder: Leaseholder,
        metrics: StreamerMetrics,
    ) -> None:
        self._settings, self._replay, self._stream_id = settings, replay, stream_id
        self._engine, self._holder, self._metrics = engine, holder, metrics
        self._encoder = Encoder()
        self._pacer = Pacer(settings.rate, monotonic_ns())
        self._log = log.get(stream=stream_id)
        self._last_us = 0
        self._published_rows = self._published_batches = 0
        self._confirmed_rows = self._confirmed_batches = 0
        self._next_snapshot = 0.0
        self._next_log = time.monotonic() + _LOG_S

    def stream(self, stop: threading.Event, on_progress: Callable[[int, int], None] | None) -> None:
        """Publish until stopped or complete; then wait for confirms within the drain's limit."""
        while not stop.is_set() and not self._holder.is_complete():
            self._step(self._publish())
            if on_progress is not None and (state := self._holder.state()) is not None:
                rows = self._settings.rows
                on_progress(min(state.next_row - state.open_rows, rows), rows)
        self._holder.drain()
        until = time.monotonic() + self._settings.drain_s
        while self._unconfirmed() and not self._holder.is_complete():
            left_s = until - time.monotonic()
            if left_s <= 0:
                self._log.warning("not confirmed in time", batches=self._unconfirmed())
                break
            self._step(min(left_s, _LOOK_S))
        self._log.info(
            "streamer stopped",
            complete=self._holder.is_complete(),
            confirmed_rows=self._confirmed_rows,
            unconfirmed_batches=self._unconfirmed(),
        )

    def _unconfirmed(self) -> int:
        return self._holder.stats().published

    def _step(self, wait_s: float) -> None:
        """Do all input and output; wait for up to `wait_s` if there is none."""
        for message_id in self._engine.poll(wait_s):
            lease = self._holder.confirm(BatchId.parse(message_id).first_row)
            if lease is not None:
                self._confirmed_rows += lease.row_count
                self._confirmed_batches += 1
        for first_row in self._holder.forgotten():
            self._engine.forget(self._message_id(first_row))
        self._holder.check()
        if self._engine.connected:
            self._holder.working()
        elif self._engine.refused:
            raise LocalProtocolError(f"{self._engine.shown}: {self._engine.fault}")
        now = time.monotonic()
        if now >= self._next_snapshot:
            self._next_snapshot = now + _SNAPSHOT_S
            self._metrics.snapshot = self._stats()
        if now >= self._next_log:
            self._next_log = now + _LOG_S
            self._log_progress()

    def _publish(self) -> float:
        """Publish what is leased, due and has room; give the seconds to wait after that."""
        for _ in range(_TURN_BATCHES):
            lease = self._holder.next_ready()
            if lease is None:
                return _LOOK_S
            # One that is larger than the whole window goes alone.
            if self._engine.room_records() < lease.row_count and self._engine.unconfirmed():
                return _LOOK_S
            now_ns = monotonic_ns()
            due_ns = self._pacer.due_ns(lease.row_count, now_ns)
            if due_ns > now_ns:
                return min(_LOOK_S, (due_ns - now_ns) / 1e9)
            if self._holder.publish(lease, self._pacer.behind(now_ns)):
                self._send(lease)
                self._pacer.sent(lease.row_count, now_ns)
        return 0.0

    def _send(self, lease: Lease) -> None:
        stamps = None
        if self._settings.clock == "processed":
            stamps = stamps_us(self._last_us, utc_us(), lease.row_count)
            self._last_us = int(stamps[-1])
        batch = self._replay.batch(lease.first_row, lease.row_count, stamps)
        message_id = self._message_id(lease.first_row)
        # A lease that was lost and taken over again may still be kept there as it was.
        self._engine.forget(message_id)
        self._engine.publish(
            message_id,
            lease.row_count,
            self._encoder.encode(batch),
            key=self._stream_id,
            metadata={"content-type": BATCH},
        )
        self._published_rows += lease.row_count
        self._published_batches += 1

    def _message_id(self, first_row: int) -> str:
        return str(BatchId(self._stream_id, first_row))

    def _stats(self) -> StreamerStats:
        held, sent = self._holder.stats(), self._engine.stats()
        reason = ""
        if held.fault:
            reason = f"postgres: {held.fault}"
        elif not self._engine.connected:
            reason = f"broker {self._engine.shown}: {self._engine.fault}"
        return StreamerStats(
            published_rows=self._published_rows,
            published_batches=self._published_batches,
            confirmed_rows=self._confirmed_rows,
            confirmed_batches=self._confirmed_batches,
            unconfirmed_records=sent.unconfirmed_records,
            unconfirmed_bytes=sent.unconfirmed_bytes,
            ready_leases=held.ready,
            published_leases=held.published,
            lost_leases=held.lost,
            postgres_retries=held.retries,
            broker_sessions=sent.sessions,
            source_rows=self._replay.rows,
            source_bad_rows=len(self._replay.bad),
            reason=reason,
        )

    def _log_progress(self) -> None:
        stats = self._stats()
        self._log.info(
            "rows streamed",
            published=stats.published_rows,
            confirmed=stats.confirmed_rows,
            unconfirmed=stats.unconfirmed_records,
            leases=stats.ready_leases + stats.published_leases,
        )
