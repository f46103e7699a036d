"""Faults to plant in the broker's core, to see that the properties catch them.

Each is a small, believable mistake: a line forgotten, a comparison off by one, a check left out.
`FAULTS` gives, by name, the fault and the promises that may be named when it is caught.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from telemq.broker import core, packing
from telemq.broker.core import BrokerCore
from telemq.broker.credit import Credits
from telemq.broker.inventory import Inventory
from telemq.broker.lease import Lease, LeaseTable
from telemq.broker.limits import BrokerLimits
from telemq.broker.offenders import Offenders
from telemq.broker.peers import Consumer, Peer, PeerTable, Producer
from telemq.broker.queue import Message, ReadyQueue
from telemq.protocol import Packed, Payload, Publish, PublishPack

__all__ = ["FAULTS", "Fault"]


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    Attributes:
        plant: makes the core faulty within a `with`.
        breaks: promises that a test may name for it.
    """

    plant: Callable[[], AbstractContextManager[object]]
    breaks: frozenset[str]


FAULTS: dict[str, Fault] = {}


def _fault(*breaks: str) -> Callable[[Callable[[], Iterator[None]]], None]:
    def keep(plant: Callable[[], Iterator[None]]) -> None:
        name = plant.__name__.strip("_")
        FAULTS[name] = Fault(contextlib.contextmanager(plant), frozenset(breaks))

    return keep


# ---- room and credit ---------------------------------------------------------------------------


@_fault("P1")
def _credit_of_lost_producer_never_comes_back() -> Iterator[None]:
    def close(self: Credits, producer: Producer) -> None:
        self._forget(producer)

    with patch.object(Credits, "close", close):
        yield


@_fault("P1")
def _grant_ignores_bytes() -> Iterator[None]:
    portion = Credits._portion

    def generous(self: Credits, producer: Producer, records: int, _: int) -> tuple[int, int]:
        return portion(self, producer, records, 2**40)

    with patch.object(Credits, "_portion", generous):
        yield


@_fault("P1")
def _leased_messages_take_no_room() -> Iterator[None]:
    records = property(lambda self: self.ready.records)
    with patch.object(Inventory, "records", records):
        yield


@_fault("P1")
def _ready_bytes_are_counted_once_only() -> Iterator[None]:
    count = ReadyQueue._count

    def forgetful(self: ReadyQueue, message: Message, sign: int) -> None:
        before = self.size_bytes
        count(self, message, sign)
        self.size_bytes = max(before, self.size_bytes) if sign < 0 else self.size_bytes

    with patch.object(ReadyQueue, "_count", forgetful):
        yield


@_fault("P1", "P10")
def _returned_credit_leaves_nobody_waiting() -> Iterator[None]:
    def spend(self: Credits, producer: Producer, records: int, size_bytes: int) -> None:
        producer.credit_records -= records
        producer.credit_bytes -= size_bytes
        self.records -= records
        self.size_bytes -= size_bytes

    with patch.object(Credits, "spend", spend):
        yield


@_fault("P10")
def _grant_goes_beyond_its_limit() -> Iterator[None]:
    targets = Credits._targets

    def greedy(self: Credits, producer: Producer) -> tuple[int, int]:
        records, size_bytes = targets(self, producer)
        return records + 1, size_bytes

    with patch.object(Credits, "_targets", greedy):
        yield


@_fault("P10")
def _grant_hands_out_crumbs() -> Iterator[None]:
    def crumbs(
        self: Credits, producer: Producer, free_records: int, free_bytes: int
    ) -> tuple[int, int]:
        records, size_bytes = self._targets(producer)
        return (
            max(0, min(records - producer.credit_records, free_records)),
            max(0, min(size_bytes - producer.credit_bytes, free_bytes)),
        )

    with patch.object(Credits, "_portion", crumbs):
        yield


# ---- messages ----------------------------------------------------------------------------------


@_fault("P2", "P4")
def _settled_message_stays() -> Iterator[None]:
    settle = Inventory.settle

    def sticky(self: Inventory, consumer: Consumer, said: Any, now_ns: int) -> Message | None:
        if message := settle(self, consumer, said, now_ns):
            self._held[message.id] = message
            self.ready.give_back(message)
        return message

    with patch.object(Inventory, "settle", sticky):
        yield


@_fault("P3", "P9")  # P9 if the first is paused
def _duplicate_is_queued_twice() -> Iterator[None]:
    with patch.object(Inventory, "find", lambda self, id: None):
        yield


@_fault("confirms")
def _producer_s_held_messages_are_not_counted() -> Iterator[None]:
    with patch.object(Producer, "hold", lambda _self, _records: None):
        yield


@_fault("confirms")
def _confirm_goes_to_the_first_publisher() -> Iterator[None]:
    publish = BrokerCore._take_in

    def first(
        self: BrokerCore,
        producer: Producer,
        message: Publish | Packed,
        payload: Payload,
        number: int,
    ) -> None:
        held = self._inventory.find(message.id)
        before = (held.session, held.number) if held else None
        publish(self, producer, message, payload, number)
        if held and before:
            held.session, held.number = before

    with patch.object(BrokerCore, "_take_in", first):
        yield


@_fault("P6")
def _attempts_are_not_counted() -> Iterator[None]:
    add = LeaseTable.add

    def uncounted(self: LeaseTable, message: Message, consumer: Consumer, now_ns: int) -> Lease:
        message.attempt = 1
        return add(self, message, consumer, now_ns)

    with patch.object(LeaseTable, "add", uncounted):
        yield


@_fault("P6")
def _attempt_limit_is_one_too_high() -> Iterator[None]:
    init = Inventory.__init__

    def high(self: Inventory, limits: BrokerLimits, counters: Any) -> None:
        init(self, replace(limits, attempts_max=limits.attempts_max + 1), counters)

    with patch.object(Inventory, "__init__", high):
        yield


@_fault("P9")
def _redelivery_goes_to_the_tail() -> Iterator[None]:
    with patch.object(ReadyQueue, "give_back", ReadyQueue.append):
        yield


@_fault("P9")
def _redeliveries_leave_last_in_first_out() -> Iterator[None]:
    def give_back(self: ReadyQueue, message: Message) -> None:
        self._returned.insert(0, (message.place, message))
        self._count(message, 1)

    with patch.object(ReadyQueue, "give_back", give_back):
        yield


@_fault("P9")
def _retry_leaves_at_once() -> Iterator[None]:
    def pause(self: ReadyQueue, message: Message, until_ns: int) -> None:
        self.give_back(message)

    with patch.object(ReadyQueue, "pause", pause):
        yield


@_fault("P9", "P8")
def _pause_does_not_double() -> Iterator[None]:
    def pause_ns(self: BrokerLimits, attempt: int) -> int:
        return min(self.retry_ns, self.retry_ns_max)

    with patch.object(BrokerLimits, "pause_ns", pause_ns):
        yield


@_fault("P8")
def _deadline_ignores_pauses() -> Iterator[None]:
    with patch.object(ReadyQueue, "next_wake_ns", lambda self: None):
        yield


@_fault("P9")
def _paused_message_goes_to_the_tail() -> Iterator[None]:
    def wake(self: ReadyQueue, now_ns: int) -> None:
        while self._paused and self._paused[0][0] <= now_ns:
            self._fresh.append(self._paused.pop(0)[2])

    with patch.object(ReadyQueue, "wake", wake):
        yield


# ---- offenders ---------------------------------------------------------------------------------


@_fault("errors", "unheard")
def _everybody_is_answered_for_ever() -> Iterator[None]:
    with patch.object(Offenders, "is_heard", lambda self, id, greets, now_ns: True):
        yield


@_fault("errors", "unheard")
def _new_session_is_not_forgiven() -> Iterator[None]:
    with patch.object(Offenders, "forgive", lambda self, id: None):
        yield


# ---- leases ------------------------------------------------------------------------------------


@_fault("P4")
def _leases_outlive_their_consumer() -> Iterator[None]:
    def leave(self: Inventory, consumer: Consumer, why: str) -> None:
        consumer.credit_records = 0
        if consumer.in_ring:
            self._ring.remove(consumer)

    with patch.object(Inventory, "leave", leave):
        yield


@_fault("P5")
def _delivery_goes_beyond_the_credit() -> Iterator[None]:
    def fits(self: Consumer, records: int, size_bytes: int) -> bool:
        return self.out_records < self.credit_records and self.credit_bytes > 0

    with patch.object(Consumer, "fits", fits):
        yield


@_fault("P7", "P4")
def _lease_ends_a_moment_late() -> Iterator[None]:
    ended = LeaseTable.ended
    with patch.object(LeaseTable, "ended", lambda self, now_ns: ended(self, now_ns - 1)):
        yield


@_fault("P7", "P4")
def _silent_peers_stay_for_ever() -> Iterator[None]:
    with patch.object(PeerTable, "silent", lambda self, now_ns: []):
        yield


@_fault("P8")
def _deadline_ignores_leases() -> Iterator[None]:
    with patch.object(LeaseTable, "next_end_ns", lambda self: None):
        yield


@_fault("P8", "P7", "P4")
def _renewed_lease_keeps_its_place() -> Iterator[None]:
    def renew(self: LeaseTable, lease: Lease, now_ns: int) -> None:
        lease.until_ns = now_ns + self._duration_ns

    with patch.object(LeaseTable, "renew", renew):
        yield


@_fault("P11")
def _lease_numbers_return() -> Iterator[None]:
    add = LeaseTable.add

    def reuse(self: LeaseTable, message: Message, consumer: Consumer, now_ns: int) -> Lease:
        self._last = max(self._leases, default=0)
        return add(self, message, consumer, now_ns)

    with patch.object(LeaseTable, "add", reuse):
        yield


@_fault("P11", "P9")
def _anybody_may_settle_a_lease() -> Iterator[None]:
    with patch.object(LeaseTable, "held", lambda self, number, _: self._leases.get(number)):
        yield


@_fault("P12")
def _consumers_are_served_at_random() -> Iterator[None]:
    deliver = Inventory.deliver

    def shuffled(self: Inventory, now_ns: int) -> Iterator[Lease]:
        self._ring.rotate(random.getrandbits(1))
        return deliver(self, now_ns)

    with patch.object(Inventory, "deliver", shuffled):
        yield


@_fault("P12")
def _session_tokens_depend_on_the_process() -> Iterator[None]:
    init = PeerTable.__init__

    def own(self: PeerTable, secret: bytes, heartbeat_ns: int, silence_ns: int) -> None:
        init(self, b"%d" % random.getrandbits(64), heartbeat_ns, silence_ns)

    with patch.object(PeerTable, "__init__", own):
        yield


# ---- packs -------------------------------------------------------------------------------------


@_fault("confirms")
def _messages_of_a_pack_have_one_number() -> Iterator[None]:
    take_in = BrokerCore._take_in

    def last(
        self: BrokerCore,
        producer: Producer,
        message: Publish | Packed,
        payload: Payload,
        number: int,
    ) -> None:
        number = producer.heard if isinstance(message, Packed) else number
        take_in(self, producer, message, payload, number)

    with patch.object(BrokerCore, "_take_in", last):
        yield


@_fault("P3")
def _payload_of_a_pack_is_cut_in_the_wrong_order() -> Iterator[None]:
    def parts(pack: PublishPack, payload: Payload) -> Iterator[tuple[Packed, bytes]]:
        end = len(payload)
        for packed in pack.messages:
            yield packed, bytes(payload[end - packed.bytes : end])
            end -= packed.bytes

    with patch.object(packing, "_parts", parts):
        yield


@_fault("errors")
def _length_of_a_pack_is_not_compared() -> Iterator[None]:
    with patch.object(core, "unpacked", packing._parts):
        yield


@_fault("P1", "errors")
def _pack_costs_its_first_message_only() -> Iterator[None]:
    unpack = BrokerCore._unpack

    def cheap(self: BrokerCore, producer: Producer, pack: PublishPack, payload: Payload) -> None:
        first, take = pack.messages[0], Credits.take

        def part(self: Credits, producer: Producer, *_: object) -> None:
            take(self, producer, first.records, first.bytes, "published")

        with patch.object(Credits, "take", part):
            unpack(self, producer, pack, payload)

    with patch.object(BrokerCore, "_unpack", cheap):
        yield


@_fault("packs")
def _pack_goes_to_who_does_not_speak_it() -> Iterator[None]:
    with patch.object(core, "speaks_packs", lambda _: True):
        yield


@_fault("numbers")
def _pack_takes_one_number() -> Iterator[None]:
    said = PeerTable.said

    def once(self: PeerTable, peer: Peer, now_ns: int, numbers: int = 1) -> int:
        return said(self, peer, now_ns)

    with patch.object(PeerTable, "said", once):
        yield
