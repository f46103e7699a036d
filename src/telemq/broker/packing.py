"""PACKs for consumers: what is lent to one of them in one event travels together.

A bundle travels as it came, its payload in one piece. Several are put together, as far as they fit
into one PACK; a dead letter travels alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from telemq.broker.lease import Lease
from telemq.broker.peers import Consumer, Outgoing
from telemq.frames import COPY_BYTES_MAX, join
from telemq.protocol import (
    PACK_BYTES_MAX,
    PACK_CONTROL_BYTES_MAX,
    PACK_MESSAGES_MAX,
    Deliver,
    DeliverPack,
    Lent,
    encode,
)

__all__ = ["Packing", "deliveries"]

#: Most bytes of a `Lent`.
_LENT_BYTES = 50
#: Takes so many numbers of a consumer's session, and gives the first.
_Numbers = Callable[[Consumer, int], int]


def deliveries(leases: Iterable[Lease], number: _Numbers, lease_ms: int) -> Iterator[Outgoing]:
    """Give what is to be sent for new leases; to each consumer in order.

    Args:
        leases: just made.
        number: takes so many numbers of a consumer's session, and gives the first.
        lease_ms: how long they last.
    """
    packings: dict[Consumer, Packing] = {}
    leases = list(leases)
    if len(leases) == 1 and len(leases[0].bundle.messages) == 1:
        # As with a slow stream, where each turn of this costs the most: see docs/performance.md.
        yield _alone(leases[0], number, lease_ms)
        return
    for lease in leases:
        consumer = lease.consumer
        packing = packings.get(consumer)
        if packing is None:
            packing = packings[consumer] = Packing(consumer)
        if not packing.offer(lease):
            yield from packing.send(number, lease_ms)
            if not packing.offer(lease):
                yield _alone(lease, number, lease_ms)
    for packing in packings.values():
        yield from packing.send(number, lease_ms)


class Packing:
    """Leases of one consumer, in order, that still fit into one PACK."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._leases: list[Lease] = []
        self._messages = self._bytes = 0

    def offer(self, lease: Lease) -> bool:
        """Add a lease if its messages fit; a dead letter does not."""
        bundle = lease.bundle
        messages = self._messages + len(bundle.messages)
        size_bytes = self._bytes + bundle.size_bytes
        if (
            not self._consumer.packs
            or bundle.dead
            or size_bytes > PACK_BYTES_MAX
            or messages > PACK_MESSAGES_MAX
        ):
            return False
        self._leases.append(lease)
        self._messages, self._bytes = messages, size_bytes
        return True

    def send(self, number: _Numbers, lease_ms: int) -> Iterator[Outgoing]:
        """Give what was added as a message, or as several, and begin anew."""
        leases, self._leases = self._leases, []
        self._messages = self._bytes = 0
        if leases:
            yield from _together(leases, number, lease_ms)


def _together(leases: list[Lease], number: _Numbers, lease_ms: int) -> Iterator[Outgoing]:
    consumer, bundles = leases[0].consumer, [lease.bundle for lease in leases]
    messages = bundles[0].messages
    if len(bundles) > 1:
        messages = tuple(chain.from_iterable([bundle.messages for bundle in bundles]))
        # What came as one PACK goes as one; several may have longer labels than one may have.
        if len(encode(messages)) + _LENT_BYTES * len(leases) > PACK_CONTROL_BYTES_MAX:
            half = len(leases) // 2
            yield from _together(leases[:half], number, lease_ms)
            yield from _together(leases[half:], number, lease_ms)
            return
    if len(messages) == 1:
        yield _alone(leases[0], number, lease_ms)
        return
    first = number(consumer, len(messages))
    pack = DeliverPack(consumer.session, first, lease_ms, _lent(leases), messages)
    # What came without a copy goes without one.
    size_bytes = sum([bundle.size_bytes for bundle in bundles])
    frames = join([bundle.payload for bundle in bundles], size_bytes, COPY_BYTES_MAX)
    yield Outgoing(consumer.id, pack, frames)


def _lent(leases: list[Lease]) -> tuple[Lent, ...]:
    """Say how messages are lent; those in a row with the same attempt in one."""
    lent, first, end, attempt = [], 0, 0, 0
    for lease in leases:
        if lease.first != end or lease.bundle.attempt != attempt:
            if end:
                lent.append(Lent(first, end - first, attempt))
            first, attempt = lease.first, lease.bundle.attempt
        end = lease.end
    return (*lent, Lent(first, end - first, attempt))


def _alone(lease: Lease, number: _Numbers, lease_ms: int) -> Outgoing:
    consumer, bundle = lease.consumer, lease.bundle
    (message,) = bundle.messages
    deliver = Deliver(
        consumer.session,
        number(consumer, 1),
        lease.first,
        lease_ms,
        bundle.attempt,
        message.id,
        message.records,
        message.key,
        message.metadata,
        bundle.dead,
    )
    return Outgoing(consumer.id, deliver, (bundle.payload,))
