"""Keys on real sockets: who gets in, who does not, and what each is told."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from prometheus_client import generate_latest

from telemq.broker.core import BrokerCore
from telemq.broker.descriptors import ensure_descriptors
from telemq.broker.door import DoorStats
from telemq.broker.metrics import BrokerMetrics
from telemq.broker.server import BrokerServer
from telemq.client.link import ConsumerLink, ProducerLink
from telemq.client.session import Delivery
from telemq.errors import SettingError
from telemq.keys import KeyRole, LinkKeys
from telemq.settings import BrokerSettings
from tests.support.brokers import PlainPeer, RunningBroker, running_broker, until
from tests.support.keys import KeyedPeer, Keys, consumer_link, fault_of, producer_link
from tests.support.peers import LIMITS


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """A broker's keys; those of some peers are allowed before it starts."""
    keys = Keys(tmp_path)
    for name in ("producer", "producer-2"):
        keys.peer(name, "producer")
    for name in ("consumer", "consumer-2"):
        keys.peer(name, "consumer")
    keys.peer("admin", "admin")
    return keys


@pytest.fixture
def broker(keys: Keys) -> Iterator[RunningBroker]:
    """A broker with keys."""
    with running_broker(keys=keys.path, heartbeat_s=1.0) as broker:
        yield broker


def denied(broker: RunningBroker, reason: str) -> int:
    assert broker.door is not None
    return broker.door.denied[reason]


def connect(link: ProducerLink | ConsumerLink) -> None:
    until(lambda: link.connected, "it is let in", lambda: link.poll(0.05))


def test_allowed_peers_publish_and_consume(keys: Keys, broker: RunningBroker) -> None:
    """All is as without keys, for those who have one."""
    with (
        contextlib.closing(producer_link(broker.producers, keys.own("producer"))) as producer,
        contextlib.closing(consumer_link(broker.consumers, keys.own("consumer"))) as consumer,
    ):
        producer.publish("a#0", 1, b"x" * 40_000)
        got: list[Delivery] = []
        until(lambda: got, "it is delivered", lambda: producer.poll(0.02),
              lambda: got.extend(consumer.poll(0.02)))  # fmt: skip
        assert b"x" * 40_000 == bytes(got[0].payload)
        consumer.settle(got)
        assert {"producer", "consumer"} == {peer.key.partition("/")[0] for peer in broker.peers()}
        until(lambda: not producer.unconfirmed(), "it is confirmed", lambda: producer.poll(0.02),
              lambda: consumer.poll(0.02))  # fmt: skip


@pytest.mark.parametrize("role", ["producer", "consumer", "admin"])
def test_key_is_good_for_its_own_endpoint_only(
    keys: Keys, broker: RunningBroker, role: KeyRole
) -> None:
    """A stolen producer's key must not read what others publish, and the reverse."""
    own = keys.own(role)
    for endpoint, link in (
        ("producer", producer_link(broker.producers, own)),
        ("consumer", consumer_link(broker.consumers, own)),
    ):
        with contextlib.closing(link):
            if role in (endpoint, "admin"):
                connect(link)
            else:
                assert "for the other role" in fault_of(link, "refuses this key")
                until(lambda: denied(broker, "wrong_role"), "it is counted")
                assert not link.refused, "it must come in by itself once its key is allowed"


def test_unknown_key_is_let_in_as_soon_as_it_is_allowed(keys: Keys, broker: RunningBroker) -> None:
    """A node is set up before the operator has allowed it; neither side is started again."""
    with contextlib.closing(producer_link(broker.producers, keys.make("new", "producer"))) as link:
        fault_of(link, "refuses this key (not allowed, revoked, or for the other role)")
        assert 1 <= denied(broker, "unknown_key")
        keys.allow("new")
        connect(link)


def test_peer_without_a_key_is_told_to_use_one(broker: RunningBroker) -> None:
    """Somebody forgot --key, or has none."""
    with contextlib.closing(producer_link(broker.producers, None)) as link:
        fault_of(link, "lets nobody in without a key: set --key and --broker-key")
    # Which of both ends notices first is a matter of luck: the broker may only see it go.
    until(lambda: denied(broker, "no_key") + denied(broker, "handshake"), "it is counted")
    with PlainPeer(broker.producers, "producer") as plain:
        plain.send_hello()
        assert not plain._socket.poll(300)
    assert 0 == broker.stats.producers


def test_peer_with_another_brokers_key_is_told(keys: Keys, broker: RunningBroker) -> None:
    """The broker was given new keys, or the peer the wrong address."""
    own = keys.own("producer")
    wrong = LinkKeys(own.own, zmq.curve_keypair()[0])
    with contextlib.closing(producer_link(broker.producers, wrong)) as link:
        fault_of(link, "--broker-key is not its key")
    until(lambda: denied(broker, "wrong_broker_key"), "it is counted")


def test_peer_with_a_key_does_not_talk_to_a_broker_without(keys: Keys) -> None:
    """Somebody else listens at the broker's address."""
    with (
        running_broker() as broker,
        contextlib.closing(producer_link(broker.producers, keys.own("producer"))) as link,
    ):
        # Both ends see that they do not match; if the broker hangs up first, that is all we see.
        fault_of(link, "the broker has no keys", "it has no keys")
        assert 0 == broker.stats.counters.sessions


def test_revoked_consumer_loses_its_messages_and_its_say(keys: Keys, broker: RunningBroker) -> None:
    """A machine is stolen: what it holds goes to another, and its connection is not heard."""
    with (
        KeyedPeer(broker.producers, "producer", keys.own("producer")) as producer,
        KeyedPeer(broker.consumers, "consumer", keys.own("consumer")) as stolen,
        KeyedPeer(broker.consumers, "consumer", keys.own("consumer-2")) as other,
        KeyedPeer(broker.consumers, "consumer", keys.make("late", "consumer")) as late,
    ):
        producer.hello()
        producer.say("WANT", 1, 1, 100, 1000)
        producer.hear("GRANT")
        stolen.hello()
        stolen.say("CREDIT", 100, 1000)
        producer.say("PUBLISH", "a#0", 1, "", {}, payload=b"x")
        lease = stolen.hear("DELIVER")[3]
        other.hello()
        other.say("CREDIT", 100, 1000)
        keys.directory.revoke("consumer")
        assert "denied" == stolen.hear("ERROR")[3]
        assert [2, "a#0"] == other.hear("DELIVER")[5:7]
        stolen.say("SETTLE", [[lease, "ok", ""]])
        stolen.send_hello()
        until(lambda: broker.door and broker.door.unheard >= 2, "it was not heard")
        assert stolen.is_silent(0.2)
        assert (1, 0) == (broker.stats.leased_messages, broker.stats.counters.settled)
        # Another key under the same name opens no door to the old connection.
        keys.directory.allow(keys.make_again("consumer", "consumer"))
        until(lambda: broker.door and broker.door.allowed_keys == 5, "the new key is known")
        stolen.send_hello()
        until(lambda: broker.door and broker.door.unheard >= 3, "it was not heard")
        with contextlib.suppress(zmq.Again):
            late.send_hello()
        assert late.is_silent(0.2)


def test_revoked_link_ends_for_good_and_cannot_come_back(keys: Keys, broker: RunningBroker) -> None:
    """The process of a revoked key ends, and is started again by its supervisor."""
    own = keys.own("consumer")

    def is_refused(link: ConsumerLink) -> bool:
        return link.refused

    with contextlib.closing(consumer_link(broker.consumers, own)) as link:
        connect(link)
        keys.directory.revoke("consumer")
        until(lambda: is_refused(link), "it is refused", lambda: link.poll(0.05))
        assert "denied: this key is not allowed here any more" in link.fault
    until(lambda: broker.stats.consumers == 0, "its session is over")
    with contextlib.closing(consumer_link(broker.consumers, own)) as again:
        fault_of(again, "refuses this key")


def test_revoked_producers_credit_returns(keys: Keys) -> None:
    """Room must not stay with a producer that is not heard any more."""
    with (
        running_broker(keys=keys.path, capacity_records=10) as broker,
        KeyedPeer(broker.producers, "producer", keys.own("producer")) as producer,
    ):
        producer.hello()
        producer.say("WANT", 10, 1, 10, 1000)
        producer.hear("GRANT")
        until(lambda: broker.stats.granted_records == 10, "it has all credit")
        keys.directory.revoke("producer")
        until(lambda: broker.stats.granted_records == 0, "its credit is back")
        assert 0 == broker.stats.producers


def test_role_that_is_changed_ends_only_what_it_forbids(keys: Keys, broker: RunningBroker) -> None:
    """An admin becomes a producer."""
    own = keys.own("admin")
    with (
        KeyedPeer(broker.producers, "producer", own) as producer,
        KeyedPeer(broker.consumers, "consumer", own) as consumer,
    ):
        producer.hello()
        consumer.hello()
        keys.allow("admin", "producer")
        assert "denied" == consumer.hear("ERROR")[3]
        assert ["producer"] == [peer.role for peer in broker.peers()]


def test_corrupt_allow_list_closes_the_door_to_that_key_only(
    keys: Keys, broker: RunningBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file is damaged while the broker runs."""
    with (
        KeyedPeer(broker.producers, "producer", keys.own("producer")) as good,
        KeyedPeer(broker.producers, "producer", keys.own("producer-2")) as bad,
    ):
        good.hello()
        bad.hello()
        (keys.directory.allowed / "producer-2.key").write_text("nonsense")
        assert "denied" == bad.hear("ERROR")[3]
        assert ["producer"] == [peer.key.partition("/")[0] for peer in broker.peers()]
    assert "key file not used" in capsys.readouterr().out


def test_directory_that_fails_ends_nobodys_session(keys: Keys, broker: RunningBroker) -> None:
    """The disk with the keys is gone for a moment."""
    with KeyedPeer(broker.producers, "producer", keys.own("producer")) as producer:
        producer.hello()
        away = keys.directory.allowed.rename(keys.directory.path / "away")
        producer.hear("PING")
        until(lambda: broker.stats.producers == 1, "it is still there")
        away.rename(keys.directory.allowed)
        keys.directory.revoke("producer")
        assert "denied" == producer.hear("ERROR")[3]


def test_address_that_others_reach_needs_keys(keys: Keys, tmp_path: Path) -> None:
    """Anybody in the network could publish."""
    everywhere: dict[str, Any] = {
        "producer_bind": "tcp://0.0.0.0:*",
        "consumer_bind": "tcp://127.0.0.1:*",
    }
    with pytest.raises(SettingError, match="unless --keys or --insecure is given"):
        BrokerServer(BrokerSettings(**everywhere))
    with pytest.raises(SettingError, match="--keys"):
        BrokerServer(BrokerSettings(keys=str(tmp_path / "none"), **everywhere))
    BrokerServer(BrokerSettings(keys=keys.path, **everywhere)).close()


def test_four_hundred_silent_connections_lock_nobody_out(keys: Keys, broker: RunningBroker) -> None:
    """Somebody connects again and again and says nothing."""
    host, _, port = broker.producers.removeprefix("tcp://").rpartition(":")
    own = keys.own("producer")
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(socket.create_connection((host, int(port))))
        link = stack.enter_context(contextlib.closing(producer_link(broker.producers, own)))
        connect(link)
        until(lambda: denied(broker, "handshake") >= 400, "the silent ones are cut off")


def test_metrics_tell_who_was_let_in_and_who_was_not() -> None:
    """An operator's alert: somebody tries keys."""
    metrics = BrokerMetrics(BrokerCore(LIMITS, b"secret").stats())
    assert "denied" not in generate_latest(metrics.registry).decode()
    metrics.door = DoorStats(3, {"unknown_key": 7}, 2)
    shown = generate_latest(metrics.registry).decode()
    assert 'telemq_broker_denied_handshakes_total{reason="unknown_key"} 7.0' in shown
    assert "telemq_broker_allowed_keys 3.0" in shown
    assert "telemq_broker_revoked_messages_total 2.0" in shown


def test_too_few_descriptors_are_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system's limit is lower than --peers-max: connections would be left in the queue."""
    limits = [(256, 5000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    assert ensure_descriptors(4096)
    assert (4352, 5000) == limits[-1]
    assert not ensure_descriptors(10_000)
    assert (5000, 5000) == limits[-1]
    assert "too few file descriptors for --peers-max" in capsys.readouterr().out
