"""A journal's directory belongs to one broker, is looked into by a command, and outlives both."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from telemq.broker.journal import Journal
from telemq.broker.journaled import JournaledCore
from telemq.broker.keeper import Keeper
from telemq.broker.metrics import BrokerMetrics
from telemq.broker.server import BrokerServer
from telemq.client.link import ConsumerLink, ProducerLink
from telemq.errors import BusyError, SettingError
from telemq.settings import BrokerSettings
from tests.support.brokers import running_broker, until
from tests.support.killable import inspect_journal
from tests.support.peers import LIMITS


def settings(directory: Path, **values: int) -> BrokerSettings:
    return BrokerSettings(
        producer_bind="tcp://127.0.0.1:*",
        consumer_bind="tcp://127.0.0.1:*",
        journal=str(directory),
        **values,  # type: ignore[arg-type]  # numbers of the journal
    )


def test_second_broker_on_one_journal_is_refused(tmp_path: Path) -> None:
    """Somebody starts the same service twice."""
    with (
        running_broker(journal=str(tmp_path)),
        pytest.raises(BusyError, match="another broker uses it"),
    ):
        BrokerServer(settings(tmp_path))
    BrokerServer(settings(tmp_path)).close()


def test_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """The flag names a file."""
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"--journal: .*/file.* a directory"):
        BrokerServer(settings(tmp_path / "file"))


def test_limit_below_four_segments_is_refused(tmp_path: Path) -> None:
    """The journal could not copy forward what holds up an old segment."""
    with pytest.raises(SettingError, match="--journal-bytes-max: 1048576 is not accepted"):
        BrokerServer(settings(tmp_path, journal_bytes_max=2**20))


def test_full_journal_holds_producers_back_until_consumers_settle(tmp_path: Path) -> None:
    """Nobody consumes for a while, and the disk is shared with others."""
    limit = 2**20
    with running_broker(
        journal=str(tmp_path),
        journal_segment_bytes=65_536,
        journal_bytes_max=limit,
        message_bytes_max=65_536,
    ) as broker:
        producer = ProducerLink(broker.producers, name="p", window_records=1000, window_bytes=10**8)
        consumer = ConsumerLink(broker.consumers, name="c", credit_records=5, credit_bytes=10**6)
        confirmed: list[str] = []
        received: list[str] = []
        most = 0

        def measure() -> None:
            nonlocal most
            with contextlib.suppress(FileNotFoundError):  # a segment went while we looked
                most = max(most, sum(p.stat().st_size for p in tmp_path.glob("*.journal")))

        def produce() -> None:
            confirmed.extend(producer.poll(0.01))
            measure()

        def consume() -> None:
            deliveries = consumer.poll(0.01)
            received.extend(d.id for d in deliveries)
            consumer.settle(deliveries)

        try:
            for n in range(100):
                producer.publish(f"s#{n}", 1, b"x" * 20_000)
            # More than this never fits: 2 MB are offered, 1 MB less two reserves is the room.
            until(lambda: len(confirmed) >= 20 and broker.stalled, "the journal is full", produce)
            assert len(confirmed) < 50
            until(lambda: len(confirmed) == 100, "all are confirmed", produce, consume)
            until(lambda: len(received) == 100, "all are received", consume, produce)
        finally:
            producer.close()
            consumer.close()
    assert most <= limit


def test_broker_ends_when_its_journal_has_a_fault_of_its_own(tmp_path: Path) -> None:
    """A mistake in the journal's thread must not leave a broker that never confirms."""
    server = BrokerServer(settings(tmp_path))
    link = ProducerLink(server.producer_endpoint, name="p", window_records=9, window_bytes=10**6)
    try:
        link.publish("s#0", 1, b"x")

        def step() -> None:
            link.poll(0.01)
            server.step(10)

        with (
            patch.object(Journal, "sync", side_effect=ValueError("a fault")),
            pytest.raises(ValueError, match="a fault"),
        ):
            until(lambda: False, "the broker ends", step)
    finally:
        link.close()
        with pytest.raises(ValueError, match="a fault"):
            server.close()


def test_metrics_tell_of_the_journal(tmp_path: Path) -> None:
    """An operator looks at a broker with a journal whose disk is full, and at one without."""
    core = JournaledCore(LIMITS, b"secret")
    keeper = Keeper(settings(tmp_path), core)
    keeper.close()
    stalled = replace(keeper.stats, stalled="no space", segments=3)
    metrics = BrokerMetrics(core.stats(), stalled)
    assert "the journal is stalled: no space" == metrics.not_ready()
    assert 1 == metrics.registry.get_sample_value("telemq_broker_journal_stalled")
    assert 3 == metrics.registry.get_sample_value("telemq_broker_journal_segments")
    assert 0 == metrics.registry.get_sample_value("telemq_broker_journal_syncs_total")
    without = BrokerMetrics(core.stats())
    assert without.not_ready() is None
    assert without.registry.get_sample_value("telemq_broker_journal_stalled") is None


def test_inspect_shows_what_a_running_broker_holds(tmp_path: Path) -> None:
    """Somebody wonders what is in the journal, and does not want to stop the broker."""
    with running_broker(journal=str(tmp_path)) as broker:
        link = ProducerLink(broker.producers, name="p", window_records=100, window_bytes=10**6)
        try:
            link.publish("s#0", 7, b"x" * 100)
            confirmed: list[str] = []
            until(lambda: confirmed, "confirmed", lambda: confirmed.extend(link.poll(0.05)))
        finally:
            link.close()
        code, contents = inspect_journal(tmp_path)
        assert 0 == code
        held = {"id": "s#0", "records": 7, "bytes": 100, "attempt": 0, "dead": ""}
        assert [held] == contents["messages"]
        assert [{"messages": 1}] == [s["entries"] for s in contents["segments"]]
        words = (sys.executable, "-P", "-m", "telemq_cli", "journal", "inspect", str(tmp_path))
        shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        last = "1 messages not settled, 7 records, 100 bytes, 0 corrupt entries"
        assert last == shown.splitlines()[-1]


def test_inspect_of_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    """A mistyped path must not look like an empty journal."""
    words = (sys.executable, "-P", "-m", "telemq_cli", "journal", "inspect", str(tmp_path))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert 2 == done.returncode
    assert "it must be a journal" in done.stderr
