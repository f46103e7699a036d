"""HTTP's side in the broker's thread: every request that publishes or consumes is a local peer.

A request that publishes is a producer of one message, from HELLO to BYE; one that consumes is a
consumer with credit for one message, until that is settled or its lease has run out. So who waits
for room or for a message waits by the broker's own rules, in the broker's own order, and whoever
goes away gives back what it had like any peer.
"""

from __future__ import annotations

from dataclasses import dataclass

import zmq

from telemq.broker.core import BrokerCore
from telemq.broker.http.door import (
    Answer,
    Consume,
    Consumed,
    Door,
    Nothing,
    Publish,
    Published,
    Refusal,
    Settle,
    Settled,
    Withdraw,
)
from telemq.broker.local import LocalPeer, LocalPeers
from telemq.broker.pushpull import Send
from telemq.client.consumer import ConsumerCore
from telemq.client.producer import ProducerCore
from telemq.client.session import Confirmed, Delivered, Delivery
from telemq.clock import monotonic_ns
from telemq.settings import BrokerSettings

__all__ = ["HttpWay"]

#: An ended lease is forgotten this much later, so that the core ends it first, and says why.
_GRACE_NS = 100_000_000


@dataclass(slots=True, eq=False)
class _Held:
    peer: LocalPeer
    delivery: Delivery
    until_ns: int


class HttpWay:
    """Does what HTTP clients ask for; owned by the broker's thread.

    Args:
        settings: of the broker.
        core: of the broker.
        local: the broker's local peers.
        send: hands on what the core says.
        epoch: of this start of the broker; part of the ids it gives.

    Attributes:
        door: where the HTTP thread leaves its asks.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        core: BrokerCore,
        local: LocalPeers,
        send: Send,
        *,
        epoch: str,
    ) -> None:
        self.door = Door()
        self._core, self._local, self._send = core, local, send
        self._stream = f"http/{epoch}"
        self._row = 0
        self._leases_max = settings.http_leases_max
        self._heard: dict[LocalPeer, None] = {}
        #: Who waits, with its peer; a peer whose message was delivered is in `_leases`.
        self._waiting: dict[Publish | Consume, LocalPeer] = {}
        self._asks: dict[LocalPeer, Publish | Consume] = {}
        self._leases: dict[str, _Held] = {}
        self._due_ns: int | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait for room, for a message or for a confirm."""
        return len(self._waiting)

    @property
    def leases(self) -> int:
        """Messages that clients hold."""
        return len(self._leases)

    def step(self) -> None:
        """Take in what is asked, and answer what can be answered now."""
        for ask in self.door.take():
            match ask:
                case Publish():
                    self._publish(ask)
                case Consume():
                    self._consume(ask)
                case Settle():
                    self._settle(ask)
                case Withdraw():
                    self._withdraw(ask)
        while self._heard:
            peers = list(self._heard)
            self._heard.clear()
            for peer in peers:
                self._look(peer)
        now_ns = monotonic_ns()
        if self._due_ns is not None and now_ns >= self._due_ns:
            self._expire(now_ns)

    def is_due(self) -> bool:
        """Tell whether `step` has something to do without new input."""
        return bool(self._heard)

    def next_deadline_ns(self) -> int | None:
        """Give when somebody has waited long enough, or a lease has ended."""
        return self._due_ns

    def watch(self, poller: zmq.Poller) -> None:
        """Let a poller wake up for asks."""
        poller.register(self.door.woken, zmq.POLLIN)

    def close(self) -> None:
        """Refuse whoever waits, and all that comes."""
        for ask in list(self._waiting):
            self._finish(ask, Refusal(503, "the broker is stopping"))
        self.door.close()

    # ---- what is asked ---------------------------------------------------------------------

    def _publish(self, ask: Publish) -> None:
        limits, size_bytes = self._core.limits, len(ask.payload)
        if ask.records > limits.largest_records or size_bytes > limits.largest_bytes:
            detail = (
                f"the message has {ask.records} records and {size_bytes} bytes; the broker takes "
                f"{limits.largest_records} and {limits.largest_bytes}"
            )
            self.door.answer(ask, Refusal(413, detail))
            return
        if not ask.id:
            ask.id = f"{self._stream}#{self._row}"
            self._row += ask.records
        now_ns = monotonic_ns()
        producer = ProducerCore(
            "http", window_records=ask.records, window_bytes=max(1, size_bytes), seed=0
        )
        peer = self._begin(ask, producer, now_ns)
        commands = producer.publish(
            ask.id, ask.records, ask.payload, key=ask.key, metadata=ask.metadata, now_ns=now_ns
        )
        self._send(self._local.do(peer, commands, now_ns))

    def _consume(self, ask: Consume) -> None:
        consumers = sum(isinstance(one, Consume) for one in self._waiting)
        if len(self._leases) + consumers >= self._leases_max:
            detail = (
                f"HTTP clients hold or wait for {self._leases_max} messages, which is the limit "
                "(--http-leases-max); settle some"
            )
            self.door.answer(ask, Refusal(503, detail))
            return
        # Credit for one record and byte: any message is delivered, and a second one never.
        self._begin(ask, ConsumerCore("http", credit_records=1, credit_bytes=1, seed=0))

    def _settle(self, ask: Settle) -> None:
        held = self._leases.pop(ask.lease, None)
        if held is None:
            self.door.answer(ask, _OVER)
            return
        stale = self._core.stats().counters.stale_settles
        now_ns = monotonic_ns()
        consumer = _consumer(held.peer)
        commands = consumer.settle([held.delivery], ask.outcome, ask.reason, now_ns)
        self._send(self._local.do(held.peer, commands, now_ns))
        self._send(self._local.leave(held.peer, now_ns))
        was_live = commands and self._core.stats().counters.stale_settles == stale
        self.door.answer(ask, Settled() if was_live else _OVER)

    def _withdraw(self, withdraw: Withdraw) -> None:
        ask = withdraw.ask
        if not isinstance(ask, Settle) and ask in self._waiting:
            self._finish(ask, Nothing())

    def _begin(
        self, ask: Publish | Consume, core: ProducerCore | ConsumerCore, now_ns: int | None = None
    ) -> LocalPeer:
        now_ns = monotonic_ns() if now_ns is None else now_ns
        peer, out = self._local.join(core, self._heard, now_ns)
        self._waiting[ask] = peer
        self._asks[peer] = ask
        self._note_deadline(ask.until_ns)
        self._send(out)
        return peer

    # ---- what comes of it ------------------------------------------------------------------

    def _look(self, peer: LocalPeer) -> None:
        ask = self._asks.get(peer)
        results = peer.take()
        if isinstance(ask, Publish):
            if any(isinstance(result, Confirmed) for result in results):
                self._finish(ask, Published(ask.id, stored=True))
            elif not ask.stored and _is_queued(peer):
                self._finish(ask, Published(ask.id, stored=False))
        elif ask is not None:
            for result in results:
                if isinstance(result, Delivered):
                    for delivery in result.deliveries:
                        self._lend(ask, peer, delivery)

    def _lend(self, ask: Consume, peer: LocalPeer, delivery: Delivery) -> None:
        now_ns = monotonic_ns()
        # When this lease runs out, nothing else is to come here.
        self._send(self._local.do(peer, _consumer(peer).allow(0, 0, now_ns), now_ns))
        lease = f"{delivery.session}.{delivery.lease}"
        until_ns = now_ns + delivery.lease_ms * 1_000_000 + _GRACE_NS
        self._leases[lease] = _Held(peer, delivery, until_ns)
        self._note_deadline(until_ns)
        del self._waiting[ask], self._asks[peer]
        self.door.answer(ask, Consumed(delivery, lease))

    def _finish(self, ask: Publish | Consume, answer: Answer) -> None:
        peer = self._waiting.pop(ask)
        del self._asks[peer]
        self._send(self._local.leave(peer, monotonic_ns()))
        self.door.answer(ask, answer)

    def _expire(self, now_ns: int) -> None:
        for ask, peer in list(self._waiting.items()):
            if ask.until_ns <= now_ns:
                late = Nothing() if isinstance(ask, Consume) else _late(ask, peer)
                self._finish(ask, late)
        for lease, held in list(self._leases.items()):
            if held.until_ns <= now_ns:
                del self._leases[lease]
                self._send(self._local.leave(held.peer, now_ns))
        deadlines = [ask.until_ns for ask in self._waiting]
        deadlines += [held.until_ns for held in self._leases.values()]
        self._due_ns = min(deadlines, default=None)

    def _note_deadline(self, until_ns: int) -> None:
        self._due_ns = until_ns if self._due_ns is None else min(self._due_ns, until_ns)


_OVER = Refusal(
    410, "that lease is over, settled or never given; its message may be with another consumer"
)


def _late(ask: Publish, peer: LocalPeer) -> Refusal:
    if _is_queued(peer):
        detail = (
            f"{ask.id!r} is queued, but was not stored in time; "
            "publish it again under this id to go on waiting: it is not queued twice"
        )
    else:
        fault = peer.core.session.fault
        detail = f"no room in time, the message was not taken: {fault or 'the broker is full'}"
    return Refusal(503, detail)


def _is_queued(peer: LocalPeer) -> bool:
    assert isinstance(peer.core, ProducerCore), "a request that publishes is a producer"
    return peer.core.stats().sent_messages > 0


def _consumer(peer: LocalPeer) -> ConsumerCore:
    assert isinstance(peer.core, ConsumerCore), "a request that consumes is a consumer"
    return peer.core
