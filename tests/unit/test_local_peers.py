"""Peers in the broker's process: the same rules, no socket; checked after every event."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemq.broker.core import BrokerCore, Outgoing
from telemq.broker.limits import BrokerLimits
from telemq.broker.local import LocalPeer, LocalPeers, is_local
from telemq.broker.peers import PeerId
from telemq.client.consumer import ConsumerCore
from telemq.client.producer import ProducerCore
from telemq.client.session import Confirmed, Delivery
from tests.support.peers import delivered

SECOND = 1_000_000_000


class Scene:
    """A broker and its local peers on a clock that the test moves."""

    def __init__(self, capacity: int = 10, attempts_max: int = 20) -> None:
        self.core = BrokerCore(
            BrokerLimits(
                capacity_records=capacity,
                capacity_bytes=capacity * 100,
                message_bytes_max=100,
                credit_records_max=capacity,
                credit_bytes_max=capacity * 100,
                lease_ns=30 * SECOND,
                attempts_max=attempts_max,
                heartbeat_ns=SECOND,
                peers_max=20,
                retry_ns=SECOND // 10,
                retry_ns_max=10 * SECOND,
                errors_max=20,
                errors_ns=SECOND,
            ),
            b"secret",
        )
        self.local = LocalPeers(self.core)
        self.heard: dict[LocalPeer, None] = {}
        self.now = SECOND

    def run(self, out: list[Outgoing]) -> None:
        """Hand on what the core says, as the server does."""
        pending = deque(out)
        while pending:
            one = pending.popleft()
            assert is_local(one.peer)
            pending += self.local.hear(one, self.now)
            self.core.check()

    def join(self, core: ProducerCore | ConsumerCore) -> LocalPeer:
        peer, out = self.local.join(core, self.heard, self.now)
        self.run(out)
        return peer

    def producer(self) -> LocalPeer:
        return self.join(ProducerCore("in", window_records=10**6, window_bytes=10**9, seed=1))

    def consumer(self, records: int) -> LocalPeer:
        return self.join(ConsumerCore("out", credit_records=records, credit_bytes=10**6, seed=1))

    def publish(self, peer: LocalPeer, id: str, records: int = 1) -> None:
        core = peer.core
        assert isinstance(core, ProducerCore)
        commands = core.publish(id, records, b"x", key="", metadata={}, now_ns=self.now)
        self.run(self.local.do(peer, commands, self.now))

    def settle(self, peer: LocalPeer, delivery: Delivery) -> None:
        core = peer.core
        assert isinstance(core, ConsumerCore)
        self.run(self.local.do(peer, core.settle([delivery], "ok", "", self.now), self.now))

    def pass_time(self, ns: int) -> None:
        """One step of the server's loop, that much later."""
        self.now += ns
        self.run(self.local.speak(self.now))
        self.run(self.core.advance(self.now))
        self.run(self.local.advance(self.now))


def deliveries(peer: LocalPeer) -> list[Delivery]:
    return delivered(peer.take())


def test_a_message_goes_in_and_out_and_is_confirmed() -> None:
    """PULL on one side, PUSH on the other, nothing between them but the core."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer(5)
    scene.publish(producer, "a")
    (delivery,) = deliveries(consumer)
    assert "a" == delivery.id
    scene.settle(consumer, delivery)
    assert [Confirmed(["a"])] == producer.take()
    assert (1, 0) == (scene.core.stats().counters.settled, scene.core.stats().ready_messages)


def test_what_finds_no_room_waits_for_it() -> None:
    """Nobody consumes; a way in is no way round the bounds."""
    scene = Scene(capacity=3)
    producer = scene.producer()
    for number in range(5):
        scene.publish(producer, f"#{number}")
    core = producer.core
    assert isinstance(core, ProducerCore)
    assert (3, 2) == (scene.core.stats().ready_messages, core.stats().waiting_messages)
    consumer = scene.consumer(100)
    taken = []
    while batch := deliveries(consumer):
        for delivery in batch:
            taken.append(delivery.id)
            scene.settle(consumer, delivery)
    assert [f"#{number}" for number in range(5)] == taken


def test_consumer_that_leaves_gives_back_what_it_held() -> None:
    """An HTTP client went away with a message."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer(1)
    scene.publish(producer, "a")
    assert 1 == scene.core.stats().leased_messages
    scene.run(scene.local.leave(consumer, scene.now))
    assert (1, 0) == (scene.core.stats().ready_messages, scene.core.stats().consumers)
    assert consumer not in scene.heard
    (delivery,) = deliveries(scene.consumer(1))
    assert 2 == delivery.attempt


def test_peer_that_leaves_before_it_heard_welcome_leaves_no_session() -> None:
    """It came and went within one step."""
    scene = Scene()
    core = ConsumerCore("out", credit_records=1, credit_bytes=1, seed=1)
    peer, out = scene.local.join(core, scene.heard, scene.now)
    scene.run(out + scene.local.leave(peer, scene.now))
    assert 0 == scene.core.stats().consumers
    assert 0 == len(scene.local)


@pytest.mark.parametrize("stall_s", [0.2, 2, 6, 3600])
def test_a_process_that_stood_still_does_not_lose_touch_with_itself(stall_s: float) -> None:
    """SIGSTOP, a laptop's lid, a machine that swaps."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer(1)
    sessions = [producer.core.session.token, consumer.core.session.token]
    for ns in (int(stall_s * SECOND), SECOND // 20, SECOND // 20):
        scene.pass_time(ns)
    assert sessions == [producer.core.session.token, consumer.core.session.token]
    assert 0 == scene.core.stats().counters.peers_silent


def test_credit_that_is_not_used_goes_back() -> None:
    """A way in that fell quiet keeps no room from others."""
    scene = Scene()
    producer = scene.producer()
    scene.publish(producer, "a")
    assert 0 < scene.core.stats().granted_records
    for _ in range(4):
        scene.pass_time(SECOND // 20)
    assert 0 == scene.core.stats().granted_records


def test_routes_are_none_that_zeromq_could_give() -> None:
    """ZeroMQ's own are five bytes and begin with a zero; a client's never begin with one."""
    scene = Scene()
    route = scene.producer().id.route
    assert route[:1] == b"\0"
    assert len(route) > 5
    assert not is_local(PeerId("producer", b"\0loca"))


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(1, 6),
    acts=st.lists(
        st.tuples(st.sampled_from(["publish", "take", "come", "go", "time"]), st.integers(0, 5)),
        max_size=60,
    ),
)
def test_nothing_is_lost_however_local_peers_come_and_go(
    capacity: int, acts: list[tuple[str, int]]
) -> None:
    """Clients of HTTP, and a broker that stalls; P1 to P4 hold after every message."""
    scene = Scene(capacity, attempts_max=1000)
    producers, consumers = [scene.producer()], [scene.consumer(1)]
    published, settled = 0, set[str]()

    def take(consumer: LocalPeer) -> None:
        for delivery in deliveries(consumer):
            settled.add(delivery.id)
            scene.settle(consumer, delivery)

    for act, number in acts:
        if act == "publish":
            # Only one producer stays: what a leaving one still holds is its client's to repeat.
            scene.publish(producers[0], f"#{published}")
            published += 1
        elif act == "take" and consumers:
            take(consumers[number % len(consumers)])
        elif act == "come":
            consumers.append(scene.consumer(1 + number))
        elif act == "go" and consumers:
            scene.run(scene.local.leave(consumers.pop(number % len(consumers)), scene.now))
        elif act == "time":
            scene.pass_time((1, SECOND // 10, 6 * SECOND, 31 * SECOND)[number % 4])
        scene.core.check()
    last = scene.consumer(100)
    for _ in range(400):
        for consumer in (*consumers, last):
            take(consumer)
        scene.pass_time(SECOND)
    assert {f"#{number}" for number in range(published)} == settled
