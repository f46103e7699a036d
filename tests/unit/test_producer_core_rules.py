"""A producer's rules: what is published when, what comes back, and what is never lost."""

from __future__ import annotations

import pytest

from telemq.client.producer import ProducerCore, ProducerStats
from telemq.client.session import Command, Confirmed, Transmit
from telemq.errors import LocalProtocolError
from telemq.protocol import (
    INTEGER_MAX,
    Confirm,
    Error,
    FromPeer,
    Grant,
    Ping,
    Publish,
    Return,
    Want,
    Welcome,
)

MS = 10**6


def said(commands: list[Command]) -> list[FromPeer]:
    """The messages among some commands."""
    return [c.message for c in commands if isinstance(c, Transmit)]


def welcome(session: str = "s") -> Welcome:
    return Welcome(session, 1, "1.0", 1000, 50, 500)


class _Producer:
    """A producer's core at one moment in time."""

    def __init__(self, session: str = "s") -> None:
        self.core = ProducerCore("me", window_records=100, window_bytes=1000, seed=1)
        self.now = 0
        self.core.advance(0)
        if session:
            self.core.receive(welcome(session), 0)

    def publish(self, id: str, records: int = 1, size: int = 10) -> list[FromPeer]:
        payload = b"x" * size
        return said(
            self.core.publish(id, records, payload, key="k", metadata={"a": "b"}, now_ns=self.now)
        )

    def hear(self, message: object) -> list[Command]:
        return self.core.receive(message, self.now)  # type: ignore[arg-type]

    def begin_anew(self) -> list[FromPeer]:
        """Lose the session to an ERROR, and open the next."""
        self.hear(Error("s", 0, "gap", ""))
        self.now = self.core.next_deadline_ns() or 0
        self.core.advance(self.now)
        return said(self.hear(welcome("t")))


def test_message_waits_for_credit_and_leaves_with_the_grant() -> None:
    """The first message of a producer."""
    producer = _Producer()
    assert [Want("s", 1, 3, 10, 100, 1000)] == producer.publish("a", 3)
    publish = Publish("s", 2, "a", 3, "k", {"a": "b"})
    assert [Transmit(publish, (b"x" * 10,))] == producer.hear(Grant("s", 2, 3, 10))
    assert ProducerStats(0, 1, 3, 10, 0, 0, 1) == producer.core.stats()
    assert [Confirmed(["a"])] == producer.hear(Confirm("s", 3, (2,)))
    assert ProducerStats(0, 0, 0, 0, 0, 0, 1) == producer.core.stats()


def test_message_before_any_session_waits_for_it() -> None:
    """A streamer starts before its broker."""
    producer = _Producer(session="")
    assert [] == producer.publish("a")
    assert [Want("s", 1, 1, 10, 100, 1000)] == said(producer.hear(welcome()))


def test_wish_grows_with_the_largest_message_and_never_asks_twice() -> None:
    """Batches of different sizes."""
    producer = _Producer()
    assert 1 == len(producer.publish("a", 5, 10))
    assert [] == producer.publish("b", 5, 400)
    out = said(producer.hear(Grant("s", 2, 5, 10)))
    assert [Publish, Want] == [type(m) for m in out]
    assert Want("s", 3, 5, 400, 100, 1000) == out[1]
    out = said(producer.hear(Grant("s", 3, 20, 500)))
    assert ["b"] == [m.id for m in out if isinstance(m, Publish)]
    assert ["c"] == [m.id for m in producer.publish("c", 1, 1) if isinstance(m, Publish)]


def test_wish_shrinks_when_the_next_message_needs_at_most_half() -> None:
    """One huge batch must not make its producer first in line for ever."""
    producer = _Producer()
    producer.publish("huge", 40, 400)
    producer.hear(Grant("s", 2, 100, 1000))
    assert [Want("s", 3, 20, 100, 100, 1000)] == producer.publish("half", 20, 100)[:1]
    assert [] == [m for m in producer.publish("near", 11, 60) if isinstance(m, Want)]
    assert [Want("s", 6, 10, 60, 100, 1000)] == producer.publish("less", 10, 60)[:1]


def test_wish_shrinks_for_fewer_bytes_alone() -> None:
    """Messages of one record each, one of them with a megabyte."""
    producer = _Producer()
    producer.publish("huge", 1, 400)
    producer.hear(Grant("s", 2, 100, 1000))
    assert [Want("s", 3, 1, 0, 100, 1000)] == producer.publish("empty", 1, 0)[:1]


def test_credit_must_cover_records_and_bytes() -> None:
    """Many small messages, or few large ones."""
    producer = _Producer()
    producer.publish("a", 5, 10)
    assert [] == producer.hear(Grant("s", 2, 5, 9))
    assert ["a"] == [
        m.id for m in said(producer.hear(Grant("s", 3, 0, 1))) if isinstance(m, Publish)
    ]


def test_all_that_is_not_confirmed_is_published_again_in_order_after_welcome() -> None:
    """The broker was killed with everything that it held."""
    producer = _Producer()
    for id in "abc":
        producer.publish(id)
    producer.hear(Grant("s", 2, 2, 20))
    producer.publish("d")
    assert (2, 2) == (producer.core.stats().waiting_messages, producer.core.stats().sent_messages)
    assert [Want("t", 1, 1, 10, 100, 1000)] == producer.begin_anew()
    assert 4 == producer.core.stats().waiting_messages
    out = said(producer.hear(Grant("t", 2, 50, 500)))
    assert [("a", 2), ("b", 3), ("c", 4), ("d", 5)] == [
        (m.id, m.number) for m in out if isinstance(m, Publish)
    ]
    assert [Confirmed(["b", "a"])] == producer.hear(Confirm("t", 3, (3, 2)))
    assert 2 == producer.core.stats().sessions


def test_session_that_falls_silent_loses_credit_and_sent_messages_wait_again() -> None:
    """The broker's machine stopped."""
    producer = _Producer()
    producer.publish("a")
    producer.hear(Grant("s", 2, 10, 100))
    producer.now = 5000 * MS
    producer.core.advance(producer.now)
    stats = producer.core.stats()
    assert (1, 0, 0, 0) == (
        stats.waiting_messages,
        stats.sent_messages,
        stats.credit_records,
        stats.credit_bytes,
    )


@pytest.mark.parametrize("answer", [Confirm("old", 2, (2,)), Grant("old", 2, 9, 9)])
def test_answer_of_an_old_session_counts_for_nothing(answer: object) -> None:
    """It was under way when the session ended."""
    producer = _Producer()
    producer.publish("a")
    assert [] == producer.hear(answer)
    assert (1, 0) == (
        producer.core.stats().waiting_messages,
        producer.core.stats().credit_records,
    )


def test_confirm_of_an_unknown_number_is_ignored() -> None:
    """A broker with a fault."""
    producer = _Producer()
    assert [Confirmed([])] == producer.hear(Confirm("s", 2, (99,)))


def test_unused_credit_goes_back_after_a_tenth_of_a_second() -> None:
    """A slow source; others wait for the room."""
    producer = _Producer()
    producer.publish("a")
    producer.hear(Grant("s", 2, 10, 100))
    assert 100 * MS == producer.core.next_deadline_ns()
    assert [] == producer.core.advance(100 * MS - 1)
    assert [Want("s", 3, 0, 0, 0, 0), Return("s", 4, 9, 90)] == said(
        producer.core.advance(100 * MS)
    )
    assert 1100 * MS == producer.core.next_deadline_ns()
    producer.now = 200 * MS
    assert [Want("s", 5, 1, 10, 100, 1000)] == producer.publish("b")


def test_credit_too_small_for_the_next_message_goes_back_but_the_wish_stands() -> None:
    """Others may be able to use what is left."""
    producer = _Producer()
    producer.publish("a", 5, 10)
    producer.hear(Grant("s", 2, 4, 10))
    assert [Return("s", 2, 4, 10)] == said(producer.core.advance(100 * MS))
    assert ["a"] == [
        m.id for m in said(producer.hear(Grant("s", 3, 5, 10))) if isinstance(m, Publish)
    ]


def test_other_messages_change_nothing() -> None:
    """PING keeps the session; what is for consumers is not for a producer."""
    producer = _Producer()
    assert [] == producer.hear(Ping("s", 2))
    assert 0 == producer.core.stats().credit_records


def test_window_bounds_what_is_kept() -> None:
    """A broker that is away for long: memory must not grow."""
    producer = _Producer()
    assert 100 == producer.core.room_records()
    producer.publish("a", 40, 10)
    assert 60 == producer.core.room_records()
    producer.publish("b", 10, 490)
    producer.publish("c", 10, 500)
    assert 0 == producer.core.room_records()
    assert ProducerCore("", window_records=1, window_bytes=0, seed=1).room_records() == 0


def test_forgotten_message_is_neither_sent_nor_kept() -> None:
    """Its row range was taken over by another streamer."""
    producer = _Producer()
    producer.publish("sent")
    producer.hear(Grant("s", 2, 1, 10))
    producer.publish("waits")
    for id in ("sent", "waits", "unknown"):
        producer.core.forget(id)
    assert ProducerStats(0, 0, 0, 0, 0, 0, 1) == producer.core.stats()
    assert [Confirmed([])] == producer.hear(Confirm("s", 3, (2,)))
    assert [] == producer.begin_anew()


def test_a_range_of_numbers_confirms_as_many() -> None:
    """Messages that were sent together, and a broker that says too much."""
    producer = _Producer()
    for id in "abcd":
        producer.publish(id)
    producer.hear(Grant("s", 2, 9, 90))
    assert [Confirmed(["b", "c"])] == producer.hear(Confirm("s", 3, (3,), (2,)))
    confirm = Confirm("s", 4, (1, 5, 3), (2, INTEGER_MAX))
    assert [Confirmed(["a", "d"])] == producer.hear(confirm)
    assert 0 == producer.core.stats().sent_messages


def test_forgotten_id_can_be_published_again_at_once() -> None:
    """The row range came back to the streamer that had lost it."""
    producer = _Producer()
    producer.publish("a")
    producer.hear(Grant("s", 2, 9, 90))
    producer.core.forget("a")
    assert ["a"] == [m.id for m in producer.publish("a") if isinstance(m, Publish)]
    assert [Confirmed(["a"])] == producer.hear(Confirm("s", 3, (3,)))


def test_same_id_twice_is_the_callers_fault() -> None:
    """Two batches must not share an identity."""
    producer = _Producer()
    producer.publish("a")
    with pytest.raises(LocalProtocolError, match="a is published already and not confirmed"):
        producer.publish("a")
    assert 1 == producer.core.stats().waiting_messages


@pytest.mark.parametrize(
    ("records", "size", "flag"), [(51, 0, "--capacity-records"), (1, 501, "--message-bytes-max")]
)
def test_message_larger_than_the_broker_takes_is_refused_with_the_remedy(
    records: int, size: int, flag: str
) -> None:
    """A batch size that this broker is not set up for."""
    producer = _Producer()
    with pytest.raises(LocalProtocolError, match=f"the broker takes 50 and 500: make .* {flag}$"):
        producer.publish("a", records, size)
    assert 0 == producer.core.stats().waiting_messages


def test_kept_message_that_a_new_broker_does_not_take_is_an_error() -> None:
    """The broker came back with a smaller limit; silence would be a message that never arrives."""
    producer = _Producer(session="")
    producer.publish("a", 51)
    with pytest.raises(LocalProtocolError, match="a has 51 records"):
        producer.hear(welcome())


def test_labels_too_long_for_a_publish_are_refused_before_anything_is_kept() -> None:
    """Someone puts a document into the metadata."""
    producer = _Producer()
    metadata = {f"{n}": "\u00e9" * 512 for n in range(17)}
    with pytest.raises(LocalProtocolError, match="16384 are the limit: put more into the payload"):
        producer.core.publish("a", 1, b"", key="", metadata=metadata, now_ns=0)
    assert 0 == producer.core.stats().waiting_messages
    del metadata["0"], metadata["1"]
    producer.core.publish("a", 1, b"", key="", metadata=metadata, now_ns=0)
    assert 1 == producer.core.stats().waiting_messages
