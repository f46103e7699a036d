"""Faults 9, 10, 11 and 40: too much is offered, too little taken; the broker is a process."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing

import pytest

from tests.support.brokers import DEADLINE_S
from tests.support.crowd import Consumers, Producers, serving
from tests.support.services import running_broker_process

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

MB = 10**6
#: What a broker's process may take beyond its capacity: what is under way in ZeroMQ's buffers
#: (credit bounds it), and an allocator that does not give back.
SLACK = 40 * MB


def test_fault_9_slow_consumer_holds_its_producers_and_loses_nothing() -> None:
    """The database is ten times too slow for what the fleet yields."""
    capacity, size, messages = 8 * MB, 10_000, 1500
    with (
        running_broker_process(f"--capacity-bytes={capacity}") as (broker, front, back),
        closing(Producers(front, 2, messages, payload=b"x" * size)) as producers,
        closing(Consumers(back, 1, credit_bytes=4 * size)) as consumers,
    ):
        before, most, waited, steps = broker.rss_bytes(), 0, 0, 0
        end = time.monotonic() + 60
        while not producers.done:
            assert time.monotonic() < end
            producers.step()
            consumers.step(before_settling=lambda: time.sleep(0.005))  # the slow store
            steps += 1
            if steps % 50 == 0:
                most = max(most, broker.rss_bytes())
                waited += any(link.stats().waiting_messages for link in producers.links)
        assert producers.ids() == set(consumers.seen), "lost"
        assert 1 == max(consumers.seen.values()), "delivered twice"
        assert 0 == broker.metric("telemq_broker_refused_total")
        assert waited > 10, "the producers were never held"
    print(f"offered {2 * messages * size / MB:.0f} MB, grew by {(most - before) / MB:.0f} MB")
    assert most - before < capacity + SLACK


def test_fault_10_no_consumer_bounds_memory_and_then_says_so() -> None:
    """All collectors are down, and ten million records are offered meanwhile."""
    capacity, size = 16 * MB, 20_000
    with (
        running_broker_process(f"--capacity-bytes={capacity}", "--capacity-records=100000000") as (
            broker, front, back,
        ),
        closing(
            Producers(
                front, 2, 5000, records=1000, payload=b"x" * size,
                window_records=10**7, window_bytes=2**30,
            )
        ) as producers,
    ):  # fmt: skip
        before = broker.rss_bytes()
        end = time.monotonic() + DEADLINE_S
        while not broker.events("no room, producers wait"):
            assert time.monotonic() < end
            producers.step(0.05)
        accepted = broker.metric("telemq_broker_accepted_records_total")
        held = broker.metric("telemq_broker_ready_bytes")
        assert 2 == broker.metric("telemq_broker_waiting_producers")
        grew = broker.rss_bytes() - before
        print(f"10,000,000 records offered, {accepted:,.0f} taken, grew by {grew / MB:.0f} MB")
        assert accepted < 10**6
        assert capacity - 2 * size < held <= capacity
        assert grew < capacity + SLACK
        # A consumer comes, and everything goes on.
        with closing(Consumers(back, 1)) as consumers:
            while not producers.done:
                assert time.monotonic() < end
                producers.step()
                consumers.step()
        assert producers.ids() == set(consumers.seen), "lost"
        broker.event("room again")


def test_fault_11_one_stuck_consumer_of_four_leaves_the_others_at_work() -> None:
    """A collector hangs in the middle of its work, holding what it was lent."""
    with (
        running_broker_process("--lease-s=2") as (_, front, back),
        closing(Producers(front, 2, 10**6, window_records=1000)) as producers,
        serving(back, 4, service_s=0.004) as (pids, counts),
    ):

        def served(seconds: float) -> list[int]:
            was = list(counts)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                producers.step(0.02)
            return [now - then for now, then in zip(counts, was, strict=True)]

        end = time.monotonic() + DEADLINE_S
        while min(counts) < 10:
            assert time.monotonic() < end, f"not all at work: {list(counts)}"
            producers.step(0.02)
        first = served(3.0)
        os.kill(pids[0], signal.SIGSTOP)
        second = served(3.0)
    print(f"served by each: {first} before, {second} with the first one stuck")
    assert second[0] <= 1
    assert sum(second[1:]) >= 0.7 * sum(first[1:])


def test_fault_40_capacity_of_one_record_carries_on_to_the_end() -> None:
    """The smallest room there is, ten on each side: whoever waits for whom, it must go on."""
    each = 2000
    began = time.monotonic()
    with (
        running_broker_process("--capacity-records=1") as (broker, front, back),
        closing(Producers(front, 10, each)) as producers,
        closing(Consumers(back, 10)) as consumers,
    ):
        while not producers.done:
            assert time.monotonic() < began + 100, f"stalled after {sum(consumers.seen.values())}"
            producers.step(0.0005)
            consumers.step(0.0005)
        refused = broker.metric("telemq_broker_refused_total")
    took_s = time.monotonic() - began
    print(f"{10 * each} messages in {took_s:.1f} s")
    assert producers.ids() == set(consumers.seen), "lost"
    assert 1 == max(consumers.seen.values()), "delivered twice"
    assert 0 == refused
