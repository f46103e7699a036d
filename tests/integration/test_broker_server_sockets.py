"""The broker on real sockets: peers written from the document alone, wrong ones, and gone ones."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import zmq

from telemq.broker.metrics import METRICS
from telemq.broker.server import BrokerServer, run
from telemq.client.link import ConsumerLink, ProducerLink
from telemq.errors import BusyError, SettingError
from telemq.protocol import CONTROL_BYTES_MAX
from telemq.settings import BrokerSettings
from tests.support.brokers import DEADLINE_S, PlainPeer, RunningBroker, running_broker, until
from tests.support.ports import free_port

ANY = "tcp://127.0.0.1:*"


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    """A broker with the defaults."""
    with running_broker() as broker:
        yield broker


def publish(producer: PlainPeer, id: str, payload: bytes = b"x") -> int:
    return producer.say("PUBLISH", id, 1, "key", {"content-type": "any"}, payload=payload)


def open_producer(broker: RunningBroker) -> PlainPeer:
    """A plain producer with credit."""
    producer = PlainPeer(broker.producers, "producer")
    producer.hello()
    producer.say("WANT", 1, 1, 1000, 250_000)
    producer.hear("GRANT")
    return producer


def open_consumer(broker: RunningBroker, records: int = 1000) -> PlainPeer:
    """A plain consumer that accepts deliveries."""
    consumer = PlainPeer(broker.consumers, "consumer")
    consumer.hello()
    consumer.say("CREDIT", records, 10**6)
    return consumer


@pytest.mark.parametrize("size", [0, 1, 32_768, 32_769, 300_000])
def test_peers_that_know_only_the_document_publish_and_consume(size: int) -> None:
    """A client in another language, with payloads below and above the no-copy limit."""
    payload = os.urandom(size)
    with (
        running_broker(credit_bytes_max=300_000) as broker,
        PlainPeer(broker.producers, "producer") as producer,
        PlainPeer(broker.consumers, "consumer") as consumer,
    ):
        welcome = producer.hello()
        assert [1, "1.1", 1000, 2_000_000, 300_000, 131_072] == welcome[2:]
        producer.say("WANT", 1, size, 10, max(size, 1000))
        grant = producer.hear("GRANT")
        assert grant[3:] == [10, max(size, 1000)]
        number = publish(producer, "a#0", payload)
        consumer.hello()
        consumer.say("CREDIT", 100, 1000)
        deliver = consumer.hear("DELIVER")
        assert [1, 30_000, 1, "a#0", 1, "key", {"content-type": "any"}, "", payload] == deliver[3:]
        consumer.say("RENEW", [1])
        consumer.say("SETTLE", [[1, "ok", ""]])
        assert [number] == producer.hear("CONFIRM")[3]
        producer.say("BYE")
        until(lambda: broker.stats.producers == 0, "the producer left")


@pytest.mark.parametrize(
    ("frames", "detail"),
    [
        ((b"garbage",), "malformed"),
        ((b"",), "truncated"),
        ((b"garbage", b"payload"), "malformed"),
        ((b'["PING","",1]', b"a", b"b"), "3 frames; a message has one, PUBLISH two, PACK more"),
        ((b'["PING","' + b"s" * CONTROL_BYTES_MAX + b'",1]',), "control frame over 65536 bytes"),
        ((b'["PING","",1,' + b"[" * 30_000 + b"]" * 30_000 + b"]",), "recursion"),
    ],
)
def test_wrong_frames_are_refused_and_hurt_nobody_else(
    broker: RunningBroker, frames: tuple[bytes, ...], detail: str
) -> None:
    """A port scanner, a client with a fault, or somebody who wants to harm."""
    with open_producer(broker) as producer, PlainPeer(broker.producers, "producer") as wrong:
        wrong.hello()
        wrong.send_frames(*frames)
        error = wrong.hear("ERROR")
        assert [wrong.session, 0, "bad_message"] == error[1:4]
        assert detail in error[4]
        publish(producer, "a")
        until(lambda: broker.stats.ready_messages == 1, "others go on")
        assert 1 == broker.stats.producers
        wrong.hello()


def test_frame_beyond_the_limit_ends_its_connection_only(broker: RunningBroker) -> None:
    """Nobody can make the broker hold more than it is set up for."""
    with open_producer(broker) as producer, open_producer(broker) as wrong:
        publish(wrong, "large", b"x" * 300_001)
        until(lambda: broker.stats.producers == 1, "it is gone")
        publish(producer, "a")
        until(lambda: broker.stats.ready_messages == 1, "others go on")


def test_pack_may_be_larger_than_the_largest_message() -> None:
    """A broker is set up for small messages, and gets very many."""
    with (
        running_broker(message_bytes_max=20_000) as broker,
        closing(
            ProducerLink(broker.producers, name="p", window_records=1000, window_bytes=10**7)
        ) as producer,
        closing(
            ConsumerLink(broker.consumers, name="c", credit_records=1000, credit_bytes=10**7)
        ) as consumer,
    ):
        until(lambda: producer.connected, "a session", lambda: producer.poll(0.01))
        for n in range(100):
            producer.publish(f"s#{n}", 1, b"x" * 20_000)
        confirmed: list[str] = []
        until(
            lambda: len(confirmed) == 100,
            "all are confirmed",
            lambda: confirmed.extend(producer.poll(0.01)),
            lambda: consumer.settle(consumer.poll(0.01)),
        )
        assert 1 == producer.stats().sessions


def test_what_is_no_zeromq_at_all_hurts_nobody(broker: RunningBroker) -> None:
    """A browser, or a probe that only connects."""
    host, _, port = broker.producers.removeprefix("tcp://").rpartition(":")
    with (
        socket.create_connection((host, int(port))),
        socket.create_connection((host, int(port))) as web,
        open_producer(broker) as producer,
    ):
        web.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        publish(producer, "a")
        until(lambda: broker.stats.ready_messages == 1, "others go on")


def test_consumer_whose_connection_breaks_gives_its_messages_back(broker: RunningBroker) -> None:
    """A collector is killed: the next word to it cannot be sent, long before it is silent."""
    with open_producer(broker) as producer, open_consumer(broker) as dead:
        publish(producer, "a")
        dead.hear("DELIVER")
    with open_consumer(broker) as other:
        assert [2, "a"] == other.hear("DELIVER")[5:7]
        assert 0 == broker.stats.counters.leases_expired


def test_silent_peers_are_noticed_after_five_heartbeats() -> None:
    """A process that is stopped keeps its connection; only what it says shows that it lives."""
    with (
        running_broker(heartbeat_s=0.1) as broker,
        open_producer(broker) as producer,
        open_consumer(broker) as silent,
    ):
        publish(producer, "a")
        silent.hear("DELIVER")
        silent.hear("PING")
        until(lambda: broker.stats.counters.peers_silent == 2, "both are taken for lost")
        assert (1, 0) == (broker.stats.ready_messages, broker.stats.consumers)
        assert 0 == broker.stats.granted_records
        silent.say("SETTLE", [[1, "ok", ""]])
        error = silent.hear("ERROR")
        assert [silent.session, 0, "no_session"] == error[1:4]


def test_messages_after_a_loss_come_in_order() -> None:
    """One consumer leaves what it held to two others, of which one turns out to be gone."""
    server = BrokerServer(BrokerSettings(producer_bind=ANY, consumer_bind=ANY, heartbeat_s=100.0))
    consumer = server.consumer_endpoint
    monitor = server._routers._sockets["consumer"].get_monitor_socket(zmq.EVENT_DISCONNECTED)
    try:
        with (
            PlainPeer(server.producer_endpoint, "producer") as producer,
            PlainPeer(consumer, "consumer") as leaves,
            PlainPeer(consumer, "consumer") as stays,
        ):
            with PlainPeer(consumer, "consumer") as dead:
                _open(server, producer, "WANT", 1, 1, 10, 100)
                _open(server, leaves, "CREDIT", 10, 100)
                for id in "abcd":
                    publish(producer, id)
                until(lambda: server.core.stats().leased_messages == 4, "lent", _step(server))
                _open(server, dead, "CREDIT", 10, 100)
                _open(server, stays, "CREDIT", 10, 100)
            assert monitor.poll(int(DEADLINE_S * 1000)), "the closed connection was not noticed"
            leaves.say("BYE")
            until(lambda: server.core.stats().consumers == 1, "two are gone", _step(server))
            assert {*"abcd"} == {stays.hear("DELIVER")[6] for _ in "abcd"}
        # Any other order would be a gap, and the end of a session that is in order.
        assert [1, 2, 3, 4, 5] == stays.numbers
    finally:
        monitor.close()
        server.close()


def _step(server: BrokerServer) -> Callable[[], None]:
    return lambda: server.step(5)


def _open(server: BrokerServer, peer: PlainPeer, kind: str, *fields: int) -> None:
    """Open a session and say one thing, at a broker that serves only in between."""
    sessions = server.core.stats().counters.sessions
    peer.send_hello()
    until(lambda: server.core.stats().counters.sessions > sessions, "HELLO came", _step(server))
    peer.welcome()
    peer.say(kind, *fields)
    # HELLO and this: what follows may rely on it.
    until(lambda: server.core._peers.of(peer.session).heard == 1, f"{kind} came", _step(server))  # type: ignore[union-attr]


# ---- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["producer_bind", "consumer_bind"])
def test_busy_port_is_named(broker: RunningBroker, flag: str) -> None:
    """A second broker, or another program, on the same port."""
    free = BrokerSettings(producer_bind=ANY, consumer_bind=ANY)
    settings = dataclasses.replace(free, **{flag: broker.producers})  # type: ignore[arg-type]
    text = f"--{flag.replace('_', '-')} {broker.producers}: Address already in use"
    with pytest.raises(BusyError, match=re.escape(text)):
        BrokerServer(settings)


@pytest.mark.parametrize(
    "endpoint", ["tcp://0.0.0.0:*", "tcp://*:5601", "tcp://10.1.2.3:5601", "tcp://[::]:5601"]
)
def test_address_that_others_can_reach_needs_insecure(endpoint: str) -> None:
    """There are no keys yet: anybody could publish."""
    text = f"--producer-bind: {endpoint!r} is not accepted; it must be a loopback address"
    with pytest.raises(SettingError, match=re.escape(text)):
        BrokerServer(BrokerSettings(producer_bind=endpoint, consumer_bind=ANY))


def test_insecure_allows_any_address() -> None:
    """In a cluster whose network keeps others out."""
    settings = BrokerSettings(producer_bind="tcp://0.0.0.0:*", consumer_bind=ANY, insecure=True)
    server = BrokerServer(settings)
    assert server.producer_endpoint.startswith("tcp://0.0.0.0:")
    server.close()


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1", "tcp://127.0.0.1:x", "tcp://localhost:0x"])
def test_malformed_endpoint_is_named(endpoint: str) -> None:
    """A typing mistake."""
    with pytest.raises(SettingError, match=r"--consumer-bind: .* a ZeroMQ endpoint|loopback"):
        BrokerServer(BrokerSettings(producer_bind=ANY, consumer_bind=endpoint))


def test_unix_sockets_serve_as_endpoints(tmp_path: Path) -> None:
    """Everything on one machine, without ports; and no other user's."""
    ends = {"producer_bind": f"ipc://{tmp_path}/p", "consumer_bind": f"ipc://{tmp_path}/c"}
    with running_broker(**ends) as broker, open_producer(broker) as producer:
        publish(producer, "a")
        until(lambda: broker.stats.ready_messages == 1, "it came")
        modes = {path.stat().st_mode & 0o022 for path in tmp_path.iterdir()}
        assert {0} == modes


@pytest.mark.parametrize("flag", ["producer_bind", "consumer_bind", "pull", "push"])
def test_unix_socket_of_a_broker_that_runs_is_not_taken_over(tmp_path: Path, flag: str) -> None:
    """A second broker on the same path: libzmq alone would put it in the place of the first."""
    quiet = {"producer_bind": ANY, "consumer_bind": ANY}
    taken = {flag: f"ipc://{tmp_path}/q"}
    with running_broker(**taken) as broker:
        text = f"--{flag.replace('_', '-')} ipc://{tmp_path}/q: something listens there already"
        with pytest.raises(BusyError, match=re.escape(text)):
            BrokerServer(BrokerSettings(**{**quiet, **taken}))  # type: ignore[arg-type]
        if flag == "producer_bind":
            with open_producer(broker) as producer:
                publish(producer, "a")
                until(lambda: broker.stats.ready_messages == 1, "the first still serves")


def test_unix_socket_that_a_killed_broker_left_is_used_again(tmp_path: Path) -> None:
    """A broker starts again after SIGKILL, which leaves the file."""
    path = tmp_path / "p"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    with (
        running_broker(producer_bind=f"ipc://{path}") as broker,
        open_producer(broker) as producer,
    ):
        publish(producer, "a")
        until(lambda: broker.stats.ready_messages == 1, "it came")


def test_file_is_not_taken_for_a_unix_socket(tmp_path: Path) -> None:
    """A mistyped path: libzmq alone would remove the file."""
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    text = f"--producer-bind: 'ipc://{path}' is not accepted; it must be a path where no file is"
    with pytest.raises(SettingError, match=re.escape(text)):
        BrokerServer(BrokerSettings(producer_bind=f"ipc://{path}", consumer_bind=ANY))
    assert "mine" == path.read_text()


def test_path_that_does_not_fit_a_socket_address_is_named() -> None:
    """A deep folder: nothing is created anywhere."""
    endpoint = f"ipc:///tmp/{'x' * 108}"
    with pytest.raises(SettingError, match=f"{endpoint}.* at most 107 bytes"):
        BrokerServer(BrokerSettings(producer_bind=endpoint, consumer_bind=ANY))


def test_both_endpoints_on_one_unix_socket_are_refused(tmp_path: Path) -> None:
    """A copied line: consumers would take the place of producers."""
    endpoint = f"ipc://{tmp_path}/q"
    with pytest.raises(BusyError, match=r"--consumer-bind .* something listens there already"):
        BrokerServer(BrokerSettings(producer_bind=endpoint, consumer_bind=endpoint))


def test_abstract_unix_socket_serves_and_is_taken_once() -> None:
    """Linux' names that are no files: they go with their broker."""
    name = f"ipc://@telemq-test-{os.getpid()}"
    with running_broker(producer_bind=name) as broker, open_producer(broker) as producer:
        publish(producer, "a")
        until(lambda: broker.stats.ready_messages == 1, "it came")
        with pytest.raises(BusyError, match=f"--producer-bind {name}: Address already in use"):
            BrokerServer(BrokerSettings(producer_bind=name, consumer_bind=ANY))


# ---- the process -------------------------------------------------------------------------------


class _Process:
    """`run` in a thread, as the command line starts it."""

    def __init__(self, **settings: object) -> None:
        producer, consumer, ops = free_port(), free_port(), free_port()
        self.producers = f"tcp://127.0.0.1:{producer}"
        self.consumers = f"tcp://127.0.0.1:{consumer}"
        self.ops = f"http://127.0.0.1:{ops}"
        self.stop = threading.Event()
        self.code: int | None = None
        self._settings = BrokerSettings(
            producer_bind=self.producers,
            consumer_bind=self.consumers,
            ops_address=f"127.0.0.1:{ops}",
            **settings,  # type: ignore[arg-type]
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.code = run(self._settings, self.stop)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.ops + path, timeout=DEADLINE_S, trust_env=False)

    def join(self) -> None:
        self.stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "it does not end"


def test_stopped_broker_serves_until_the_queue_is_empty_and_says_bye() -> None:
    """SIGTERM with work in the queue: collectors get their time."""
    process = _Process()
    with (
        PlainPeer(process.producers, "producer") as producer,
        PlainPeer(process.consumers, "consumer") as consumer,
    ):
        producer.hello()
        producer.say("WANT", 1, 1, 10, 100)
        producer.hear("GRANT")
        number = publish(producer, "a")
        consumer.hello()
        consumer.say("CREDIT", 10, 100)
        consumer.hear("DELIVER")
        assert (200, "ready\n") == ((got := process.get("/readyz")).status_code, got.text)
        process.stop.set()
        until(lambda: process.get("/readyz").status_code == 503, "it is not ready any more")
        assert "draining\n" == process.get("/readyz").text
        consumer.say("SETTLE", [[1, "ok", ""]])
        assert [number] == producer.hear("CONFIRM")[3]
        producer.hear("BYE")
        process.join()
    assert 0 == process.code


def test_drain_ends_at_its_limit_when_nobody_settles() -> None:
    """SIGTERM while no collector runs; producers will publish again elsewhere or later."""
    process = _Process(drain_s=0.2)
    with PlainPeer(process.producers, "producer") as producer:
        producer.hello()
        producer.say("WANT", 1, 1, 10, 100)
        producer.hear("GRANT")
        publish(producer, "a")
        until(lambda: "telemq_broker_ready_messages 1.0" in process.get("/metrics").text, "came")
        process.join()
    assert 0 == process.code


def test_metrics_show_every_row_and_the_labelled_ones() -> None:
    """A dashboard reads them."""
    process = _Process()
    with PlainPeer(process.producers, "producer") as producer:
        producer.send(["HELLO", "", 0, "9.0", "producer", ""])
        producer.hear("ERROR")
        producer.hello()
        until(lambda: 'peers{role="producer"} 1.0' in process.get("/metrics").text, "it counts")
        text = process.get("/metrics").text
    process.join()
    for row in METRICS:
        name = f"telemq_broker_{row.name}" + ("_total" if row.kind == "counter" else "")
        assert re.search(rf"^{name} [0-9.e+]+$", text, re.M), name
        assert f"# HELP {name} {row.help}" in text
    assert 'telemq_broker_refused_total{code="version"} 1.0' in text
    assert 'telemq_broker_peers{role="consumer"} 0.0' in text


def test_busy_ops_address_ends_the_start_and_frees_the_ports() -> None:
    """Two brokers with the default addresses."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        port = free_port()
        settings = BrokerSettings(
            producer_bind=f"tcp://127.0.0.1:{port}", consumer_bind=ANY, ops_address=address
        )
        with pytest.raises(BusyError, match=re.escape(f"--ops-address {address}")):
            run(settings, threading.Event())
        with socket.create_server(("127.0.0.1", port)):
            pass
