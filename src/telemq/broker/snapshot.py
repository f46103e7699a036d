"""A broker's counts at one moment, read off its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemq.broker.stats import BrokerStats

if TYPE_CHECKING:
    from telemq.broker.core import BrokerCore

__all__ = ["snapshot"]


def snapshot(core: BrokerCore) -> BrokerStats:
    """Give a frozen snapshot of all counts of a broker that is between two events."""
    held = core._inventory
    ready, leases, oldest = held.ready, held.leases, held.oldest()
    roles = [peer.id.role for peer in core._peers.all()]
    return BrokerStats(
        counters=core._counters.copy(),
        ready_messages=ready.messages,
        ready_records=ready.records,
        ready_bytes=ready.size_bytes,
        leased_messages=leases.messages,
        leased_records=leases.records,
        leased_bytes=leases.size_bytes,
        granted_records=core._credits.records,
        granted_bytes=core._credits.size_bytes,
        capacity_records=core.limits.capacity_records,
        capacity_bytes=core.limits.capacity_bytes,
        producers=roles.count("producer"),
        consumers=roles.count("consumer"),
        producers_waiting=core._credits.waiting,
        oldest_ns=core._now - oldest.arrived_ns if oldest else 0,
        draining=core._draining,
    )
