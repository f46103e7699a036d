"""Which leases a streamer has, as far as it knows: pure rules, without Postgres and threads.

A lease is *ready* until its batch is published, then *published* until the batch is confirmed.
What Postgres says at a renewal can differ from that in two ways, and both are told apart from mere
delay by waiting for a second renewal that says the same:

- A published lease is gone there. It was stored and its confirm is under way, or it ran out and
  somebody else has it, who then gets the confirm. The second time, the batch may be forgotten.
- A lease is ours there and unknown here. It was confirmed just now, or the answer that gave it to
  us was lost with the connection. The second time, it must be released, or nobody would ever
  publish it.

A ready lease that is gone there is dropped at once: nobody waits for its confirm.

A queue that keeps messages itself confirms a batch before it is in Postgres. Its lease then stays
ours, renewed and not published again, until the commit closes it; but not for ever, should the
queue have lost it after all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from telemq.store.leases import Lease

__all__ = ["LeaseBook", "Renewal"]


#: Renewals, a third of a lease apart, for which a confirmed batch may wait for its commit.
_CONFIRMED_RENEWALS = 120


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a renewal brought to light.

    Attributes:
        lost: first rows of published leases that are no longer ours: forget their batches.
        dropped: how many ready leases were no longer ours.
        strays: whether there are leases of ours to release, because nobody will publish them.
    """

    lost: tuple[int, ...]
    dropped: int
    strays: bool


class LeaseBook:
    """The leases of one streamer; batches are named by their first row."""

    def __init__(self) -> None:
        self._ready: deque[Lease] = deque()
        self._published: dict[int, Lease] = {}
        #: By first row of a confirmed batch, the renewals that its lease has outlived since.
        self._confirmed: dict[int, int] = {}
        self._missing: frozenset[int] = frozenset()
        self._strange: frozenset[int] = frozenset()

    @property
    def ready(self) -> int:
        """Leases whose batches are not published yet."""
        return len(self._ready)

    @property
    def published(self) -> int:
        """Leases whose batches are published and not confirmed."""
        return len(self._published)

    def known(self) -> frozenset[int]:
        """Give the first rows of all leases."""
        ready = {lease.first_row for lease in self._ready}
        return frozenset(self._published) | self._confirmed.keys() | ready

    def add(self, leases: Iterable[Lease]) -> int:
        """Take in what was reserved or taken over; give how many are new.

        A streamer that was held up can take over a lease of its own: then nothing changes.
        """
        known = self.known()
        new = [lease for lease in leases if lease.first_row not in known]
        if new:
            # Old rows first: those taken over hold up the end of the stream.
            self._ready = deque(sorted([*self._ready, *new]))
        return len(new)

    def next_ready(self) -> Lease | None:
        """Give the lease to publish next, or None; it stays ready."""
        return self._ready[0] if self._ready else None

    def publish(self, lease: Lease) -> bool:
        """Note that `lease` is published; False if it was dropped meanwhile."""
        try:
            self._ready.remove(lease)
        except ValueError:
            return False
        self._published[lease.first_row] = lease
        return True

    def confirm(self, first_row: int) -> Lease | None:
        """Note that a batch is safe, and give its lease; None if it is not known any more."""
        lease = self._published.pop(first_row, None)
        if lease is not None:
            self._confirmed[first_row] = 0
        return lease

    def drop_ready(self) -> None:
        """Forget what is not published; the leases are to be released."""
        self._ready.clear()

    def renewed(self, before: AbstractSet[int], ours: AbstractSet[int]) -> Renewal:
        """Compare with what a renewal found.

        Args:
            before: `known` just before the renewal was asked for.
            ours: first rows of the leases that were ours in Postgres then.
        """
        now = self.known()
        gone = (before & now) - ours
        dropped = [lease for lease in self._ready if lease.first_row in gone]
        for lease in dropped:
            self._ready.remove(lease)
        missing = frozenset(first_row for first_row in gone if first_row in self._published)
        lost = tuple(sorted(missing & self._missing))
        for first_row in lost:
            del self._published[first_row]
        self._confirmed = {
            first_row: renewals + 1
            for first_row, renewals in self._confirmed.items()
            if first_row not in gone and renewals < _CONFIRMED_RENEWALS
        }
        strange = frozenset(ours - before - now)
        strays = bool(strange & self._strange)
        self._missing, self._strange = missing, strange
        return Renewal(lost, len(dropped), strays)
