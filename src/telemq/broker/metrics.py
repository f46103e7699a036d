"""The metrics of a broker, as data: each reads `BrokerStats` and has a kind and a help text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from telemq.broker.door import DoorStats
from telemq.broker.keeper import JournalStats, journal_metrics
from telemq.broker.stats import BrokerStats

__all__ = ["METRICS", "BrokerMetrics"]


class _Row(NamedTuple):
    name: str
    kind: str
    help: str
    read: Callable[[BrokerStats], float]


#: Every metric of a broker without labels. Counters get the suffix ``_total`` when they are shown.
METRICS = (
    _Row("ready_messages", "gauge", "Messages waiting for a consumer.", lambda s: s.ready_messages),
    _Row("ready_records", "gauge", "Records waiting for a consumer.", lambda s: s.ready_records),
    _Row("ready_bytes", "gauge", "Payload bytes waiting.", lambda s: s.ready_bytes),
    _Row("leased_messages", "gauge", "Messages with a consumer.", lambda s: s.leased_messages),
    _Row("leased_records", "gauge", "Records with a consumer.", lambda s: s.leased_records),
    _Row("leased_bytes", "gauge", "Payload bytes with a consumer.", lambda s: s.leased_bytes),
    _Row("granted_records", "gauge", "Credit not spent, in records.", lambda s: s.granted_records),
    _Row("granted_bytes", "gauge", "Credit not spent, in bytes.", lambda s: s.granted_bytes),
    _Row("capacity_records", "gauge", "Room, in records.", lambda s: s.capacity_records),
    _Row("capacity_bytes", "gauge", "Room, in bytes.", lambda s: s.capacity_bytes),
    _Row("waiting_producers", "gauge", "Producers that wait for room for their next message.",
         lambda s: s.producers_waiting),
    _Row("draining", "gauge", "1 while no credit is granted any more, else 0.",
         lambda s: s.draining),
    _Row("oldest_message_seconds", "gauge", "Age of the oldest message held.",
         lambda s: s.oldest_ns / 1e9),
    _Row("accepted_messages", "counter", "Messages taken in.", lambda s: s.counters.accepted),
    _Row("accepted_records", "counter", "Records taken in.",
         lambda s: s.counters.accepted_records),
    _Row("restored_messages", "counter", "Messages that the journal brought back.",
         lambda s: s.counters.restored),
    _Row("settled_messages", "counter", "Messages stored.", lambda s: s.counters.settled),
    _Row("settled_records", "counter", "Records stored.", lambda s: s.counters.settled_records),
    _Row("buried_messages", "counter", "Messages kept as dead letters.",
         lambda s: s.counters.buried),
    _Row("duplicate_messages", "counter", "Publishes of a message that was held already.",
         lambda s: s.counters.duplicates),
    _Row("redelivered_messages", "counter", "Messages that went back to the queue.",
         lambda s: s.counters.redelivered),
    _Row("expired_leases", "counter", "Leases that ran out.", lambda s: s.counters.leases_expired),
    _Row("stale_settles", "counter", "Settlements of leases that had ended.",
         lambda s: s.counters.stale_settles),
    _Row("stale_messages", "counter", "Messages of an earlier session of the same connection.",
         lambda s: s.counters.stale_messages),
    _Row("silent_peers", "counter", "Sessions ended by silence.",
         lambda s: s.counters.peers_silent),
    _Row("unheard_messages", "counter",
         "Messages of connections that had earned too many errors.",
         lambda s: s.counters.unheard),
    _Row("sessions", "counter", "Sessions begun.", lambda s: s.counters.sessions),
)  # fmt: skip


class BrokerMetrics(Collector):
    """Shows the latest snapshot; the broker's thread sets it, the ops thread reads it.

    Args:
        snapshot: the first one.
        journal: the first one of the journal, if there is one.

    Attributes:
        snapshot: replaced as a whole, so that a reader never sees half of one.
        journal: the same of the journal; None without one.
        door: the same for the broker's door; None without keys.
        registry: for the ops server.
    """

    def __init__(self, snapshot: BrokerStats, journal: JournalStats | None = None) -> None:
        self.snapshot = snapshot
        self.journal = journal
        self.door: DoorStats | None = None
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def not_ready(self) -> str | None:
        """Say why no producer should come here, or None."""
        if self.snapshot.draining:
            return "draining"
        if self.journal is not None and self.journal.stalled:
            return f"the journal is stalled: {self.journal.stalled}"
        return None

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the latest snapshot."""
        stats = self.snapshot
        for row in METRICS:
            family = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
            yield family(f"telemq_broker_{row.name}", row.help, value=float(row.read(stats)))
        peers = GaugeMetricFamily("telemq_broker_peers", "Open sessions.", labels=["role"])
        peers.add_metric(["producer"], stats.producers)
        peers.add_metric(["consumer"], stats.consumers)
        yield peers
        refused = CounterMetricFamily(
            "telemq_broker_refused", "Errors sent to peers.", labels=["code"]
        )
        for code, count in sorted(stats.counters.refused.items()):
            refused.add_metric([code], count)
        yield refused
        if self.journal is not None:
            yield from journal_metrics(self.journal)
        if self.door:
            yield from _door_metrics(self.door)


def _door_metrics(door: DoorStats) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "telemq_broker_allowed_keys", "Keys in the allow-list.", value=door.allowed_keys
    )
    denied = CounterMetricFamily(
        "telemq_broker_denied_handshakes", "Handshakes that failed.", labels=["reason"]
    )
    for reason, count in sorted(door.denied.items()):
        denied.add_metric([reason], count)
    yield denied
    yield CounterMetricFamily(
        "telemq_broker_revoked_messages",
        "Messages of connections whose key was revoked.",
        value=door.unheard,
    )
