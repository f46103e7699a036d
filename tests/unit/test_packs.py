"""PACKs: messages that travel together, at the broker and at both kinds of peer."""

from __future__ import annotations

import string

import pytest

from telemq.broker.core import Outgoing
from telemq.client.consumer import ConsumerCore
from telemq.client.producer import ProducerCore
from telemq.client.session import Command, Confirmed, Reconnect, Transmit
from telemq.protocol import (
    JOIN_BYTES,
    PACK_BYTES_MAX,
    PACK_MESSAGES_MAX,
    Confirm,
    Credit,
    Deliver,
    DeliverPack,
    Error,
    Frames,
    FromPeer,
    Grant,
    Lent,
    Packed,
    Ping,
    Publish,
    PublishPack,
    Settle,
    Settlement,
    Want,
    Welcome,
    decode_from_broker,
)
from tests.support.peers import Peer, Scene, delivered

BIG = 2**30


def pack(*ids: str, size: int = 1) -> tuple[Packed, ...]:
    return tuple(Packed(id, 1, size, "", {}) for id in ids)


def roomy() -> tuple[Scene, Peer, Peer]:
    """A broker with room for everything, a producer with credit, a consumer that is full."""
    scene = Scene(
        capacity_records=10_000, capacity_bytes=BIG, message_bytes_max=BIG,
        credit_records_max=5000, credit_bytes_max=BIG,
    )  # fmt: skip
    producer = scene.peer("producer")
    producer.hello()
    producer.say(Want, 3000, 2**24, 3000, 2**24)
    return scene, producer, scene.consumer(0, 0, "1.1")


# ---- the broker --------------------------------------------------------------------------------


def test_pack_is_taken_in_and_confirmed_message_by_message() -> None:
    """A streamer with single records."""
    _, producer, consumer = roomy()
    producer.say(PublishPack, pack("a", "b", "c"), payload=b"xyz")
    producer.said += 2
    assert [
        Outgoing(
            consumer.id,
            DeliverPack(consumer.session, 2, 30_000, (Lent(1, 3, 1),), pack("a", "b", "c")),
            (b"xyz",),
        )
    ] == consumer.credit(100, 1000)
    # WANT was number 1; a pack takes as many numbers as it has messages.
    out = consumer.say(Settle, (Settlement(1, "ok"), Settlement(3, "ok")))
    assert (2, 4) == _confirmed(out)
    assert [] == producer.say(Ping)


def test_pack_with_one_id_twice_queues_it_once() -> None:
    """A faulty producer; the confirm has the number of the later one."""
    scene, producer, consumer = roomy()
    producer.say(PublishPack, pack("a", "a"), payload=b"xy")
    assert 1 == scene.core.stats().counters.duplicates
    (deliver,) = _to(consumer, consumer.credit(100, 1000))
    assert isinstance(deliver.message, Deliver)
    assert (b"x",) == deliver.frames
    assert (3,) == _confirmed(consumer.settle(1))


@pytest.mark.parametrize(
    ("messages", "frames", "code"),
    [
        (pack("a", "b"), (b"x",), "bad_message"),
        (pack("a", "b"), (b"xyz",), "bad_message"),
        (pack("a", "b"), (b"x", b"yz"), "bad_message"),
        (pack("a", "b"), (b"x",) * 3, "bad_message"),
        (pack("a", "b", size=2), (b"w", b"xyz"), "bad_message"),
        ((*pack("a"), Packed("b", 3000, 0, "", {})), (b"x",), "over_credit"),
        ((*pack("a"), Packed("b", 10_001, 0, "", {})), (b"x",), "too_large"),
        (pack(*map(str, range(20)), size=2**16), (bytes(2**16),) * 20, "bad_message"),
    ],
)
def test_pack_that_is_wrong_is_taken_in_not_at_all(
    messages: tuple[Packed, ...], frames: Frames, code: str
) -> None:
    """A client in another language, while it is being written."""
    scene, producer, _ = roomy()
    (error,) = producer.say(PublishPack, messages, frames=frames)
    assert isinstance(error.message, Error)
    assert code == error.message.code
    stats = scene.core.stats()
    assert (0, 0, 0) == (stats.counters.accepted, stats.granted_records, stats.producers)


def test_peer_of_version_1_0_gets_its_messages_one_by_one() -> None:
    """A collector that is upgraded after its broker."""
    scene, producer, _ = roomy()
    old = scene.consumer(0, 0, "1.0")
    producer.say(PublishPack, pack("a", "b"), payload=b"xy")
    out = old.credit(100, 1000)
    assert [(2, "a", (b"x",)), (3, "b", (b"y",))] == [
        (one.message.number, one.message.id, one.frames)
        for one in out
        if isinstance(one.message, Deliver)
    ]


def test_pack_is_taken_in_by_frames_and_handed_on_by_frames_without_a_copy() -> None:
    """A busy streamer: large batches travel together, and nobody joins or cuts them."""
    _, producer, consumer = roomy()
    first, last = b"a" * 150_000, b"d" * 200_000
    messages = (*pack("a", size=150_000), *pack("b", "c"), *pack("d", size=200_000))
    producer.say(PublishPack, messages, frames=(first, b"xy", last))
    producer.said += 3
    producer.say(Publish, "e", 1, "", {}, payload=b"e")
    (out,) = consumer.credit(100, BIG)
    assert isinstance(out.message, DeliverPack)
    assert (*messages, *pack("e")) == out.message.messages
    assert (Lent(1, 5, 1),) == out.message.lent
    assert (first, b"xy", last, b"e") == out.frames
    assert out.frames[0] is first
    assert out.frames[2] is last
    assert (2, 3, 4, 5, 6) == _confirmed(consumer.say(Settle, (Settlement(1, "ok", "", 5),)))


def test_id_that_is_there_twice_in_frames_apart_is_queued_once() -> None:
    """A faulty producer; what else is in the frames is taken in all the same."""
    scene, producer, consumer = roomy()
    producer.say(PublishPack, pack("a", "b", "c", "a"), frames=(b"wx", b"yz"))
    producer.said += 3
    (out,) = consumer.credit(100, BIG)
    assert isinstance(out.message, DeliverPack)
    assert (pack("a", "b", "c"), (b"wxy",)) == (out.message.messages, out.frames)
    assert 1 == scene.core.stats().counters.duplicates
    assert {3, 4, 5} == set(_confirmed(consumer.say(Settle, (Settlement(1, "ok", "", 3),))))


def test_larger_than_a_pack_and_dead_letter_travel_alone_and_in_order() -> None:
    """A stream of single records with a batch among them; a letter that nobody could store."""
    _, producer, consumer = roomy()
    sizes = {"a": 1, "b": 1, "large": PACK_BYTES_MAX + 1, "c": 1, "d": 1}
    for id, size in sizes.items():
        producer.say(Publish, id, 1, "", {}, payload=b"x" * size)
    out = consumer.credit(100, BIG)
    assert [
        (2, ["a", "b"]), (4, ["large"]), (5, ["c", "d"]),
    ] == [(one.message.number, _ids(one)) for one in out]  # fmt: skip
    (dead,) = _to(consumer, consumer.say(Settle, (Settlement(1, "bury", "why"),)))
    assert isinstance(dead.message, Deliver)
    assert "why" == dead.message.dead


def test_pack_has_limits() -> None:
    """Thousands of messages wait when a collector comes back."""
    _, producer, consumer = roomy()
    for n in range(PACK_MESSAGES_MAX + 10):
        producer.say(Publish, f"{n}", 1, "", {}, payload=b"")
    for n in range(20):
        producer.say(Publish, f"b{n}", 1, "", {}, payload=b"x" * (PACK_BYTES_MAX // 2))
    for n in range(50):
        producer.say(Publish, f"m{n}", 1, "", {"k": "v" * 500}, payload=b"")
    out = consumer.credit(5000, BIG)
    counts = [len(_ids(one)) for one in out]
    assert PACK_MESSAGES_MAX + 80 == sum(counts)
    assert max(counts) <= PACK_MESSAGES_MAX
    assert max(sum(map(len, one.frames)) for one in out) <= PACK_BYTES_MAX
    assert len(counts) >= 3


def test_each_consumer_gets_a_pack_of_its_own() -> None:
    """Collectors compete for what is there, in turn; what arrived together goes to one."""
    scene, producer, first = roomy()
    second = scene.consumer(0, 0, "1.1")
    for peer in (first, second):
        assert [] == peer.credit(3, 100)
    said = producer.say(PublishPack, pack("a", "b", "c", "d"), payload=b"wxyz")
    out = [*_to(first, said), *_to(second, said)]
    assert {first.id: (["a", "b", "c"], (b"wxy",)), second.id: (["d"], (b"z",))} == {
        one.peer: (_ids(one), one.frames) for one in out
    }


def _confirmed(out: list[Outgoing]) -> tuple[int, ...]:
    (confirm,) = [one.message for one in out if isinstance(one.message, Confirm)]
    return confirm.numbers


def _to(peer: Peer, out: list[Outgoing]) -> list[Outgoing]:
    return [one for one in out if one.peer == peer.id]


def _ids(out: Outgoing) -> list[str]:
    if isinstance(out.message, DeliverPack):
        return [one.id for one in out.message.messages]
    assert isinstance(out.message, Deliver)
    return [out.message.id]


# ---- a producer --------------------------------------------------------------------------------


def said(commands: list[Command]) -> list[tuple[FromPeer, Frames]]:
    return [(c.message, c.frames) for c in commands if isinstance(c, Transmit)]


def producer_core(version: str = "1.1", join_bytes: int = JOIN_BYTES) -> ProducerCore:
    """A producer that has a session and no credit."""
    core = ProducerCore("me", window_records=5000, window_bytes=BIG, seed=1)
    core.advance(0)
    core.receive(Welcome("s", 1, version, 1000, 5000, BIG, join_bytes), 0)
    return core


def keep(core: ProducerCore, *ids: str, size: int = 10) -> bool:
    full = False
    for id in ids:
        full = core.keep(id, 1, id.encode().ljust(size, b"."), key="", metadata={})
    return full


def test_what_was_kept_is_sent_together_as_far_as_credit_goes() -> None:
    """A streamer publishes some records, and then polls."""
    core = producer_core()
    assert not keep(core, "a", "b", "c")
    assert [(Want("s", 1, 1, 10, 5000, BIG), ())] == said(core.advance(0))
    assert [
        (PublishPack("s", 2, pack("a", "b", size=10)), (b"a.........b.........",)),
    ] == said(core.receive(Grant("s", 2, 2, 100), 0))  # fmt: skip
    assert [(Publish("s", 4, "c", 1, "", {}), (b"c.........",))] == said(
        core.receive(Grant("s", 3, 1, 10), 0)
    )
    assert [Confirmed(["b", "c"])] == core.receive(Confirm("s", 4, (3, 4)), 0)
    assert 1 == core.stats().sent_messages


def test_broker_of_version_1_0_gets_no_pack() -> None:
    """Streamers are upgraded before their broker."""
    core = producer_core("1.0")
    keep(core, "a", "b")
    core.advance(0)
    sent = said(core.receive(Grant("s", 2, 10, 100), 0))
    assert [Publish("s", 2, "a", 1, "", {}), Publish("s", 3, "b", 1, "", {})] == [
        m for m, _ in sent
    ]


def test_pack_that_was_not_confirmed_is_published_again() -> None:
    """The broker was killed."""
    core = producer_core()
    keep(core, "a", "b")
    core.advance(0)
    core.receive(Grant("s", 2, 10, 100), 0)
    core.receive(Error("s", 0, "gap", ""), 0)
    now = core.next_deadline_ns() or 0
    assert isinstance(core.advance(now)[0], Reconnect)
    core.receive(Welcome("t", 1, "1.1", 1000, 5000, BIG), now)
    assert [(PublishPack("t", 2, pack("a", "b", size=10)), (b"a.........b.........",))] == said(
        core.receive(Grant("t", 2, 10, 100), now)
    )


def test_message_larger_than_a_pack_is_sent_at_once_and_alone() -> None:
    """A batch of many records, and single ones before it."""
    core = producer_core()
    assert keep(core, "large", size=PACK_BYTES_MAX + 1)
    core.flush(0)
    core.receive(Grant("s", 2, 100, 2**22), 0)
    keep(core, "a", "b")
    assert keep(core, "larger", size=PACK_BYTES_MAX + 1)
    sent = said(core.flush(0))
    assert [Want, PublishPack, Want, Publish] == [type(message) for message, _ in sent]


@pytest.mark.parametrize("join_bytes", [99_999, 100_000])
def test_messages_share_frames_up_to_the_size_that_the_broker_says(join_bytes: int) -> None:
    """A streamer catches up with large batches, at a broker with a journal and one without."""
    core = producer_core(join_bytes=join_bytes)
    payloads = [bytes([n]) * 100_000 for n in range(3)]
    for n, payload in enumerate(payloads):
        core.keep(f"{n}", 1, payload, key="", metadata={})
    core.flush(0)
    ((message, frames),) = said(core.receive(Grant("s", 2, 100, 2**20), 0))
    assert isinstance(message, PublishPack)
    if join_bytes == 100_000:
        assert (b"".join(payloads),) == frames
    else:
        assert list(map(id, payloads)) == list(map(id, frames))


def test_broker_that_says_nothing_of_frames_gets_large_payloads_alone() -> None:
    """A broker of another make, which knows 1.1 and not this field."""
    welcome = decode_from_broker(b'["WELCOME", "s", 1, "1.1", 1000, 5000, 1000000]')
    assert isinstance(welcome, Welcome)
    assert JOIN_BYTES == welcome.join_bytes == 65_536


def test_messages_fill_a_pack_and_no_more() -> None:
    """A backlog after an outage."""
    core = producer_core()
    full = [keep(core, f"{n}", size=100) for n in range(2500)]
    assert any(full)
    core.flush(0)
    sent = said(core.receive(Grant("s", 2, 5000, 2**24), 0))
    counts = [len(m.messages) for m, _ in sent if isinstance(m, PublishPack)]
    assert 2500 == sum(counts)
    assert max(counts) <= PACK_MESSAGES_MAX
    assert core.stats().waiting_messages == 0


def test_message_without_a_payload_is_sent_too() -> None:
    """An empty message has labels to carry."""
    core = producer_core()
    core.keep("e", 1, b"", key="", metadata={})
    assert [(Want("s", 1, 1, 0, 5000, BIG), ())] == said(core.advance(0))


# ---- a consumer --------------------------------------------------------------------------------


def consumer_core() -> ConsumerCore:
    core = ConsumerCore("me", credit_records=100, credit_bytes=1000, seed=1)
    core.advance(0)
    assert [Transmit(Credit("s", 1, 100, 1000))] == core.receive(
        Welcome("s", 1, "1.1", 1000, 50, 500), (), 0
    )
    return core


def test_pack_becomes_deliveries_that_are_settled_singly() -> None:
    """A collector gets single records, some of which came back."""
    core = consumer_core()
    messages = (*pack("a", size=2), *pack("b", size=0), *pack("c"))
    message = DeliverPack("s", 2, 30_000, (Lent(7, 2, 1), Lent(9, 1, 3)), messages)
    first, second, third = delivered(core.receive(message, (memoryview(b"xyz"),), 0))
    assert [("a", b"xy", 1, 30_000), ("b", b"", 1, 30_000), ("c", b"z", 3, 30_000)] == [
        (d.id, d.payload, d.attempt, d.lease_ms) for d in (first, second, third)
    ]
    assert 3 == core.stats().held_messages
    assert [Transmit(Settle("s", 2, (Settlement(8, "ok"),)))] == core.settle([second], "ok", "", 0)
    assert [] == core.receive(Ping("s", 5), (), 0)
    assert "s" == core.session.token


@pytest.mark.parametrize(("count", "size"), [(3, 1), (17, 5000)])
def test_small_messages_of_one_frame_do_not_keep_it_in_memory(count: int, size: int) -> None:
    """A collector holds one record for long, of a frame that had a thousand."""
    ids = string.ascii_letters[:count]
    message = DeliverPack("s", 2, 30_000, (Lent(7, count, 1),), pack(*ids, size=size))
    whole = bytes(range(count)) * size
    for frame in (whole, memoryview(whole)):
        got = delivered(consumer_core().receive(message, (frame,), 0))
        assert [whole[n * size : (n + 1) * size] for n in range(count)] == [d.payload for d in got]
        assert all(isinstance(d.payload, bytes) for d in got)


def test_messages_that_are_much_of_their_frame_are_given_uncopied() -> None:
    """A collector gets batches of 100 KB, ten in a frame: each byte is moved once less."""
    small, large = pack("a", size=4), pack("b", size=20_000)
    message = DeliverPack("s", 2, 30_000, (Lent(7, 2, 1),), (*small, *large))
    whole = bytes(4) + b"." * 20_000
    for frame in (whole, memoryview(whole)):
        first, second = delivered(consumer_core().receive(message, (frame,), 0))
        assert (whole[:4], whole[4:]) == (first.payload, second.payload)
        assert isinstance(first.payload, bytes)
        assert isinstance(second.payload, memoryview)
        assert second.payload.obj is whole


def test_message_alone_in_its_frame_is_given_uncopied() -> None:
    """A collector gets large batches; what libzmq received is what it parses."""
    core = consumer_core()
    messages = (*pack("a", size=3), *pack("b"), *pack("c"))
    message = DeliverPack("s", 2, 30_000, (Lent(7, 3, 1),), messages)
    large = memoryview(b"aaa")
    first, *rest = delivered(core.receive(message, (large, b"xy"), 0))
    assert first.payload is large
    assert [b"x", b"y"] == [d.payload for d in rest]


@pytest.mark.parametrize("frames", [(), (b"x",), (b"xyz",), (b"x", b""), (b"x", b"y", b"z")])
def test_pack_whose_payload_is_not_whole_ends_the_session(frames: Frames) -> None:
    """A broker of another make: to guess where a message ends would be to make up records."""
    core = consumer_core()
    message = DeliverPack("s", 2, 30_000, (Lent(7, 2, 1),), pack("a", "b"))
    assert [] == core.receive(message, frames, 0)
    assert "" == core.session.token
    assert "not whole" in core.session.fault
