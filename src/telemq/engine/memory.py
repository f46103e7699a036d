"""A queue in this process: the broker's rule book joined to those of its peers, without a socket.

For tests and for embedding. It keeps every promise of a broker, and dies with the process. There is
no thread: whoever polls does what is due for all, heartbeats and leases included, so each end must
be polled at least once a heartbeat by its owner. One lock guards everything; ends may have owners
in different threads, and a poll that waits is woken by what another end does.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from telemq.broker.core import BrokerCore, Outgoing
from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import PeerId
from telemq.broker.stats import BrokerStats
from telemq.client.consumer import ConsumerCore
from telemq.client.producer import ProducerCore, ProducerStats
from telemq.client.session import Command, Confirmed, Delivered, Lost, Reconnect, Transmit
from telemq.clock import monotonic_ns
from telemq.engine.base import Delivery, Outcome
from telemq.protocol import Frames, FromBroker, Payload, Role

__all__ = ["MemoryConsumer", "MemoryProducer", "MemoryQueue"]

C = TypeVar("C", bound=ProducerCore | ConsumerCore)


class MemoryQueue:
    """A broker without sockets.

    Args:
        limits: every bound of it.
    """

    def __init__(self, limits: BrokerLimits) -> None:
        self._core = BrokerCore(limits, os.urandom(32))
        self._numbers = itertools.count(1)
        self._inboxes: dict[PeerId, deque[tuple[FromBroker, Frames]]] = {}
        self.changed = threading.Condition()

    def producer(self, *, name: str, window_records: int, window_bytes: int) -> MemoryProducer:
        """Open a producers' end; the window is as of `telemq.client.link.ProducerLink`."""
        core = ProducerCore(
            name, window_records=window_records, window_bytes=window_bytes, seed=next(self._numbers)
        )
        return MemoryProducer(self, core, "producer")

    def consumer(self, *, name: str, credit_records: int, credit_bytes: int) -> MemoryConsumer:
        """Open a consumers' end; the credit is as of `telemq.client.link.ConsumerLink`."""
        core = ConsumerCore(
            name, credit_records=credit_records, credit_bytes=credit_bytes, seed=next(self._numbers)
        )
        return MemoryConsumer(self, core, "consumer")

    def stats(self) -> BrokerStats:
        """Give a frozen snapshot of the broker's counts."""
        with self.changed:
            return self._core.stats()

    # For the ends, with `changed` held.

    def connect(self, role: Role) -> PeerId:
        """Give an address with an empty inbox."""
        peer = PeerId(role, next(self._numbers).to_bytes(8, "big"))
        self._inboxes[peer] = deque()
        return peer

    def disconnect(self, peer: PeerId) -> None:
        """End what was connected."""
        if self._inboxes.pop(peer, None) is not None:
            self._carry(self._core.peer_lost(peer, monotonic_ns()))

    def send(self, peer: PeerId, command: Transmit) -> None:
        """Hand a message of a peer to the broker, and its answers to the inboxes."""
        self._carry(self._core.receive(peer, command.message, command.frames, monotonic_ns()))

    def receive(self, peer: PeerId) -> tuple[FromBroker, Frames] | None:
        """Take the next message for a peer, if there is one."""
        inbox = self._inboxes.get(peer)
        return inbox.popleft() if inbox else None

    def advance(self) -> int | None:
        """Do what is due in the broker; give when something is due again."""
        deadline_ns = self._core.next_deadline_ns()
        if deadline_ns is not None and deadline_ns <= monotonic_ns():
            self._carry(self._core.advance(monotonic_ns()))
            deadline_ns = self._core.next_deadline_ns()
        return deadline_ns

    def _carry(self, outgoing: list[Outgoing]) -> None:
        pending = deque(outgoing)
        while pending:
            out = pending.popleft()
            inbox = self._inboxes.get(out.peer)
            if inbox is None:
                pending += self._core.peer_lost(out.peer, monotonic_ns())
            else:
                inbox.append((out.message, out.frames))
        if outgoing:
            self.changed.notify_all()


class _End(Generic[C]):
    """What both ends have in common; see `telemq.engine.base.Engine`."""

    shown = "memory"

    def __init__(self, queue: MemoryQueue, core: C, role: Role) -> None:
        self._queue, self._core, self._role = queue, core, role
        self._peer: PeerId | None = None
        self._results: list[Command] = []
        self._woken = False

    @property
    def connected(self) -> bool:
        """Whether there is an open session."""
        return bool(self._core.session.token)

    @property
    def fault(self) -> str:
        """Why there is no session, in words; empty when there is one."""
        return self._core.session.fault

    @property
    def refused(self) -> bool:
        """Whether the queue will never take this peer as it is."""
        return self._core.session.is_final

    def wake(self) -> None:
        """Make a `poll` that waits return; callable from any thread."""
        with self._queue.changed:
            self._woken = True
            self._queue.changed.notify_all()

    def close(self) -> None:
        """Say BYE."""
        with self._queue.changed:
            self._run(self._core.session.bye(monotonic_ns()))
            if self._peer is not None:
                self._queue.disconnect(self._peer)

    def _poll(self, timeout_s: float) -> list[Command]:
        end = time.monotonic() + timeout_s
        with self._queue.changed:
            while True:
                self._run(self._core.advance(monotonic_ns()))
                queue_due_ns = self._queue.advance()
                self._take_in()
                woken, self._woken = self._woken, False
                if self._results or woken or time.monotonic() >= end:
                    results, self._results = self._results, []
                    return results
                due_ns = (queue_due_ns, self._core.next_deadline_ns())
                now_ns = monotonic_ns()
                waits_s = [max(0.0, (due - now_ns) / 1e9) for due in due_ns if due is not None]
                self._queue.changed.wait(min([end - time.monotonic(), *waits_s]))

    def _take_in(self) -> None:
        while self._peer is not None and (taken := self._queue.receive(self._peer)):
            message, frames = taken
            if isinstance(self._core, ConsumerCore):
                self._run(self._core.receive(message, frames, monotonic_ns()))
            else:
                self._run(self._core.receive(message, monotonic_ns()))

    def _run(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Transmit():
                    if self._peer is not None:
                        self._queue.send(self._peer, command)
                case Reconnect():
                    if self._peer is not None:
                        self._queue.disconnect(self._peer)
                    self._peer = self._queue.connect(self._role)
                case _:
                    self._results.append(command)


class MemoryProducer(_End[ProducerCore]):
    """The producers' end; see `telemq.engine.base.ProducerEngine`."""

    def room_records(self) -> int:
        """Tell how many more records may be published; 0 when the window is full."""
        return self._core.room_records()

    def publish(
        self,
        id: str,
        records: int,
        payload: Payload,
        *,
        key: str = "",
        metadata: dict[str, str] | None = None,
    ) -> None:
        """Hand over a message; it goes to the broker when there is credit.

        Raises:
            LocalProtocolError: that id is kept already, or the message is too large.
        """
        with self._queue.changed:
            self._run(
                self._core.publish(
                    id, records, payload, key=key, metadata=metadata, now_ns=monotonic_ns()
                )
            )

    def forget(self, id: str) -> None:
        """Drop a message that somebody else sees to now."""
        self._core.forget(id)

    def poll(self, timeout_s: float) -> list[str]:
        """Do what is due; give the ids confirmed since the last call."""
        confirmed = [c for c in self._poll(timeout_s) if isinstance(c, Confirmed)]
        return [id for command in confirmed for id in command.ids]

    def unconfirmed(self) -> int:
        """Tell how many messages are kept."""
        stats = self._core.stats()
        return stats.waiting_messages + stats.sent_messages

    def stats(self) -> ProducerStats:
        """Give a frozen snapshot."""
        return self._core.stats()


class MemoryConsumer(_End[ConsumerCore]):
    """The consumers' end; see `telemq.engine.base.ConsumerEngine`."""

    _lost: Sequence[Delivery] = ()

    def poll(self, timeout_s: float) -> list[Delivery]:
        """Do what is due; give the messages delivered since the last call."""
        results = self._poll(timeout_s)
        self._lost = [d for c in results if isinstance(c, Lost) for d in c.deliveries]
        gone = set(self._lost)
        came = [d for c in results if isinstance(c, Delivered) for d in c.deliveries]
        return [delivery for delivery in came if delivery not in gone]

    def lost(self) -> Sequence[Delivery]:
        """Give what, as the last `poll` found, will be delivered again."""
        return self._lost

    def settle(
        self, deliveries: Iterable[Delivery], outcome: Outcome = "ok", reason: str = ""
    ) -> None:
        """Be done with deliveries; those of a session that is over are ignored."""
        with self._queue.changed:
            self._run(self._core.settle(deliveries, outcome, reason, monotonic_ns()))

    def renew(self, deliveries: Iterable[Delivery]) -> None:
        """Let the leases of these deliveries begin anew."""
        with self._queue.changed:
            self._run(self._core.renew(deliveries, monotonic_ns()))

    def pause(self) -> None:
        """Take no more deliveries; what was delivered may still be settled."""
        with self._queue.changed:
            self._run(self._core.pause(monotonic_ns()))
