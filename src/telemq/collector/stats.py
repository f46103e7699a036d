"""What a collector counts, and how it shows: the metrics as data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["METRICS", "CollectorMetrics", "CollectorStats", "StorerStats"]


@dataclass(slots=True)
class StorerStats:
    """Counted by the writer thread, since its start; nobody else writes here.

    Attributes:
        commits: commits of at least one batch.
        batches: batches stored.
        duplicates: batches that were stored before.
        disputed: duplicates with another row count than what was stored.
        refused: batches that Postgres refused.
        records: records stored.
        rejected: rows kept as dead letters.
        retries: attempts to store that failed because of the database.
    """

    commits: int = 0
    batches: int = 0
    duplicates: int = 0
    disputed: int = 0
    refused: int = 0
    records: int = 0
    rejected: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class CollectorStats:
    """One collector worker at one moment.

    Attributes:
        storer: what its writer thread counted.
        undecoded: batches that did not decode, or came as dead letters.
        sessions_lost: how often deliveries were dropped because their session had ended.
        held_batches: delivered and not settled.
        held_records: records in them.
        backlog_records: those of them that no commit has taken yet.
        credit_records: most records that may be held.
        connected: whether there is a session with the broker.
        store_fault: why the database cannot be used, or empty.
    """

    storer: StorerStats
    undecoded: int = 0
    sessions_lost: int = 0
    held_batches: int = 0
    held_records: int = 0
    backlog_records: int = 0
    credit_records: int = 0
    connected: bool = False
    store_fault: str = "not connected yet"


class _Row(NamedTuple):
    name: str
    kind: str
    help: str
    read: Callable[[CollectorStats], float]


#: Every metric of a collector but the histogram. Counters get the suffix ``_total`` when shown.
METRICS = (
    _Row("stored_records", "counter", "Records stored.", lambda s: s.storer.records),
    _Row("rejected_records", "counter", "Rows kept as dead letters.", lambda s: s.storer.rejected),
    _Row("stored_batches", "counter", "Batches stored.", lambda s: s.storer.batches),
    _Row("duplicate_batches", "counter", "Batches that were stored before.",
         lambda s: s.storer.duplicates),
    _Row("disputed_batches", "counter",
         "Duplicates with another row count than what was stored: one identity, two batches.",
         lambda s: s.storer.disputed),
    _Row("refused_batches", "counter", "Batches that Postgres refused.",
         lambda s: s.storer.refused),
    _Row("undecoded_batches", "counter", "Batches that did not decode, or came as dead letters.",
         lambda s: s.undecoded),
    _Row("commits", "counter", "Transactions that stored something.", lambda s: s.storer.commits),
    _Row("postgres_retries", "counter", "Attempts to store that failed because of the database.",
         lambda s: s.storer.retries),
    _Row("sessions_lost", "counter", "Sessions that ended while batches were held.",
         lambda s: s.sessions_lost),
    _Row("held_batches", "gauge", "Batches delivered and not settled.", lambda s: s.held_batches),
    _Row("held_records", "gauge", "Records in them.", lambda s: s.held_records),
    _Row("backlog_records", "gauge", "Records that no commit has taken yet.",
         lambda s: s.backlog_records),
    _Row("credit_records", "gauge", "Most records that may be held.", lambda s: s.credit_records),
    _Row("broker_connected", "gauge", "1 with a session, else 0.", lambda s: s.connected),
    _Row("postgres_available", "gauge", "1 if the last statement went through, else 0.",
         lambda s: not s.store_fault),
)  # fmt: skip


class CollectorMetrics(Collector):
    """Shows the latest snapshot; the main thread sets it, the ops thread reads it.

    Args:
        snapshot: the first one.

    Attributes:
        snapshot: replaced as a whole.
        registry: for the ops server.
        commit_seconds: observed by the writer thread.
    """

    def __init__(self, snapshot: CollectorStats) -> None:
        self.snapshot = snapshot
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        self.commit_seconds = Histogram(
            "telemq_collector_commit_seconds",
            "Time of one store, from resolving series to after the commit.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=self.registry,
        )

    def not_ready(self) -> str | None:
        """Say why nothing can be stored now, or None."""
        if self.snapshot.store_fault:
            return f"postgres: {self.snapshot.store_fault}"
        return None if self.snapshot.connected else "no session with the broker"

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the latest snapshot."""
        for row in METRICS:
            family = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
            value = float(row.read(self.snapshot))
            yield family(f"telemq_collector_{row.name}", row.help, value=value)
