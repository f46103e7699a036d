"""The values of ``--broker`` and ``--engine``: what is accepted, and that no secret shows."""

from __future__ import annotations

import importlib

import pytest

from telemq.engine import select
from telemq.engine.natsurl import NatsUrl
from telemq.engine.resolve import addresses, endpoints_of, is_followed
from telemq.errors import SettingError
from telemq.settings import CollectorSettings, StreamerSettings


def test_endpoints_are_split_at_commas() -> None:
    """Two brokers in one variable."""
    assert ("tcp://a:1", "ipc:///x") == endpoints_of("tcp://a:1, ipc:///x")


@pytest.mark.parametrize("text", ["", "tcp://a:1,", "tcp://a:1,tcp://a:1"])
def test_list_with_nothing_or_the_same_in_it_is_refused(text: str) -> None:
    """A broker that counts twice would get twice the work."""
    with pytest.raises(SettingError, match="--broker"):
        endpoints_of(text)


@pytest.mark.parametrize(
    ("endpoint", "followed"),
    [
        ("tcp://broker.ns.svc:5601", True),
        ("tcp://localhost:5601", True),
        ("tcp://10.0.0.1:5601", False),
        ("tcp://[::1]:5601", False),
        ("ipc:///run/telemq", False),
    ],
)
def test_only_names_are_followed(endpoint: str, followed: bool) -> None:
    """A number means one broker for ever."""
    assert followed == is_followed(endpoint)


def test_host_with_both_families_is_one_broker() -> None:
    """The name localhost is 127.0.0.1 and ::1 nearly everywhere."""
    assert ["127.0.0.1"] == addresses("localhost")


def test_nats_url_is_taken_apart() -> None:
    """Three servers, one with a port of its own, and a password with an @ in it."""
    url = NatsUrl.parse("nats://me:p%40ss@a,b:5222,[::1]/fleet_1")
    assert ("nats://a:4222", "nats://b:5222", "nats://[::1]:4222") == url.servers
    assert ("fleet_1", "me", "p@ss") == (url.stream, url.user, url.password)
    assert "nats://a:4222,b:5222,[::1]:4222/fleet_1" == url.shown
    assert "p@ss" not in repr(url)


@pytest.mark.parametrize(
    "text",
    ["nats://hunter2@/S", "nats://u:hunter2@a/", "nats://u:hunter2@a/S T", "nats:/u:hunter2@a/S"],
)
def test_malformed_url_is_refused_without_its_password(text: str) -> None:
    """A typing error beside the password."""
    with pytest.raises(SettingError, match="--engine") as caught:
        select.open_producer(StreamerSettings(engine=text), name="test")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(StreamerSettings(engine=text))


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody installed telemq without NATS."""

    def missing(_: str) -> None:
        raise ModuleNotFoundError("No module named 'nats'", name="nats")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SettingError, match=r"pip install 'telemq\[nats\]'"):
        select.open_consumer(CollectorSettings(engine="nats://a/S"), name="test")
