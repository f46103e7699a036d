"""What arrived together stays together, until its messages must be told apart."""

from __future__ import annotations

from typing import Any

import pytest

from telemq.broker.bundle import Bundle
from telemq.broker.core import Outgoing
from telemq.client.consumer import ConsumerCore, ConsumerStats
from telemq.client.session import Delivery, Transmit
from telemq.protocol import (
    INTEGER_MAX,
    LEASES_MAX,
    Bye,
    Confirm,
    Deliver,
    DeliverPack,
    Error,
    Lent,
    Packed,
    PublishPack,
    Renew,
    Settle,
    Settlement,
    Welcome,
)
from tests.support.peers import Peer, Scene, delivered

SECOND = 1_000_000_000


def pack(*ids: str, size: int = 1) -> tuple[Packed, ...]:
    return tuple(Packed(id, 1, size, "", {}) for id in ids)


def scene_with(ids: str, **limits: int) -> tuple[Scene, Peer, Peer]:
    """A broker that holds one pack with these ids, its producer, and a consumer without room."""
    scene = Scene(heartbeat_ns=1000 * SECOND, **limits)
    producer = scene.producer()
    publish(producer, ids)
    return scene, producer, scene.consumer(0, 0, "1.1")


def publish(producer: Peer, ids: str) -> list[Outgoing]:
    out = producer.say(PublishPack, pack(*ids), payload=ids.encode())
    producer.said += len(ids) - 1
    return out


def given(out: list[Outgoing]) -> list[tuple[str, bytes, int]]:
    """Ids, payload and attempt of every delivery."""
    found = []
    for one in out:
        if isinstance(one.message, Deliver):
            found.append((one.message.id, b"".join(one.frames), one.message.attempt))
        elif isinstance(one.message, DeliverPack):
            ids = "".join(packed.id for packed in one.message.messages)
            (attempt,) = {lent.attempt for lent in one.message.lent}
            found.append((ids, b"".join(one.frames), attempt))
    return found


def confirmed(out: list[Outgoing]) -> list[int]:
    return [n for one in out if isinstance(one.message, Confirm) for n in one.message.numbers]


def ok(first: int, count: int) -> tuple[Settlement, ...]:
    return (Settlement(first, "ok", "", count),)


# ---- the broker --------------------------------------------------------------------------------


def test_what_arrived_together_goes_to_one_consumer_that_has_room() -> None:
    """Two collectors with much credit: the second is served with the next pack."""
    _, producer, consumer = scene_with("abcd")
    assert [("abcd", b"abcd", 1)] == given(consumer.credit())
    assert [("ef", b"ef", 1)] == given(publish(producer, "ef"))


def test_consumer_with_little_room_gets_as_much_as_it_takes() -> None:
    """A collector with a credit of two records; a large message still comes alone."""
    _, _, consumer = scene_with("abcde")
    assert [("ab", b"ab", 1)] == given(consumer.credit(2, 100))
    out = consumer.say(Settle, ok(1, 2))
    assert [("cd", b"cd", 1)] == given(out)
    assert [2, 3] == confirmed(out)
    assert [("e", b"e", 1)] == given(consumer.say(Settle, ok(3, 1)))


def test_part_in_the_middle_is_settled_and_the_others_are_redelivered_in_order() -> None:
    """A collector committed two of six, then died."""
    scene, _, consumer = scene_with("abcdef")
    consumer.credit()
    assert [4, 5] == confirmed(consumer.say(Settle, ok(3, 2)))
    consumer.say(Bye)
    other = scene.consumer(0, 0, "1.1")
    (out,) = other.credit()
    assert isinstance(out.message, DeliverPack)
    assert (Lent(7, 4, 2),) == out.message.lent
    assert [("abef", b"abef", 2)] == given([out])
    assert [2, 3, 6, 7] == confirmed(other.say(Settle, ok(7, 4)))


def test_range_retries_and_buries_as_single_leases_do() -> None:
    """Some cannot be stored now, others never."""
    scene, _, consumer = scene_with("abcdef")
    consumer.credit()
    said = (Settlement(1, "retry", "", 2), Settlement(3, "bury", "why", 2), *ok(5, 2))
    out = consumer.say(Settle, said)
    # Dead letters travel alone.
    assert [("c", b"c", 2), ("d", b"d", 2)] == given(out)
    assert [6, 7] == confirmed(out)
    assert [("ab", b"ab", 2)] == given(scene.advance(scene.core.limits.retry_ns))


def test_lease_of_a_part_that_was_renewed_outlives_the_rest() -> None:
    """A collector renews what it has not committed yet."""
    scene, _, consumer = scene_with("abcdef")
    consumer.credit()
    half = scene.core.limits.lease_ns // 2
    scene.advance(half)
    consumer.say(Renew, (2, 5), (2, 1))
    assert [("adf", b"adf", 2)] == given(scene.advance(half))
    assert 3 == scene.core.stats().counters.leases_expired
    assert [("bce", b"bce", 2)] == given(scene.advance(half))


def test_range_reaches_only_what_is_live_and_ones_own() -> None:
    """A collector settles what was taken from it meanwhile."""
    scene, producer, consumer = scene_with("abcd")
    consumer.credit(2, 100)
    other = scene.consumer(0, 0, "1.1")
    other.credit(2, 100)
    out = consumer.say(Settle, ok(1, 4))
    assert [2, 3] == confirmed(out)
    assert 2 == scene.core.stats().counters.stale_settles
    assert 2 == scene.core.stats().leased_messages
    assert [4, 5] == confirmed(other.say(Settle, ok(3, 2)))
    publish(producer, "e")


@pytest.mark.parametrize("many", [LEASES_MAX + 1, INTEGER_MAX])
@pytest.mark.parametrize("kind", [Settle, Renew])
def test_range_without_end_is_refused_and_not_counted_out(kind: type, many: int) -> None:
    """A hostile consumer; to visit each number would stop the broker for years."""
    _, _, consumer = scene_with("ab")
    consumer.credit()
    fields = (ok(1, many),) if kind is Settle else ((1,), (many,))
    out = consumer.say(kind, *fields)
    assert ["bad_message"] == [o.message.code for o in out if isinstance(o.message, Error)]


def test_renew_with_counts_for_some_only_is_refused() -> None:
    """A client in another language, while it is being written."""
    _, _, consumer = scene_with("ab")
    consumer.credit()
    out = consumer.say(Renew, (1, 2), (1,))
    assert ["bad_message"] == [o.message.code for o in out if isinstance(o.message, Error)]


def test_pack_that_is_published_again_is_confirmed_to_the_new_session_part_by_part() -> None:
    """A streamer's connection broke; what was delivered of its pack meanwhile is held all along."""
    scene, producer, consumer = scene_with("abcd")
    consumer.credit(3, 100)
    producer.say(Bye)
    again = scene.producer()
    publish(again, "bcd")
    assert 3 == scene.core.stats().counters.duplicates
    assert [2] == confirmed(consumer.say(Settle, ok(2, 1)))
    # Whoever published it first is gone; nobody waits for it.
    assert [] == confirmed(consumer.say(Settle, ok(1, 1)))
    assert [3, 4] == confirmed(consumer.say(Settle, ok(3, 2)))


def test_consumer_that_settles_one_by_one_copies_no_payload_each_time() -> None:
    """Someone's consumer knows no ranges: a pack must not cost the square of its length."""
    payload = bytes(1000 * 100)
    bundle = Bundle(pack(*map(str, range(1000)), size=100), payload, 1000, 100_000, 1, 0, "s", 1)
    copied, kept = 0, object()
    while len(bundle) > 1:
        _, bundle = bundle.cut(1)
        view = bundle.payload
        buffer: Any = view.obj if isinstance(view, memoryview) else view
        if buffer is not kept:
            copied, kept = copied + len(buffer), buffer
        assert len(buffer) <= 2 * bundle.size_bytes, "more is kept in memory than is counted"
    assert copied <= 2 * len(payload)


# ---- a consumer --------------------------------------------------------------------------------


def consumer_core(version: str = "1.1") -> tuple[ConsumerCore, list[Delivery]]:
    """A consumer that holds ten messages."""
    core = ConsumerCore("me", credit_records=100, credit_bytes=1000, seed=1)
    core.advance(0)
    core.receive(Welcome("s", 1, version, 1000, 50, 500), (), 0)
    lent = (Lent(7, 6, 1), Lent(20, 4, 2))
    got = core.receive(DeliverPack("s", 2, 30_000, lent, pack(*"abcdefghij")), (b"0123456789",), 0)
    return core, delivered(got)


def test_leases_in_a_row_are_settled_and_renewed_as_ranges() -> None:
    """A collector commits what it has."""
    core, held = consumer_core()
    assert [Transmit(Renew("s", 2, (7, 20), (6, 4)))] == core.renew(held, 0)
    ranges = (Settlement(7, "ok", "", 2), Settlement(10, "ok", "", 3), Settlement(20, "ok"))
    assert [Transmit(Settle("s", 3, ranges))] == core.settle([*held[:2], *held[3:7]], "ok", "", 0)


def test_what_is_settled_is_settled_once_and_takes_nothing_with_it() -> None:
    """A program hands over what it has settled before, or one delivery twice."""
    core, held = consumer_core()
    core.settle([held[1]], "ok", "", 0)
    again = [held[0], held[0], held[1], held[2], held[4], held[9]]
    ranges = (Settlement(7, "ok"), Settlement(9, "ok"), Settlement(11, "ok"), Settlement(23, "ok"))
    assert [Transmit(Settle("s", 3, ranges))] == core.settle(again, "ok", "", 0)
    assert [] == core.settle(again, "ok", "", 0)
    assert [Transmit(Renew("s", 4, (10, 12, 20), (1, 1, 3)))] == core.renew(held, 0)
    assert ConsumerStats(5, 5, 1) == core.stats()


def test_broker_of_version_1_0_gets_no_range() -> None:
    """A collector is upgraded before its broker, which would settle the first only."""
    core, held = consumer_core("1.0")
    assert [Transmit(Renew("s", 2, (7, 8), ()))] == core.renew(held[:2], 0)
    singly = Settlement(7, "ok"), Settlement(8, "ok")
    assert [Transmit(Settle("s", 3, singly))] == core.settle(held[:2], "ok", "", 0)


def test_more_leases_than_one_message_may_name_are_settled_in_several() -> None:
    """A collector with a very large credit, after a long commit."""
    core, _ = consumer_core()
    count, heard, held = LEASES_MAX + 10, 13, list[Delivery]()
    for first in range(0, count, 1000):
        ids = pack(*map(str, range(first, min(count, first + 1000))), size=0)
        message = DeliverPack("s", heard - 1, 30_000, (Lent(100 + first, len(ids), 1),), ids)
        held += delivered(core.receive(message, (), 0))
        heard += len(ids)
    assert count == len(held)
    assert [LEASES_MAX, 10] == [
        sum(settled.count for settled in command.message.settlements)
        for command in core.settle(held, "ok", "", 0)
        if isinstance(command, Transmit) and isinstance(command.message, Settle)
    ]
