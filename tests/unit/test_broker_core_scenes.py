"""The broker's core in text-book scenes: what comes, then exactly what goes."""

from __future__ import annotations

import pytest

from telemq.broker.core import Outgoing
from telemq.protocol import (
    Bye,
    Confirm,
    Deliver,
    Grant,
    Ping,
    Renew,
    Return,
    Settle,
    Settlement,
    Want,
    Welcome,
)
from tests.support.peers import Peer, Scene

SECOND = 10**9
#: The first pause of `LIMITS`.
RETRY = SECOND // 10


def deliver(
    to: Peer, number: int, lease: int, id: str, attempt: int = 1, dead: str = ""
) -> Outgoing:
    """The DELIVER of a message of `Peer.publish`."""
    message = Deliver(to.session, number, lease, 30_000, attempt, id, 1, "key", {"a": "b"}, dead)
    return Outgoing(to.id, message, (b"x",))


def confirm(to: Peer, number: int, *numbers: int) -> Outgoing:
    return Outgoing(to.id, Confirm(to.session, number, numbers))


def ping(to: Peer, number: int) -> Outgoing:
    return Outgoing(to.id, Ping(to.session, number))


def test_hello_is_answered_by_welcome_with_the_limits() -> None:
    """Every start of a producer or consumer."""
    scene = Scene()
    peer = scene.peer("producer")
    out = peer.hello()
    assert [Outgoing(peer.id, Welcome(peer.session, 1, "1.1", 1000, 100, 200, 131_072))] == out
    assert "somebody" == scene.core.name_of(peer.id)
    assert 16 == len(peer.session)


def test_message_goes_its_way_from_publish_to_confirm() -> None:
    """The way of nearly every message."""
    scene = Scene()
    producer, consumer = scene.producer(records=0), scene.consumer()
    grant = Outgoing(producer.id, Grant(producer.session, 2, 10, 50))
    assert [grant] == producer.say(Want, 1, 1, 10, 50)
    assert [deliver(consumer, 2, 1, "a")] == producer.publish("a")
    assert [confirm(producer, 3, 2)] == consumer.settle(1)
    stats = scene.core.stats()
    assert (1, 1, 0, 0) == (
        stats.counters.accepted,
        stats.counters.settled,
        stats.ready_messages,
        stats.leased_messages,
    )


def test_message_waits_until_a_consumer_gives_credit() -> None:
    """Collectors start later than streamers."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer(0, 0)
    assert [] == producer.publish("a")
    scene.now = 5
    assert [] == consumer.say(Ping)
    assert (1, 1, 1, 5) == (
        (stats := scene.core.stats()).ready_messages,
        stats.ready_records,
        stats.ready_bytes,
        stats.oldest_ns,
    )
    assert [deliver(consumer, 2, 1, "a")] == consumer.credit()


def test_consumers_take_turns() -> None:
    """Two collectors, neither of them full."""
    scene = Scene()
    producer, one, two = scene.producer(), scene.consumer(), scene.consumer()
    to = [producer.publish(id)[0].peer for id in "abcd"]
    assert [one.id, two.id, one.id, two.id] == to


def test_credit_limits_what_is_out() -> None:
    """A collector that cannot store as fast as others publish."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer(2, 1000)
    first = [producer.publish(id) for id in "abc"]
    assert [1, 1, 0] == [sum(isinstance(o.message, Deliver) for o in out) for out in first]
    out = consumer.settle(1)
    assert [deliver(consumer, 4, 3, "c"), confirm(producer, 3, 2)] == sorted(
        out, key=lambda o: o.peer.role
    )


def test_message_larger_than_the_whole_credit_is_delivered_alone() -> None:
    """A collector set to less than one batch."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer(1, 1)
    out = producer.publish("large", b"x" * 100, records=5)
    assert ["large"] == [o.message.id for o in out if isinstance(o.message, Deliver)]
    assert [] == [o for o in producer.publish("next") if isinstance(o.message, Deliver)]
    assert "next" in [o.message.id for o in consumer.settle(1) if isinstance(o.message, Deliver)]


def test_retry_brings_a_message_back_after_a_pause_and_ahead_of_new_ones() -> None:
    """The database was away for a moment."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer(1, 1000)
    for id in "abc":
        producer.publish(id)
    assert [deliver(consumer, 3, 2, "b")] == consumer.settle(1, "retry")
    assert RETRY == scene.core.next_deadline_ns()
    assert [] == scene.advance(RETRY)
    out = consumer.settle(2)
    assert [deliver(consumer, 4, 3, "a", attempt=2)] == [o for o in out if o.peer == consumer.id]


def test_pause_doubles_with_each_attempt_up_to_its_limit() -> None:
    """The database is away for an hour: nobody is to ask it a thousand times a second."""
    scene = Scene(attempts_max=100, heartbeat_ns=1000 * SECOND)
    producer, consumer = scene.producer(), scene.consumer()
    producer.publish("a")
    pauses = []
    for attempt in range(1, 7):
        assert [] == consumer.settle(attempt, "retry")
        deadline = scene.core.next_deadline_ns()
        assert deadline is not None
        pauses.append((deadline - scene.now) / RETRY)
        assert [] == scene.advance(deadline - scene.now - 1)
        assert [attempt + 1] == [o.message.attempt for o in scene.advance(1) if o.frames]  # type: ignore[union-attr]
    assert [1, 2, 4, 8, 10, 10] == pauses


def test_paused_message_takes_room_but_keeps_nobody_waiting() -> None:
    """One batch that cannot be stored now, among others that can."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer()
    producer.publish("a")
    consumer.settle(1, "retry")
    assert (1, 1) == (scene.core.stats().ready_messages, scene.core.stats().ready_records)
    assert ["b"] == [o.message.id for o in producer.publish("b") if o.frames]  # type: ignore[union-attr]


def test_stuck_consumer_keeps_what_it_holds_and_nobody_else_waits() -> None:
    """A collector hangs with its credit full; its heartbeats go on."""
    scene = Scene(heartbeat_ns=1000 * SECOND)
    producer, stuck, other = scene.producer(), scene.consumer(2, 1000), scene.consumer(2, 1000)
    to = []
    for n in range(20):
        for out in producer.publish(f"{n}"):
            if out.frames:
                to.append(out.peer)
        for lease in [lease.first for lease in scene.core._inventory.leases.all()]:
            other.settle(lease)
        assert n < 3 or 2 == scene.core.stats().leased_messages
    assert [stuck.id, stuck.id] == [peer for peer in to if peer == stuck.id]
    assert 18 == to.count(other.id)
    assert 0 == scene.core.stats().ready_messages


def test_lost_consumer_gives_its_messages_back_without_a_pause() -> None:
    """A collector is killed: another goes on at once."""
    scene = Scene()
    producer, lost = scene.producer(), scene.consumer()
    producer.publish("a")
    other = scene.consumer()
    out = scene.core.peer_lost(lost.id, scene.now)
    assert [deliver(other, 2, 2, "a", attempt=2)] == out


def test_lease_that_runs_out_goes_to_another_and_its_late_settle_counts_for_nothing() -> None:
    """A collector is stopped for a minute, but its heartbeats go on."""
    scene = Scene(heartbeat_ns=100 * SECOND)
    producer, slow = scene.producer(), scene.consumer(1, 1)
    producer.publish("a")
    assert 30 * SECOND == scene.core.next_deadline_ns()
    assert [] == scene.advance(30 * SECOND - 1)
    slow.credit(0, 0)
    other = scene.consumer()
    assert [deliver(other, 2, 2, "a", attempt=2)] == scene.advance(1)
    assert [] == slow.settle(1)
    assert 1 == scene.core.stats().counters.stale_settles
    assert [confirm(producer, 3, 2)] == other.settle(2)


def test_renewed_lease_lasts_as_long_again() -> None:
    """A collector with a slow database says that it is still at work."""
    scene = Scene(heartbeat_ns=100 * SECOND)
    producer, consumer = scene.producer(), scene.consumer()
    producer.publish("a")
    scene.now = 20 * SECOND
    assert [] == consumer.say(Renew, (1, 99))
    assert 50 * SECOND == scene.core.next_deadline_ns()
    assert [] == scene.advance(29 * SECOND)
    assert 1 == scene.core.stats().leased_messages


def test_only_the_owner_settles_or_renews_a_lease() -> None:
    """A collector with a fault, or a foreign one that guesses numbers."""
    scene = Scene()
    producer, owner, thief = scene.producer(), scene.consumer(), scene.consumer()
    producer.publish("a")
    assert [] == thief.settle(1)
    assert [] == thief.say(Renew, (1,))
    assert 1 == scene.core.stats().leased_messages
    assert [confirm(producer, 3, 2)] == owner.settle(1)


@pytest.mark.parametrize("how", ["lost", "bye", "hello", "silent"])
def test_messages_of_a_consumer_that_is_gone_come_back_in_order(how: str) -> None:
    """It was killed, or left, or began anew, or the machine under it stopped."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer()
    for id in "abc":
        producer.publish(id)
    if how == "lost":
        scene.core.peer_lost(consumer.id, scene.now)
    elif how == "bye":
        consumer.say(Bye)
    elif how == "hello":
        consumer.hello()
    else:
        scene.now = 4 * SECOND
        producer.say(Ping)
        assert [ping(producer, 3), ping(consumer, 5)] == scene.advance(0)
        assert [] == scene.advance(SECOND - 1)
        assert [ping(producer, 4)] == scene.advance(1)
        assert 1 == scene.core.stats().counters.peers_silent
    other = scene.peer("consumer")
    other.hello()
    out = other.credit()
    assert [deliver(other, n, n + 2, id, attempt=2) for n, id in enumerate("abc", 2)] == out


def test_message_at_its_attempt_limit_becomes_a_dead_letter_and_is_confirmed_when_kept() -> None:
    """A batch that kills every collector that touches it."""
    scene = Scene(attempts_max=2)
    producer, consumer = scene.producer(), scene.consumer()
    producer.publish("a")
    reason = "not stored after 2 deliveries; last time its consumer asked for a retry"
    for attempt, dead in ((2, ""), (3, reason), (4, reason)):
        assert [] == consumer.settle(attempt - 1, "retry")
        again = deliver(consumer, attempt + 1, attempt, "a", attempt, dead)
        assert [again] == scene.advance(RETRY << (attempt - 2))
    assert [confirm(producer, 3, 2)] == consumer.settle(4)
    counters = scene.core.stats().counters
    assert (0, 1, 2) == (counters.settled, counters.buried, counters.redelivered)


@pytest.mark.parametrize(
    ("reason", "dead"), [("no such unit", "no such unit"), ("", "buried without a reason")]
)
def test_buried_message_comes_back_dead_with_its_reason(reason: str, dead: str) -> None:
    """A collector finds that a payload is not what its content type says."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer()
    producer.publish("a")
    assert [deliver(consumer, 3, 2, "a", 2, dead)] == consumer.settle(1, "bury", reason)
    assert [] == consumer.settle(2, "bury", "again")
    assert [deliver(consumer, 4, 3, "a", 3, dead)] == scene.advance(2 * RETRY)
    assert [confirm(producer, 3, 2)] == consumer.settle(3)


def test_duplicate_is_not_queued_and_its_confirm_goes_to_the_last_publisher() -> None:
    """A row range was taken over while its batch was still queued."""
    scene = Scene()
    first, second = scene.producer(), scene.producer()
    first.publish("a")
    second.say(Ping)
    out = second.publish("a")
    assert [] == [o for o in out if isinstance(o.message, Deliver)]
    assert (1, 1) == (scene.core.stats().ready_messages, scene.core.stats().counters.duplicates)
    consumer = scene.consumer()
    assert [confirm(second, 3, 3)] == consumer.settle(1)


def test_settled_id_is_forgotten_and_may_be_queued_again() -> None:
    """A producer lost the confirm and publishes again; the ledger knows."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer()
    producer.publish("a")
    consumer.settle(1)
    assert deliver(consumer, 3, 2, "a") in producer.publish("a")


def test_message_of_a_producer_that_is_gone_stays_and_is_confirmed_to_nobody() -> None:
    """A streamer was killed after publishing."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer()
    producer.publish("a")
    scene.core.peer_lost(producer.id, scene.now)
    assert 0 == scene.core.stats().granted_records
    assert [] == consumer.settle(1)
    assert 1 == scene.core.stats().counters.settled


def test_confirms_of_numbers_in_a_row_are_said_as_ranges() -> None:
    """A collector settles what came in several frames, and one message was settled before."""
    scene = Scene()
    producer, consumer = scene.producer(version="1.1"), scene.consumer(version="1.1")
    for id in "abcdef":
        producer.publish(id)
    assert [confirm(producer, 3, 4)] == consumer.settle(3)
    out = consumer.say(Settle, (Settlement(4, "ok", count=3), Settlement(1, "ok", count=2)))
    assert [Outgoing(producer.id, Confirm(producer.session, 4, (5, 2), (3, 2)))] == out


def test_producer_of_version_1_0_is_told_each_number() -> None:
    """Brokers are upgraded before their streamers."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer(version="1.1")
    for id in "abc":
        producer.publish(id)
    out = consumer.say(Settle, (Settlement(1, "ok", count=3),))
    assert [confirm(producer, 3, 2, 3, 4)] == out


def test_many_confirms_are_split_into_several_frames() -> None:
    """A collector settles everything at once; a control frame has its limit."""
    scene = Scene(capacity_records=5000, capacity_bytes=5000, credit_records_max=5000)
    producer, consumer = scene.producer(2500, 200), scene.consumer(5000, 5000)
    scene.checks = False
    for n in range(2500):
        producer.publish(str(n), b"")
    scene.checks = True
    out = consumer.say(Settle, tuple(Settlement(n + 1, "ok") for n in range(2500)))
    numbers = [o.message.numbers for o in out if isinstance(o.message, Confirm)]
    assert [1500, 1000] == [len(part) for part in numbers]
    assert list(range(2, 2502)) == [n for part in numbers for n in part]


# ---- credit ------------------------------------------------------------------------------------


def test_stuck_producers_are_served_in_order_whole_or_not_at_all() -> None:
    """Little room is left: crumbs would help nobody."""
    scene = Scene(capacity_records=10)
    first, second, third = (scene.producer(records=0) for _ in range(3))
    first.want(8, 10)
    assert [] == second.want(5, 10)
    assert [] == third.want(2, 10)
    granted = [
        Outgoing(second.id, Grant(second.session, 2, 5, 10)),
        Outgoing(third.id, Grant(third.session, 2, 2, 10)),
    ]
    assert granted == first.say(Return, 8, 10)


def test_wish_that_ends_makes_room_for_the_next() -> None:
    """The first in line is idle now and says so."""
    scene = Scene(capacity_records=10)
    first, second, third = (scene.producer(records=0) for _ in range(3))
    first.want(8, 10)
    second.want(5, 10)
    third.want(2, 10)
    assert [Outgoing(third.id, Grant(third.session, 2, 2, 10))] == second.say(Want, 0, 0, 0, 0)


def test_spent_credit_is_topped_up_to_the_share() -> None:
    """A producer publishes on and on while there is room."""
    scene = Scene()
    producer = scene.producer(records=0)
    # 20 is the most that one may have unspent; half of it gone, it is worth a GRANT.
    assert [Grant(producer.session, 2, 20, 200)] == [
        o.message for o in producer.say(Want, 1, 1, 1000, 1000)
    ]
    assert [] == producer.publish("a", b"", records=9)
    assert [Grant(producer.session, 3, 10, 0)] == [
        o.message for o in producer.publish("b", b"", records=1)
    ]


def test_producer_whose_share_has_shrunk_is_not_topped_up() -> None:
    """It waited for more than its share; meanwhile many others came."""
    scene = Scene(capacity_records=20, peers_max=20)
    first, consumer = scene.producer(20), scene.consumer()
    for id in "ab":
        first.publish(id, b"", records=9)
    others = [scene.producer(records=0) for _ in range(9)]
    granted = [other.want(1, 0) for other in others]
    assert [1] + [0] * 8 == [len(out) for out in granted]
    out = [*consumer.settle(1), *consumer.settle(2)]
    to = [o.peer for o in out if isinstance(o.message, Grant)]
    assert [other.id for other in others[1:]] == to


# ---- the end -----------------------------------------------------------------------------------


def test_draining_broker_grants_nothing_but_still_delivers_and_confirms() -> None:
    """SIGTERM: the queue is to run empty."""
    scene = Scene()
    producer = scene.producer()
    producer.publish("a")
    assert [] == scene.core.drain(scene.now)
    assert scene.core.stats().draining
    assert [] == producer.say(Return, 10, 0)
    late = scene.peer("consumer")
    assert [Welcome] == [type(o.message) for o in late.hello()]
    assert [deliver(late, 2, 1, "a")] == late.credit()
    assert [confirm(producer, 3, 2)] == late.settle(1)


def test_closing_broker_says_bye_to_everybody() -> None:
    """The last word before its sockets close."""
    scene = Scene()
    producer, consumer = scene.producer(), scene.consumer()
    byes = [
        Outgoing(producer.id, Bye(producer.session, 3)),
        Outgoing(consumer.id, Bye(consumer.session, 2)),
    ]
    assert byes == sorted(scene.core.close(), key=lambda o: o.peer.route)


def test_ping_is_sent_to_whom_nothing_else_was_said() -> None:
    """A quiet hour."""
    scene = Scene()
    producer = scene.producer()
    assert SECOND == scene.core.next_deadline_ns()
    assert [ping(producer, 3)] == scene.advance(SECOND)
    assert 2 * SECOND == scene.core.next_deadline_ns()


def test_time_that_goes_back_stands_still() -> None:
    """No monotonic clock does that; if one did, no lease may end late."""
    scene = Scene()
    producer = scene.producer()
    scene.now = 100
    producer.say(Ping)
    scene.now = 50
    producer.say(Ping)
    assert SECOND == scene.core.next_deadline_ns()
    scene.now = 100
    assert [ping(producer, 3)] == scene.advance(SECOND - 100)


def test_broker_without_peers_has_no_deadline() -> None:
    """Before anybody came."""
    scene = Scene()
    assert scene.core.next_deadline_ns() is None
    assert [] == scene.advance(SECOND)
    assert "" == scene.core.name_of(scene.peer("producer").id)


def test_credit_of_a_new_producer_begins_small_and_doubles() -> None:
    """The first of a thousand producers finds an empty broker, and is not to take all of it."""
    scene = Scene(capacity_records=10**6, credit_records_max=10**5, credit_bytes_max=10**6)
    producer = scene.producer(records=0)
    granted = []
    out = producer.say(Want, 1, 0, 10**6, 0)
    for _ in range(9):
        grants = [o.message for o in out if isinstance(o.message, Grant)]
        granted.append(grants[0].records)
        out = producer.say(Return, granted[-1], 0)
    assert [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 100_000, 100_000] == granted


def test_first_grant_covers_a_message_larger_than_the_beginning() -> None:
    """Batches of 5,000 records are not split for it."""
    scene = Scene(capacity_records=10**6, credit_records_max=10**5)
    out = scene.producer(records=0).say(Want, 5000, 100, 10**6, 100)
    assert [(5000, 100)] == [
        (o.message.records, o.message.bytes) for o in out if isinstance(o.message, Grant)
    ]


def test_producers_that_wait_for_room_are_counted() -> None:
    """All collectors are down, and the broker is full."""
    scene = Scene(capacity_records=20)
    first, second = scene.producer(records=0), scene.producer(records=0)
    first.want(20, 10)
    assert 0 == scene.core.stats().producers_waiting
    second.want(20, 10)
    assert 1 == scene.core.stats().producers_waiting
    first.say(Want, 0, 0, 0, 0)
    first.say(Return, 20, 10)
    assert 0 == scene.core.stats().producers_waiting
