"""What a broker counts: running totals, and snapshots of its state and of its peers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec

__all__ = ["BrokerStats", "BrokerStatus", "Counters", "PeerStats"]


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


# A struct, because thousands are made at a time by the broker's own thread: 4,096 frozen
# dataclasses took 13 ms, these take 3.
class PeerStats(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One session at one moment; what is not of its role is 0.

    Attributes:
        role: ``producer`` or ``consumer``.
        name: what the peer calls itself.
        session: a name of the session, the same in every snapshot; not its token.
        key: name of the key that the peer showed; empty without keys.
        age_s: seconds since the session began.
        silent_s: seconds since the peer was heard last.
        credit_records: a producer's unspent credit; what a consumer takes at a time.
        credit_bytes: the same in bytes.
        wish_records: what a producer needs for its next message; 0 when it waits for nothing.
        wish_bytes: the same in bytes.
        held_messages: a producer's messages that are not settled; what a consumer has leased.
        held_records: records in them.
        held_bytes: payload bytes that a consumer has leased.
        done_messages: accepted from a producer, settled by a consumer, since the session began.
        done_records: records in them.
        redelivered: messages that went back to the queue from this consumer.
    """

    role: str
    name: str
    session: str
    key: str = ""
    age_s: float
    silent_s: float
    credit_records: int
    credit_bytes: int
    wish_records: int = 0
    wish_bytes: int = 0
    held_messages: int
    held_records: int
    held_bytes: int = 0
    done_messages: int
    done_records: int
    redelivered: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerStatus:
    """All that a broker tells of itself: the document ``/status.json`` of its ops address.

    Attributes:
        version: of telemq.
        uptime_s: seconds from the broker's start to this snapshot; rates are between two of these.
        heartbeat_s: how often each peer is heard at least, when all is well.
        stats: the broker as a whole.
        peers: its sessions, longest silent first.
        peers_left_out: how many more there are.
    """

    version: str
    uptime_s: float
    heartbeat_s: float
    stats: BrokerStats
    peers: tuple[PeerStats, ...]
    peers_left_out: int
