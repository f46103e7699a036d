"""Faults 24, 26 and 27: who has no key, or another's name, gets nothing and breaks nothing."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zmq

from telemq.client.link import ConsumerLink, ProducerLink
from tests.support.brokers import DEADLINE_S, PlainPeer, RunningBroker, running_broker, until
from tests.support.keys import KeyedPeer, Keys, consumer_link, fault_of, producer_link
from tests.support.ports import free_port

pytestmark = pytest.mark.faults


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """A broker's keys; those of a producer, two consumers and a thief are allowed."""
    keys = Keys(tmp_path)
    keys.peer("producer", "producer")
    for name in ("victim", "thief", "other"):
        keys.peer(name, "consumer")
    return keys


@pytest.fixture
def broker(keys: Keys) -> Iterator[RunningBroker]:
    """A broker with keys."""
    with running_broker(keys=keys.path, heartbeat_s=0.5) as broker:
        yield broker


class BrokerProcess:
    """A broker as a process of its own, with a limit on its memory; a context manager.

    Attributes:
        output: everything it has logged.
    """

    def __init__(self, keys: Keys, ports: tuple[int, int], memory_bytes: int) -> None:
        words = [
            sys.executable, "-P", "-m", "telemq_cli", "broker", f"--keys={keys.path}",
            "--log-format=json", "--ops-address=127.0.0.1:0", "--heartbeat-s=0.5",
            f"--producer-bind=tcp://127.0.0.1:{ports[0]}",
            f"--consumer-bind=tcp://127.0.0.1:{ports[1]}",
        ]  # fmt: skip
        script = f"ulimit -v {memory_bytes // 1024}; exec {shlex.join(words)}"
        self.process = subprocess.Popen(
            ["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.output = ""
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if "broker listening" in line:
                self._listening.set()

    def __enter__(self) -> BrokerProcess:
        assert self._listening.wait(DEADLINE_S), self.output
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()


#: A ZMTP 3.0 greeting with the mechanism NULL, and a READY command of a DEALER.
_GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" * 32
_READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"


def test_fault_24_endless_frames_are_not_reachable_without_a_key(broker: RunningBroker) -> None:
    """Raw ZMTP: one message of ever more frames, which no limit of libzmq's bounds."""
    host, _, port = broker.producers.removeprefix("tcp://").rpartition(":")
    before = psutil.Process().memory_info().rss
    sent = 0
    more = b"\x03" + (1 << 20).to_bytes(8, "big") + b"x" * (1 << 20)
    with (
        socket.create_connection((host, int(port)), timeout=DEADLINE_S) as raw,
        contextlib.suppress(BrokenPipeError, ConnectionResetError),
    ):
        # It is cut off at the greeting; until it notices, some of it fits into the kernel.
        raw.sendall(_GREETING + _READY)
        while sent < 2000:
            raw.sendall(more)
            sent += 1
    assert sent < 100, f"{sent} MiB were taken"
    assert psutil.Process().memory_info().rss - before < 100 * 2**20
    assert 0 == broker.stats.counters.sessions


def test_fault_24_with_a_key_the_process_limit_holds_and_a_restart_loses_nothing(
    keys: Keys,
) -> None:
    """A node that is allowed runs wild: its limit is the broker's, not the machine's."""
    ports = free_port(), free_port()
    endpoints = [f"tcp://127.0.0.1:{port}" for port in ports]
    limit_bytes = 1 << 30
    link = producer_link(endpoints[0], keys.own("producer"))
    with contextlib.closing(link):
        with BrokerProcess(keys, ports, limit_bytes) as first:
            for number in range(50):
                link.publish(f"a#{number}", 1, b"x" * 1000)
            until(lambda: link.stats().sent_messages == 50, "sent", lambda: link.poll(0.05))
            with zmq.Context() as context, context.socket(zmq.DEALER) as wild:
                own = keys.own("producer")
                wild.setsockopt(zmq.LINGER, 0)
                wild.set_hwm(0)
                wild.curve_publickey, wild.curve_secretkey = own.own.public, own.own.secret
                wild.curve_serverkey = own.broker
                cut = wild.get_monitor_socket(int(zmq.EVENT_DISCONNECTED))
                wild.connect(endpoints[0])
                frame = bytes(4 << 20)
                for _ in range(2 * limit_bytes // len(frame)):
                    wild.send(frame, zmq.SNDMORE, copy=False)
                wild.send(b"")
                # libzmq either cannot get the memory for a frame, and cuts the peer off, or for
                # its cryptography, and aborts. Both are right: the machine is not harmed.
                until(
                    lambda: cut.poll(0) or first.process.poll() is not None,
                    "the limit was met",
                    lambda: cut.poll(20),
                )
                wild.disable_monitor()
                cut.close()
            first.process.kill()
            first.process.wait()
        with (
            BrokerProcess(keys, ports, limit_bytes),
            contextlib.closing(consumer_link(endpoints[1], keys.own("other"))) as consumer,
        ):
            got: list[str] = []

            def carry() -> None:
                link.poll(0.02)
                deliveries = consumer.poll(0.02)
                got.extend(delivery.id for delivery in deliveries)
                consumer.settle(deliveries)

            until(lambda: link.unconfirmed() == 0, "all is stored", carry)
            assert {f"a#{number}" for number in range(50)} == set(got)


def test_fault_26_who_has_no_right_key_is_refused_and_no_key_is_told(
    keys: Keys, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key, an unknown, a revoked one; then every place where a key might show is searched."""
    ports = free_port(), free_port()
    endpoint = f"tcp://127.0.0.1:{ports[0]}"
    keys.make("unknown", "producer")
    keys.peer("revoked", "producer")
    faults = []
    with BrokerProcess(keys, ports, 4 << 30) as broker:
        with contextlib.closing(producer_link(endpoint, keys.own("revoked"))) as link:
            until(lambda: link.connected, "it is let in", lambda: link.poll(0.05))
            keys.directory.revoke("revoked")
            until(lambda: link.refused, "it is refused", lambda: link.poll(0.05))
            faults.append(link.fault)
        for own in (None, keys.own("unknown"), keys.own("revoked"), keys.own("victim")):
            with contextlib.closing(producer_link(endpoint, own)) as link:
                faults.append(fault_of(link, "refuses this key", "without a key"))
        shown = [*psutil.Process(broker.process.pid).cmdline()]
        client = run_client(endpoint, keys, "unknown")
        until(lambda: "refuses this key" in client.output, "its log says so")
        shown += client.close()
    assert 5 == len(faults)
    everything = "\n".join([*faults, *shown, broker.output, *capfd.readouterr()])
    assert "its key is not allowed here" in broker.output
    for pair in ("unknown", "revoked", "victim"):
        assert keys.own(pair).own.secret.decode() not in everything
        assert keys.own(pair).own.public.decode() not in everything
    secret = (Path(keys.path) / "broker.key_secret").read_text()
    for key in re.findall(r'key = "(.{40})"', secret):
        assert key not in everything


class _Client:
    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output += line

    def close(self) -> list[str]:
        """End it; gives what others could see of it."""
        seen = psutil.Process(self._process.pid).cmdline()
        self._process.terminate()
        self._process.wait(DEADLINE_S)
        self._reader.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return [*seen, self.output]


_SCRIPT = """
import sys
from telemq.keys import load_link_keys
from telemq.client.link import ProducerLink
from telemq.log import configure
configure("debug", "json")
endpoint, key, broker_key = sys.argv[1:]
keys = load_link_keys(key, broker_key)
print(keys, repr(keys), flush=True)
link = ProducerLink(endpoint, name="client", window_records=1, window_bytes=1, keys=keys)
while True:
    link.poll(1)
"""


def run_client(endpoint: str, keys: Keys, name: str) -> _Client:
    """A producer's process with its logs, started as telemq's own are: keys by their files."""
    files = [str(keys.secret_file(name)), str(keys.broker_file)]
    return _Client([sys.executable, "-P", "-c", _SCRIPT, endpoint, *files], dict(os.environ))


def test_fault_26_replayed_hello_is_worth_nothing(keys: Keys) -> None:
    """Somebody recorded all that a client sent, and sends it again, byte for byte."""
    with running_broker(keys=keys.path) as broker:
        host, _, port = broker.producers.removeprefix("tcp://").rpartition(":")
        with _Recorder(host, int(port)) as recorder:
            link = producer_link(f"tcp://127.0.0.1:{recorder.port}", keys.own("producer"))
            with contextlib.closing(link):
                until(lambda: link.connected, "it is let in", lambda: link.poll(0.05))
        until(lambda: broker.stats.producers == 0, "it left")
        assert 1 == broker.stats.counters.sessions
        with (
            socket.create_connection((host, int(port)), timeout=DEADLINE_S) as replay,
            contextlib.suppress(ConnectionError),
        ):
            replay.sendall(recorder.recorded)
            while replay.recv(4096):
                pass
        assert b"CURVE" in recorder.recorded
        assert 1 == broker.stats.counters.sessions
        assert broker.door is not None
        until(lambda: broker.door and sum(broker.door.denied.values()) >= 1, "it was turned away")


class _Recorder:
    """A TCP proxy that keeps what its clients sent; a context manager."""

    def __init__(self, host: str, port: int) -> None:
        self._kept: list[bytearray] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._target = (host, port)
        self._threads = [threading.Thread(target=self._serve, daemon=True)]

    @property
    def recorded(self) -> bytes:
        """What one connection sent: the longest, since a link tries the address out first."""
        return bytes(max(self._kept, key=len))

    def __enter__(self) -> _Recorder:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE_S)
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                broker = socket.create_connection(self._target)
                self._kept.append(bytearray())
                for source, target, kept in (
                    (broker, client, bytearray()),
                    (client, broker, self._kept[-1]),
                ):
                    pump = threading.Thread(
                        target=self._pump, args=(source, target, kept), daemon=True
                    )
                    self._threads.append(pump)
                    pump.start()

    def _pump(self, source: socket.socket, target: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                kept += data
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        source.close()


def lend(broker: RunningBroker, keys: Keys, victim: KeyedPeer, producer: KeyedPeer) -> int:
    """Let a victim hold one message; gives its lease."""
    producer.hello()
    producer.say("WANT", 1, 1, 100, 1000)
    producer.hear("GRANT")
    producer.say("PUBLISH", "a#0", 1, "", {}, payload=b"x")
    victim.hello()
    victim.say("CREDIT", 10, 1000)
    lease: int = victim.hear("DELIVER")[3]
    return lease


def test_fault_27_stolen_session_settles_nothing(keys: Keys, broker: RunningBroker) -> None:
    """Another consumer, with a key of its own, has learnt a session and a lease."""
    with (
        KeyedPeer(broker.producers, "producer", keys.own("producer")) as producer,
        KeyedPeer(broker.consumers, "consumer", keys.own("victim")) as victim,
        KeyedPeer(broker.consumers, "consumer", keys.own("thief")) as thief,
    ):
        lease = lend(broker, keys, victim, producer)
        thief.send(["SETTLE", victim.session, 2, [[lease, "ok", ""]]])
        assert "no_session" == thief.hear("ERROR")[3]
        thief.hello()
        thief.send(["SETTLE", victim.session, 1, [[lease, "ok", ""]]])
        thief.say("SETTLE", [[lease, "ok", ""]])
        until(lambda: broker.stats.counters.stale_settles == 1, "its own settle was looked at")
        assert 0 == broker.stats.counters.settled
        victim.say("SETTLE", [[lease, "ok", ""]])
        producer.hear("CONFIRM")


def test_fault_27_stolen_routing_id_is_neither_heard_nor_hurts(
    keys: Keys, broker: RunningBroker
) -> None:
    """Somebody connects with the routing id of another, which libzmq lets them choose."""
    with (
        KeyedPeer(broker.producers, "producer", keys.own("producer")) as producer,
        KeyedPeer(broker.consumers, "consumer", keys.own("victim")) as victim,
    ):
        lease = lend(broker, keys, victim, producer)
        route = next(peer.route for peer in broker.peers() if peer.role == "consumer")
        with KeyedPeer(broker.consumers, "consumer", keys.own("thief"), route) as thief:
            thief.send(["SETTLE", victim.session, 2, [[lease, "ok", ""]]])
            thief.send_hello()
            assert thief.is_silent(0.5)
            assert 0 == broker.stats.counters.settled
            victim.hear("PING")
        victim.say("SETTLE", [[lease, "ok", ""]])
        producer.hear("CONFIRM")
        assert 1 == broker.stats.consumers


def test_fault_27_routing_id_of_one_that_is_gone_finds_no_session(
    keys: Keys, broker: RunningBroker
) -> None:
    """The victim's connection breaks, and the thief takes its place before anybody notices."""
    with KeyedPeer(broker.producers, "producer", keys.own("producer")) as producer:
        with KeyedPeer(broker.consumers, "consumer", keys.own("victim")) as victim:
            lease = lend(broker, keys, victim, producer)
            route = next(peer.route for peer in broker.peers() if peer.role == "consumer")
        with KeyedPeer(broker.consumers, "consumer", keys.own("thief"), route) as thief:
            thief.send(["SETTLE", victim.session, 2, [[lease, "ok", ""]]])
            assert "no_session" == thief.hear("ERROR")[3]
            assert 0 == broker.stats.counters.settled


def test_fault_27_routing_id_of_ones_own_choice_is_refused_by_name(
    keys: Keys, broker: RunningBroker
) -> None:
    """Two programs that chose the same name would be silenced by libzmq, one or the other."""
    own = keys.own("victim")
    with KeyedPeer(broker.consumers, "consumer", own, b"collector") as chooser:
        chooser.send_hello()
        error = chooser.hear("ERROR")
        assert "bad_message" == error[3]
        assert "routing id" in error[4]
    with running_broker() as plain, PlainPeer(plain.consumers, "consumer") as peer:
        peer.hello()


def test_fault_27_links_never_choose_a_routing_id(keys: Keys, broker: RunningBroker) -> None:
    """Telemq's own peers, with the same key and name, side by side."""
    links: list[ProducerLink | ConsumerLink] = []
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            link = consumer_link(broker.consumers, keys.own("victim"))
            links.append(stack.enter_context(contextlib.closing(link)))
        until(lambda: all(link.connected for link in links), "all are let in",
              lambda: [link.poll(0.02) for link in links])  # fmt: skip
        assert 3 == len({peer.route for peer in broker.peers()})
