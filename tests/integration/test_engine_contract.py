"""One contract for every engine: whatever streamers and collectors rely on, each of them keeps.

What sets engines apart stands in one table, `tests.support.engines.Promises`:

=========== ========= ======== ======== ====== ===========================================
engine      confirms  restarts in order copies a settled id, published again at once
=========== ========= ======== ======== ====== ===========================================
memory      settled   no       yes      1      is delivered again (the ledger knows it)
broker      settled   yes      yes      1      is delivered again
two-brokers settled   yes      no       2      is delivered again
journal     stored    yes      yes      1      is delivered again
jetstream   stored    yes      yes      1      is confirmed and not delivered, for 2 minutes
=========== ========= ======== ======== ====== ===========================================
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from telemq.engine.base import ConsumerEngine, Delivery, ProducerEngine
from telemq.errors import LocalProtocolError
from tests.support.engines import ATTEMPTS, CAPACITY, ENGINES, LEASE_S, EngineUnderTest

_DEADLINE_S = 30.0


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    """Each engine in turn, with an empty queue."""
    with ENGINES[request.param](tmp_path) as engine:
        yield engine


class Ends:
    """Some ends of one queue, all owned by the test's thread; a context manager.

    Attributes:
        got: what was delivered, with who got it, in order.
        lost: what was lost since.
        confirmed: ids, in order.
    """

    def __init__(self, engine: EngineUnderTest) -> None:
        self._engine = engine
        self._stack = ExitStack()
        self._producers: list[ProducerEngine] = []
        self._consumers: list[ConsumerEngine] = []
        self.got: list[tuple[ConsumerEngine, Delivery]] = []
        self.lost: list[Delivery] = []
        self.confirmed: list[str] = []

    def __enter__(self) -> Ends:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def producer(self, **changed: Any) -> ProducerEngine:
        """Open one more."""
        producer = self._engine.producer(**changed)
        self._stack.enter_context(closing(producer))
        self._producers.append(producer)
        return producer

    def consumer(self, **changed: Any) -> ConsumerEngine:
        """Open one more."""
        consumer = self._engine.consumer(**changed)
        self._stack.enter_context(closing(consumer))
        self._consumers.append(consumer)
        return consumer

    def leave(self, consumer: ConsumerEngine) -> None:
        """Close a consumer before the end."""
        self._consumers.remove(consumer)
        consumer.close()

    def turn(self) -> list[tuple[ConsumerEngine, Delivery]]:
        """Poll everybody once; gives what was delivered."""
        new = []
        for producer in self._producers:
            self.confirmed += producer.poll(0.005)
        for consumer in self._consumers:
            new += [(consumer, delivery) for delivery in consumer.poll(0.005)]
            self.lost += consumer.lost()
        self.got += new
        return new

    def until(self, condition: Callable[[], object], what: str, *, settle: bool = False) -> None:
        """Poll until a condition holds; with `settle`, be done with what comes meanwhile."""
        end = time.monotonic() + _DEADLINE_S
        while not condition():
            assert time.monotonic() < end, f"it never came to this: {what}"
            for consumer, delivery in self.turn():
                if settle:
                    consumer.settle([delivery])

    def for_s(self, seconds: float) -> None:
        """Poll for so long: what must not happen has that long to happen."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, "the time is over")

    def next(self) -> tuple[ConsumerEngine, Delivery]:
        """Wait for one more delivery."""
        had = len(self.got)
        self.until(lambda: len(self.got) > had, "a delivery comes")
        return self.got[had]


@pytest.fixture
def ends(engine: EngineUnderTest) -> Iterator[Ends]:
    """Nobody yet."""
    with Ends(engine) as ends:
        yield ends


def publish(producer: ProducerEngine, *numbers: int) -> None:
    """Publish messages of ten records."""
    for n in numbers:
        producer.publish(f"s#{n}", 10, b"payload %d" % n)


def ids(ends: Ends) -> list[str]:
    return [delivery.id for _, delivery in ends.got]


def test_message_arrives_as_it_was_published(ends: Ends) -> None:
    """Every message."""
    producer = ends.producer()
    ends.consumer()
    about = {"content-type": "telemq.batch", "ä": "ö\r\n"}
    producer.publish("strömung 1#7", 10, b"\0\xff" * 40_000, key="kéy", metadata=about)
    _, got = ends.next()
    assert ("strömung 1#7", 10, "kéy", about, 1, "") == (
        got.id, got.records, got.key, got.metadata, got.attempt, got.dead,
    )  # fmt: skip
    assert b"\0\xff" * 40_000 == bytes(got.payload)
    assert LEASE_S * 1000 == got.lease_ms


def test_confirm_comes_when_the_engine_says(ends: Ends, engine: EngineUnderTest) -> None:
    """A streamer forgets a batch: it must be safe by then, as this engine understands it."""
    producer = ends.producer()
    publish(producer, 1)
    if engine.promises.confirms == "settled":
        consumer = ends.consumer()
        ends.next()
        assert ([], 1) == (ends.confirmed, producer.unconfirmed())
        consumer.settle([delivery for _, delivery in ends.got])
    ends.until(lambda: ends.confirmed, "it is confirmed")
    assert ["s#1"] == ends.confirmed
    assert (0, 0) == (producer.unconfirmed(), producer.stats().unconfirmed_records)


def test_message_that_is_to_be_tried_again_comes_again(ends: Ends) -> None:
    """A collector could not store it now."""
    publish(ends.producer(), 1)
    ends.consumer()
    consumer, first = ends.next()
    consumer.settle([first], "retry")
    _, second = ends.next()
    assert ("s#1", 1, "s#1", 2) == (first.id, first.attempt, second.id, second.attempt)


def test_buried_message_comes_once_more_as_a_dead_letter(ends: Ends) -> None:
    """A consumer cannot read it; whoever keeps dead letters gets it with the reason."""
    publish(ends.producer(), 1)
    ends.consumer()
    consumer, first = ends.next()
    consumer.settle([first], "bury", "no\nsense")
    _, dead = ends.next()
    assert ("s#1", b"payload 1", "no\nsense") == (dead.id, bytes(dead.payload), dead.dead)
    consumer.settle([dead])
    ends.until(lambda: ends.confirmed, "it is confirmed")
    ends.for_s(1.2 * LEASE_S)
    assert 2 == len(ends.got)


def test_message_that_nobody_can_store_becomes_a_dead_letter(ends: Ends) -> None:
    """Each collector that takes it dies of it."""
    publish(ends.producer(), 1)
    ends.consumer()
    for attempt in range(1, ATTEMPTS + 1):
        consumer, delivery = ends.next()
        assert (attempt, "") == (delivery.attempt, delivery.dead)
        consumer.settle([delivery], "retry")
    consumer, dead = ends.next()
    assert "s#1" == dead.id
    assert dead.dead
    consumer.settle([dead])
    ends.until(lambda: ends.confirmed, "it is confirmed")


def test_what_a_consumer_leaves_behind_comes_to_another(ends: Ends) -> None:
    """A collector stops while it holds batches."""
    publish(ends.producer(), 1, 2)
    first = ends.consumer()
    ends.until(lambda: len(ends.got) == 2, "both are delivered")
    ends.leave(first)
    ends.consumer()
    ends.until(lambda: len(ends.got) == 4, "both come again")
    assert {("s#1", 2), ("s#2", 2)} == {(d.id, d.attempt) for _, d in ends.got[2:]}


def test_what_is_never_settled_comes_again(ends: Ends) -> None:
    """A collector hangs in a commit, while it still answers."""
    publish(ends.producer(), 1)
    consumer = ends.consumer()
    _, first = ends.next()
    _, second = ends.next()
    assert ("s#1", 2) == (second.id, second.attempt)
    consumer.settle([second])
    ends.until(lambda: ends.confirmed, "it is confirmed")
    consumer.settle([first])
    ends.for_s(1.2 * LEASE_S)
    assert ["s#1", "s#1"] == ids(ends)


def test_renewed_lease_lasts(ends: Ends) -> None:
    """A commit takes longer than a lease."""
    publish(ends.producer(), 1)
    consumer = ends.consumer()
    _, delivery = ends.next()
    for _ in range(6):
        ends.for_s(LEASE_S / 3)
        consumer.renew([delivery])
    assert ["s#1"] == ids(ends)
    consumer.settle([delivery])
    ends.until(lambda: ends.confirmed, "it is confirmed")


def test_queue_is_bounded_and_flows_again(ends: Ends) -> None:
    """No collector runs for a night: streamers wait, and nothing is dropped."""
    producer = ends.producer()
    published = 0
    end = time.monotonic() + LEASE_S
    while time.monotonic() < end:
        while producer.room_records() >= 10:
            publish(producer, published)
            published += 1
        ends.turn()
    assert 0 == producer.room_records()
    assert published <= (CAPACITY + 50) // 10
    ends.consumer()
    while published < 100:
        if producer.room_records() >= 10:
            publish(producer, published)
            published += 1
        else:
            ends.until(lambda: producer.room_records() >= 10, "there is room", settle=True)
    ends.until(lambda: len(ends.confirmed) == 100, "all are confirmed", settle=True)
    ends.until(lambda: len(ends.got) >= 100, "all are delivered", settle=True)
    assert {f"s#{n}": 1 for n in range(100)} == Counter(ids(ends))


def test_first_deliveries_are_in_order(ends: Ends, engine: EngineUnderTest) -> None:
    """Samples of a series are stored as they were taken, as far as that goes."""
    if not engine.promises.in_order:
        pytest.skip("the brokers share nothing: order is kept in each alone")
    producer = ends.producer(window_records=1000)
    ends.consumer()
    publish(producer, *range(50))
    ends.until(lambda: len(ends.got) == 50, "all are delivered", settle=True)
    assert [f"s#{n}" for n in range(50)] == ids(ends)


def test_id_that_is_published_twice_at_once(ends: Ends, engine: EngineUnderTest) -> None:
    """A streamer took over a lease whose batch is still in the queue."""
    first, second = ends.producer(), ends.producer()
    publish(first, 1)
    ends.until(lambda: not first.stats().waiting_messages, "the first is sent")
    ends.for_s(0.5)  # until it is in the queue: the confirm goes to whoever published last
    publish(second, 1)
    ends.until(lambda: not second.stats().waiting_messages, "the second is sent")
    ends.for_s(0.5)
    ends.consumer()
    ends.until(lambda: second.unconfirmed() == 0, "the second is confirmed", settle=True)
    ends.for_s(0.5)
    assert 1 <= len(ends.got) <= engine.promises.copies


def test_id_that_is_published_again_once_it_is_settled(ends: Ends, engine: EngineUnderTest) -> None:
    """A confirm was lost with the connection."""
    producer = ends.producer()
    ends.consumer()
    publish(producer, 1)
    ends.until(lambda: ends.confirmed and ends.got, "it is stored", settle=True)
    ends.for_s(0.3)  # a queue that confirms before it is settled still holds it
    publish(producer, 1)
    ends.until(lambda: len(ends.confirmed) == 2, "it is confirmed again", settle=True)
    ends.for_s(0.3)
    assert 1 + engine.promises.again == len(ends.got)


def test_id_cannot_be_published_twice_by_one_producer(ends: Ends) -> None:
    """A fault in a streamer: the first copy must not be forgotten."""
    producer = ends.producer()
    publish(producer, 1)
    with pytest.raises(LocalProtocolError, match="s#1"):
        publish(producer, 1)


def test_forgotten_message_makes_room(ends: Ends, engine: EngineUnderTest) -> None:
    """Another streamer has the lease now."""
    producer = ends.producer()
    publish(producer, 1, 2)
    producer.forget("s#1")
    producer.forget("unknown#1")
    assert 1 == producer.unconfirmed()
    # Where a message is confirmed once it is stored, the other may be by now.
    rooms = {40} if engine.promises.confirms == "settled" else {40, 50}
    assert producer.room_records() in rooms
    ends.consumer()
    ends.until(lambda: "s#2" in ends.confirmed, "the other is confirmed", settle=True)
    assert "s#1" not in ends.confirmed


def test_paused_consumer_gets_nothing_and_can_settle(ends: Ends) -> None:
    """A collector drains."""
    producer, consumer = ends.producer(), ends.consumer()
    publish(producer, 1)
    _, delivery = ends.next()
    consumer.pause()
    ends.for_s(0.3)
    publish(producer, 2)
    ends.for_s(0.5)
    assert ["s#1"] == ids(ends)
    consumer.settle([delivery])
    ends.until(lambda: "s#1" in ends.confirmed, "it is confirmed")
    ends.consumer()
    _, other = ends.next()
    assert "s#2" == other.id


def test_consumer_holds_no_more_than_its_credit(ends: Ends) -> None:
    """A slow collector's memory is bounded, and everything comes in the end."""
    producer = ends.producer(window_records=1000)
    consumer = ends.consumer(credit_records=25)
    publish(producer, *range(20))
    held: list[Delivery] = []
    done = 0
    end = time.monotonic() + _DEADLINE_S
    while done < 20:
        assert time.monotonic() < end, "it stands still"
        held += [delivery for _, delivery in ends.turn()]
        assert sum(delivery.records for delivery in held) <= 25
        if held:
            consumer.settle([held.pop(0)])
            done += 1
    assert {f"s#{n}": 1 for n in range(20)} == Counter(ids(ends))


def test_poll_that_waits_is_woken(ends: Ends) -> None:
    """The writer thread has committed; the main thread waits for the queue."""
    for end in (ends.producer(), ends.consumer()):
        ends.until(lambda end=end: end.connected, "it is connected")  # type: ignore[misc] # bound now
        began = time.monotonic()
        waker = threading.Timer(0.1, end.wake)
        waker.start()
        while time.monotonic() < began + 0.1:
            end.poll(20)
        assert time.monotonic() < began + 10
        waker.join()


def test_nothing_is_lost_when_the_server_is_killed(ends: Ends, engine: EngineUnderTest) -> None:
    """The machine of the queue restarts under load; both ends come back by themselves."""
    if not engine.promises.restarts:
        pytest.skip("it lives and dies with this process")
    producer = ends.producer()
    ends.consumer()
    published = 0
    while published < 60:
        if producer.room_records() >= 10:
            publish(producer, published)
            published += 1
            if published in {20, 40}:
                engine.restart()
        ends.until(lambda: producer.room_records() >= 10, "there is room", settle=True)
    ends.until(lambda: not producer.unconfirmed(), "all are confirmed", settle=True)
    ends.until(lambda: len(set(ids(ends))) == 60, "all are delivered", settle=True)
    assert 60 == len(set(ends.confirmed))
    assert "" == producer.fault
