"""The metrics of a streamer, as data: each reads `StreamerStats` and has a kind and a help text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["METRICS", "StreamerMetrics", "StreamerStats"]


@dataclass(frozen=True, slots=True)
class StreamerStats:
    """A streamer at one moment.

    Attributes:
        published_rows: rows handed to the broker's link so far, those published again included.
        published_batches: the batches of those.
        confirmed_rows: rows that the broker confirmed so far.
        confirmed_batches: the batches of those.
        unconfirmed_records: published and not confirmed.
        unconfirmed_bytes: the payloads of those.
        ready_leases: batches leased and not published.
        published_leases: batches leased and published.
        lost_leases: leases that ended otherwise than by a confirm, so far.
        postgres_retries: how often Postgres was tried again, so far.
        broker_sessions: sessions with the broker, so far.
        source_rows: rows of the file.
        source_bad_rows: rows of the file that are no records.
        reason: why the streamer cannot do its work, in words; empty when it can.
    """

    published_rows: int = 0
    published_batches: int = 0
    confirmed_rows: int = 0
    confirmed_batches: int = 0
    unconfirmed_records: int = 0
    unconfirmed_bytes: int = 0
    ready_leases: int = 0
    published_leases: int = 0
    lost_leases: int = 0
    postgres_retries: int = 0
    broker_sessions: int = 0
    source_rows: int = 0
    source_bad_rows: int = 0
    reason: str = "starting"


class _Row(NamedTuple):
    name: str
    kind: str
    help: str
    read: Callable[[StreamerStats], float]


#: Every metric of a streamer. Counters get the suffix ``_total`` when they are shown.
METRICS = (
    _Row("published_rows", "counter", "Rows published, those published again included.",
         lambda s: s.published_rows),
    _Row("published_batches", "counter", "Batches published.", lambda s: s.published_batches),
    _Row("confirmed_rows", "counter", "Rows confirmed.", lambda s: s.confirmed_rows),
    _Row("confirmed_batches", "counter", "Batches confirmed.", lambda s: s.confirmed_batches),
    _Row("unconfirmed_records", "gauge", "Records published and not confirmed.",
         lambda s: s.unconfirmed_records),
    _Row("unconfirmed_bytes", "gauge", "Payload bytes published and not confirmed.",
         lambda s: s.unconfirmed_bytes),
    _Row("ready_leases", "gauge", "Batches leased and not published.", lambda s: s.ready_leases),
    _Row("published_leases", "gauge", "Batches leased and published.",
         lambda s: s.published_leases),
    _Row("lost_leases", "counter", "Leases that ended otherwise than by a confirm.",
         lambda s: s.lost_leases),
    _Row("postgres_retries", "counter", "Times that Postgres was tried again.",
         lambda s: s.postgres_retries),
    _Row("broker_sessions", "counter", "Sessions begun with the broker.",
         lambda s: s.broker_sessions),
    _Row("ready", "gauge", "1 while Postgres and the broker can be used, else 0.",
         lambda s: not s.reason),
    _Row("source_rows", "gauge", "Rows of the source.", lambda s: s.source_rows),
    _Row("source_bad_rows", "gauge", "Rows of the source that are no records.",
         lambda s: s.source_bad_rows),
)  # fmt: skip


class StreamerMetrics(Collector):
    """Shows the latest snapshot; the main thread sets it, the ops thread reads it.

    Attributes:
        snapshot: replaced as a whole, so that a reader never sees half of one.
        registry: for the ops server.
    """

    def __init__(self) -> None:
        self.snapshot = StreamerStats()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def not_ready(self) -> str | None:
        """Say why the streamer cannot do its work, or None."""
        return self.snapshot.reason or None

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the latest snapshot."""
        stats = self.snapshot
        for row in METRICS:
            family = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
            yield family(f"telemq_streamer_{row.name}", row.help, value=float(row.read(stats)))
