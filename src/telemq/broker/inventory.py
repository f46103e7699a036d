"""All the messages that a broker holds, waiting or lent, and their way between the two.

They are held in bundles, and here is where one is cut. A consumer's death, a lease that ran out, a
retry: all are the same event here, a bundle that goes back to the head of the queue; after a retry,
once a pause is over. Only here do the totals of P2 change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from telemq.broker.bundle import Bundle
from telemq.broker.lease import Lease, LeaseTable
from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import Consumer
from telemq.broker.queue import ReadyQueue
from telemq.broker.stats import Counters
from telemq.protocol import Settlement

__all__ = ["Inventory"]


class Inventory:
    """Every held message: its bundle by id, in the queue and by lease.

    Args:
        limits: of the broker.
        counters: where to count.
    """

    def __init__(self, limits: BrokerLimits, counters: Counters) -> None:
        self.ready = ReadyQueue()
        self.leases = LeaseTable(limits.lease_ns)
        self._limits = limits
        self._counters = counters
        #: By id of each message, in order of arrival.
        self._held: dict[str, Bundle] = {}
        #: Consumers that may have room, next to be served first. One that was found full is not
        #: here until it settles something or changes its credit.
        self._ring: deque[Consumer] = deque()

    @property
    def records(self) -> int:
        """Records held."""
        return self.ready.records + self.leases.records

    @property
    def size_bytes(self) -> int:
        """Payload bytes held."""
        return self.ready.size_bytes + self.leases.size_bytes

    def find(self, id: str) -> Bundle | None:
        """Find the bundle of a held message by its id."""
        return self._held.get(id)

    def oldest(self) -> Bundle | None:
        """Show the bundle of the held message that arrived first."""
        return next(iter(self._held.values()), None)

    def add(self, bundle: Bundle) -> bool:
        """Take in a bundle, unless an id in it is held already, or there twice."""
        ids = dict.fromkeys([message.id for message in bundle.messages], bundle)
        if len(ids) != len(bundle.messages) or not self._held.keys().isdisjoint(ids):
            return False
        self._held.update(ids)
        self.ready.append(bundle)
        self._counters.accepted += len(ids)
        self._counters.accepted_records += bundle.records
        return True

    def welcome(self, consumer: Consumer) -> None:
        """Take note that a consumer may have room now."""
        if not consumer.in_ring and consumer.credit_records and consumer.credit_bytes:
            consumer.in_ring = True
            self._ring.append(consumer)

    def deliver(self, now_ns: int) -> Iterator[Lease]:
        """Lend what can be lent, turn by turn to the consumers that have room."""
        self.ready.wake(now_ns)
        while self._ring and (bundle := self.ready.head()):
            consumer = self._ring.popleft()
            most = consumer.takes(bundle)
            if not most:
                consumer.in_ring = False
                continue
            self._ring.append(consumer)
            self.ready.pop()
            if most < len(bundle.messages):
                bundle, rest = self._cut(bundle, most)
                self.ready.put_back(rest)
            bundle.attempt += 1
            lease = self.leases.add(bundle, consumer, now_ns)
            consumer.hold(lease)
            yield lease

    def settle(self, consumer: Consumer, settlement: Settlement, now_ns: int) -> list[Bundle]:
        """Do what a consumer says of some of its leases.

        Returns:
            What is done with and to be confirmed.
        """
        done, live = [], 0
        for lease in self._within(consumer, settlement.lease, settlement.count):
            bundle = lease.bundle
            live += len(bundle.messages)
            if settlement.outcome == "ok":
                self._done(lease)
                done.append(bundle)
            elif settlement.outcome == "retry" or bundle.dead:
                # A dead letter cannot be buried again: whoever tries cannot keep it now.
                until_ns = now_ns + self._limits.pause_ns(bundle.attempt)
                self._give_back(lease, "its consumer asked for a retry", until_ns)
            else:
                bundle.dead = settlement.reason or "buried without a reason"
                self._give_back(lease, "")
        self._counters.stale_settles += settlement.count - live
        return done

    def renew(self, consumer: Consumer, first: int, count: int, now_ns: int) -> None:
        """Let leases begin anew, those that are live and that consumer's."""
        for lease in self._within(consumer, first, count):
            self.leases.renew(lease, now_ns)

    def expire(self, now_ns: int) -> None:
        """Take back what was lent until now or earlier."""
        for lease in self.leases.ended(now_ns):
            self._counters.leases_expired += len(lease.bundle.messages)
            self._give_back(lease, "its lease ran out")

    def leave(self, consumer: Consumer, why: str) -> None:
        """Take back all that a consumer holds, whose session ends."""
        consumer.credit_records = consumer.credit_bytes = 0
        if consumer.in_ring:
            self._ring.remove(consumer)
            consumer.in_ring = False
        for lease in list(consumer.leases):
            self._give_back(lease, why)

    def _within(self, consumer: Consumer, first: int, count: int) -> Iterator[Lease]:
        """Give a consumer's live leases with these numbers, cut off where the numbers end."""
        number, end = first, first + count
        while number < end:
            lease = self.leases.held(number, consumer)
            if lease is None:
                number += 1
                continue
            if lease.first < number:
                _, lease = self._cut_lease(lease, number - lease.first)
            if lease.end > end:
                lease, _ = self._cut_lease(lease, end - lease.first)
            number = lease.end
            yield lease

    def _cut(self, bundle: Bundle, at: int) -> tuple[Bundle, Bundle]:
        front, back = bundle.cut(at)
        new = back if front is bundle else front
        self._held.update(dict.fromkeys([message.id for message in new.messages], new))
        return front, back

    def _cut_lease(self, lease: Lease, at: int) -> tuple[Lease, Lease]:
        parts = self.leases.split(lease, *self._cut(lease.bundle, at))
        lease.consumer.leases.update(dict.fromkeys(parts))
        return parts

    def _done(self, lease: Lease) -> None:
        self._end(lease)
        bundle, consumer, counters = lease.bundle, lease.consumer, self._counters
        for message in bundle.messages:
            del self._held[message.id]
        consumer.settled_messages += len(bundle.messages)
        consumer.settled_records += bundle.records
        if bundle.dead:
            counters.buried += len(bundle.messages)
        else:
            counters.settled += len(bundle.messages)
            counters.settled_records += bundle.records

    def _give_back(self, lease: Lease, why: str, until_ns: int | None = None) -> None:
        self._end(lease)
        bundle = lease.bundle
        if not bundle.dead:
            self._counters.redelivered += len(bundle.messages)
            lease.consumer.redelivered += len(bundle.messages)
            if bundle.attempt >= self._limits.attempts_max:
                bundle.dead = f"not stored after {bundle.attempt} deliveries; last time {why}"
        if until_ns is None:
            self.ready.give_back(bundle)
        else:
            self.ready.pause(bundle, until_ns)

    def _end(self, lease: Lease) -> None:
        self.leases.remove(lease)
        lease.consumer.let_go(lease)
        self.welcome(lease.consumer)
