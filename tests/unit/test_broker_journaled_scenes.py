"""A broker's rules with a journal, as in a text book: an event in, the exact messages out."""

from __future__ import annotations

from dataclasses import replace

from telemq.broker.core import Outgoing
from telemq.broker.entries import Append, Forget, Retried
from telemq.broker.journaled import JournaledCore
from telemq.protocol import Confirm, Deliver, Grant, Packed, PublishPack
from tests.support.diary import message
from tests.support.peers import LIMITS, Peer, Scene


class JournaledScene(Scene):
    """A scene whose core has a journal."""

    def __init__(self, **limits: int) -> None:
        super().__init__()
        self.journaled = JournaledCore(replace(LIMITS, **limits), b"secret")
        self.core = self.journaled

    def synced(self, place: int) -> list[Outgoing]:
        out = self.journaled.synced(place, self.now)
        self.core.check()
        return out


def confirms(out: list[Outgoing]) -> list[tuple[str, tuple[int, ...]]]:
    return [(o.message.session, o.message.numbers) for o in out if isinstance(o.message, Confirm)]


def deliveries(out: list[Outgoing]) -> list[Deliver]:
    return [o.message for o in out if isinstance(o.message, Deliver)]


def publish(peer: Peer, *ids: str) -> list[int]:
    numbers = []
    for id in ids:
        assert not confirms(peer.publish(id))
        numbers.append(peer.said)
    return numbers


def test_messages_are_confirmed_once_synced_and_not_again_when_settled() -> None:
    """The usual way: the disk is faster than the consumer."""
    scene = JournaledScene()
    producer = scene.producer()
    a, b, c = publish(producer, "a", "b", "c")
    assert [(producer.session, (a, b))] == confirms(scene.synced(2))
    consumer = scene.consumer()
    assert not confirms(consumer.settle(1))
    assert [(producer.session, (c,))] == confirms(consumer.settle(3))
    assert not confirms(scene.synced(3))


def test_duplicate_is_confirmed_at_once_when_synced_and_else_to_its_last_publisher() -> None:
    """A producer lost its confirm and publishes again; or another took its work over."""
    scene = JournaledScene()
    first, second = scene.producer(), scene.producer()
    publish(first, "a", "b")
    scene.synced(1)
    assert [(second.session, (second.said + 1,))] == confirms(second.publish("a"))
    (again,) = publish(second, "b")
    assert [(second.session, (again,))] == confirms(scene.synced(2))


def test_journal_is_told_what_becomes_of_each_message() -> None:
    """What the notes say is all that a restart will know.

    The first is paused after its retry, so the third lease is the dead letter's.
    """
    scene = JournaledScene()
    producer, consumer = scene.producer(), scene.consumer()
    publish(producer, "a", "b")
    consumer.settle(1, "retry")
    consumer.settle(2, "bury", "poison")
    consumer.settle(3)
    append_a, append_b, *rest = scene.journaled.notes()
    assert isinstance(append_a, Append)
    assert isinstance(append_b, Append)
    assert ["a", "b"] == [one.id for append in (append_a, append_b) for one in append.messages]
    assert [Retried(1, 1, 1, ""), Retried(2, 1, 1, "poison"), Forget(2, 1)] == rest
    assert [] == scene.journaled.notes()


def test_pack_is_synced_as_one_in_whatever_pieces_it_is() -> None:
    """A consumer settles the middle of it before the disk has it."""
    scene = JournaledScene()
    producer, consumer = scene.producer(), scene.consumer()
    packed = tuple(Packed(f"m{n}", 1, 1, "", {}) for n in range(5))
    assert not confirms(producer.say(PublishPack, packed, payload=b"abcde"))
    first = producer.said
    assert [(producer.session, (first + 2,))] == confirms(consumer.settle(3))
    assert 4 == scene.journaled.unsynced_messages()
    assert not confirms(scene.synced(0))
    left = tuple(first + n for n in (0, 1, 3, 4))
    assert [(producer.session, left)] == confirms(scene.synced(5))
    assert 0 == scene.journaled.unsynced_messages()
    append, forget = scene.journaled.notes()
    assert Append(1, packed, b"abcde") == append
    assert Forget(3, 1) == forget


def test_piece_of_a_pack_is_confirmed_once_all_of_it_is_on_disk() -> None:
    """A pack larger than the largest message is several entries, and the disk has some of them."""
    scene = JournaledScene()
    producer = scene.producer()
    packed = tuple(Packed(f"m{n}", 1, 1, "", {}) for n in range(5))
    producer.say(PublishPack, packed, payload=b"abcde")
    assert not confirms(scene.synced(4))
    consumer = scene.consumer()
    consumer.settle(3)
    (taken,) = confirms(scene.synced(4))
    assert (producer.session, 3) == (taken[0], len(taken[1]))
    assert [(producer.session, (producer.said + 4,))] == confirms(scene.synced(5))


def test_pack_that_is_published_again_is_confirmed_one_by_one() -> None:
    """The producer lost its connection before it heard of the confirms; all are on disk."""
    scene = JournaledScene()
    producer = scene.producer()
    packed = tuple(Packed(f"m{n}", 1, 1, "", {}) for n in range(3))
    producer.say(PublishPack, packed, payload=b"abc")
    scene.synced(3)
    again = scene.producer()
    out = again.say(PublishPack, packed[1:], payload=b"bc")
    assert [(again.session, (again.said, again.said + 1))] == confirms(out)
    assert not confirms(scene.consumer().settle(1))
    assert 1 == len(scene.journaled.notes()[:-1])


def test_stalled_journal_stops_grants_until_it_goes_on() -> None:
    """The disk is full; producers wait."""
    scene = JournaledScene()
    scene.journaled.stall(True, scene.now)
    producer = scene.producer()
    out = scene.journaled.stall(False, scene.now)
    assert [producer.id] == [o.peer for o in out if isinstance(o.message, Grant)]


def test_restored_messages_are_delivered_in_order_those_that_came_back_first() -> None:
    """The broker starts again; what was leased is ready again."""
    scene = JournaledScene()
    left = [message(place) for place in (4, 5, 9)]
    left[1].attempt = 1
    left[2].attempt, left[2].dead = 2, "poison"
    scene.journaled.restore(left, 12, scene.now)
    scene.core.check()
    consumer = scene.peer("consumer")
    consumer.hello()
    given = deliveries(consumer.credit())
    assert ["m#5", "m#9", "m#4"] == [d.id for d in given]
    assert [2, 3, 1] == [d.attempt for d in given]
    assert ["", "poison", ""] == [d.dead for d in given]
    publish(scene.producer(), "new")
    (new,) = (n for n in scene.journaled.notes() if isinstance(n, Append))
    assert 13 == new.place
    assert 3 == scene.core.stats().counters.restored


def test_restored_message_that_used_up_its_attempts_is_dead() -> None:
    """The broker died at the moment in which a message became a dead letter."""
    scene = JournaledScene(attempts_max=2)
    left = message(1)
    left.attempt = 2
    scene.journaled.restore([left], 1, scene.now)
    consumer = scene.peer("consumer")
    consumer.hello()
    (given,) = deliveries(consumer.credit())
    assert given.dead.startswith("not stored after 2 deliveries")


def test_more_is_restored_than_a_lowered_capacity_allows() -> None:
    """Somebody starts the broker with less room: nothing is granted until there is some."""
    scene = JournaledScene(capacity_bytes=250, message_bytes_max=100)
    scene.journaled.restore([message(n, 100) for n in range(1, 5)], 4, scene.now)
    scene.core.check()
    producer = scene.producer(size_bytes=100)
    consumer = scene.consumer()
    assert 0 == scene.core.stats().granted_bytes
    assert not [o for o in consumer.settle(1) if isinstance(o.message, Grant)]
    grants = [o for o in consumer.settle(2) if isinstance(o.message, Grant)]
    assert [producer.id] == [o.peer for o in grants]


def test_id_of_a_restored_message_is_refused_and_confirmed() -> None:
    """A producer did not hear the confirm before the broker died."""
    scene = JournaledScene()
    scene.journaled.restore([message(1, id="a")], 1, scene.now)
    producer = scene.producer()
    assert [(producer.session, (producer.said + 1,))] == confirms(producer.publish("a"))
    assert 1 == scene.core.stats().ready_messages
