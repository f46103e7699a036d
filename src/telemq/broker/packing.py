"""PACKs: several PUBLISHes taken apart, and several DELIVERs to one consumer put together.

To pack is to copy, once. A view of a pack instead would keep all of it in memory for as long as one
of its messages is held, which no bound would count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from telemq.broker.lease import Lease
from telemq.broker.peers import Consumer, Outgoing
from telemq.errors import RemoteProtocolError
from telemq.protocol import (
    CONTROL_BYTES_MAX,
    PACK_BYTES_MAX,
    PACK_MESSAGES_MAX,
    PACKED_BYTES_MAX,
    DeliverPack,
    Packed,
    Payload,
    PublishPack,
    label_bytes,
)

__all__ = ["Packing", "deliveries", "unpacked"]

#: What is round the messages of a PACK takes less.
_HEAD_BYTES = 100


def unpacked(pack: PublishPack, payload: Payload) -> Iterator[tuple[Packed, bytes]]:
    """Give each message of a pack with its payload.

    Raises:
        RemoteProtocolError: the payload is not as long as its messages; at once, not on the way.
    """
    size_bytes = sum([packed.bytes for packed in pack.messages])
    if size_bytes != len(payload):
        detail = f"the messages of a PACK have {size_bytes} bytes, its payload {len(payload)}"
        raise RemoteProtocolError("bad_message", detail)
    return _parts(pack, payload)


def _parts(pack: PublishPack, payload: Payload) -> Iterator[tuple[Packed, bytes]]:
    at = 0
    for packed in pack.messages:
        yield packed, bytes(payload[at : at + packed.bytes])
        at += packed.bytes


def deliveries(
    leases: Iterable[Lease], number: Callable[[Consumer, int], int], lease_ms: int
) -> Iterator[Outgoing]:
    """Give what is to be sent for new leases; to each consumer in order.

    Args:
        leases: just made.
        number: takes so many numbers of a consumer's session, and gives the first.
        lease_ms: how long they last.
    """
    packings: dict[Consumer, Packing] = {}
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
        self._bytes, self._label_bytes = 0, _HEAD_BYTES

    def offer(self, lease: Lease) -> bool:
        """Add a lease if its message fits; a large one, or a dead letter, travels alone."""
        message = lease.message
        size_bytes = self._bytes + message.size_bytes
        if (
            not self._consumer.packs
            or message.size_bytes > PACKED_BYTES_MAX
            or message.dead
            or size_bytes > PACK_BYTES_MAX
            or len(self._leases) >= PACK_MESSAGES_MAX
        ):
            return False
        labels = self._label_bytes + label_bytes(message.id, message.key, message.metadata)
        if labels > CONTROL_BYTES_MAX:
            return False
        self._leases.append(lease)
        self._bytes, self._label_bytes = size_bytes, labels
        return True

    def send(self, number: Callable[[Consumer, int], int], lease_ms: int) -> Iterator[Outgoing]:
        """Give the message for what was added, if there is any, and begin anew."""
        leases, self._leases = self._leases, []
        self._bytes, self._label_bytes = 0, _HEAD_BYTES
        if len(leases) == 1:
            yield _alone(leases[0], number, lease_ms)
        elif leases:
            consumer = self._consumer
            first = number(consumer, len(leases))
            lent = tuple([lease.lent() for lease in leases])
            pack = DeliverPack(consumer.session, first, lease_ms, lent)
            payload = b"".join([lease.message.payload for lease in leases])
            yield Outgoing(consumer.id, pack, payload)


def _alone(lease: Lease, number: Callable[[Consumer, int], int], lease_ms: int) -> Outgoing:
    consumer = lease.consumer
    deliver = lease.deliver(number(consumer, 1), lease_ms)
    return Outgoing(consumer.id, deliver, lease.message.payload)
