"""Fault 19: the disk under the journal is full, fails, flips a bit; the broker dies in a write."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from telemq.client.link import ConsumerLink, ProducerLink
from tests.support.killable import KillableBroker, inspect_journal, killable_broker

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

_WITHIN_S = 30.0
SMALL = ("--message-bytes-max=65536", "--journal-segment-bytes=262144")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small tmpfs")
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this root may not mount a tmpfs")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


class Publisher:
    """A producer that publishes numbered messages of one size and forgets what is confirmed."""

    def __init__(self, broker: KillableBroker) -> None:
        self._link = ProducerLink(
            broker.producers, name="p", window_records=10_000, window_bytes=2**30
        )
        self.published: list[str] = []
        self.confirmed: set[str] = set()

    def publish(self, count: int, size_bytes: int) -> None:
        for _ in range(count):
            id = f"s#{len(self.published)}"
            self.published.append(id)
            self._link.publish(id, 1, (id.encode() + b" ") * (size_bytes // (len(id) + 1)))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Poll until something is so."""
        end = time.monotonic() + _WITHIN_S
        while not condition():
            assert time.monotonic() < end, f"it never came to this: {what}"
            self.confirmed.update(self._link.poll(0.02))

    def until_all_confirmed(self) -> None:
        self.until(lambda: len(self.confirmed) == len(self.published), "all are confirmed")

    def close(self) -> None:
        self._link.close()


def receive(broker: KillableBroker, wanted: set[str]) -> list[str]:
    """Take and settle until all that is wanted has come; gives the ids in order."""
    link = ConsumerLink(broker.consumers, name="c", credit_records=10**6, credit_bytes=2**30)
    ids: list[str] = []
    end = time.monotonic() + _WITHIN_S
    try:
        while not wanted <= set(ids):
            assert time.monotonic() < end, f"lost: {sorted(wanted - set(ids))}"
            deliveries = link.poll(0.1)
            for delivery in deliveries:
                assert bytes(delivery.payload).startswith(delivery.id.encode() + b" ")
            ids += [delivery.id for delivery in deliveries]
            link.settle(deliveries)
    finally:
        link.close()
    return ids


def test_fault_19_full_disk_stops_confirms_until_space_returns(small_disk: Path) -> None:
    """Somebody else fills the disk: producers wait, nothing is lost, and all goes on by itself."""
    with killable_broker(f"--journal={small_disk}", *SMALL) as broker:
        publisher = Publisher(broker)
        try:
            publisher.publish(100, 40_000)
            publisher.until(lambda: broker.metric("telemq_broker_journal_stalled"), "stalled")
            publisher.until(lambda: broker.get("/readyz")[0] == 503, "not ready")
            assert "No space left on device" in broker.get("/readyz")[1]
            assert 200 == broker.get("/healthz")[0]
            confirmed = set(publisher.confirmed)
            assert 10 <= len(confirmed) <= 50
            _, contents = inspect_journal(small_disk)
            assert confirmed <= {m["id"] for m in contents["messages"]}

            subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
            publisher.until_all_confirmed()
            publisher.until(lambda: broker.get("/readyz")[0] == 200, "ready again")
        finally:
            publisher.close()
        broker.kill()
        assert 0 == inspect_journal(small_disk)[0]
        broker.start()
        assert publisher.published == receive(broker, publisher.confirmed)


@pytest.mark.parametrize("code", ["EIO", "ENOSPC"])
def test_fault_19_failing_fsync_confirms_nothing_that_is_not_on_disk(
    code: str, tmp_path: Path
) -> None:
    """A disk reports an error once or a few times; the kernel may have dropped the pages."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not here")
    inject = f"inject=fdatasync:error={code}:when=3..6"
    wrap = ("strace", "-f", "--seccomp-bpf", "-o", str(tmp_path / "trace"))
    directory = tmp_path / "journal"
    with killable_broker(
        f"--journal={directory}", *SMALL, wrap=(*wrap, "-e", "trace=fdatasync", "-e", inject)
    ) as broker:
        publisher = Publisher(broker)
        try:
            while not broker.events("journal goes on"):
                publisher.publish(5, 1000)
                publisher.until_all_confirmed()
        finally:
            publisher.close()
        assert os.strerror(getattr(errno, code)) in str(broker.events("journal stalled"))
        broker.kill()
    assert "(INJECTED)" in (tmp_path / "trace").read_text()
    code_of_inspect, contents = inspect_journal(directory)
    assert 0 == code_of_inspect
    assert publisher.published == [m["id"] for m in contents["messages"]]
    with killable_broker(f"--journal={directory}", *SMALL) as broker:
        assert publisher.published == receive(broker, publisher.confirmed)


def test_fault_19_flipped_bit_costs_one_entry_and_is_reported(tmp_path: Path) -> None:
    """A disk gives back something else than was written to it."""
    flags = (f"--journal={tmp_path}", *SMALL)
    with killable_broker(*flags) as broker:
        _fill(broker, 20)
        broker.kill()
        data = _flip_a_bit(tmp_path, b"s#7 s#7")

        code, contents = inspect_journal(tmp_path)
        assert 1 == code
        assert 1 == contents["corrupt_entries"]
        damage = contents["segments"][0]["corrupt"][0]
        assert data.rindex(b"s#6", 0, data.index(b"s#7")) < damage["offset"] < data.index(b"s#7")

        broker.start()
        assert 1 == len(broker.events("journal entry corrupt and skipped"))
        assert 1 == broker.metric("telemq_broker_journal_corrupt_entries")
        rest = [f"s#{n}" for n in range(20) if n != 7]
        assert rest == receive(broker, set(rest))


def test_fault_19_torn_end_is_cut_and_the_rest_is_there(tmp_path: Path) -> None:
    """The machine stopped in the middle of a write."""
    flags = (f"--journal={tmp_path}", *SMALL)
    with killable_broker(*flags) as broker:
        _fill(broker, 20)
        broker.kill()
        path = next(tmp_path.glob("*.journal"))
        os.truncate(path, path.stat().st_size - 500)
        code, contents = inspect_journal(tmp_path)
        assert 0 == code
        assert contents["segments"][0]["torn"]["bytes"] > 0

        broker.start()
        assert 1 == len(broker.events("journal's torn end cut off"))
        rest = [f"s#{n}" for n in range(19)]
        assert rest == receive(broker, set(rest))


def test_fault_19_flipped_bit_in_a_pack_costs_no_other_entry(tmp_path: Path) -> None:
    """Messages that came in one frame are one entry: they are lost together, and no others."""
    with killable_broker(f"--journal={tmp_path}", *SMALL) as broker:
        _fill(broker, 30, together=10)
        broker.kill()
        _flip_a_bit(tmp_path, b"s#17 s#17")
        code, contents = inspect_journal(tmp_path)
        assert (1, 1) == (code, contents["corrupt_entries"])
        broker.start()
        rest = [f"s#{n}" for n in range(30) if not 10 <= n < 20]
        assert rest == receive(broker, set(rest))


def _flip_a_bit(directory: Path, text: bytes) -> bytes:
    """Flip one behind a text in the only segment; gives what is there now."""
    (path,) = directory.glob("*.journal")
    data = bytearray(path.read_bytes())
    data[data.index(text) + 50] ^= 0x10
    path.write_bytes(data)
    return bytes(data)


def _fill(broker: KillableBroker, count: int, together: int = 1) -> None:
    """Publish so many, and so many of them in one frame."""
    publisher = Publisher(broker)
    try:
        for _ in range(count // together):
            publisher.publish(together, 1000)
            publisher.until_all_confirmed()
    finally:
        publisher.close()
