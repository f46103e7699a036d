"""The broker's rules when there is a journal: confirmed once on disk, and brought back from there.

The rules of `core` stand; three things are added. What happens to messages is noted, for the shell
to write (`notes`). The shell tells how far that is on disk (`synced`), and what was accepted until
then is confirmed. And while the journal cannot take more (`stall`), nobody is granted credit::

    accepted --- synced ---> confirmed --- settled ---> forgotten
         '------ settled before it was synced -------> confirmed and forgotten

A message has a number of arrival (`place`) that is never used again, in later lives neither, so
"synced up to a place" says it of each one until there. Who published last is confirmed, and only
once: a message whose claim has no session has nobody waiting for it.

On disk each message has an entry of its own, for it may be forgotten alone; so it is held in a
bundle of its own here.
"""

from __future__ import annotations

from telemq.broker.bundle import Bundle
from telemq.broker.core import BrokerCore, Outgoing
from telemq.broker.entries import Append, Forget, Note, Retried
from telemq.broker.intake import Intake
from telemq.broker.inventory import Inventory
from telemq.broker.lease import Lease
from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import Consumer, Producer
from telemq.broker.stats import Counters
from telemq.protocol import JOIN_BYTES, Settlement

__all__ = ["JournaledCore"]


class JournaledCore(BrokerCore):
    """A broker's rules with a journal; see the module and `BrokerCore`."""

    join_bytes = JOIN_BYTES

    def __init__(self, limits: BrokerLimits, secret: bytes) -> None:
        super().__init__(limits, secret)
        self._inventory = self._noting = _Noting(limits, self._counters)
        self._intake = _Singly(self)
        self._synced = 0

    def restore(self, messages: list[Bundle], place: int, now_ns: int) -> None:
        """Take in what an earlier life left, before any peer is heard.

        There may be more than the capacity allows, if that was lowered: then nothing is granted
        until there is less.

        Args:
            messages: bundles of one, in order of arrival, each id once; they belong to the core
                now.
            place: no message may have had a greater one.
            now_ns: the moment, monotonic.
        """
        self._now = max(now_ns, self._now)
        self._intake.place = self._synced = place
        for message in messages:
            self._noting.restore(message)

    def notes(self) -> list[Note]:
        """Give what is to be written, in order, and has not been given before."""
        notes, self._noting.notes = self._noting.notes, []
        return notes

    def synced(self, place: int, now_ns: int) -> list[Outgoing]:
        """Confirm all that was accepted up to a place: it is on disk, or done with."""
        self._now = max(now_ns, self._now)
        self._synced = max(place, self._synced)
        unsynced = self._noting.unsynced
        while unsynced and next(iter(unsynced)) <= self._synced:
            self._confirm(unsynced.pop(next(iter(unsynced))))
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

    def _published_again(self, bundle: Bundle) -> None:
        """Confirm at once what has been on disk for long."""
        if bundle.place <= self._synced:
            self._confirm(bundle)


class _Singly(Intake):
    """An intake that makes a bundle of each message."""

    def __init__(self, core: JournaledCore) -> None:
        super().__init__(core.limits, core._peers, core._credits, core._inventory, core._counters)
        self._core = core

    def _take_in(self, producer: Producer, bundle: Bundle) -> None:
        if len(bundle.messages) == 1:
            self._take_in_one(producer, bundle)
        else:
            self._take_in_singly(producer, bundle)

    def _claim_again(self, producer: Producer, id: str, number: int) -> Bundle:
        bundle = super()._claim_again(producer, id, number)
        self._core._published_again(bundle)
        return bundle


class _Noting(Inventory):
    """An inventory that notes what becomes of each message.

    Attributes:
        notes: not given to the shell yet.
        unsynced: accepted, held, and not known to be on disk; by place, in order.
    """

    def __init__(self, limits: BrokerLimits, counters: Counters) -> None:
        super().__init__(limits, counters)
        self.notes: list[Note] = []
        self.unsynced: dict[int, Bundle] = {}

    def restore(self, bundle: Bundle) -> None:
        """Take in a message of an earlier life."""
        if bundle.attempt >= self._limits.attempts_max and not bundle.dead:
            bundle.dead = f"not stored after {bundle.attempt} deliveries; then the broker ended"
        self._held[bundle.id] = bundle
        self._counters.restored += 1
        if bundle.attempt:
            self.ready.give_back(bundle)
        else:
            self.ready.append(bundle)

    def add(self, bundle: Bundle) -> bool:
        is_new = super().add(bundle)
        if is_new:
            self.unsynced[bundle.place] = bundle
            self.notes.append(Append(bundle))
        return is_new

    def settle(self, consumer: Consumer, settlement: Settlement, now_ns: int) -> list[Bundle]:
        done = super().settle(consumer, settlement, now_ns)
        for bundle in done:
            self.unsynced.pop(bundle.place, None)
            self.notes.append(Forget(bundle.place))
        return done

    def _give_back(self, lease: Lease, why: str, until_ns: int | None = None) -> None:
        super()._give_back(lease, why, until_ns)
        bundle = lease.bundle
        self.notes.append(Retried(bundle.place, bundle.attempt, bundle.dead))
