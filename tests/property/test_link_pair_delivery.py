"""Producers, broker and consumers, all pure, over links that fail: nothing is lost in the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemq.broker.limits import BrokerLimits
from telemq.client.consumer import ConsumerCore, ConsumerStats
from telemq.client.session import Transmit
from telemq.protocol import CONTROL_BYTES_MAX, Deliver, Welcome, encode
from tests.support.fakelink import MS, SECOND, Network, Trouble
from tests.support.peers import delivered

LIMITS = BrokerLimits(
    capacity_records=100,
    capacity_bytes=2000,
    message_bytes_max=1000,
    credit_records_max=50,
    credit_bytes_max=1000,
    lease_ns=2 * SECOND,
    attempts_max=10_000,
    heartbeat_ns=200 * MS,
    peers_max=200,
    retry_ns=100_000_000,
    retry_ns_max=1_000_000_000,
    errors_max=20,
    errors_ns=1_000_000_000,
)
#: The longest pause before a new session is 5 s. Much more would make a failure slow to find.
HEALED_NS = 100 * SECOND

troubles = st.builds(
    Trouble,
    loss=st.floats(0, 0.1),
    cut=st.floats(0, 0.05),
    delay_ns=st.sampled_from([0, MS, 20 * MS, 500 * MS]),
)
sizes = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 400)), min_size=1, max_size=12)


def backlog(name: int, messages: list[tuple[int, int]]) -> list[tuple[str, int, int]]:
    """Name messages of (records, bytes) after their producer."""
    return [(f"{name}#{i}", records, size) for i, (records, size) in enumerate(messages)]


def assert_nothing_lost(network: Network) -> None:
    """All that was published is stored and confirmed, by peers that were never refused."""
    published = Counter(id for producer in network.producers for id in producer.confirmed)
    assert published
    assert set(published) == set(network.ledger)
    assert {1} == set(published.values())
    stats = network.core.stats()
    assert (0, 0) == (stats.ready_messages, stats.leased_messages)
    refused = {**stats.counters.refused, **network.refused}
    honest = {"over_credit", "too_large", "bad_message", "version", "role", "full"}
    assert not honest & refused.keys()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    troubles,
    st.lists(sizes, min_size=1, max_size=4),
    st.integers(1, 3),
    st.booleans(),
)
def test_everything_arrives_once_the_links_heal(
    seed: int,
    trouble: Trouble,
    loads: list[list[tuple[int, int]]],
    consumers: int,
    broker_dies: bool,
) -> None:
    """Ten bad seconds of cables being pulled, and perhaps the broker's death among them."""
    network = Network(LIMITS, seed, trouble)
    for i, load in enumerate(loads):
        network.add_producer(backlog(i, load), window_records=40, window_bytes=600)
    for i in range(consumers):
        network.add_consumer(credit_records=30, credit_bytes=500, service_ns=i * 100 * MS)
    if broker_dies:
        network.at(3 * SECOND, network.restart_broker)
    network.run(network.all_confirmed, 10 * SECOND)
    network.trouble = Trouble()
    assert network.run(network.all_confirmed, HEALED_NS), "after the links healed it did not finish"
    assert_nothing_lost(network)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.lists(sizes, min_size=2, max_size=6), st.integers(400, 900))
def test_messages_of_all_sizes_pass_through_little_room(
    seed: int, loads: list[list[tuple[int, int]]], capacity_bytes: int
) -> None:
    """Room for two messages or three: producers with large ones and small ones in turn."""
    limits = replace(LIMITS, capacity_records=30, capacity_bytes=capacity_bytes)
    network = Network(limits, seed)
    for i, load in enumerate(loads):
        network.add_producer(backlog(i, load))
    network.add_consumer()
    assert network.run(network.all_confirmed, HEALED_NS), "the room is stuck"
    assert_nothing_lost(network)


@pytest.mark.parametrize("seed", range(5))
def test_room_for_one_record_serves_ten_of_each(seed: int) -> None:
    """The smallest broker that can be set up, with far too many peers."""
    network = Network(replace(LIMITS, capacity_records=1, capacity_bytes=1024), seed)
    for i in range(10):
        network.add_producer(backlog(i, [(1, 100)] * 10))
    for _ in range(10):
        network.add_consumer(credit_records=1, credit_bytes=50)
    assert network.run(network.all_confirmed, 100 * SECOND)
    assert_nothing_lost(network)


def test_idle_producer_gives_its_credit_back_within_a_tenth_of_a_second() -> None:
    """One that has nothing more to say must not keep others from speaking."""
    network = Network(replace(LIMITS, capacity_records=10), 1, Trouble(delay_ns=0))
    idle = network.add_producer(backlog(0, [(1, 10)]))
    network.add_consumer(service_ns=0)
    assert network.run(network.all_confirmed, SECOND)
    assert 0 < network.core.stats().granted_records
    before = network.now
    assert network.run(lambda: network.core.stats().granted_records == 0, SECOND)
    assert network.now - before <= 100 * MS
    assert idle.alive


def test_stuck_producer_gets_room_before_those_that_only_want_more() -> None:
    """A large message must not wait for ever behind a stream of small ones."""
    network = Network(replace(LIMITS, capacity_records=20), 3)
    for i in range(3):
        network.add_producer(backlog(i, [(1, 10)] * 2000), window_records=20)
    network.add_consumer(service_ns=MS)
    network.run(lambda: len(network.ledger) > 50, 100 * SECOND)
    large = network.add_producer(backlog(9, [(20, 1000)]))
    assert network.run(lambda: bool(large.confirmed), 5 * SECOND)
    assert not network.all_confirmed(), "it was served last"


def test_confirm_goes_to_the_producer_that_published_last() -> None:
    """A streamer hung, another took over its row range, and both published the batch."""
    network = Network(LIMITS, 1)
    first = network.add_producer(backlog(0, [(1, 10)]))
    network.run(lambda: network.core.stats().ready_messages == 1, SECOND)
    second = network.add_producer(backlog(0, [(1, 10)]))
    network.run(lambda: network.core.stats().counters.duplicates == 1, SECOND)
    network.add_consumer()
    network.run(lambda: bool(second.confirmed), SECOND)
    assert ([], ["0#0"]) == (first.confirmed, second.confirmed)
    assert 1 == network.ledger["0#0"]


def test_consumer_that_hangs_past_its_silence_changes_nothing_when_it_wakes() -> None:
    """A long stop of the machine: it settles at last what was given to another."""
    network = Network(LIMITS, 1)
    network.add_producer(backlog(0, [(1, 10)] * 5))
    hung = network.add_consumer(service_ns=50 * MS)
    assert network.run(lambda: hung.core.stats() == ConsumerStats(5, 5, 1), SECOND)
    network.hang(hung, 20 * SECOND)
    network.add_consumer()
    assert network.run(network.all_confirmed, 10 * SECOND)
    network.run(lambda: False, 20 * SECOND)
    assert {2} == set(network.ledger.values()), "the ledger is what makes it harmless"
    assert 5 == network.core.stats().counters.settled


def test_control_frames_stay_within_their_limit_whatever_is_settled() -> None:
    """A collector that buries a thousand batches at once, with long reasons."""
    core = ConsumerCore("", credit_records=10**6, credit_bytes=10**6, seed=1)
    core.advance(0)
    core.receive(Welcome("s", 1, "1.0", 1000, 1, 1), (), 0)
    got = []
    for n in range(2500):
        deliver = Deliver("s", n + 2, 2**53 - 1 - n, 1000, 1, "i", 1, "", {}, "")
        got += delivered(core.receive(deliver, (), 0))
    said = [
        *core.renew(got, 0),
        *core.settle(got[:1200], "bury", "\0" * 5000, 0),
        *core.settle(got[1200:], "ok", "", 0),
    ]
    frames = [encode(c.message) for c in said if isinstance(c, Transmit)]
    assert 3 + 120 + 2 == len(frames)
    assert max(map(len, frames)) <= CONTROL_BYTES_MAX
