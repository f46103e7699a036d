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

from telemq import frames as frames_module
from telemq.broker import bundle as bundle_module
from telemq.broker import core, intake
from telemq.broker.bundle import Bundle, Claim
from telemq.broker.credit import Credits
from telemq.broker.intake import Intake
from telemq.broker.inventory import Inventory
from telemq.broker.lease import Lease, LeaseTable
from telemq.broker.limits import BrokerLimits
from telemq.broker.offenders import Offenders
from telemq.broker.peers import Consumer, Peer, PeerTable, Producer
from telemq.broker.queue import ReadyQueue
from telemq.protocol import LEASES_MAX, Frames, Packed, Payload, PublishPack

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

    def forgetful(self: ReadyQueue, bundle: Bundle, sign: int) -> None:
        before = self.size_bytes
        count(self, bundle, sign)
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

    def sticky(self: Inventory, consumer: Consumer, said: Any, now_ns: int) -> list[Bundle]:
        done = settle(self, consumer, said, now_ns)
        for bundle in done:
            self._held.update((message.id, bundle) for message in bundle.messages)
            self.ready.give_back(bundle)
        return done

    with patch.object(Inventory, "settle", sticky):
        yield


@_fault("P3", "P9")  # P9 if the first is paused
def _duplicate_is_queued_twice() -> Iterator[None]:
    def add(self: Inventory, bundle: Bundle) -> bool:
        self._held.update((message.id, bundle) for message in bundle.messages)
        self.ready.append(bundle)
        self._counters.accepted += len(bundle)
        return True

    with patch.object(Inventory, "add", add):
        yield


@_fault("confirms")
def _producer_s_held_messages_are_not_counted() -> Iterator[None]:
    with patch.object(Producer, "hold", lambda _self, _messages, _records: None):
        yield


@_fault("confirms")
def _confirm_goes_to_the_first_publisher() -> Iterator[None]:
    claim = Bundle.claim

    def first(self: Bundle, id: str, session: str, number: int) -> Claim:
        before = claim(self, id, session, number)
        claim(self, id, before.session, before.number)
        return before

    with patch.object(Bundle, "claim", first):
        yield


@_fault("P6")
def _attempts_are_not_counted() -> Iterator[None]:
    add = LeaseTable.add

    def uncounted(self: LeaseTable, bundle: Bundle, consumer: Consumer, now_ns: int) -> Lease:
        bundle.attempt = 1
        return add(self, bundle, consumer, now_ns)

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
    def give_back(self: ReadyQueue, bundle: Bundle) -> None:
        self._returned.insert(0, (bundle.place, bundle))
        self._count(bundle, 1)

    with patch.object(ReadyQueue, "give_back", give_back):
        yield


@_fault("P9")
def _retry_leaves_at_once() -> Iterator[None]:
    def pause(self: ReadyQueue, bundle: Bundle, until_ns: int) -> None:
        self.give_back(bundle)

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
    takes = Consumer.takes

    def greedy(self: Consumer, bundle: Bundle) -> int:
        has_room = self.out_records < self.credit_records and self.credit_bytes > 0
        return takes(self, bundle) or int(has_room)

    with patch.object(Consumer, "takes", greedy):
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
def _renewed_lease_keeps_its_end() -> Iterator[None]:
    with patch.object(LeaseTable, "renew", lambda self, lease, now_ns: None):
        yield


@_fault("P8", "P7", "P4")
def _renewed_lease_ends_among_the_earlier_ones() -> Iterator[None]:
    renew = LeaseTable.renew

    def early(self: LeaseTable, lease: Lease, now_ns: int) -> None:
        renew(self, lease, now_ns)
        self._by_end.move_to_end(lease.until_ns, last=False)

    with patch.object(LeaseTable, "renew", early):
        yield


@_fault("P11")
def _lease_numbers_return() -> Iterator[None]:
    add = LeaseTable.add

    def reuse(self: LeaseTable, bundle: Bundle, consumer: Consumer, now_ns: int) -> Lease:
        self._next = max((lease.end for lease in self._by_first.values()), default=1)
        return add(self, bundle, consumer, now_ns)

    with patch.object(LeaseTable, "add", reuse):
        yield


@_fault("P11", "P9")
def _anybody_may_settle_a_lease() -> Iterator[None]:
    def anybodys(self: LeaseTable, number: int, _: Consumer) -> Lease | None:
        leases = self._by_first.values()
        return next((lease for lease in leases if lease.first <= number < lease.end), None)

    with patch.object(LeaseTable, "held", anybodys):
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
def _messages_of_a_pack_have_the_last_number() -> Iterator[None]:
    add = Intake._add

    def last(self: Intake, producer: Producer, bundle: Bundle) -> bool:
        bundle.number = producer.heard
        return add(self, producer, bundle)

    with patch.object(Intake, "_add", last):
        yield


@_fault("P3")
def _payload_of_a_pack_with_a_duplicate_is_cut_in_the_wrong_order() -> Iterator[None]:
    singly = Intake._take_in_singly

    def backwards(self: Intake, producer: Producer, bundle: Bundle) -> None:
        sizes = [packed.bytes for packed in bundle.messages]
        payload, end, parts = bytes(bundle.payload), len(bundle.payload), []
        for size in sizes:
            parts.append(payload[end - size : end])
            end -= size
        bundle.payload = b"".join(parts)
        singly(self, producer, bundle)

    with patch.object(Intake, "_take_in_singly", backwards):
        yield


@_fault("errors", "P3")
def _length_of_a_pack_is_not_compared() -> Iterator[None]:
    def by_length(
        messages: tuple[Packed, ...], _size_bytes: int, frames: Frames
    ) -> list[tuple[Any, Payload]]:
        return [(messages, b"".join(frames))]

    with patch.object(intake, "split", by_length):
        yield


@_fault("P3")
def _frame_of_a_pack_is_given_to_the_messages_of_another() -> Iterator[None]:
    true = frames_module.split

    def swapped(
        messages: tuple[Packed, ...], size_bytes: int, frames: Frames
    ) -> list[tuple[Any, Payload]]:
        parts = true(messages, size_bytes, frames)
        payloads = [payload for _, payload in (*parts[1:], *parts[:1])]
        return [(part, payload) for (part, _), payload in zip(parts, payloads, strict=True)]

    with patch.object(intake, "split", swapped):
        yield


@_fault("P1", "errors")
def _pack_costs_its_first_message_only() -> Iterator[None]:
    publish = Intake.publish_pack

    def cheap(
        self: Intake, producer: Producer, pack: PublishPack, frames: Frames, now_ns: int
    ) -> None:
        first, take = pack.messages[0], Credits.take

        def part(self: Credits, producer: Producer, *_: object) -> None:
            take(self, producer, first.records, first.bytes, "published")

        with patch.object(Credits, "take", part):
            publish(self, producer, pack, frames, now_ns)

    with patch.object(Intake, "publish_pack", cheap):
        yield


@_fault("packs")
def _pack_goes_to_who_does_not_speak_it() -> Iterator[None]:
    with patch.object(core, "speaks_packs", lambda _: True):
        yield


@_fault("packs")
def _counts_go_to_who_does_not_know_them() -> Iterator[None]:
    parts = core._parts
    with patch.object(core, "_parts", lambda runs, **_: parts(runs, folds=True)):
        yield


@_fault("confirms")
def _confirms_that_lie_apart_are_one_range() -> Iterator[None]:
    parts = core._parts

    def joined(runs: list[tuple[int, int]], *, folds: bool) -> Any:
        return parts([(runs[0][0], sum([count for _, count in runs]))], folds=folds)

    with patch.object(core, "_parts", joined):
        yield


@_fault("numbers")
def _pack_takes_one_number() -> Iterator[None]:
    said = PeerTable.said

    def once(self: PeerTable, peer: Peer, now_ns: int, numbers: int = 1) -> int:
        return said(self, peer, now_ns)

    with patch.object(PeerTable, "said", once):
        yield


# ---- cutting -----------------------------------------------------------------------------------


def _cutting(spoil: Callable[[Bundle, Bundle, Bundle], None]) -> AbstractContextManager[object]:
    """Spoil each cut: given are the new part, the front and the back."""
    cut = Bundle.cut

    def spoilt(self: Bundle, at: int) -> tuple[Bundle, Bundle]:
        front, back = cut(self, at)
        spoil(back if front is self else front, front, back)
        return front, back

    return patch.object(Bundle, "cut", spoilt)


@_fault("P3")
def _payload_is_cut_at_the_wrong_byte() -> Iterator[None]:
    def swapped(payload: Payload, start: int, stop: int) -> Payload:
        return bytes(payload[len(payload) - stop : len(payload) - start])

    with patch.object(bundle_module, "_part", swapped):
        yield


@_fault("confirms")
def _claims_are_lost_in_a_cut() -> Iterator[None]:
    def spoil(new: Bundle, front: Bundle, back: Bundle) -> None:
        front.again = back.again = None

    with _cutting(spoil):
        yield


@_fault("confirms")
def _numbers_do_not_move_in_a_cut() -> Iterator[None]:
    def spoil(new: Bundle, front: Bundle, back: Bundle) -> None:
        back.number = front.number

    with _cutting(spoil):
        yield


@_fault("P9")
def _place_does_not_move_in_a_cut() -> Iterator[None]:
    def spoil(new: Bundle, front: Bundle, back: Bundle) -> None:
        back.place = front.place + 100

    with _cutting(spoil):
        yield


@_fault("P6", "P9")
def _attempts_are_lost_in_a_cut() -> Iterator[None]:
    def spoil(new: Bundle, front: Bundle, back: Bundle) -> None:
        new.attempt = 0

    with _cutting(spoil):
        yield


@_fault("P1")
def _sums_stay_in_a_cut() -> Iterator[None]:
    def spoil(new: Bundle, front: Bundle, back: Bundle) -> None:
        new.records += 1

    with _cutting(spoil):
        yield


@_fault("P3")
def _new_part_is_not_found_by_id() -> Iterator[None]:
    with patch.object(Inventory, "_cut", lambda self, bundle, at: bundle.cut(at)):
        yield


@_fault("P9")
def _what_was_cut_off_goes_to_the_tail() -> Iterator[None]:
    with patch.object(ReadyQueue, "put_back", ReadyQueue.append):
        yield


@_fault("P5", "P9")
def _one_more_than_fits_is_cut_off() -> Iterator[None]:
    takes = Consumer.takes

    def more(self: Consumer, bundle: Bundle) -> int:
        count = takes(self, bundle)
        return min(count + 1, len(bundle)) if count and self.packs and not bundle.dead else count

    with patch.object(Consumer, "takes", more):
        yield


@_fault("P2", "P4", "confirms")
def _settling_a_part_settles_all() -> Iterator[None]:
    def within(self: Inventory, consumer: Consumer, first: int, count: int) -> Iterator[Lease]:
        for number in range(first, first + count):
            if lease := self.leases.held(number, consumer):
                yield lease

    with patch.object(Inventory, "_within", within):
        yield


@_fault("P2", "P4", "confirms", "P8")
def _range_goes_on_to_the_end_of_its_lease() -> Iterator[None]:
    within = Inventory._within

    def far(self: Inventory, consumer: Consumer, first: int, count: int) -> Iterator[Lease]:
        last = self.leases.held(first + count - 1, consumer)
        return within(self, consumer, first, (last.end if last else first + count) - first)

    with patch.object(Inventory, "_within", far):
        yield


@_fault("P2", "P4", "P11", "confirms", "P8")
def _range_leaves_out_its_last() -> Iterator[None]:
    within = Inventory._within

    def short(self: Inventory, consumer: Consumer, first: int, count: int) -> Iterator[Lease]:
        return within(self, consumer, first, max(1, count - 1))

    with patch.object(Inventory, "_within", short):
        yield


@_fault("P8", "P7", "P4")
def _part_of_a_split_lease_ends_later() -> Iterator[None]:
    split = LeaseTable.split

    def later(self: LeaseTable, lease: Lease, front: Bundle, back: Bundle) -> tuple[Lease, Lease]:
        parts = split(self, lease, front, back)
        self.renew(parts[1], lease.until_ns - self._duration_ns + 1)
        return parts

    with patch.object(LeaseTable, "split", later):
        yield


@_fault("errors")
def _count_of_a_range_is_not_bounded() -> Iterator[None]:
    with patch.object(core, "LEASES_MAX", LEASES_MAX + 1):
        yield
