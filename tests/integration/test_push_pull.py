"""PUSH and PULL on real sockets: what one line of ZeroMQ gets, and what the bounds make of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import zmq

from telemq.broker.server import BrokerServer
from telemq.errors import BusyError, SettingError
from telemq.settings import BrokerSettings, CollectorSettings
from tests.support.brokers import DEADLINE_S, PlainPeer, RunningBroker, running_broker, until
from tests.support.running import running_collector

ANY = "tcp://127.0.0.1:*"


@contextmanager
def plain(kind: int, endpoint: str, hwm: int = 5) -> Iterator[zmq.Socket[bytes]]:
    """A connected socket of somebody's own program."""
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.set_hwm(hwm)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDTIMEO, int(DEADLINE_S * 1000))
        socket.setsockopt(zmq.RCVTIMEO, int(DEADLINE_S * 1000))
        socket.connect(endpoint)
        yield socket


def pull(broker: RunningBroker) -> str:
    """Where to PUSH."""
    assert broker.ways.pull is not None
    return broker.ways.pull.endpoint


def push(broker: RunningBroker) -> str:
    """Where to PULL."""
    assert broker.ways.push is not None
    return broker.ways.push.endpoint


def record(value: float) -> dict[str, Any]:
    return {
        "timestamp": datetime.now(UTC).isoformat(),
        "metric_name": "DCGM_FI_DEV_GPU_UTIL",
        "uuid": "GPU-1",
        "value": value,
    }


def test_what_is_pushed_in_is_pulled_out_in_order() -> None:
    """One line on each side; payloads below and above the no-copy limit."""
    payloads = [bytes([n]) * (n * 1000) for n in range(60)]
    with (
        running_broker(pull=ANY, push=ANY) as broker,
        plain(zmq.PUSH, pull(broker)) as producer,
        plain(zmq.PULL, push(broker)) as consumer,
    ):
        received = []
        for payload in payloads:
            producer.send(payload)
            received.append(consumer.recv())
        assert payloads == received
        until(lambda: broker.stats.counters.settled == 60, "all are settled")
        assert broker.ways.pull is not None
        assert broker.ways.push is not None
        assert (60, 60) == (broker.ways.pull.pulled, broker.ways.push.pushed)


def test_pulled_messages_get_ids_that_never_come_again() -> None:
    """The ledger takes the second message of an id for the first again: a restart starts anew."""
    ids = []
    for _ in range(2):
        with (
            running_broker(pull=ANY) as broker,
            plain(zmq.PUSH, pull(broker)) as producer,
            PlainPeer(broker.consumers, "consumer") as consumer,
        ):
            producer.send(b"{}")
            producer.send_multipart([b"text/plain", b"second"])
            consumer.hello()
            consumer.say("CREDIT", 10, 10**6)
            first, second = consumer.hear("DELIVER"), consumer.hear("DELIVER")
            assert [1, "", {"content-type": "telemq.record"}, "", b"{}"] == first[7:]
            assert [1, "", {"content-type": "text/plain"}, "", b"second"] == second[7:]
            stream, _, number = first[6].rpartition("#")
            assert (stream, "0", f"{stream}#1") == (stream, number, second[6])
            assert stream.startswith("push/")
            ids.append(stream)
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    "frames", [[b"a", b"b", b"c"], [b"", b"payload"], [b"\xff", b"payload"], [b"x" * 513, b"p"]]
)
def test_message_of_another_form_is_counted_and_hurts_no_other(frames: list[bytes]) -> None:
    """Somebody pushes what was meant for another socket."""
    with running_broker(pull=ANY) as broker, plain(zmq.PUSH, pull(broker)) as producer:
        producer.send_multipart(frames)
        producer.send(b"good")
        until(lambda: broker.stats.ready_messages == 1, "the good one is queued")
        assert broker.ways.pull is not None
        assert (1, 1) == (broker.ways.pull.refused, broker.ways.pull.pulled)


def test_full_queue_stops_the_pusher_and_every_message_arrives_once_there_is_room() -> None:
    """No consumer: the broker holds what it may (P1), ZeroMQ its marks, then the producer waits."""
    with (
        running_broker(
            pull=ANY, capacity_records=50, pull_messages_max=5, capacity_bytes=10**6
        ) as broker,
        plain(zmq.PUSH, pull(broker)) as producer,
    ):
        sent = 0
        # Larger than socket buffers of the kernel, so that only marks decide.
        payload = b"x" * 15_000
        producer.setsockopt(zmq.SNDTIMEO, 500)
        try:
            while sent < 5000:
                producer.send(b"%06d" % sent + payload)
                sent += 1
        except zmq.Again:
            pass
        assert sent < 5000, "the pusher was never stopped"
        assert 50 == broker.stats.ready_records
        assert broker.stats.ready_records + broker.stats.granted_records <= 50
        with PlainPeer(broker.consumers, "consumer") as consumer:
            consumer.hello()
            consumer.say("CREDIT", 10, 10**6)
            for number in range(sent):
                delivery = consumer.hear("DELIVER")
                assert b"%06d" % number == delivery[-1][:6]
                consumer.say("SETTLE", [[delivery[3], "ok", ""]])


def test_without_a_puller_messages_stay_for_others() -> None:
    """PUSH is on and nobody pulls: nothing is held up, nothing counts an attempt."""
    with (
        running_broker(pull=ANY, push=ANY, lease_s=0.2) as broker,
        plain(zmq.PUSH, pull(broker)) as producer,
    ):
        for number in range(10):
            producer.send(b"%d" % number)
        until(lambda: broker.stats.ready_messages == 10, "all wait")
        with PlainPeer(broker.consumers, "consumer") as consumer:
            consumer.hello()
            consumer.say("CREDIT", 1, 1)
            delivery = consumer.hear("DELIVER")
            assert (1, b"0") == (delivery[5], delivery[-1])
            consumer.say("SETTLE", [[delivery[3], "ok", ""]])
            consumer.say("BYE")
        with plain(zmq.PULL, push(broker)) as puller:
            rest = [puller.recv() for _ in range(8)]
        assert len(set(rest)) == 8


def test_slow_puller_holds_its_mark_and_the_rest_stays_in_the_queue() -> None:
    """ZeroMQ must not become the place where a fleet's telemetry piles up unseen."""
    payload = b"x" * 250_000
    with (
        running_broker(pull=ANY, push=ANY, push_messages_max=2, capacity_bytes=10**9) as broker,
        plain(zmq.PUSH, pull(broker)) as producer,
        plain(zmq.PULL, push(broker), hwm=2) as puller,
    ):
        producer.send(b"first")
        assert b"first" == puller.recv()
        for _ in range(100):
            producer.send(payload)
        way = broker.ways.push
        assert way is not None
        until(lambda: broker.stats.counters.accepted == 101, "all are queued")
        until(lambda: broker.stats.leased_messages == 0, "nothing is under way")
        # The rest is in marks and in the kernel's buffers of the connection: some megabytes.
        assert broker.stats.ready_messages > 50
        assert [payload] * 100 == [puller.recv() for _ in range(100)]


def test_pullers_share() -> None:
    """Fan-out: each message goes to one of them."""
    with (
        running_broker(pull=ANY, push=ANY) as broker,
        plain(zmq.PULL, push(broker)) as one,
        plain(zmq.PULL, push(broker)) as two,
        plain(zmq.PUSH, pull(broker)) as producer,
    ):
        received: dict[bytes, set[bytes]] = {b"one": set(), b"two": set()}
        sent = 0

        def exchange() -> None:
            nonlocal sent
            producer.send(b"%d" % sent)
            sent += 1
            for name, socket in ((b"one", one), (b"two", two)):
                while socket.poll(1):
                    received[name].add(socket.recv())

        until(lambda: all(len(got) > 5 for got in received.values()), "both get some", exchange)
        assert not received[b"one"] & received[b"two"]


def test_records_pushed_by_anyone_are_stored_and_what_is_no_record_is_a_dead_letter(
    dsn: str, conn: psycopg.Connection
) -> None:
    """One telemq.record object a message; an array of two is refused by the collector, and kept."""
    with running_broker(pull=ANY) as broker:
        collector = CollectorSettings(dsn=dsn, broker=broker.consumers, ops_address="127.0.0.1:0")
        with running_collector(collector), plain(zmq.PUSH, pull(broker)) as producer:
            for value in range(5):
                producer.send(json.dumps(record(value)).encode())
            producer.send(json.dumps([record(10)]).encode())
            producer.send(json.dumps([record(11), record(12)]).encode())
            producer.send(b"\x00not json")
            producer.send_multipart([b"image/png", b"PNG"])
            until(lambda: broker.stats.counters.settled == 9, "all are settled")
    values = conn.execute("SELECT value FROM telemetry ORDER BY value").fetchall()
    assert [0, 1, 2, 3, 4, 10] == [value for (value,) in values]
    reasons = [
        reason for (reason,) in conn.execute("SELECT reason FROM dead_letter ORDER BY first_row")
    ]
    assert 3 == len(reasons)
    assert "the header counts 1 rows, the payload holds 2" in reasons[0]
    assert "JSON" in reasons[1] or "malformed" in reasons[1]
    assert "content type 'image/png' is unknown" in reasons[2]
    stored = conn.execute("SELECT sum(stored), sum(rejected) FROM ledger").fetchone()
    assert (6, 3) == stored


@pytest.mark.parametrize("flag", ["pull", "push"])
def test_ways_without_keys_are_for_this_machine(flag: str) -> None:
    """An open PULL would let anyone write into the database."""
    quiet: dict[str, Any] = {"producer_bind": ANY, "consumer_bind": ANY}
    with pytest.raises(SettingError, match=f"--{flag}: 'tcp://0.0.0.0:\\*' is not accepted"):
        BrokerServer(BrokerSettings(**{**quiet, flag: "tcp://0.0.0.0:*"}))
    with pytest.raises(SettingError, match=f"--{flag}: 'nonsense' is not accepted"):
        BrokerServer(BrokerSettings(**{**quiet, "insecure": True, flag: "nonsense"}))
    with running_broker(**{flag: ANY}) as broker:
        way = getattr(broker.ways, flag)
        with pytest.raises(BusyError, match=f"--{flag} tcp"):
            BrokerServer(BrokerSettings(**{**quiet, flag: way.endpoint}))
