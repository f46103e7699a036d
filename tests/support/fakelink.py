"""Pure cores of producers and consumers joined to a pure broker by links that fail, on one clock.

After h11's ConnectionPair, with trouble: a link delays, loses single messages, or is cut. Nothing
overtakes within one connection. A cut loses what is under way, and what is sent later comes over a
new connection, that is from another address, as with libzmq. Everything travels encoded.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from telemq.broker.core import BrokerCore, Outgoing
from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import PeerId
from telemq.client.consumer import ConsumerCore
from telemq.client.producer import ProducerCore
from telemq.client.session import Command, Confirmed, Delivered, Delivery, Reconnect, Transmit
from telemq.protocol import Frames, Role, decode_from_broker, decode_from_peer, encode

__all__ = ["MS", "SECOND", "FakeConsumer", "FakePeer", "FakeProducer", "Network", "Trouble"]

MS = 1_000_000
SECOND = 1000 * MS


@dataclass
class Trouble:
    """How bad the links are; may be changed at any time.

    Attributes:
        loss: chance that a message is lost.
        cut: chance that a message's sending cuts the connection.
        delay_ns: longest time under way.
    """

    loss: float = 0.0
    cut: float = 0.0
    delay_ns: int = MS


@dataclass(eq=False)
class FakePeer:
    """What both kinds of peer share.

    Attributes:
        id: where the broker sees it now.
        alive: it still runs.
        hung: it runs, but does nothing until it is woken.
    """

    core: ProducerCore | ConsumerCore
    id: PeerId
    alive: bool = True
    hung: bool = False
    timer_ns: int | None = None
    #: By direction: when the last message under way arrives.
    last_ns: list[int] = field(default_factory=lambda: [0, 0])


@dataclass(eq=False)
class FakeProducer(FakePeer):
    """Publishes a backlog as far as its window allows.

    Attributes:
        backlog: (id, records, bytes) still to be published.
        confirmed: ids that are safe, in order.
    """

    backlog: deque[tuple[str, int, int]] = field(default_factory=deque)
    confirmed: list[str] = field(default_factory=list)


@dataclass(eq=False)
class FakeConsumer(FakePeer):
    """Stores what it gets in the network's ledger, and settles that later.

    Attributes:
        service_ns: how long it takes for one message.
    """

    service_ns: int = 0


class Network:
    """A broker, its peers, and the clock.

    Args:
        limits: of the broker.
        seed: of all chance.
        trouble: of the links.
        check_every: after how many events all promises are checked; each check looks at everything.

    Attributes:
        now: nanoseconds since the beginning.
        ledger: how often each id was stored.
    """

    def __init__(
        self, limits: BrokerLimits, seed: int, trouble: Trouble | None = None, check_every: int = 1
    ) -> None:
        self.now = 0
        self.limits = limits
        self.trouble = trouble or Trouble()
        self.random = random.Random(seed)
        self.ledger: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.producers: list[FakeProducer] = []
        self.consumers: list[FakeConsumer] = []
        self.events = 0
        self._check_every = check_every
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._entries = 0
        self._routes = 0
        self._peers: dict[PeerId, FakePeer] = {}
        self._restarts = 0
        self._broker_timer_ns: int | None = None
        self.core = BrokerCore(limits, b"0")

    # ---- who is there ----------------------------------------------------------------------

    def add_producer(
        self,
        backlog: list[tuple[str, int, int]],
        *,
        window_records: int = 1000,
        window_bytes: int = 10**6,
    ) -> FakeProducer:
        """Start a producer that has these messages, as (id, records, bytes), to publish."""
        core = ProducerCore(
            "", window_records=window_records, window_bytes=window_bytes, seed=self._seed()
        )
        producer = FakeProducer(core, self._new_id("producer"), backlog=deque(backlog))
        self.producers.append(producer)
        self._start(producer)
        return producer

    def add_consumer(
        self, *, credit_records: int = 10**6, credit_bytes: int = 10**6, service_ns: int = MS
    ) -> FakeConsumer:
        """Start a consumer."""
        core = ConsumerCore(
            "", credit_records=credit_records, credit_bytes=credit_bytes, seed=self._seed()
        )
        consumer = FakeConsumer(core, self._new_id("consumer"), service_ns=service_ns)
        self.consumers.append(consumer)
        self._start(consumer)
        return consumer

    def kill(self, peer: FakePeer) -> None:
        """End a peer without a word; what it sent is lost if it is still under way."""
        peer.alive = False
        del self._peers[peer.id]

    def hang(self, peer: FakePeer, for_ns: int) -> None:
        """Make a peer do nothing for a time, and then go on as if nothing had been."""
        peer.hung = True

        def wake() -> None:
            peer.hung = False
            self._tick(peer)

        self.at(self.now + for_ns, wake)

    def cut(self, peer: FakePeer) -> None:
        """Cut a peer's connection; the next message comes over a new one."""
        del self._peers[peer.id]
        peer.id = self._new_id(peer.id.role)
        self._peers[peer.id] = peer

    def restart_broker(self) -> None:
        """Kill the broker, with all that it holds, and start a new one in its place."""
        self._restarts += 1
        self.refused.update(self.core.stats().counters.refused)
        self.core = BrokerCore(self.limits, b"%d" % self._restarts)
        for peer in list(self._peers.values()):
            self.cut(peer)

    # ---- time ------------------------------------------------------------------------------

    def at(self, moment_ns: int, do: Callable[[], None]) -> None:
        """Let something happen at a moment."""
        self._entries += 1
        heapq.heappush(self._agenda, (moment_ns, self._entries, do))

    def run(self, until: Callable[[], bool], limit_ns: int) -> bool:
        """Let time pass until a condition holds, for so long at most; tells whether it holds.

        The condition is looked at as often as the promises are checked.
        """
        end, steps = self.now + limit_ns, 0
        while self._agenda and self._agenda[0][0] <= end:
            if steps % self._check_every == 0 and until():
                return True
            steps += 1
            self.now, _, do = heapq.heappop(self._agenda)
            do()
        self.now = end
        return until()

    def all_confirmed(self) -> bool:
        """Tell whether no living producer has anything left to do."""
        return not any(
            p.backlog or p.core.stats().unconfirmed_records
            for p in self.producers
            if p.alive and isinstance(p.core, ProducerCore)
        )

    # ---- peers -----------------------------------------------------------------------------

    def _start(self, peer: FakePeer) -> None:
        self._peers[peer.id] = peer
        self._tick(peer)

    def _tick(self, peer: FakePeer) -> None:
        """Let a peer do what is due."""
        if peer.alive and not peer.hung:
            self._do(peer, peer.core.advance(self.now))
            self._work(peer)

    def _work(self, peer: FakePeer) -> None:
        if isinstance(peer, FakeProducer) and isinstance(peer.core, ProducerCore):
            while peer.backlog and peer.core.room_records():
                id, records, size = peer.backlog.popleft()
                payload = b"x" * size
                commands = peer.core.publish(
                    id, records, payload, key="", metadata={}, now_ns=self.now
                )
                self._do(peer, commands)
        deadline = peer.core.next_deadline_ns()
        if deadline is not None and (peer.timer_ns is None or deadline < peer.timer_ns):
            peer.timer_ns = deadline
            self.at(max(deadline, self.now), lambda: self._on_timer(peer, deadline))

    def _on_timer(self, peer: FakePeer, moment_ns: int) -> None:
        if peer.timer_ns == moment_ns:
            peer.timer_ns = None
            self._tick(peer)

    def _do(self, peer: FakePeer, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Transmit(message=message, frames=frames):
                    self._to_broker(peer, encode(message), frames)
                case Reconnect():
                    self.cut(peer)
                case Confirmed(ids=ids) if isinstance(peer, FakeProducer):
                    peer.confirmed += ids
                case Delivered(deliveries=deliveries) if isinstance(peer, FakeConsumer):
                    for delivery in deliveries:
                        self._serve(peer, delivery)

    def _serve(self, consumer: FakeConsumer, delivery: Delivery) -> None:
        def done() -> None:
            if not consumer.alive or not isinstance(consumer.core, ConsumerCore):
                return
            if consumer.hung:
                self.at(self.now + consumer.service_ns + MS, done)
                return
            self.ledger[delivery.id] += 1
            self._do(consumer, consumer.core.settle([delivery], "ok", "", self.now))
            self._work(consumer)

        self.at(self.now + consumer.service_ns, done)

    # ---- links -----------------------------------------------------------------------------

    def _to_broker(self, peer: FakePeer, control: bytes, frames: Frames) -> None:
        id = peer.id

        def arrive() -> None:
            if id in self._peers:
                message = decode_from_peer(control)
                self._from_core(self.core.receive(id, message, frames, self.now))

        self._travel(peer, 0, arrive)

    def _to_peer(self, out: Outgoing) -> None:
        peer, control = self._peers[out.peer], encode(out.message)

        def arrive() -> None:
            if peer.hung:
                self.at(self.now + 10 * MS, arrive)
            elif self._peers.get(out.peer) is peer:
                message = decode_from_broker(control)
                if isinstance(peer.core, ConsumerCore):
                    self._do(peer, peer.core.receive(message, out.frames, self.now))
                else:
                    self._do(peer, peer.core.receive(message, self.now))
                self._work(peer)

        self._travel(peer, 1, arrive)

    def _travel(self, peer: FakePeer, direction: int, arrive: Callable[[], None]) -> None:
        chance = self.random.random()
        if chance < self.trouble.loss:
            return
        if chance < self.trouble.loss + self.trouble.cut:
            self.cut(peer)
            return
        delay_ns = self.random.randint(0, self.trouble.delay_ns)
        peer.last_ns[direction] = max(peer.last_ns[direction], self.now + delay_ns)
        self.at(peer.last_ns[direction], arrive)

    def _from_core(self, outgoing: list[Outgoing]) -> None:
        pending = deque(outgoing)
        while pending:
            out = pending.popleft()
            if out.peer in self._peers:
                self._to_peer(out)
            else:
                pending += self.core.peer_lost(out.peer, self.now)
        self._check()
        deadline = self.core.next_deadline_ns()
        if deadline is not None and (
            self._broker_timer_ns is None or deadline < self._broker_timer_ns
        ):
            self._broker_timer_ns = deadline
            self.at(max(deadline, self.now), lambda: self._on_broker_timer(deadline))

    def _on_broker_timer(self, moment_ns: int) -> None:
        if self._broker_timer_ns == moment_ns:
            self._broker_timer_ns = None
            self._from_core(self.core.advance(self.now))

    def _check(self) -> None:
        """Check the room after every event, all promises now and then."""
        self.events += 1
        held, credits = self.core._inventory, self.core._credits
        assert held.records + credits.records <= self.limits.capacity_records, "P1: records"
        assert held.size_bytes + credits.size_bytes <= self.limits.capacity_bytes, "P1: bytes"
        if self.events % self._check_every == 0:
            self.core.check()

    def _new_id(self, role: Role) -> PeerId:
        self._routes += 1
        return PeerId(role, b"%d" % self._routes)

    def _seed(self) -> int:
        return self.random.getrandbits(32)
