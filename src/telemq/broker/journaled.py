"""The broker's rules when there is a journal: confirmed once on disk, and brought back from there.

The rules of `core` stand; three things are added. What happens to messages is noted, for the shell
to write (`notes`). The shell tells how far that is on disk (`synced`), and what was accepted until
then is confirmed. And while the journal cannot take more (`stall`), nobody is granted credit::

    accepted --- synced ---> confirmed --- settled ---> forgotten
         '------ settled before it was synced -------> confirmed and forgotten

A message has a number of arrival (`place`) that is never used again, in later lives neither, so
"synced up to a place" says it of each one until there. Who published last is confirmed, and only
once: a message whose claim has no session has nobody waiting for it.

What arrived as a bundle is on disk in one entry, so it is synced as one, in whatever pieces it is
then.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from telemq.broker.bundle import Bundle
from telemq.broker.core import BrokerCore, Outgoing
from telemq.broker.entries import Append, Forget, Note, Retried
from telemq.broker.intake import Intake
from telemq.broker.inventory import Inventory
from telemq.broker.lease import Lease
from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import Consumer, Producer
from telemq.broker.stats import Counters
from telemq.protocol import Settlement

__all__ = ["JournaledCore"]


class JournaledCore(BrokerCore):
    """A broker's rules with a journal; see the module and `BrokerCore`."""

    def __init__(self, limits: BrokerLimits, secret: bytes) -> None:
        super().__init__(limits, secret)
        self._inventory = self._noting = _Noting(limits, self._counters)
        self._intake = _Answering(self)
        self._synced = 0

    def restore(self, messages: list[Bundle], place: int, now_ns: int) -> None:
        """Take in what an earlier life left, before any peer is heard.

        There may be more than the capacity allows, if that was lowered: then nothing is granted
        until there is less.

        Args:
            messages: in order of arrival, each id once; the bundles belong to the core now.
            place: no message may have had a greater one.
            now_ns: the moment, monotonic.
        """
        self._now = max(now_ns, self._now)
        self._intake.place = self._synced = place
        for bundle in messages:
            self._noting.restore(bundle)

    def notes(self) -> list[Note]:
        """Give what is to be written, in order, and has not been given before."""
        notes, self._noting.notes = self._noting.notes, []
        return notes

    def synced(self, place: int, now_ns: int) -> list[Outgoing]:
        """Confirm all that was accepted up to a place: it is on disk, or done with."""
        self._now = max(now_ns, self._now)
        self._synced = max(place, self._synced)
        for bundle in self._noting.unsynced.up_to(self._synced):
            self._confirm(bundle)
        return self._settle_up()

    def stall(self, stalled: bool, now_ns: int) -> list[Outgoing]:
        """Grant nothing while the journal can take no more; or go on."""
        self._now = max(now_ns, self._now)
        self._stalled = stalled
        return self._settle_up()

    def unsynced_messages(self) -> int:
        """Tell how many messages that are held would be lost with this process."""
        return len(self._noting.unsynced)

    def _confirm(self, bundle: Bundle) -> None:
        super()._confirm(bundle)
        bundle.unclaim()

    def _published_again(self, bundle: Bundle, id: str) -> None:
        """Confirm at once what has been on disk for long."""
        if bundle.end <= self._synced + 1:
            self._confirm_to(*bundle.claim(id, "", 0))


class _Answering(Intake):
    """An intake that has a message confirmed that was on disk when it was published again."""

    def __init__(self, core: JournaledCore) -> None:
        super().__init__(core.limits, core._peers, core._credits, core._inventory, core._counters)
        self._core = core

    def _claim_again(self, producer: Producer, id: str, number: int) -> Bundle:
        bundle = super()._claim_again(producer, id, number)
        self._core._published_again(bundle, id)
        return bundle


class _Unsynced:
    """Bundles that are held and not known to be on disk, in order of arrival.

    A piece that is cut off comes with a place between those that are here, hence the heap; places
    of bundles that are here no more stay in it until they are reached.
    """

    def __init__(self) -> None:
        self._bundles: dict[int, Bundle] = {}
        self._places: list[int] = []

    def __len__(self) -> int:
        return sum(map(len, self._bundles.values()))

    def __contains__(self, bundle: Bundle) -> bool:
        return bundle.place in self._bundles

    def add(self, bundle: Bundle) -> None:
        """Take in a bundle, or a piece of one that is here."""
        if bundle.place not in self._bundles:
            heapq.heappush(self._places, bundle.place)
        self._bundles[bundle.place] = bundle

    def drop(self, bundle: Bundle) -> None:
        """Leave out a bundle that is done with, if it is here."""
        self._bundles.pop(bundle.place, None)

    def up_to(self, place: int) -> Iterator[Bundle]:
        """Take out the bundles that end at a place or before."""
        while self._places:
            bundle = self._bundles.get(self._places[0])
            if bundle is not None:
                if bundle.end > place + 1:
                    return
                del self._bundles[bundle.place]
                yield bundle
            heapq.heappop(self._places)


class _Noting(Inventory):
    """An inventory that notes what becomes of messages.

    Attributes:
        notes: not given to the shell yet.
        unsynced: see there.
    """

    def __init__(self, limits: BrokerLimits, counters: Counters) -> None:
        super().__init__(limits, counters)
        self.notes: list[Note] = []
        self.unsynced = _Unsynced()

    def restore(self, bundle: Bundle) -> None:
        """Take in messages of an earlier life."""
        if bundle.attempt >= self._limits.attempts_max and not bundle.dead:
            bundle.dead = f"not stored after {bundle.attempt} deliveries; then the broker ended"
        self._held.update(dict.fromkeys([message.id for message in bundle.messages], bundle))
        self._counters.restored += len(bundle)
        if bundle.attempt:
            self.ready.give_back(bundle)
        else:
            self.ready.append(bundle)

    def add(self, bundle: Bundle) -> bool:
        is_new = super().add(bundle)
        if is_new:
            self.unsynced.add(bundle)
            self.notes.append(Append(bundle.place, bundle.messages, bundle.payload))
        return is_new

    def settle(self, consumer: Consumer, settlement: Settlement, now_ns: int) -> list[Bundle]:
        done = super().settle(consumer, settlement, now_ns)
        for bundle in done:
            self.unsynced.drop(bundle)
            self.notes.append(Forget(bundle.place, len(bundle)))
        return done

    def _cut(self, bundle: Bundle, at: int) -> tuple[Bundle, Bundle]:
        is_unsynced = bundle in self.unsynced
        pieces = super()._cut(bundle, at)
        if is_unsynced:
            for piece in pieces:
                self.unsynced.add(piece)
        return pieces

    def _give_back(self, lease: Lease, why: str, until_ns: int | None = None) -> None:
        super()._give_back(lease, why, until_ns)
        bundle = lease.bundle
        self.notes.append(Retried(bundle.place, len(bundle), bundle.attempt, bundle.dead))
