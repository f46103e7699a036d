"""What producers hand over, taken in: checked, paid for from their credit, and queued.

A PACK is taken in whole or not at all; each of its frames becomes a bundle. Only if an id in one is
held already, or there twice, its messages are taken in one by one: such a message is not queued a
second time, but its confirm goes to whoever published it last.
"""

from __future__ import annotations

from telemq.broker.bundle import Bundle
from telemq.broker.credit import Credits
from telemq.broker.inventory import Inventory
from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import PeerTable, Producer
from telemq.broker.stats import Counters
from telemq.errors import RemoteProtocolError
from telemq.frames import split
from telemq.protocol import PACK_BYTES_MAX, Frames, Packed, Payload, Publish, PublishPack

__all__ = ["Intake"]


class Intake:
    """The way of messages from producers into the inventory.

    Args:
        limits: of the broker.
        peers: whose held messages are counted.
        credits: that pays for them.
        inventory: where they go.
        counters: where to count.

    Attributes:
        place: of the message that arrived last.
    """

    def __init__(
        self,
        limits: BrokerLimits,
        peers: PeerTable,
        credits: Credits,
        inventory: Inventory,
        counters: Counters,
    ) -> None:
        self._limits = limits
        self._peers = peers
        self._credits = credits
        self._inventory = inventory
        self._counters = counters
        self.place = 0

    def publish(self, producer: Producer, publish: Publish, frames: Frames, now_ns: int) -> None:
        """Take in one message, with one payload frame or none.

        Raises:
            RemoteProtocolError: it is too large, or not paid for.
        """
        payload = frames[0] if frames else b""
        size_bytes = len(payload)
        self._check_size(publish.records, size_bytes)
        self._credits.take(producer, publish.records, size_bytes, "published")
        packed = Packed(publish.id, publish.records, size_bytes, publish.key, publish.metadata)
        bundle = Bundle(
            (packed,),
            payload,
            packed.records,
            size_bytes,
            self.place + 1,
            now_ns,
            producer.session,
            publish.number,
        )
        self._take_in_one(producer, bundle)

    def publish_pack(
        self, producer: Producer, pack: PublishPack, frames: Frames, now_ns: int
    ) -> None:
        """Take in a pack, whole or not at all.

        Raises:
            RemoteProtocolError: a message is too large, all are not paid for, or the frames are not
                as long as they are.
        """
        messages = pack.messages
        records = sum([packed.records for packed in messages])
        size_bytes = sum([packed.bytes for packed in messages])
        if records > self._limits.largest_records or size_bytes > self._limits.largest_bytes:
            for packed in messages:
                self._check_size(packed.records, packed.bytes)
        parts = _parts(messages, size_bytes, frames)
        self._credits.take(producer, records, size_bytes, "published")
        number = pack.number
        for part, payload in parts:
            if len(parts) > 1:
                records = sum([packed.records for packed in part])
            bundle = Bundle(
                part,
                payload,
                records,
                len(payload),
                self.place + 1,
                now_ns,
                producer.session,
                number,
            )
            number += len(part)
            self._take_in(producer, bundle)

    def _take_in(self, producer: Producer, bundle: Bundle) -> None:
        if len(bundle.messages) == 1:
            self._take_in_one(producer, bundle)
        elif not self._add(producer, bundle):
            self._take_in_singly(producer, bundle)

    def _take_in_singly(self, producer: Producer, bundle: Bundle) -> None:
        at = 0
        for number, packed in enumerate(bundle.messages, bundle.number):
            # A copy: a view would keep the whole pack in memory for as long as one is held.
            part = bytes(bundle.payload[at : at + packed.bytes])
            at += packed.bytes
            one = Bundle(
                (packed,),
                part,
                packed.records,
                packed.bytes,
                self.place + 1,
                bundle.arrived_ns,
                bundle.session,
                number,
            )
            self._take_in_one(producer, one)

    def _take_in_one(self, producer: Producer, bundle: Bundle) -> None:
        if not self._add(producer, bundle):
            self._claim_again(producer, bundle.id, bundle.number)

    def _add(self, producer: Producer, bundle: Bundle) -> bool:
        """Queue messages that are paid for, unless an id is held already."""
        if not self._inventory.add(bundle):
            return False
        self.place += len(bundle.messages)
        producer.accept(len(bundle.messages), bundle.records)
        return True

    def _claim_again(self, producer: Producer, id: str, number: int) -> Bundle:
        """Let a message that is held be confirmed to whoever has just published it again."""
        bundle = self._inventory.find(id)
        assert bundle is not None, "an id alone is refused only because it is held"
        self._counters.duplicates += 1
        before = bundle.claim(id, producer.session, number)
        self._peers.let_go(before.session, before.messages, before.records)
        producer.hold(1, before.records)
        return bundle

    def _check_size(self, records: int, size_bytes: int) -> None:
        limits = self._limits
        if records > limits.largest_records or size_bytes > limits.largest_bytes:
            raise RemoteProtocolError(
                "too_large",
                f"{records} records and {size_bytes} bytes; the limits are "
                f"{limits.largest_records} and {limits.largest_bytes}",
            )


def _parts(
    messages: tuple[Packed, ...], size_bytes: int, frames: Frames
) -> list[tuple[tuple[Packed, ...], Payload]]:
    """Give the messages of each frame; refuse a pack that is not whole, or too long."""
    if size_bytes > PACK_BYTES_MAX:
        detail = f"the messages of a PACK have {size_bytes} bytes; {PACK_BYTES_MAX} are the limit"
        raise RemoteProtocolError("bad_message", detail)
    try:
        return split(messages, size_bytes, frames)
    except ValueError as error:
        raise RemoteProtocolError("bad_message", str(error)) from error
