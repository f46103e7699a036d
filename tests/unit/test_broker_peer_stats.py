"""What a broker tells of each of its peers, in scenes."""

from __future__ import annotations

from telemq.broker.stats import PeerStats
from telemq.protocol import Bye, Want
from tests.support.peers import Peer, Scene

SECOND = 10**9


def stats_of(scene: Scene, most: int = 100) -> dict[str, PeerStats]:
    """Every session's snapshot by its name."""
    return {peer.session: peer for peer in scene.core.peer_stats(scene.now, most)}


def publish_again(producer: Peer, id: str) -> None:
    """Publish an id whose message may be held already."""
    producer.say(Want, 1, 0, 20, 200)
    producer.publish(id)


def test_producer_shows_credit_and_what_is_held_of_it() -> None:
    """An operator asks who fills the queue."""
    scene = Scene()
    producer = scene.producer(records=20, size_bytes=200)
    scene.now += 2 * SECOND
    producer.publish("a")
    producer.publish("b")
    scene.now += SECOND
    shown = stats_of(scene)["producer 1"]
    assert ("producer", "somebody", 3.0, 1.0) == (
        *(shown.role, shown.name),
        *(shown.age_s, shown.silent_s),
    )
    assert (18, 198) == (shown.credit_records, shown.credit_bytes)
    assert (2, 2, 2, 2) == (
        *(shown.held_messages, shown.held_records),
        *(shown.done_messages, shown.done_records),
    )
    assert 0 == shown.wish_records


def test_producer_that_waits_for_room_shows_its_wish() -> None:
    """The broker is full: who is held up, and for how much?"""
    scene = Scene(capacity_records=1)
    first, second = scene.producer(records=1), scene.producer(records=0)
    first.publish("a")
    second.say(Want, 1, 7, 1, 7)
    shown = stats_of(scene)
    assert (1, 7, 0) == (
        *(shown["producer 2"].wish_records, shown["producer 2"].wish_bytes),
        shown["producer 2"].credit_records,
    )
    assert 2 == scene.core.stats().producers_waiting


def test_consumer_shows_what_it_holds_has_settled_and_sent_back() -> None:
    """One collector of several is the slow one, or the one that fails."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer(records=2)
    for id in "abc":
        producer.publish(id)
    consumer.settle(1)
    consumer.settle(2, "retry")
    shown = stats_of(scene)["consumer 2"]
    # What it gave back is paused, so it holds the third alone.
    assert (1, 1, 1) == (shown.held_messages, shown.held_records, shown.held_bytes)
    assert (1, 1, 1) == (shown.done_messages, shown.done_records, shown.redelivered)
    assert (2, 1000) == (shown.credit_records, shown.credit_bytes)
    assert 2 == stats_of(scene)["producer 1"].held_messages


def test_message_published_again_by_another_is_held_for_that_one() -> None:
    """A streamer took over the leases of one that still lives."""
    scene = Scene()
    first, second = scene.producer(), scene.producer()
    first.publish("a")
    publish_again(second, "a")
    shown = stats_of(scene)
    assert (0, 1) == (shown["producer 1"].held_messages, shown["producer 2"].held_messages)
    assert (1, 0) == (shown["producer 1"].done_messages, shown["producer 2"].done_messages)
    scene.consumer()
    (consumer,) = [p for p in stats_of(scene).values() if p.role == "consumer"]
    assert 1 == consumer.held_messages


def test_ended_session_is_not_shown_and_a_new_one_begins_at_nothing() -> None:
    """A streamer was restarted; what its old session had published is still in the queue."""
    scene = Scene()
    producer = scene.producer()
    producer.publish("a")
    producer.say(Bye)
    assert {} == stats_of(scene)
    producer.hello()
    shown = stats_of(scene)["producer 2"]
    assert (0, 0) == (shown.held_messages, shown.done_messages)


def test_no_more_peers_are_shown_than_asked_for_the_longest_silent_first() -> None:
    """A thousand peers, of which a document shows some."""
    scene = Scene()
    first, _, _ = (scene.producer() for _ in range(3))
    scene.now += SECOND
    first.publish("a")
    assert ["producer 2", "producer 3"] == list(stats_of(scene, 2))
