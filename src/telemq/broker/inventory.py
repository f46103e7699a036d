"""All the messages that a broker holds, waiting or lent, and their way between the two.

A consumer's death, a lease that ran out, a retry: all are the same event here, a message that goes
back to the head of the queue; after a retry, once a pause is over. Only here do the totals of P2
change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from telemq.broker.lease import Lease, LeaseTable
from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import Consumer
from telemq.broker.queue import Message, ReadyQueue
from telemq.broker.stats import Counters
from telemq.protocol import Settlement

__all__ = ["Inventory"]


class Inventory:
    """Every held message, by id, in the queue and by lease.

    Args:
        limits: of the broker.
        counters: where to count.
    """

    def __init__(self, limits: BrokerLimits, counters: Counters) -> None:
        self.ready = ReadyQueue()
        self.leases = LeaseTable(limits.lease_ns)
        self._limits = limits
        self._counters = counters
        #: By id, in order of arrival.
        self._held: dict[str, Message] = {}
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

    def find(self, id: str) -> Message | None:
        """Find a held message by its id."""
        return self._held.get(id)

    def oldest(self) -> Message | None:
        """Show the held message that arrived first."""
        return next(iter(self._held.values()), None)

    def add(self, message: Message) -> None:
        """Take in a message whose id is not held."""
        self._held[message.id] = message
        self.ready.append(message)
        self._counters.accepted += 1
        self._counters.accepted_records += message.records

    def welcome(self, consumer: Consumer) -> None:
        """Take note that a consumer may have room now."""
        if not consumer.in_ring and consumer.credit_records and consumer.credit_bytes:
            consumer.in_ring = True
            self._ring.append(consumer)

    def deliver(self, now_ns: int) -> Iterator[Lease]:
        """Lend what can be lent, turn by turn to the consumers that have room."""
        self.ready.wake(now_ns)
        while self._ring and (message := self.ready.head()):
            consumer = self._ring.popleft()
            if not consumer.fits(message.records, message.size_bytes):
                consumer.in_ring = False
                continue
            self._ring.append(consumer)
            self.ready.pop()
            message.attempt += 1
            lease = self.leases.add(message, consumer, now_ns)
            consumer.leases[lease.id] = lease
            consumer.out_records += message.records
            consumer.out_bytes += message.size_bytes
            yield lease

    def settle(self, consumer: Consumer, settlement: Settlement, now_ns: int) -> Message | None:
        """Do what a consumer says of one of its leases.

        Returns:
            The message, if it is done with and to be confirmed.
        """
        lease = self.leases.held(settlement.lease, consumer)
        if lease is None:
            self._counters.stale_settles += 1
            return None
        message = lease.message
        if settlement.outcome == "retry" or (settlement.outcome == "bury" and message.dead):
            # A dead letter cannot be buried again: whoever tries cannot keep it now.
            until_ns = now_ns + self._limits.pause_ns(message.attempt)
            self._give_back(lease, "its consumer asked for a retry", until_ns)
            return None
        if settlement.outcome == "bury":
            message.dead = settlement.reason or "buried without a reason"
            self._give_back(lease, "")
            return None
        self._end(lease)
        del self._held[message.id]
        consumer.settled_messages += 1
        consumer.settled_records += message.records
        if message.dead:
            self._counters.buried += 1
        else:
            self._counters.settled += 1
            self._counters.settled_records += message.records
        return message

    def renew(self, consumer: Consumer, number: int, now_ns: int) -> None:
        """Let a lease begin anew, if it is live and that consumer's."""
        if lease := self.leases.held(number, consumer):
            self.leases.renew(lease, now_ns)

    def expire(self, now_ns: int) -> None:
        """Take back what was lent until now or earlier."""
        for lease in self.leases.ended(now_ns):
            self._counters.leases_expired += 1
            self._give_back(lease, "its lease ran out")

    def leave(self, consumer: Consumer, why: str) -> None:
        """Take back all that a consumer holds, whose session ends."""
        consumer.credit_records = consumer.credit_bytes = 0
        if consumer.in_ring:
            self._ring.remove(consumer)
            consumer.in_ring = False
        for lease in list(consumer.leases.values()):
            self._give_back(lease, why)

    def _give_back(self, lease: Lease, why: str, until_ns: int | None = None) -> None:
        self._end(lease)
        message = lease.message
        if not message.dead:
            self._counters.redelivered += 1
            lease.consumer.redelivered += 1
            if message.attempt >= self._limits.attempts_max:
                message.dead = f"not stored after {message.attempt} deliveries; last time {why}"
        if until_ns is None:
            self.ready.give_back(message)
        else:
            self.ready.pause(message, until_ns)

    def _end(self, lease: Lease) -> None:
        consumer = lease.consumer
        self.leases.remove(lease)
        del consumer.leases[lease.id]
        consumer.out_records -= lease.message.records
        consumer.out_bytes -= lease.message.size_bytes
        self.welcome(consumer)
