"""What the broker refuses, by code, and what that ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from telemq.broker.core import Outgoing
from telemq.errors import RemoteProtocolError
from telemq.protocol import (
    Credit,
    Deliver,
    Error,
    Hello,
    Ping,
    Publish,
    Renew,
    Return,
    Settle,
    Want,
)
from tests.support.peers import Peer, Scene


def error(out: list[Outgoing], peer: Peer) -> tuple[str, str, str]:
    """The ERROR among the answers: session, code, detail."""
    errors = [o.message for o in out if isinstance(o.message, Error) and o.peer == peer.id]
    assert 1 == len(errors)
    assert 0 == errors[0].number
    return errors[0].session, errors[0].code, errors[0].detail


def test_hello_of_another_major_version_is_refused_by_name() -> None:
    """A peer of the next generation finds an old broker."""
    scene = Scene()
    peer = scene.peer("producer")
    out = scene.receive(peer.id, Hello("", 0, "2.1", "producer", ""))
    assert ("", "version", "version '2.1' is not spoken here; 1.1 is") == error(out, peer)


@pytest.mark.parametrize("version", ["1.0", "1.7", "1"])
def test_hello_of_another_minor_version_is_welcome(version: str) -> None:
    """A newer peer, whose additions an older broker ignores."""
    scene = Scene()
    scene.receive(scene.peer("producer").id, Hello("", 0, version, "producer", ""))
    assert 1 == scene.core.stats().producers


def test_hello_at_the_wrong_endpoint_is_refused() -> None:
    """Somebody mixed up the two ports."""
    scene = Scene()
    peer = scene.peer("producer")
    out = scene.receive(peer.id, Hello("", 0, "1.0", "consumer", ""))
    assert ("", "role", "this endpoint is for a producer") == error(out, peer)


def test_peer_beyond_the_limit_is_refused_and_one_that_is_in_may_begin_anew() -> None:
    """More streamers than the broker is set up for."""
    scene = Scene(peers_max=1)
    first, second = scene.producer(), scene.peer("producer")
    assert ("", "full", "1 peers are the limit") == error(second.hello(), second)
    assert "Welcome" == type(first.hello()[0].message).__name__


def test_draining_broker_refuses_new_producers() -> None:
    """A streamer comes back while the broker is going down."""
    scene = Scene()
    scene.core.drain(0)
    peer = scene.peer("producer")
    assert ("", "closing", "the broker is draining") == error(peer.hello(), peer)


def test_message_without_a_session_is_answered_in_the_session_that_it_names() -> None:
    """The broker was restarted; its peers do not know yet."""
    scene = Scene()
    peer = scene.peer("consumer")
    peer.session = "of the broker before"
    out = peer.say(Ping)
    assert ("of the broker before", "no_session", "say HELLO first") == error(out, peer)


@pytest.mark.parametrize("skip", [-1, 1])
def test_gap_in_the_numbers_ends_the_session(skip: int) -> None:
    """The link lost a message, or a peer counts wrongly."""
    scene = Scene()
    consumer, producer = scene.consumer(), scene.producer()
    producer.publish("a")
    consumer.said += skip
    out = consumer.say(Ping)
    detail = f"number {2 + skip} came where 2 was next"
    assert (consumer.session, "gap", detail) == error(out, consumer)
    assert (1, 0) == (scene.core.stats().ready_messages, scene.core.stats().consumers)


def test_message_of_an_earlier_session_is_ignored() -> None:
    """It was under way when its peer began anew on the same connection."""
    scene = Scene()
    producer = scene.producer()
    old = producer.session
    producer.hello()
    assert [] == scene.receive(producer.id, Publish(old, 2, "a", 1, "", {}), (b"x",))
    assert (0, 1, 1) == (
        (stats := scene.core.stats()).ready_messages,
        stats.counters.stale_messages,
        stats.producers,
    )


@pytest.mark.parametrize(
    ("act", "code", "detail"),
    [
        (
            lambda p: p.publish("a", b"", records=21),
            "over_credit",
            "published 21 records and 0 bytes, but had credit for 20 and 200",
        ),
        (
            lambda p: p.say(Return, 0, 201),
            "over_credit",
            "returned 0 records and 201 bytes, but had credit for 20 and 200",
        ),
        (
            lambda p: p.publish("a", b"", records=101),
            "too_large",
            "101 records and 0 bytes; the limits are 100 and 200",
        ),
        (
            lambda p: p.publish("a", b"x" * 201),
            "too_large",
            "1 records and 201 bytes; the limits are 100 and 200",
        ),
        (
            lambda p: p.say(Want, 1, 201, 1, 201),
            "bad_message",
            "WANT must have least_records from 1 to 100 and least_bytes up to 200, "
            "and neither above its most",
        ),
        (lambda p: p.say(Credit, 1, 1), "role", "a producer does not say CREDIT"),
        (lambda p: p.say(Settle, ()), "role", "a producer does not say SETTLE"),
        (lambda p: p.say(Renew, ()), "role", "a producer does not say RENEW"),
    ],
)
def test_producer_that_breaks_a_rule_loses_its_session_and_credit(
    act: Callable[[Peer], list[Outgoing]], code: str, detail: str
) -> None:
    """A client with a fault; what it published before stays queued."""
    scene = Scene()
    producer = scene.producer()
    assert (producer.session, code, detail) == error(act(producer), producer)
    stats = scene.core.stats()
    assert (0, 0, {code: 1}) == (stats.producers, stats.granted_records, stats.counters.refused)


@pytest.mark.parametrize("fields", [(0, 0, 1, 1), (2, 1, 1, 1), (1, 2, 1, 1), (101, 1, 200, 1)])
def test_wish_that_can_never_be_met_is_refused(fields: tuple[int, int, int, int]) -> None:
    """It would wait at the head of the line for ever, and all others behind it."""
    scene = Scene()
    producer = scene.producer(records=0)
    assert "bad_message" == error(producer.say(Want, *fields), producer)[1]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [(Publish, ("a", 1, "", {})), (Want, (1, 1, 1, 1)), (Return, (0, 0))],
)
def test_consumer_that_speaks_like_a_producer_is_refused(
    kind: type, fields: tuple[object, ...]
) -> None:
    """A client with a fault."""
    scene = Scene()
    consumer = scene.consumer()
    detail = f"a consumer does not say {kind.__name__.upper()}"
    assert (consumer.session, "role", detail) == error(consumer.say(kind, *fields), consumer)


def test_garbage_ends_the_session_of_whoever_sent_it_and_nobody_elses() -> None:
    """Something that is no telemq peer, or a fault in one."""
    scene = Scene()
    consumer, other, producer = scene.consumer(), scene.consumer(), scene.producer()
    producer.publish("a")
    fault = RemoteProtocolError("bad_message", "not JSON")
    out = scene.core.refuse(consumer.id, fault, scene.now)
    assert (consumer.session, "bad_message", "not JSON") == error(out, consumer)
    assert [other.id] == [o.peer for o in out if isinstance(o.message, Deliver)]
    stranger = scene.peer("producer")
    out = scene.core.refuse(stranger.id, fault, scene.now)
    assert ("", "bad_message", "not JSON") == error(out, stranger)
    assert [] == scene.core.peer_lost(stranger.id, scene.now)


def test_address_that_earns_error_after_error_is_not_heard_for_the_rest_of_a_second() -> None:
    """A client with a fault sends as fast as it can, and reads nothing."""
    scene = Scene(errors_max=3)
    peer = scene.peer("producer")
    answers = [len(peer.say(Ping)) for _ in range(5)]
    assert [1, 1, 1, 0, 0] == answers
    assert 2 == scene.core.stats().counters.unheard
    assert 1 == len(scene.peer("producer").say(Ping)), "others are heard"
    scene.now = 10**9
    assert 1 == len(peer.say(Ping))


def test_hello_is_heard_after_many_errors_and_forgives_them() -> None:
    """The broker was started again while a hundred messages were under way to it."""
    scene = Scene(errors_max=3)
    peer = scene.peer("producer")
    for _ in range(100):
        peer.say(Ping)
    peer.hello()
    assert [] == peer.say(Ping)
    peer.said += 1
    assert "gap" == error(peer.say(Ping), peer)[1]


def test_hellos_are_limited_too_and_leave_the_session_as_it_is() -> None:
    """A client says HELLO in a loop: each would be answered by a WELCOME that nobody reads."""
    scene = Scene(errors_max=3)
    peer = scene.peer("consumer")
    assert [1, 1, 1, 0] == [len(peer.hello()) for _ in range(4)]
    assert 1 == scene.core.stats().consumers


def test_offenders_remembered_are_no_more_than_twice_the_peers() -> None:
    """Somebody opens connection after connection to say something wrong on each."""
    scene = Scene(errors_max=3, peers_max=5)
    for _ in range(50):
        scene.peer("producer").say(Ping)
    assert 10 == len(scene.core._offenders._counts)
