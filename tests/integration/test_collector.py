"""The collector with a real broker and a real Postgres, and each of them misbehaving."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from telemq.client.link import ConsumerLink, ProducerLink
from telemq.codec import BATCH, RECORD, Encoder
from telemq.collector.storer import connect
from telemq.errors import RemoteProtocolError, SettingError
from telemq.settings import CollectorSettings
from telemq.store.verify import verify
from telemq.store.writer import Writer
from tests.support.batches import record_batch
from tests.support.ports import free_port
from tests.support.postgres import Databases
from tests.support.running import Broker, Collector, eventually, running_broker, running_collector

Conn = psycopg.Connection[Any]


@pytest.fixture
def broker() -> Iterator[Broker]:
    with running_broker() as broker:
        yield broker


@pytest.fixture
def producer(broker: Broker) -> Iterator[ProducerLink]:
    with producing(broker) as link:
        yield link


@contextlib.contextmanager
def producing(broker: Broker) -> Iterator[ProducerLink]:
    link = ProducerLink(
        broker.producers, name="test", window_records=100_000, window_bytes=10_000_000
    )
    with contextlib.closing(link):
        yield link


def publish(link: ProducerLink, first_rows: Iterable[int], *, count: int = 10) -> None:
    """Publish batches of stream ``s``, one for each first row; values are the rows."""
    encoder = Encoder()
    for first in first_rows:
        payload = encoder.encode(record_batch(count, first=first))
        link.publish(f"s#{first}", count, payload, metadata={"content-type": BATCH})


def poll_until(link: ProducerLink, condition: Callable[[], bool], within_s: float = 20) -> None:
    """Keep the producer alive until `condition` holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        link.poll(0.02)


def confirmed(link: ProducerLink) -> None:
    """Wait until the broker has confirmed everything that was published."""
    poll_until(link, lambda: link.unconfirmed() == 0)


def settings_for(broker: Broker, dsn: str, **changed: Any) -> CollectorSettings:
    return CollectorSettings(
        **{"broker": broker.consumers, "dsn": dsn, "ops_address": f"127.0.0.1:{free_port()}"}
        | changed
    )


def get(settings: CollectorSettings, path: str) -> tuple[int, str]:
    """Status and text of the ops address; (0, "") while nobody listens."""
    conn = http.client.HTTPConnection(settings.ops_address, timeout=5)
    with contextlib.closing(conn):
        try:
            conn.request("GET", path)
        except ConnectionRefusedError:
            return 0, ""
        answer = conn.getresponse()
        return answer.status, answer.read().decode()


def metric(settings: CollectorSettings, name: str) -> float:
    """One metric; -1 while nobody listens."""
    status, text = get(settings, "/metrics")
    if not status:
        return -1.0
    lines = text.splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"telemq_collector_{name} ")]
    return float(value)


def values(conn: Conn) -> list[float]:
    return [v for (v,) in conn.execute("SELECT value FROM sample ORDER BY value")]


@contextlib.contextmanager
def postgres_away(dsn: str) -> Iterator[None]:
    """Make the database of `dsn` throw everybody out and let nobody in."""
    name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
    with psycopg.connect(make_conninfo(dsn, dbname="postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            (conninfo_to_dict(dsn)["dbname"],),
        )
        try:
            yield
        finally:
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))


def test_published_batches_are_stored_then_confirmed(
    broker: Broker, producer: ProducerLink, dsn: str, conn: Conn
) -> None:
    """The everyday case; a confirm means that the rows are in the database."""
    settings = settings_for(broker, dsn)
    with running_collector(settings) as collector:
        publish(producer, range(0, 1000, 10))
        confirmed(producer)
        assert list(range(1000)) == values(conn)
        eventually(lambda: metric(settings, "stored_records_total") == 1000, "metrics")
        assert (0, 0) == (metric(settings, "held_batches"), metric(settings, "held_records"))
        assert (200, "ready\n") == get(settings, "/readyz")
    assert 0 == collector.code
    assert verify(conn).complete


def test_plain_records_and_payloads_that_do_not_decode(
    broker: Broker, producer: ProducerLink, dsn: str, conn: Conn
) -> None:
    """Foreign producers: one is right, one sends something else, one an id with U+0000."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = {"timestamp": now, "metric_name": "M", "uuid": "GPU-1", "value": 42.5}
    with running_collector(settings_for(broker, dsn)):
        for id, payload in (("a", orjson.dumps(record)), ("b", b"<html>"), ("c\0#7", b"{}")):
            producer.publish(id, 1, payload, metadata={"content-type": RECORD})
        confirmed(producer)
    assert [42.5] == values(conn)
    letters = conn.execute("SELECT stream_id, first_row, payload FROM dead_letter ORDER BY 1")
    (b, c) = letters.fetchall()
    assert ("b", 0, b"<html>") == b
    assert (True, 7, b"{}") == (c[0].startswith("c␀~"), *c[1:])
    assert verify(conn).complete


def test_dead_letter_of_the_broker_is_kept_with_its_reason(
    broker: Broker, producer: ProducerLink, dsn: str, conn: Conn
) -> None:
    """Another consumer could not process a message, and said so."""
    publish(producer, [0])
    with contextlib.closing(
        ConsumerLink(broker.consumers, name="other", credit_records=100, credit_bytes=100_000)
    ) as other:
        deadline = time.monotonic() + 20
        while not (taken := other.poll(0.02)):
            producer.poll(0)
            assert time.monotonic() < deadline
        other.pause()
        other.settle(taken, "bury", "too strange")
    with running_collector(settings_for(broker, dsn)):
        confirmed(producer)
    rows = conn.execute("SELECT stream_id, first_row, row_count, reason, payload FROM dead_letter")
    assert [("s", 0, 10, "too strange", bytes(taken[0].payload))] == rows.fetchall()
    assert [] == values(conn)
    assert verify(conn).complete


def test_collectors_share_the_work(
    broker: Broker, producer: ProducerLink, dsn: str, conn: Conn
) -> None:
    """Three workers with little credit each."""
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            settings = settings_for(broker, dsn, credit_records=50, commit_records=20)
            stack.enter_context(running_collector(settings))
        publish(producer, range(0, 2000, 10))
        confirmed(producer)
    assert list(range(2000)) == values(conn)
    assert verify(conn).complete


def test_absent_postgres_delays_but_loses_and_repeats_nothing(dsn: str, conn: Conn) -> None:
    """Postgres is away for several leases: they are renewed, readiness tells, memory is bounded."""
    with running_broker(lease_s=0.6) as broker, producing(broker) as producer:
        settings = settings_for(broker, dsn, credit_records=200)
        with running_collector(settings):
            publish(producer, range(0, 100, 10))
            confirmed(producer)
            with postgres_away(dsn):
                publish(producer, range(100, 1000, 10))
                poll_until(producer, lambda: get(settings, "/readyz")[0] == 503)
                assert "postgres: " in get(settings, "/readyz")[1]
                assert 200 == get(settings, "/healthz")[0]
                poll_until(producer, lambda: metric(settings, "held_records") == 200)
                until = time.monotonic() + 2
                poll_until(producer, lambda: time.monotonic() > until)
                assert 200 == metric(settings, "held_records")
                assert 1 <= metric(settings, "postgres_retries_total") <= 20
            confirmed(producer)
            eventually(lambda: get(settings, "/readyz")[0] == 200, "ready again")
            assert 0 == metric(settings, "duplicate_batches_total")
        assert (0, 0) == (broker.stats.counters.leases_expired, broker.stats.counters.redelivered)
    with psycopg.connect(dsn, autocommit=True) as again:
        assert list(range(1000)) == values(again)
        assert verify(again).complete


def test_commit_slower_than_the_lease_is_not_delivered_again(dsn: str, conn: Conn) -> None:
    """A slow disk: each commit takes three leases, and nobody else gets the batches meanwhile."""
    conn.execute(
        """
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(1.2); RETURN NULL; END $$;
        CREATE TRIGGER dawdle AFTER INSERT ON ledger
            FOR EACH STATEMENT EXECUTE FUNCTION dawdle();
        """
    )
    with running_broker(lease_s=0.4) as broker, producing(broker) as producer:
        settings = settings_for(broker, dsn)
        with running_collector(settings):
            publish(producer, range(0, 100, 10))
            confirmed(producer)
            eventually(lambda: metric(settings, "stored_batches_total") == 10, "stored")
            assert 0 == metric(settings, "duplicate_batches_total")
        assert 0 == broker.stats.counters.redelivered
    assert list(range(100)) == values(conn)


def test_broker_restart_costs_nothing_but_time(dsn: str, conn: Conn) -> None:
    """The broker is killed and comes back empty; the producer publishes again what is left."""
    with running_broker() as broker, producing(broker) as producer:
        settings = settings_for(broker, dsn, credit_records=100)
        with running_collector(settings):
            publish(producer, range(0, 3000, 10))
            poll_until(producer, lambda: bool(values(conn)))
            broker.stop()
            poll_until(producer, lambda: metric(settings, "broker_connected") == 0)
            assert (503, "no session with the broker\n") == get(settings, "/readyz")
            with running_broker(producers=broker.producers, consumers=broker.consumers):
                confirmed(producer)
    assert list(range(3000)) == values(conn)
    assert verify(conn).complete


def test_lost_sessions_do_not_pile_up_while_postgres_is_away(dsn: str, conn: Conn) -> None:
    """The broker restarts during an outage: each session brings a full credit, held only once."""
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(running_broker())
        producer = stack.enter_context(producing(broker))
        settings = settings_for(broker, dsn, credit_records=100)
        collector = stack.enter_context(running_collector(settings))
        with postgres_away(dsn):
            publish(producer, range(0, 500, 10))
            for sessions_lost in range(3):
                poll_until(producer, lambda: metric(settings, "held_records") == 100)
                assert sessions_lost == metric(settings, "sessions_lost_total")
                assert metric(settings, "backlog_records") <= 100
                broker.stop()
                poll_until(producer, lambda: metric(settings, "held_records") == 0)
                broker = stack.enter_context(
                    running_broker(producers=broker.producers, consumers=broker.consumers)
                )
        confirmed(producer)
        assert collector.error is None
    with psycopg.connect(dsn, autocommit=True) as again:
        assert list(range(500)) == values(again)
        assert verify(again).complete


def test_stop_stores_and_settles_what_was_delivered(dsn: str, conn: Conn) -> None:
    """SIGTERM in the middle of a long commit."""
    conn.execute(
        """
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;
        CREATE TRIGGER dawdle AFTER INSERT ON ledger
            FOR EACH STATEMENT EXECUTE FUNCTION dawdle();
        """
    )
    with running_broker() as broker, producing(broker) as producer:
        settings = settings_for(broker, dsn, credit_records=100, commit_records=100)
        collector = Collector(settings)
        publish(producer, range(0, 1000, 10))
        poll_until(producer, lambda: metric(settings, "held_batches") == 10)
        collector.stop()
        assert (0, None) == (collector.code, collector.error)
        eventually(lambda: broker.stats.leased_messages == 0, "settled")
        assert 0 == broker.stats.counters.redelivered
        stored = len(values(conn))
        assert stored == 10 * broker.stats.counters.settled
        assert stored < 500, "it went on taking"


def test_stop_without_postgres_gives_back_what_was_delivered(dsn: str, conn: Conn) -> None:
    """SIGTERM while the database is away: the drain has an end, and nothing is lost."""
    with running_broker() as broker, producing(broker) as producer:
        settings = settings_for(broker, dsn, drain_s=0.5)
        with postgres_away(dsn):
            collector = Collector(settings)
            publish(producer, range(0, 100, 10))
            poll_until(producer, lambda: metric(settings, "held_batches") == 10)
            began = time.monotonic()
            collector.stop()
            assert time.monotonic() - began < 8
        assert (0, None) == (collector.code, collector.error)
        eventually(lambda: broker.stats.ready_messages == 10, "back in the queue")
        with running_collector(settings):
            confirmed(producer)
    with psycopg.connect(dsn, autocommit=True) as again:
        assert list(range(100)) == values(again)


def test_statement_that_hangs_shows_and_ends_on_stop(
    dsn: str, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds a lock on the ledger; then SIGTERM."""
    monkeypatch.setattr("telemq.collector.storer._SLOW_S", 0.2)
    with running_broker() as broker, producing(broker) as producer:
        settings = settings_for(broker, dsn, drain_s=0.5)
        with psycopg.connect(dsn) as locker:
            locker.execute("LOCK TABLE ledger")
            collector = Collector(settings)
            publish(producer, [0])
            poll_until(producer, lambda: "a commit has taken" in get(settings, "/readyz")[1])
            began = time.monotonic()
            collector.stop()
            assert time.monotonic() - began < 4
        assert (0, None) == (collector.code, collector.error)
        eventually(lambda: broker.stats.ready_messages == 1, "back in the queue")


def test_writer_thread_that_dies_fails_the_process(
    broker: Broker, producer: ProducerLink, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in our own code must end in a restart, not in a collector that stands still."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Writer, "store", fail)
    collector = Collector(settings_for(broker, dsn))
    publish(producer, [0])
    poll_until(producer, lambda: collector.ended)
    assert isinstance(collector.error, ZeroDivisionError)


def test_malformed_dsn_fails_the_start_without_showing_it(broker: Broker) -> None:
    """A typing error in a secret."""
    collector = Collector(settings_for(broker, "host=x pasword=hunter2"))
    eventually(lambda: collector.ended, "ended")
    assert isinstance(collector.error, SettingError)
    assert "--dsn" in str(collector.error)
    assert "hunter2" not in str(collector.error)


def test_connection_is_limited_in_every_wait_and_brings_the_schema(postgres: Databases) -> None:
    """The first collector on a new database; a collector that stands still ends by itself."""
    names = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout")
    with (
        postgres.fresh(migrated=False) as dsn,
        connect(make_conninfo(dsn, application_name="mine")) as conn,
    ):
        found = [conn.execute("SELECT current_setting(%s)", (n,)).fetchall() for n in names]
        assert [[("30s",)], [("1min",)], [("5min",)]] == found
        assert "mine" == conn.info.get_parameters()["application_name"]
        assert [] == values(conn)


def test_producers_endpoint_fails_the_start(broker: Broker, dsn: str) -> None:
    """The two ports were mixed up: waiting would not help."""
    settings = settings_for(broker, dsn)
    collector = Collector(dataclasses.replace(settings, broker=broker.producers))
    eventually(lambda: collector.ended, "ended")
    assert isinstance(collector.error, RemoteProtocolError)
    assert "role" in str(collector.error)
