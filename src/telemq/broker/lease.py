"""Who holds which message until when.

Every delivery makes a lease with a number of its own, never used again, so that a late SETTLE of an
earlier delivery of the same message can be told from that of the current one. All leases last
equally long from their making or renewal and time never goes back, so the order of making is the
order of ending, and the earliest end is the first entry: no heap is needed.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from telemq.broker.queue import Message
from telemq.protocol import Deliver, LeaseId, Lent

if TYPE_CHECKING:
    from telemq.broker.peers import Consumer

__all__ = ["Lease", "LeaseTable"]


class Lease(msgspec.Struct, eq=False):
    """One delivery that is not settled; a struct, since thousands are made a second.

    Attributes:
        id: the lease's number.
        message: what is lent.
        consumer: with whom; the object is its session.
        until_ns: when it ends, monotonic.
    """

    id: LeaseId
    message: Message
    consumer: Consumer
    until_ns: int

    def lent(self) -> Lent:
        """Give its line in a PACK; it must not be a dead letter."""
        message = self.message
        return Lent(
            self.id,
            message.attempt,
            message.id,
            message.records,
            message.size_bytes,
            message.key,
            message.metadata,
        )

    def deliver(self, number: int, lease_ms: int) -> Deliver:
        """Give the DELIVER for it, as the session's n-th message."""
        message = self.message
        return Deliver(
            self.consumer.session,
            number,
            self.id,
            lease_ms,
            message.attempt,
            message.id,
            message.records,
            message.key,
            message.metadata,
            message.dead,
        )


class LeaseTable:
    """All leases, earliest end first; knows the records and bytes that are lent.

    Args:
        duration_ns: how long each lease lasts.
    """

    def __init__(self, duration_ns: int) -> None:
        self._duration_ns = duration_ns
        self._leases: OrderedDict[LeaseId, Lease] = OrderedDict()
        self._last = 0
        self.records = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._leases)

    def add(self, message: Message, consumer: Consumer, now_ns: int) -> Lease:
        """Lend a message from now on."""
        self._last += 1
        lease = Lease(LeaseId(self._last), message, consumer, now_ns + self._duration_ns)
        self._leases[lease.id] = lease
        self.records += message.records
        self.size_bytes += message.size_bytes
        return lease

    def held(self, number: int, consumer: Consumer) -> Lease | None:
        """Find a lease by its number, if it is live and that consumer's."""
        lease = self._leases.get(LeaseId(number))
        return lease if lease is not None and lease.consumer is consumer else None

    def remove(self, lease: Lease) -> None:
        """End a live lease."""
        del self._leases[lease.id]
        self.records -= lease.message.records
        self.size_bytes -= lease.message.size_bytes

    def renew(self, lease: Lease, now_ns: int) -> None:
        """Let a live lease begin anew."""
        lease.until_ns = now_ns + self._duration_ns
        self._leases.move_to_end(lease.id)

    def next_end_ns(self) -> int | None:
        """Give the earliest end of all leases, or None when there is none."""
        return next(iter(self._leases.values())).until_ns if self._leases else None

    def ended(self, now_ns: int) -> list[Lease]:
        """List the leases that are over by now, earliest end first; they stay in the table."""
        over = []
        for lease in self._leases.values():
            if lease.until_ns > now_ns:
                break
            over.append(lease)
        return over

    def all(self) -> list[Lease]:
        """List all leases, earliest end first."""
        return list(self._leases.values())
