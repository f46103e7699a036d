"""Faults 5, 6 and 14: whatever stands still for a while and then goes on as if nothing had been."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import psycopg
import pytest

from telemq.client.link import ProducerLink
from telemq.codec import BATCH, Encoder
from telemq.settings import CollectorSettings
from tests.support.batches import record_batch
from tests.support.brokers import DEADLINE_S
from tests.support.crowd import Consumers, Producers
from tests.support.running import running_collector
from tests.support.services import running_broker_process, running_service

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

Conn = psycopg.Connection[Any]
RECORDS = 10


def publish(link: ProducerLink, batches: Iterable[int]) -> None:
    """Publish batches of stream ``s`` by number."""
    encoder = Encoder()
    for number in batches:
        payload = encoder.encode(record_batch(RECORDS, first=number * RECORDS))
        id = f"s#{number * RECORDS}"
        link.publish(id, RECORDS, payload, metadata={"content-type": BATCH})


def poll_until(link: ProducerLink, condition: Callable[[], bool], what: str) -> None:
    """Keep a producer alive until a condition holds."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"it never came to this: {what}"
        link.poll(0.02)


def stored(conn: Conn) -> tuple[int, int]:
    """Samples, and how many of them are distinct."""
    row = conn.execute("SELECT count(*), count(DISTINCT value) FROM sample").fetchone()
    assert row is not None
    return row[0], row[1]


def collector_words(back: str) -> tuple[str, ...]:
    """Flags of a collector process."""
    return ("collect", f"--broker={back}", "--ops-address=127.0.0.1:0")


def test_fault_5_collector_paused_for_two_leases_commits_late_to_no_effect(
    dsn: str, conn: Conn
) -> None:
    """A machine is suspended; meanwhile another stores what it held; then it wakes up."""
    # Silence is five heartbeats: it keeps its session, so that only the lease tells it apart.
    settings = ("--lease-s=0.4", "--heartbeat-s=5", "--attempts-max=1000")
    batches = 30
    with (
        running_broker_process(*settings) as (broker, front, back),
        running_service(*collector_words(back), TELEMQ_DSN=dsn) as paused,
        closing(
            ProducerLink(front, name="test", window_records=10**5, window_bytes=10**7)
        ) as producer,
    ):
        publish(producer, [0])
        poll_until(producer, lambda: not producer.unconfirmed(), "the first one is stored")
        paused.pause()
        publish(producer, range(1, batches))
        poll_until(
            producer,
            lambda: broker.metric("telemq_broker_expired_leases_total") >= 2 * (batches - 1),
            "two leases of each run out",
        )
        other = CollectorSettings(broker=back, dsn=dsn, ops_address="127.0.0.1:0")
        with running_collector(other):
            poll_until(producer, lambda: not producer.unconfirmed(), "another stores all")
            assert (batches * RECORDS, batches * RECORDS) == stored(conn)
            paused.resume()
            duplicates = "telemq_collector_duplicate_batches_total"
            poll_until(producer, lambda: paused.metric(duplicates) > 0, "it commits late")
            publish(producer, range(batches, 2 * batches))
            poll_until(producer, lambda: not producer.unconfirmed(), "both go on")
        late = paused.metric(duplicates)
        redelivered = broker.metric("telemq_broker_redelivered_messages_total")
        stale = broker.metric("telemq_broker_stale_settles_total")
    print(f"{redelivered:.0f} redelivered, {late:.0f} late commits, {stale:.0f} stale settles")
    assert (2 * batches * RECORDS, 2 * batches * RECORDS) == stored(conn)
    assert redelivered >= batches - 1
    assert stale > 0


#: The table says two heartbeats; a shared machine gets twice that.
RECOVERED_BEATS = 4


def test_fault_6_broker_paused_for_30_s_loses_nothing_and_recovers() -> None:
    """Its machine swaps, or migrates; silence is noticed after 5 of its 30 heartbeats."""
    beat_s, pause_s, messages = 1.0, 30.0, 3000
    with (
        running_broker_process(f"--heartbeat-s={beat_s}", "--capacity-records=200") as (
            broker, front, back,
        ),
        closing(Producers(front, 3, messages)) as producers,
        closing(Consumers(back, 2)) as consumers,
    ):  # fmt: skip

        def go_on(until: Callable[[], bool], limit_s: float) -> float:
            began = time.monotonic()
            while not until():
                assert time.monotonic() < began + limit_s, "not in time"
                producers.step(0.005)
                consumers.step(0.005)
            return time.monotonic() - began

        go_on(lambda: len(consumers.seen) > 500, DEADLINE_S)
        broker.pause()
        end = time.monotonic() + pause_s
        go_on(lambda: time.monotonic() > end, pause_s + DEADLINE_S)
        lost = sum(not link.connected for link in [*producers.links, *consumers.links])
        broker.resume()
        before = len(consumers.seen)
        took_s = go_on(lambda: len(consumers.seen) > before + 100, RECOVERED_BEATS * beat_s)
        go_on(lambda: producers.done, 2 * DEADLINE_S)
    print(f"{lost} of 5 had given it up; deliveries again after {took_s:.2f} s")
    assert producers.ids() == set(consumers.seen), "lost"
    assert 5 == lost, "the pause was not noticed"


SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pg_sleep(2); RETURN NULL; END';
CREATE TRIGGER slow BEFORE INSERT ON ledger FOR EACH STATEMENT EXECUTE FUNCTION slow();
"""


def test_fault_14_commit_slower_than_the_lease_is_no_redelivery(dsn: str, conn: Conn) -> None:
    """A busy database takes five leases for one commit."""
    conn.execute(SLOW)
    batches = 20
    with (
        running_broker_process("--lease-s=0.4") as (broker, front, back),
        running_service(*collector_words(back), TELEMQ_DSN=dsn) as collector,
        closing(
            ProducerLink(front, name="test", window_records=10**5, window_bytes=10**7)
        ) as producer,
    ):
        publish(producer, range(batches))
        began = time.monotonic()
        poll_until(producer, lambda: not producer.unconfirmed(), "all is stored")
        took_s = time.monotonic() - began
        counts = {
            name: broker.metric(f"telemq_broker_{name}_total")
            for name in ("redelivered_messages", "expired_leases", "stale_settles")
        }
        assert 0 == collector.metric("telemq_collector_duplicate_batches_total")
    print(f"{batches} batches in {took_s:.1f} s: {counts}")
    assert took_s > 2
    assert 0 == sum(counts.values())
    assert (batches * RECORDS, batches * RECORDS) == stored(conn)
