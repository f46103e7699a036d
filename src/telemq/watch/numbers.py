"""What people see of brokers, worked out from the brokers' documents: rates, and who is in trouble.

A rate is between two snapshots of one broker, by the broker's own clock. A broker that was
restarted begins anew: its uptime fell, so there is no rate until its second snapshot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from telemq.broker.stats import BrokerStats, BrokerStatus, PeerStats

__all__ = ["BrokerView", "PeerView", "Rates", "Totals", "Watched", "ordered", "room_used", "totals"]

#: A peer that was not heard for more beats than this is in trouble; at five its session ends.
_BEATS = 2.5


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second, between two snapshots; records unless it says otherwise."""

    accepted: float
    settled: float
    redelivered_messages: float
    buried_messages: float


@dataclass(frozen=True, slots=True)
class PeerView:
    """One peer.

    Attributes:
        stats: as the broker told.
        per_s: records a second that it published, or settled; None before a second snapshot.
        trouble: what is wrong with it, in a few words; or empty.
    """

    stats: PeerStats
    per_s: float | None
    trouble: str


@dataclass(frozen=True, slots=True)
class BrokerView:
    """One broker.

    Attributes:
        url: its ops address.
        fault: why it could not be read this time; else empty, and the rest is there.
        status: what it told.
        rates: None before a second snapshot.
        peers: its peers, as the broker ordered them.
    """

    url: str
    fault: str = ""
    status: BrokerStatus | None = None
    rates: Rates | None = None
    peers: tuple[PeerView, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as plain values, for JSON."""
        values: dict[str, Any] = {"url": self.url, "fault": self.fault}
        if self.status is not None:
            values |= {
                "version": self.status.version,
                "uptime_s": self.status.uptime_s,
                "stats": dataclasses.asdict(self.status.stats),
                "room_used": room_used(self.status.stats),
                "rates": self.rates and dataclasses.asdict(self.rates),
                "peers_left_out": self.status.peers_left_out,
            }
        values["peers"] = [
            msgspec.structs.asdict(p.stats) | {"per_s": p.per_s, "trouble": p.trouble}
            for p in self.peers
        ]
        return values


class Watched:
    """One broker over time.

    Args:
        url: its ops address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._before: BrokerStatus | None = None
        self._latest: BrokerStatus | None = None

    def take(self, status: BrokerStatus | None, fault: str = "") -> BrokerView:
        """Take a reading; the same snapshot read twice changes nothing.

        Args:
            status: what was read; None if nothing was.
            fault: why not.
        """
        if status is None:
            return BrokerView(self.url, fault or "not read")
        latest = self._latest
        if latest is None or status.uptime_s != latest.uptime_s:
            self._before = latest if latest and latest.uptime_s < status.uptime_s else None
            self._latest = status
        before = self._before
        span_s = status.uptime_s - before.uptime_s if before else 0.0
        rates = _rates(before.stats, status.stats, span_s) if before else None
        done = {p.session: p for p in before.peers} if before else {}
        peers = tuple(_peer(p, done.get(p.session), span_s, status) for p in status.peers)
        return BrokerView(self.url, "", status, rates, peers)


@dataclass(frozen=True, slots=True)
class Totals:
    """All brokers that could be read, together.

    Attributes:
        brokers: how many were read.
        ready_records: waiting for a consumer.
        leased_records: with a consumer.
        oldest_s: age of the oldest message of all.
        redelivered: messages that went back to a queue.
        buried: dead letters.
        producers: sessions.
        consumers: sessions.
        accepted_per_s: records taken in a second; None if no broker has a rate.
        settled_per_s: records stored a second.
        peers_in_trouble: how many.
    """

    brokers: int
    ready_records: int
    leased_records: int
    oldest_s: float
    redelivered: int
    buried: int
    producers: int
    consumers: int
    accepted_per_s: float | None
    settled_per_s: float | None
    peers_in_trouble: int


def totals(views: Iterable[BrokerView]) -> Totals:
    """Add up what was read."""
    read = [view for view in views if view.status is not None]
    stats = [view.status.stats for view in read if view.status is not None]
    rates = [view.rates for view in read if view.rates is not None]
    return Totals(
        brokers=len(read),
        ready_records=sum(s.ready_records for s in stats),
        leased_records=sum(s.leased_records for s in stats),
        oldest_s=max((s.oldest_ns for s in stats), default=0) / 1e9,
        redelivered=sum(s.counters.redelivered for s in stats),
        buried=sum(s.counters.buried for s in stats),
        producers=sum(s.producers for s in stats),
        consumers=sum(s.consumers for s in stats),
        accepted_per_s=sum(r.accepted for r in rates) if rates else None,
        settled_per_s=sum(r.settled for r in rates) if rates else None,
        peers_in_trouble=sum(bool(peer.trouble) for view in read for peer in view.peers),
    )


def room_used(stats: BrokerStats) -> float:
    """Give how full a broker is, 0 to 1: the fuller of records and bytes."""
    records = stats.ready_records + stats.leased_records + stats.granted_records
    size_bytes = stats.ready_bytes + stats.leased_bytes + stats.granted_bytes
    return max(records / stats.capacity_records, size_bytes / stats.capacity_bytes)


def ordered(views: Sequence[BrokerView], by: str) -> list[tuple[str, PeerView]]:
    """Give all peers with their broker's URL, in the order in which they are shown.

    Args:
        views: of all brokers.
        by: ``trouble`` for those in trouble first, then the fastest; ``rate`` for the fastest.
    """
    peers = [(view.url, peer) for view in views for peer in view.peers]

    def key(entry: tuple[str, PeerView]) -> tuple[bool, float, str, str]:
        url, peer = entry
        calm = by == "trouble" and not peer.trouble
        return calm, -(peer.per_s or 0.0), peer.stats.name, f"{url} {peer.stats.session}"

    return sorted(peers, key=key)


def _rates(before: BrokerStats, now: BrokerStats, span_s: float) -> Rates:
    old, new = before.counters, now.counters
    return Rates(
        accepted=(new.accepted_records - old.accepted_records) / span_s,
        settled=(new.settled_records - old.settled_records) / span_s,
        redelivered_messages=(new.redelivered - old.redelivered) / span_s,
        buried_messages=(new.buried - old.buried) / span_s,
    )


def _peer(
    peer: PeerStats, before: PeerStats | None, span_s: float, status: BrokerStatus
) -> PeerView:
    per_s = (peer.done_records - before.done_records) / span_s if before else None
    came_back = peer.redelivered - before.redelivered if before else 0
    trouble = ""
    if peer.silent_s > _BEATS * status.heartbeat_s:
        trouble = f"silent for {peer.silent_s:.0f} s"
    elif came_back:
        trouble = f"gave {came_back} back"
    elif peer.role == "consumer" and not (peer.credit_records and peer.credit_bytes):
        trouble = "takes nothing"
    elif peer.role == "consumer" and before and before.held_messages and not per_s:
        trouble = "settles nothing" if peer.held_messages else ""
    elif peer.wish_records and (before is None or before.wish_records) and not per_s:
        trouble = "waits for room"
    return PeerView(peer, per_s, trouble)
