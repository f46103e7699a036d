"""The broker's rules when there is a journal: confirmed once on disk, and brought back from there.

The rules of `core` stand; three things are added. What happens to messages is noted, for the shell
to write (`notes`). The shell tells how far that is on disk (`synced`), and what was accepted until
then is confirmed. And while the journal cannot take more (`stall`), nobody is granted credit::

    accepted --- synced ---> confirmed --- settled ---> forgotten
         '------ settled before it was synced -------> confirmed and forgotten

A message has a number of arrival (`place`) that is never used again, in later lives neither, so
"synced up to a place" says it of each one until there. Who published last is confirmed, and only
once: a message whose `session` is empty has nobody waiting for it.
"""

from __future__ import annotations

from telemq.broker.core import BrokerCore, Outgoing
from telemq.broker.entries import Append, Forget, Note, Retried
from telemq.broker.inventory import Inventory
from telemq.broker.lease import Lease
from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import Consumer, Producer
from telemq.broker.queue import Message
from telemq.protocol import Packed, Payload, Publish, Settlement

__all__ = ["JournaledCore"]


class JournaledCore(BrokerCore):
    """A broker's rules with a journal; see the module and `BrokerCore`."""

    def __init__(self, limits: BrokerLimits, secret: bytes) -> None:
        super().__init__(limits, secret)
        self._noting = _Noting(limits, self)
        self._inventory = self._noting
        self._synced = 0

    def restore(self, messages: list[Message], place: int, now_ns: int) -> None:
        """Take in what an earlier life left, before any peer is heard.

        There may be more than the capacity allows, if that was lowered: then nothing is granted
        until there is less.

        Args:
            messages: in order of arrival, each id once; they belong to the core now.
            place: no message may have had a greater one.
            now_ns: the moment, monotonic.
        """
        self._now = max(now_ns, self._now)
        self._place = self._synced = place
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

    def _take_in(
        self, producer: Producer, publish: Publish | Packed, payload: Payload, number: int
    ) -> None:
        super()._take_in(producer, publish, payload, number)
        held = self._inventory.find(publish.id)
        if held is not None and held.place <= self._synced:
            self._confirm(held)

    def _confirm(self, message: Message) -> None:
        """Confirm a message to whoever published it last, if they are still there."""
        if self._peers.let_go(message.session, message.records):
            self._confirms.setdefault(message.session, []).append(message.number)
        message.session = ""


class _Noting(Inventory):
    """An inventory that notes what becomes of each message.

    Attributes:
        notes: not given to the shell yet.
        unsynced: accepted, held, and not known to be on disk; by place, in order.
    """

    def __init__(self, limits: BrokerLimits, core: JournaledCore) -> None:
        super().__init__(limits, core._counters)
        self.notes: list[Note] = []
        self.unsynced: dict[int, Message] = {}

    def restore(self, message: Message) -> None:
        """Take in a message of an earlier life."""
        if message.attempt >= self._limits.attempts_max and not message.dead:
            message.dead = f"not stored after {message.attempt} deliveries; then the broker ended"
        self._held[message.id] = message
        self._counters.restored += 1
        if message.attempt:
            self.ready.give_back(message)
        else:
            self.ready.append(message)

    def add(self, message: Message) -> None:
        super().add(message)
        self.unsynced[message.place] = message
        self.notes.append(Append(message))

    def settle(self, consumer: Consumer, settlement: Settlement, now_ns: int) -> Message | None:
        message = super().settle(consumer, settlement, now_ns)
        if message is not None:
            self.unsynced.pop(message.place, None)
            self.notes.append(Forget(message.place))
        return message

    def _give_back(self, lease: Lease, why: str, until_ns: int | None = None) -> None:
        super()._give_back(lease, why, until_ns)
        message = lease.message
        self.notes.append(Retried(message.place, message.attempt, message.dead))
