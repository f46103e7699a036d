"""Who holds which messages until when.

A bundle is lent as one, in one lease. Every delivery of every message has a lease number of its
own, never used again, so that a late SETTLE of an earlier delivery can be told from that of the
current one; the numbers of a lease are in a row. All leases last equally long from their making or
renewal and time never goes back, so the order of making is the order of ending, and those with the
earliest end are the first entry: no heap is needed.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from telemq.broker.bundle import Bundle

if TYPE_CHECKING:
    from telemq.broker.peers import Consumer

__all__ = ["Lease", "LeaseTable"]

#: First numbers of leases that are over, beside as many as there are leases.
_OVER_MAX = 1000


class Lease(msgspec.Struct, eq=False):
    """One delivery of a bundle, of which nothing is settled.

    Attributes:
        first: lease number of the first message; the others follow.
        end: the number after the last.
        bundle: what is lent.
        consumer: with whom; the object is its session.
        until_ns: when it ends, monotonic.
    """

    first: int
    end: int
    bundle: Bundle
    consumer: Consumer
    until_ns: int


class LeaseTable:
    """All leases, by number and by end; knows the messages, records and bytes that are lent.

    Args:
        duration_ns: how long each lease lasts.
    """

    def __init__(self, duration_ns: int) -> None:
        self._duration_ns = duration_ns
        self._by_first: dict[int, Lease] = {}
        #: The first number of every lease there was, ascending, until most of them are over.
        self._firsts: list[int] = []
        #: Earliest end first. A dictionary in a dictionary, as a set that keeps its order.
        self._by_end: OrderedDict[int, dict[Lease, None]] = OrderedDict()
        self._next = 1
        self.messages = self.records = self.size_bytes = 0

    def add(self, bundle: Bundle, consumer: Consumer, now_ns: int) -> Lease:
        """Lend a bundle from now on."""
        first, end = self._next, self._next + len(bundle.messages)
        self._next = end
        lease = Lease(first, end, bundle, consumer, now_ns + self._duration_ns)
        self._by_first[first] = lease
        self._firsts.append(first)
        self._enlist(lease)
        self._count(lease, 1)
        return lease

    def held(self, number: int, consumer: Consumer) -> Lease | None:
        """Find the lease of a number, if it is live and that consumer's."""
        lease = self._by_first.get(number)
        if lease is None:
            at = bisect_right(self._firsts, number)
            # One that is over has nothing behind its first number, nor has any before it.
            lease = self._by_first.get(self._firsts[at - 1]) if at else None
            if lease is None or number >= lease.end:
                return None
        return lease if lease.consumer is consumer else None

    def split(self, lease: Lease, front: Bundle, back: Bundle) -> tuple[Lease, Lease]:
        """Make two leases of one whose bundle was cut; both end when it would have."""
        edge = lease.first + len(front.messages)
        if front is lease.bundle:
            new = Lease(edge, lease.end, back, lease.consumer, lease.until_ns)
            lease.end = edge
            parts = lease, new
        else:
            new = Lease(lease.first, edge, front, lease.consumer, lease.until_ns)
            lease.first = edge
            parts = new, lease
        for part in parts:
            self._by_first[part.first] = part
        insort(self._firsts, edge)
        self._enlist(new)
        return parts

    def remove(self, lease: Lease) -> None:
        """End a live lease."""
        del self._by_first[lease.first]
        if len(self._firsts) > 2 * len(self._by_first) + _OVER_MAX:
            self._firsts = [first for first in self._firsts if first in self._by_first]
        self._leave(lease)
        self._count(lease, -1)

    def renew(self, lease: Lease, now_ns: int) -> None:
        """Let a live lease begin anew."""
        self._leave(lease)
        lease.until_ns = now_ns + self._duration_ns
        self._enlist(lease)

    def next_end_ns(self) -> int | None:
        """Give the earliest end of all leases, or None when there is none."""
        return next(iter(self._by_end), None)

    def ended(self, now_ns: int) -> list[Lease]:
        """List the leases that are over by now, earliest end first; they stay in the table."""
        over: list[Lease] = []
        for until_ns, leases in self._by_end.items():
            if until_ns > now_ns:
                break
            over += leases
        return over

    def all(self) -> list[Lease]:
        """List all leases, earliest end first."""
        return [lease for leases in self._by_end.values() for lease in leases]

    def _count(self, lease: Lease, sign: int) -> None:
        self.messages += sign * len(lease.bundle.messages)
        self.records += sign * lease.bundle.records
        self.size_bytes += sign * lease.bundle.size_bytes

    def _enlist(self, lease: Lease) -> None:
        leases = self._by_end.get(lease.until_ns)
        if leases is None:
            leases = self._by_end[lease.until_ns] = {}
        leases[lease] = None

    def _leave(self, lease: Lease) -> None:
        leases = self._by_end[lease.until_ns]
        del leases[lease]
        if not leases:
            del self._by_end[lease.until_ns]
