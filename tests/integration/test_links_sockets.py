"""Links of producers and consumers with a real broker: deliveries, restarts, deaths, silence."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import zmq

from telemq.client.link import ConsumerLink, ProducerLink
from telemq.client.many import ManyLinks, context_for
from telemq.client.session import Delivery
from telemq.errors import LocalProtocolError, SettingError
from telemq.settings import BrokerSettings
from tests.support.brokers import PlainPeer, RunningBroker, running_broker, until


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    """A broker with short heartbeats."""
    with running_broker(heartbeat_s=0.2) as broker:
        yield broker


def producer_of(broker: RunningBroker | str, **changed: Any) -> closing[ProducerLink]:
    """A producer's link, closed at the end of a `with`."""
    endpoint = broker if isinstance(broker, str) else broker.producers
    window = {"window_records": 100_000, "window_bytes": 10**7, **changed}
    return closing(ProducerLink(endpoint, name="test", **window))


def consumer_of(broker: RunningBroker | str, **changed: Any) -> closing[ConsumerLink]:
    """A consumer's link, closed at the end of a `with`."""
    endpoint = broker if isinstance(broker, str) else broker.consumers
    credit = {"credit_records": 10_000, "credit_bytes": 10**6, **changed}
    return closing(ConsumerLink(endpoint, name="test", **credit))


class Store:
    """What a consumer's owner does: keep each id, then settle.

    Attributes:
        payloads: by id, in order of arrival.
    """

    def __init__(self, *links: ConsumerLink) -> None:
        self.links = list(links)
        self.payloads: dict[str, bytes] = {}

    def __call__(self) -> None:
        for link in self.links:
            got = link.poll(0.01)
            self.payloads.update((d.id, bytes(d.payload)) for d in got)
            link.settle(got)


def polls(link: ProducerLink, confirmed: list[str]) -> Callable[[], None]:
    """Poll a producer's link and keep what was confirmed."""
    return lambda: confirmed.extend(link.poll(0.01))


def test_parts_of_a_pack_are_what_was_published(broker: RunningBroker) -> None:
    """Collectors with little credit: a pack is cut, and parts of it travel without a copy."""
    published = {f"p#{n}": b"%06d" % n * 60 for n in range(3000)}
    with (
        producer_of(broker) as producer,
        consumer_of(broker, credit_records=130) as one,
        consumer_of(broker, credit_bytes=70_000) as other,
    ):
        store = Store(one, other)
        for id, payload in published.items():
            producer.publish(id, 1, payload)
        confirmed: set[str] = set()

        def are_confirmed() -> bool:
            store()
            confirmed.update(producer.poll(0))
            return len(confirmed) == len(published)

        until(are_confirmed, "all are confirmed")
        assert published == store.payloads


@pytest.mark.parametrize("journaled", [False, True])
def test_everything_published_arrives_as_it_was_and_is_confirmed(
    journaled: bool, tmp_path: Path
) -> None:
    """An ordinary day, with payloads about the limits of no copy and of a frame of its own."""
    sizes = (0, 1, 1000, 32_768, 32_769, 65_536, 65_537, 131_072, 131_073, 200_000)
    sent = {f"s#{n}": os.urandom(sizes[n % len(sizes)]) for n in range(120)}
    confirmed: list[str] = []
    journal = str(tmp_path) if journaled else ""
    with (
        running_broker(heartbeat_s=0.2, journal=journal) as broker,
        producer_of(broker) as producer,
        consumer_of(broker) as consumer,
    ):
        store = Store(consumer)
        for id, payload in sent.items():
            producer.publish(id, 3, payload, key="k", metadata={"content-type": "any"})
        assert (120, 100_000 - 360) == (producer.unconfirmed(), producer.room_records())
        until(lambda: not producer.unconfirmed(), "done", polls(producer, confirmed), store)
        until(lambda: len(store.payloads) == len(sent), "all are here", store)
        until(lambda: not consumer.stats().held_messages, "all are settled", store)
        assert (0, 100_000) == (producer.stats().unconfirmed_bytes, producer.room_records())
        assert list(sent) == list(store.payloads)
        assert sent == store.payloads
        assert sorted(sent) == sorted(confirmed)
        consumer.close()
        producer.close()
        until(lambda: broker.stats.producers + broker.stats.consumers == 0, "both said BYE")


@pytest.mark.parametrize("bye", [True, False])
def test_broker_that_is_restarted_loses_nothing(bye: bool) -> None:
    """It was killed or stopped with messages in it; what was not confirmed is published again."""
    confirmed: list[str] = []
    ids = [f"s#{n}" for n in range(400)]
    with ExitStack() as stack:
        first = RunningBroker(_settings("tcp://127.0.0.1:*", "tcp://127.0.0.1:*"))
        producer = stack.enter_context(producer_of(first))
        consumer = stack.enter_context(consumer_of(first, credit_records=10))
        store = Store(consumer)
        for id in ids:
            producer.publish(id, 1, id.encode())
        until(lambda: len(confirmed) > 20, "some", polls(producer, confirmed), store)
        first.stop(bye=bye)
        assert producer.unconfirmed() > 0
        second = RunningBroker(_settings(first.producers, first.consumers))
        stack.callback(second.stop)
        until(lambda: not producer.unconfirmed(), "all", polls(producer, confirmed), store)
        assert producer.stats().sessions >= 2
    assert set(ids) == store.payloads.keys()
    assert sorted(ids) == sorted(confirmed)


def _settings(producers: str, consumers: str) -> BrokerSettings:
    return BrokerSettings(producer_bind=producers, consumer_bind=consumers, heartbeat_s=0.2)


def test_messages_of_a_consumer_that_dies_go_to_another(broker: RunningBroker) -> None:
    """SIGKILL of a collector: its connection closes without BYE."""
    got: list[Delivery] = []
    with producer_of(broker) as producer, consumer_of(broker) as dies:
        producer.publish("a", 1, b"x")
        until(lambda: got, "lent", lambda: producer.poll(0.01), lambda: got.extend(dies.poll(0.01)))
        assert dies._socket is not None
        dies._socket.close(linger=0)
        dies._socket = None
        with consumer_of(broker) as other:
            again: list[Delivery] = []
            until(
                lambda: again,
                "lent again",
                lambda: producer.poll(0.01),
                lambda: again.extend(other.poll(0.01)),
            )
            assert ("a", 1, 2) == (again[0].id, got[0].attempt, again[0].attempt)
            other.settle(again)
            until(
                lambda: not producer.unconfirmed(),
                "done",
                lambda: producer.poll(0.01),
                lambda: other.poll(0.01),
            )


def test_consumer_that_is_not_polled_is_lost_and_its_late_settle_has_no_effect(
    broker: RunningBroker,
) -> None:
    """A collector hangs in its database for too long, and comes back."""
    got: list[Delivery] = []
    with producer_of(broker) as producer, consumer_of(broker) as hangs:
        producer.publish("a", 1, b"x")
        act = (lambda: producer.poll(0.01), lambda: got.extend(hangs.poll(0.01)))
        until(lambda: got, "lent", *act)
        keeps_alive = lambda: producer.poll(0.01)  # noqa: E731
        until(lambda: broker.stats.counters.peers_silent == 1, "silent", keeps_alive)
        assert (1, 0) == (broker.stats.ready_messages, broker.stats.consumers)
        hangs.settle(got)
        assert 1 == producer.unconfirmed()
        until(lambda: len(got) == 2, "lent again in a new session", *act)
        hangs.settle(got[:1])
        hangs.renew(got)
        hangs.settle(got[1:], "retry")
        until(lambda: len(got) == 3, "and after the retry", *act)
        assert [1, 2, 3] == [d.attempt for d in got]
        hangs.settle(got[2:])
        until(lambda: not producer.unconfirmed(), "done", *act)


def test_port_that_never_answers_is_no_session() -> None:
    """Something else listens there; what is published is kept."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        endpoint = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        with producer_of(endpoint) as producer:
            producer.publish("a", 1, b"x")
            assert [] == producer.poll(0.2)
            assert (False, "not connected yet", 1) == (
                producer.connected,
                producer.fault,
                producer.unconfirmed(),
            )


def test_buried_message_is_confirmed_when_the_dead_letter_is_kept(broker: RunningBroker) -> None:
    """A payload that cannot be decoded."""
    got: list[Delivery] = []
    with producer_of(broker) as producer, consumer_of(broker) as consumer:
        producer.publish("a", 1, b"x")
        act = (lambda: producer.poll(0.01), lambda: got.extend(consumer.poll(0.01)))
        until(lambda: got, "lent", *act)
        consumer.settle(got, "bury", "not JSON")
        until(lambda: len(got) == 2, "dead letter", *act)
        assert ("not JSON", b"x") == (got[1].dead, got[1].payload)
        consumer.settle(got[1:])
        until(lambda: not producer.unconfirmed(), "done", *act)
        until(lambda: broker.stats.counters.buried == 1, "counted", *act)


def test_paused_consumer_gets_nothing_more(broker: RunningBroker) -> None:
    """A collector drains; what it holds it may still settle."""
    got: list[Delivery] = []
    with producer_of(broker) as producer, consumer_of(broker, credit_records=1) as consumer:
        for id in "ab":
            producer.publish(id, 1, b"x")
        act = (lambda: producer.poll(0.01), lambda: got.extend(consumer.poll(0.01)))
        until(lambda: broker.stats.leased_messages == 1 and got, "lent", *act)
        consumer.pause()
        consumer.settle(got)
        until(lambda: producer.unconfirmed() == 1, "settled", *act)
        assert ["a"] == [d.id for d in got]
        with consumer_of(broker) as other:
            store = Store(other)
            until(lambda: not producer.unconfirmed(), "the other", *act, store)
        assert ["b"] == list(store.payloads)


def test_poll_waits_for_its_time_and_no_longer(broker: RunningBroker) -> None:
    """A quiet hour: the owner's loop must get its turn."""
    with producer_of(broker) as producer:
        until(lambda: producer.connected, "session", lambda: producer.poll(0.01))
        before = time.monotonic()
        assert [] == producer.poll(0.15)
        assert time.monotonic() - before >= 0.15
        assert "" == producer.fault


def test_wake_ends_a_poll_from_another_thread(broker: RunningBroker) -> None:
    """A writer thread has settled something; the owner's thread sleeps."""
    with consumer_of(broker) as consumer:
        until(lambda: consumer.connected, "session", lambda: consumer.poll(0.01))
        waker = threading.Timer(0.05, consumer.wake)
        waker.start()
        before = time.monotonic()
        assert [] == consumer.poll(60)
        assert time.monotonic() - before < 30
        waker.join()
        for _ in range(100_000):  # never blocks, however often
            consumer.wake()
        assert [] == consumer.poll(60)


def test_forgotten_message_is_not_waited_for(broker: RunningBroker) -> None:
    """Another streamer took the row range over."""
    with producer_of(broker) as producer:
        producer.publish("a", 1, b"x")
        until(lambda: broker.stats.ready_messages == 1, "sent", lambda: producer.poll(0.01))
        producer.forget("a")
        assert 0 == producer.unconfirmed()


def test_message_larger_than_the_broker_takes_is_an_error(broker: RunningBroker) -> None:
    """A batch size that this broker is not set up for; waiting would be for ever."""
    with producer_of(broker) as producer:
        producer.publish("large", 1, b"x" * 300_001)
        with pytest.raises(LocalProtocolError, match="large has 1 records and 300001 bytes"):
            until(lambda: False, "never", lambda: producer.poll(0.01))


def test_link_to_the_wrong_endpoint_knows_that_it_is_refused(broker: RunningBroker) -> None:
    """Somebody mixed up the two ports."""
    with producer_of(broker.consumers) as producer:
        until(lambda: producer.refused, "refused", lambda: producer.poll(0.01))
        assert "the broker says role: this endpoint is for a consumer" == producer.fault


@pytest.mark.parametrize("endpoint", ["127.0.0.1:5601", "tcp://", "tcp://127.0.0.1:x", "no"])
def test_malformed_endpoint_is_named(endpoint: str) -> None:
    """A typing mistake."""
    with pytest.raises(SettingError, match=r"--broker: .*a ZeroMQ endpoint"):
        ProducerLink(endpoint, name="", window_records=1, window_bytes=1)


def test_what_is_not_understood_ends_the_session_and_is_survived() -> None:
    """A broker with a fault, or of a later version that breaks the rules."""
    context = zmq.Context()
    router: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    try:
        with producer_of(f"tcp://127.0.0.1:{port}") as producer:

            def hear() -> list[bytes]:
                until(lambda: router.poll(0), "a message came", lambda: producer.poll(0.01))
                return router.recv_multipart()

            route, hello = hear()
            assert b'["HELLO","",0,"1.1","producer","test"]' == hello
            router.send_multipart([route, b'["WELCOME","s",1,"1.0",1000,10,10]'])
            until(lambda: producer.connected, "session", lambda: producer.poll(0.01))
            router.send_multipart([route, b'["SING","s",2]'])
            router.send_multipart([route, b'["PING","s",3]'])
            until(lambda: not producer.connected, "gap", lambda: producer.poll(0.01))
            assert "the link lost something before number 3" == producer.fault
            other, hello = hear()
            assert (True, b"HELLO") == (other != route, hello[2:7])
    finally:
        context.destroy(linger=0)


@pytest.mark.parametrize(
    ("endpoint", "is_bounded"), [("tcp://127.0.0.1:9", True), ("tcp://192.0.2.1:9", False)]
)
def test_send_buffer_is_bounded_within_this_machine_only(endpoint: str, is_bounded: bool) -> None:
    """A bound slows a connection down that has a network's delay, as between two continents."""
    with closing(ProducerLink(endpoint, name="p", window_records=1, window_bytes=1)) as link:
        link.poll(0)
        assert link.socket is not None
        left_to_the_system = -1
        assert is_bounded == (link.socket.getsockopt(zmq.SNDBUF) != left_to_the_system)


def test_closing_a_link_without_a_broker_takes_no_time() -> None:
    """Ctrl-C while the broker is away."""
    with producer_of("tcp://127.0.0.1:1") as producer:
        producer.publish("a", 1, b"x")
        producer.poll(0.05)
        before = time.monotonic()
    assert time.monotonic() - before < 5


def test_many_links_share_a_context_while_all_of_them_come_back() -> None:
    """One process speaks for 400 nodes, and their broker restarts: each has two sockets by then."""
    context = context_for(400)
    links = [
        ProducerLink(
            "tcp://127.0.0.1:1", name="n", window_records=1, window_bytes=1, context=context
        )
        for _ in range(400)
    ]
    many = ManyLinks(links)
    for _ in range(2):
        for link in many.due(0):
            link.poll(0)
            link._core.session.turned_away("as if denied", 0)
    assert not any(link.connected for link in links)
    for link in links:
        link.close()
    context.destroy(linger=0)


def test_link_and_plain_peer_understand_each_other(broker: RunningBroker) -> None:
    """A foreign consumer of a telemq producer."""
    with producer_of(broker) as producer, PlainPeer(broker.consumers, "consumer") as plain:
        plain.hello()
        plain.say("CREDIT", 1, 1)
        producer.publish("a", 1, b"payload")
        until(lambda: broker.stats.leased_messages == 1, "lent", lambda: producer.poll(0.01))
        assert b"payload" == plain.hear("DELIVER")[-1]
        plain.say("SETTLE", [[1, "ok"]])
        until(lambda: not producer.unconfirmed(), "done", lambda: producer.poll(0.01))
