"""A consumer at several brokers that share nothing: it takes from all, within one credit.

The credit is divided between the brokers that are there. While they come and go, more can be under
way than the credit: what is beyond it is held back here, and renewed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence

import zmq

from telemq.client.link import ConsumerLink
from telemq.engine.base import Delivery, Outcome
from telemq.engine.brokers import Brokers, ManyEnd
from telemq.engine.resolve import Resolver, addresses
from telemq.keys import LinkKeys

__all__ = ["ManyConsumer"]


class ManyConsumer(ManyEnd):
    """Takes messages from every broker, within one credit.

    Args:
        endpoints: the brokers' endpoints for consumers.
        name: for the brokers' logs.
        credit_records: most records handed out and not settled.
        credit_bytes: most payload bytes handed out and not settled.
        resolve_s: seconds between two looks at DNS.
        resolve: asks for one host name.
        keys: for brokers that have keys, all of them the same pair; or None.

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
        keys: LinkKeys | None = None,
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
                endpoint,
                name=name,
                credit_records=0,
                credit_bytes=0,
                context=context,
                keys=keys,
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
