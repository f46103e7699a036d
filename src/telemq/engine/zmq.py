"""telemq's own brokers, several of them: they share nothing, so their clients spread the work.

A producer gives each broker one message more than it has credit for; the broker's grant then brings
the next. So work goes where there is room, and at most one message waits at a broker that has none.
One that has waited too long is offered to another. What a broker was sent and did not confirm when
its session ended goes to any other under the same ids; should the first have kept it after all, the
ledger knows it.

A consumer takes from all, and divides its credit between those that are there. While brokers come
and go more can be under way than the credit: what is beyond it is held back here, and renewed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import zmq

from telemq.client.link import ConsumerLink, ProducerLink
from telemq.client.producer import ProducerStats
from telemq.engine.base import Delivery, Outcome
from telemq.engine.brokers import Brokers
from telemq.engine.resolve import Resolver, addresses
from telemq.errors import LocalProtocolError
from telemq.protocol import Payload

__all__ = ["ManyConsumer", "ManyProducer"]

#: How long a message waits for the credit of one broker before another is asked. Well above the
#: time that a broker takes to grant, and that unused credit stays with a producer (0.1 s).
_PATIENCE_S = 0.5


class _Many:
    """What both ends have in common; see `telemq.engine.base.Engine`."""

    _brokers: Brokers[ProducerLink] | Brokers[ConsumerLink]

    @property
    def shown(self) -> str:
        """The brokers, as given."""
        return self._brokers.shown

    @property
    def connected(self) -> bool:
        """Whether there is a session with any broker."""
        return bool(self._brokers.connected)

    @property
    def fault(self) -> str:
        """Why there is no session with any broker; empty when there is one."""
        return self._brokers.fault

    @property
    def refused(self) -> bool:
        """Whether every broker has refused this peer for good."""
        return self._brokers.refused

    def wake(self) -> None:
        """Make a `poll` that waits return; callable from any thread."""
        self._brokers.wake()

    def close(self) -> None:
        """Say BYE to every broker, and free everything."""
        self._brokers.close()


@dataclass(slots=True, eq=False)
class _Kept:
    id: str
    records: int
    payload: Payload
    key: str
    metadata: dict[str, str]
    link: ProducerLink | None = None  # None while it waits for a broker with credit
    since_s: float = 0.0


class ManyProducer(_Many):
    """Publishes to whichever broker has room, and keeps each message until it is confirmed.

    Args:
        endpoints: the brokers' endpoints for producers.
        name: for the brokers' logs.
        window_records: most unconfirmed records, at all brokers together.
        window_bytes: most unconfirmed payload bytes, at all brokers together.
        resolve_s: seconds between two looks at DNS.
        resolve: asks for one host name.

    Raises:
        SettingError: an endpoint is malformed.
    """

    _brokers: Brokers[ProducerLink]

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        name: str,
        window_records: int,
        window_bytes: int,
        resolve_s: float = 10.0,
        resolve: Resolver = addresses,
    ) -> None:
        self._window_records = window_records
        self._window_bytes = window_bytes
        self._kept: dict[str, _Kept] = {}
        self._waiting: deque[_Kept] = deque()
        #: By link, the one message that it was given beyond its credit.
        self._stuck: dict[ProducerLink, _Kept] = {}
        self._records = self._bytes = self._dropped_sessions = 0

        def connect(endpoint: str, context: zmq.Context[zmq.Socket[bytes]]) -> ProducerLink:
            return ProducerLink(
                endpoint,
                name=name,
                window_records=window_records,
                window_bytes=window_bytes,
                context=context,
            )

        self._brokers = Brokers(endpoints, resolve_s=resolve_s, resolve=resolve, connect=connect)

    def room_records(self) -> int:
        """Tell how many more records may be published; 0 when the window is full."""
        if self._bytes >= self._window_bytes:
            return 0
        return max(0, self._window_records - self._records)

    def publish(
        self,
        id: str,
        records: int,
        payload: Payload,
        *,
        key: str = "",
        metadata: dict[str, str] | None = None,
    ) -> None:
        """Hand over a message; it goes to a broker with credit and is kept until confirmed.

        Raises:
            LocalProtocolError: that id is kept already, or the message is too large.
        """
        if id in self._kept:
            raise LocalProtocolError(f"{id} is published already and not confirmed")
        kept = _Kept(id, records, payload, key, metadata or {})
        self._kept[id] = kept
        self._waiting.append(kept)
        self._records += records
        self._bytes += len(payload)
        self._feed()

    def forget(self, id: str) -> None:
        """Drop a message that somebody else sees to now."""
        kept = self._kept.get(id)
        if kept is None:
            return
        self._release(kept)
        if kept.link is None:
            self._waiting.remove(kept)
        else:
            kept.link.forget(id)

    def poll(self, timeout_s: float) -> list[str]:
        """Do all input and output; give the ids confirmed since the last call.

        Returns at once when there are some, otherwise after `timeout_s` or a `wake`.

        Raises:
            LocalProtocolError: a kept message is larger than a broker takes.
        """
        end = time.monotonic() + timeout_s
        while True:
            for link in self._brokers.follow():
                self._dropped_sessions += link.stats().sessions
                self._take_back(link)
                link.close()
            confirmed = []
            for link in self._brokers.links.values():
                confirmed += link.poll(0.0)
            for id in confirmed:
                self._release(self._kept[id])
            self._share_out()
            wait_s = 0.0 if confirmed else max(0.0, end - time.monotonic())
            woken = self._brokers.wait(min(wait_s, _PATIENCE_S) if self._stuck else wait_s)
            if confirmed or woken or time.monotonic() >= end:
                return confirmed

    def unconfirmed(self) -> int:
        """Tell how many messages are kept."""
        return len(self._kept)

    def stats(self) -> ProducerStats:
        """Give a frozen snapshot of all links together."""
        links = [link.stats() for link in self._brokers.links.values()]
        sent = sum(link.sent_messages for link in links)
        return ProducerStats(
            waiting_messages=len(self._kept) - sent,
            sent_messages=sent,
            unconfirmed_records=self._records,
            unconfirmed_bytes=self._bytes,
            credit_records=sum(link.credit_records for link in links),
            credit_bytes=sum(link.credit_bytes for link in links),
            sessions=self._dropped_sessions + sum(link.sessions for link in links),
        )

    def _share_out(self) -> None:
        """Take back from brokers that are gone, move what is stuck, feed those with credit."""
        for link in self._brokers.links.values():
            if not link.connected:
                self._take_back(link)
            elif link in self._stuck and not link.stats().waiting_messages:
                del self._stuck[link]
        self._move_stuck()
        self._feed()

    def _take_back(self, link: ProducerLink) -> None:
        """Let everything that a broker has not confirmed wait again, first and in order."""
        self._stuck.pop(link, None)
        back = [kept for kept in self._kept.values() if kept.link is link]
        for kept in back:
            link.forget(kept.id)
            kept.link = None
        self._waiting.extendleft(reversed(back))

    def _move_stuck(self) -> None:
        now = time.monotonic()
        for link, kept in list(self._stuck.items()):
            if now - kept.since_s < _PATIENCE_S:
                continue
            other = next(iter(self._takers()), None)
            if other is not None:
                del self._stuck[link]
                link.forget(kept.id)
                self._give(kept, other)

    def _feed(self) -> None:
        """Give out what waits, one message a broker in turn, until none has credit left."""
        while self._waiting and (takers := self._takers()):
            for link in takers:
                if self._waiting:
                    self._give(self._waiting.popleft(), link)

    def _takers(self) -> list[ProducerLink]:
        return [
            link
            for link in self._brokers.connected
            if link not in self._stuck and not self._brokers.is_retired(link)
        ]

    def _give(self, kept: _Kept, link: ProducerLink) -> None:
        kept.link, kept.since_s = link, time.monotonic()
        link.publish(kept.id, kept.records, kept.payload, key=kept.key, metadata=kept.metadata)
        if link.stats().waiting_messages:
            self._stuck[link] = kept

    def _release(self, kept: _Kept) -> None:
        del self._kept[kept.id]
        self._records -= kept.records
        self._bytes -= len(kept.payload)
        if kept.link is not None and self._stuck.get(kept.link) is kept:
            del self._stuck[kept.link]


class ManyConsumer(_Many):
    """Takes messages from every broker, within one credit.

    Args:
        endpoints: the brokers' endpoints for consumers.
        name: for the brokers' logs.
        credit_records: most records handed out and not settled.
        credit_bytes: most payload bytes handed out and not settled.
        resolve_s: seconds between two looks at DNS.
        resolve: asks for one host name.

    Raises:
        SettingError: an endpoint is malformed.
    """

    _brokers: Brokers[ConsumerLink]

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        name: str,
        credit_records: int,
        credit_bytes: int,
        resolve_s: float = 10.0,
        resolve: Resolver = addresses,
    ) -> None:
        self._credit_records = credit_records
        self._credit_bytes = credit_bytes
        self._paused = False
        self._held: dict[Delivery, ConsumerLink] = {}
        self._back: deque[tuple[Delivery, ConsumerLink]] = deque()
        self._lost: list[Delivery] = []
        self._records = self._bytes = 0

        def connect(endpoint: str, context: zmq.Context[zmq.Socket[bytes]]) -> ConsumerLink:
            # Nothing until the credit is divided anew, which is when it has a session.
            return ConsumerLink(
                endpoint, name=name, credit_records=0, credit_bytes=0, context=context
            )

        self._brokers = Brokers(endpoints, resolve_s=resolve_s, resolve=resolve, connect=connect)
        self._sharing: list[ConsumerLink] = []

    def poll(self, timeout_s: float) -> list[Delivery]:
        """Do all input and output; give the messages delivered since the last call.

        Returns at once when there are some, otherwise after `timeout_s` or a `wake`.
        """
        end = time.monotonic() + timeout_s
        self._lost = []
        while True:
            for link in self._brokers.follow():
                self._lose([d for d, of in self._held.items() if of is link])
                self._back = deque((d, of) for d, of in self._back if of is not link)
                link.close()
            for link in list(self._brokers.links.values()):
                delivered = link.poll(0.0)
                self._lose(link.lost())
                self._back.extend((delivery, link) for delivery in delivered)
            self._divide()
            deliveries = self._hand_out()
            done = bool(deliveries or self._lost)
            woken = self._brokers.wait(0.0 if done else max(0.0, end - time.monotonic()))
            if done or woken or time.monotonic() >= end:
                return deliveries

    def lost(self) -> Sequence[Delivery]:
        """Give what, as the last `poll` found, will be delivered again, to us or to another."""
        return self._lost

    def settle(
        self, deliveries: Iterable[Delivery], outcome: Outcome = "ok", reason: str = ""
    ) -> None:
        """Be done with deliveries; those of a session that is over are ignored."""
        done: dict[ConsumerLink, list[Delivery]] = {}
        for delivery in deliveries:
            link = self._held.get(delivery)
            if link is not None:
                self._drop(delivery)
                done.setdefault(link, []).append(delivery)
        for link, settled in done.items():
            link.settle(settled, outcome, reason)

    def renew(self, deliveries: Iterable[Delivery]) -> None:
        """Let the leases of these deliveries begin anew, and of those that are held back here."""
        held: dict[ConsumerLink, list[Delivery]] = {}
        for delivery in deliveries:
            if link := self._held.get(delivery):
                held.setdefault(link, []).append(delivery)
        for delivery, link in self._back:
            held.setdefault(link, []).append(delivery)
        for link, renewed in held.items():
            link.renew(renewed)

    def pause(self) -> None:
        """Take no more deliveries; what was handed out may still be settled."""
        self._paused = True
        for delivery, link in self._back:
            link.settle([delivery], "retry")
        self._back.clear()
        for link in self._brokers.links.values():
            link.pause()

    def _divide(self) -> None:
        """Divide the credit between the brokers that are there; nobody's part is nothing."""
        sharing = self._brokers.connected
        if self._paused or set(sharing) == set(self._sharing):
            return
        self._sharing = sharing
        parts = max(1, len(sharing))
        for link in self._brokers.links.values():
            here = link in sharing
            link.allow(
                here * max(1, self._credit_records // parts),
                here * max(1, self._credit_bytes // parts),
            )

    def _hand_out(self) -> list[Delivery]:
        """Give what the credit covers; one that is larger than all of it goes alone."""
        deliveries = []
        while self._back and not self._paused:
            delivery, link = self._back[0]
            if self._held and (
                self._records + delivery.records > self._credit_records
                or self._bytes + len(delivery.payload) > self._credit_bytes
            ):
                break
            self._back.popleft()
            self._held[delivery] = link
            self._records += delivery.records
            self._bytes += len(delivery.payload)
            deliveries.append(delivery)
        return deliveries

    def _lose(self, lost: Iterable[Delivery]) -> None:
        gone = set(lost)
        if not gone:
            return
        self._back = deque((d, link) for d, link in self._back if d not in gone)
        for delivery in gone & self._held.keys():
            self._drop(delivery)
            self._lost.append(delivery)

    def _drop(self, delivery: Delivery) -> None:
        del self._held[delivery]
        self._records -= delivery.records
        self._bytes -= len(delivery.payload)
