"""What a broker counts: running totals, and a snapshot of its state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

__all__ = ["BrokerStats", "Counters"]


@dataclass(slots=True)
class Counters:
    """Totals since the start; none ever falls.

    Attributes:
        accepted: messages taken into the queue.
        accepted_records: records in them.
        restored: messages that the journal brought back.
        duplicates: publishes of an id that was held already.
        settled: messages that a consumer stored.
        settled_records: records in them.
        buried: messages that a consumer kept as dead letters.
        redelivered: times that a message went back to the queue.
        leases_expired: leases that ran out.
        stale_settles: settlements of leases that had ended.
        stale_messages: messages of an earlier session of the same connection.
        sessions: sessions begun.
        peers_silent: sessions ended by silence.
        unheard: messages of connections that had earned too many errors.
        refused: errors sent, by code.
    """

    accepted: int = 0
    accepted_records: int = 0
    restored: int = 0
    duplicates: int = 0
    settled: int = 0
    settled_records: int = 0
    buried: int = 0
    redelivered: int = 0
    leases_expired: int = 0
    stale_settles: int = 0
    stale_messages: int = 0
    sessions: int = 0
    peers_silent: int = 0
    unheard: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Counters:
        """Give a copy that does not change any more."""
        return replace(self, refused=dict(self.refused))


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerStats:
    """A broker at one moment.

    Attributes:
        counters: totals since the start.
        ready_messages: waiting for a consumer.
        ready_records: records in them.
        ready_bytes: payload bytes in them.
        leased_messages: with a consumer.
        leased_records: records in them.
        leased_bytes: payload bytes in them.
        granted_records: credit of producers that is not spent.
        granted_bytes: credit of producers that is not spent.
        capacity_records: the room.
        capacity_bytes: the room.
        producers: sessions of producers.
        consumers: sessions of consumers.
        producers_waiting: those of them that wait for room for their next message.
        oldest_ns: age of the oldest message held.
        draining: no credit is granted any more.
    """

    counters: Counters
    ready_messages: int
    ready_records: int
    ready_bytes: int
    leased_messages: int
    leased_records: int
    leased_bytes: int
    granted_records: int
    granted_bytes: int
    capacity_records: int
    capacity_bytes: int
    producers: int
    consumers: int
    producers_waiting: int
    oldest_ns: int
    draining: bool
