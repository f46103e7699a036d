"""The promises of `core` that can be seen in its state at one moment, asserted.

The others are about what happens over time; tests/property has them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from telemq.broker.bundle import Bundle
from telemq.broker.peers import Consumer, Producer

if TYPE_CHECKING:
    from telemq.broker.core import BrokerCore

__all__ = ["check_core"]


def check_core(core: BrokerCore) -> None:
    """Assert P1 to P4, P8 and P10 on a broker that is between two events.

    Raises:
        AssertionError: naming the promise.
    """
    _check_room(core)
    _check_places(core)
    _check_leases(core)
    _check_deadline(core)


def _check_room(core: BrokerCore) -> None:
    held, credits = core._inventory, core._credits
    producers = [p for p in core._peers.all() if isinstance(p, Producer)]
    used_records = held.records + credits.records
    used_bytes = held.size_bytes + credits.size_bytes
    # What a journal brought back may exceed a capacity that was lowered, but no grant may.
    if not core._counters.restored or credits.records or credits.size_bytes:
        assert used_records <= core.limits.capacity_records, "P1: room in records exceeded"
        assert used_bytes <= core.limits.capacity_bytes, "P1: room in bytes exceeded"
    assert credits.records == sum(p.credit_records for p in producers), "P1: grants miscounted"
    assert credits.size_bytes == sum(p.credit_bytes for p in producers), "P1: grants miscounted"
    for producer in producers:
        assert producer.credit_records >= 0, "P1: negative credit"
        assert producer.credit_bytes >= 0, "P1: negative credit"
        least = core.limits.largest_records, core.limits.largest_bytes
        assert producer.credit_records <= max(core.limits.credit_records_max, least[0]), "P10"
        assert producer.credit_bytes <= max(core.limits.credit_bytes_max, least[1]), "P10"


def _check_places(core: BrokerCore) -> None:
    ready = core._inventory.ready.in_order()
    leased = [lease.bundle for lease in core._inventory.leases.all()]
    counters = core._counters
    gone = counters.settled + counters.buried
    came = counters.accepted + counters.restored
    ids = {message.id: bundle for bundle in ready + leased for message in bundle.messages}
    count = sum(len(bundle) for bundle in ready + leased)
    assert came == gone + count, "P2: a message is unaccounted for"
    assert len(ids) == count, "P3: a message is in two places"
    assert ids == core._inventory._held, "P3: a message is in no place, or not in that bundle"
    claimed: dict[str, tuple[int, int]] = {}
    for bundle in ready + leased:
        for claim in bundle.claims():
            messages, records = claimed.get(claim.session, (0, 0))
            claimed[claim.session] = messages + claim.messages, records + claim.records
    for peer in core._peers.all():
        if isinstance(peer, Producer):
            assert claimed.get(peer.session, (0, 0)) == (peer.held_messages, peer.held_records), (
                "confirms: a producer's held messages are miscounted"
            )
    for part, bundles in ((core._inventory.ready, ready), (core._inventory.leases, leased)):
        assert part.messages == sum(map(len, bundles)), "P2: messages miscounted"
        assert part.records == sum(b.records for b in bundles), "P1: records miscounted"
        assert part.size_bytes == sum(b.size_bytes for b in bundles), "P1: bytes miscounted"
    for bundle in ready + leased:
        _check_bundle(bundle)


def _check_bundle(bundle: Bundle) -> None:
    messages = bundle.messages
    assert bundle.records == sum(m.records for m in messages), "P1: a bundle is miscounted"
    assert bundle.size_bytes == sum(m.bytes for m in messages), "P1: a bundle is miscounted"
    assert bundle.size_bytes == len(bundle.payload), "P3: a payload is not as long as its messages"
    claimed = [m.id for m in messages] if bundle.again is None else list(bundle.again)
    assert {m.id for m in messages} == set(claimed), "confirms: a claim is lost, or of another's"


def _check_leases(core: BrokerCore) -> None:
    consumers = [p for p in core._peers.all() if isinstance(p, Consumer)]
    leases = core._inventory.leases
    owned = {lease for consumer in consumers for lease in consumer.leases}
    assert owned == set(leases.all()), "P4: a lease without a live owner"
    assert {lease.first: lease for lease in owned} == leases._by_first, "P4: not by its number"
    for lease in owned:
        for number in range(lease.first, lease.end):
            assert leases.held(number, lease.consumer) is lease, "P4: a number of another's lease"
    assert leases.messages == sum(lease.end - lease.first for lease in owned), "P4: miscounted"
    firsts = leases._firsts
    assert all(a < b for a, b in pairwise(firsts)), "P4: not in order"
    assert len(firsts) <= 2 * len(owned) + 1001, "P4: those that are over stay"
    for consumer in consumers:
        assert all(lease.consumer is consumer for lease in consumer.leases), "P4: not its own lease"
        for lease in consumer.leases:
            assert lease.end - lease.first == len(lease.bundle), "P4: a lease is not all numbered"
        bundles = [lease.bundle for lease in consumer.leases]
        assert consumer.out_messages == sum(map(len, bundles)), "P5: miscounted"
        assert consumer.out_records == sum(b.records for b in bundles), "P5: miscounted"
        assert consumer.out_bytes == sum(b.size_bytes for b in bundles), "P5: miscounted"


def _check_deadline(core: BrokerCore) -> None:
    beat = core.limits.heartbeat_ns
    peers = core._peers.all()
    deadlines = [lease.until_ns for lease in core._inventory.leases.all()]
    deadlines += [until_ns for until_ns, _, _ in core._inventory.ready._paused]
    deadlines += [p.heard_ns + core._peers.silence_ns for p in peers]
    deadlines += [p.said_ns + beat for p in peers]
    assert core.next_deadline_ns() == min(deadlines, default=None), "P8: not the earliest deadline"
