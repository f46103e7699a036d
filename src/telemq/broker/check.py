"""The promises of `core` that can be seen in its state at one moment, asserted.

The others are about what happens over time; tests/property has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    leased = [lease.message for lease in core._inventory.leases.all()]
    counters = core._counters
    gone = counters.settled + counters.buried
    came = counters.accepted + counters.restored
    assert came == gone + len(ready) + len(leased), "P2: a message is unaccounted for"
    ids = [message.id for message in ready + leased]
    assert len(ids) == len(set(ids)), "P3: a message is in two places"
    assert set(ids) == set(core._inventory._held), "P3: a message is in no place"
    for peer in core._peers.all():
        if isinstance(peer, Producer):
            own = [m.records for m in ready + leased if m.session == peer.session]
            shown = (peer.held_messages, peer.held_records)
            assert shown == (len(own), sum(own)), (
                "confirms: a producer's held messages are miscounted"
            )
    for part, messages in ((core._inventory.ready, ready), (core._inventory.leases, leased)):
        assert part.records == sum(m.records for m in messages), "P1: records miscounted"
        assert part.size_bytes == sum(m.size_bytes for m in messages), "P1: bytes miscounted"


def _check_leases(core: BrokerCore) -> None:
    consumers = [p for p in core._peers.all() if isinstance(p, Consumer)]
    owned = {lease.id for c in consumers for lease in c.leases.values()}
    assert owned == {lease.id for lease in core._inventory.leases.all()}, (
        "P4: a lease without a live owner"
    )
    for consumer in consumers:
        messages = [lease.message for lease in consumer.leases.values()]
        assert consumer.out_records == sum(m.records for m in messages), "P5: miscounted"
        assert consumer.out_bytes == sum(m.size_bytes for m in messages), "P5: miscounted"


def _check_deadline(core: BrokerCore) -> None:
    beat = core.limits.heartbeat_ns
    peers = core._peers.all()
    deadlines = [lease.until_ns for lease in core._inventory.leases.all()]
    deadlines += [until_ns for until_ns, _, _ in core._inventory.ready._paused]
    deadlines += [p.heard_ns + core._peers.silence_ns for p in peers]
    deadlines += [p.said_ns + beat for p in peers]
    assert core.next_deadline_ns() == min(deadlines, default=None), "P8: not the earliest deadline"
