"""`telemq up` for real: every process of it, its own Postgres, and what ends it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from telemq.store.embedded import EmbeddedPostgres
from tests.support.commands import telemq
from tests.support.up import UP, Up, counts, running_up, wait_until_gone

pytestmark = pytest.mark.e2e


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_rows_are_stored_and_it_ends_by_itself(data_dir: Path) -> None:
    """The first thing a newcomer runs, and then again."""
    with running_up(data_dir, "--rows=20000", "--streamers=2", "--collectors=2") as up:
        assert 0 == up.wait()
        report = up.event("report")
    assert (20_000, "rows stored", True, 0) == (
        report["stored"],
        report["ended"],
        report["complete"],
        report["restarts"],
    )
    with running_up(data_dir, "--rows=25000") as up:
        assert 0 == up.wait()
        report = up.event("report")
    assert (5000, 25_000) == (report["stored"], report["stored_all"])
    assert (25_000, 25_000) == counts(data_dir)
    wait_until_gone(data_dir)


def test_interrupt_drains_and_gives_leases_back(data_dir: Path) -> None:
    """Ctrl-C in the middle: all that was read is stored, and nothing is left leased."""
    with running_up(data_dir, "--rate=5000") as up:
        _until_stored(up)
        up.process.send_signal(signal.SIGINT)
        assert 0 == up.wait()
        report = up.event("report")
    assert report["complete"] is True
    assert report["stored"] > 0
    with EmbeddedPostgres(data_dir) as dsn, psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT next_row, (SELECT sum(row_count) FROM ledger),"
            " (SELECT count(*) FROM stream_lease WHERE leased_until > now()) FROM stream_progress"
        ).fetchone()
    assert row is not None
    reserved, stored, held = row
    assert 0 == held
    assert stored <= reserved
    wait_until_gone(data_dir)


def test_top_finds_the_broker_of_a_running_up(data_dir: Path) -> None:
    """Ports were picked; in a second terminal nobody wants to look them up."""
    with running_up(data_dir, "--rate=5000") as up:
        _until_stored(up)
        assert 0o600 == (data_dir / "up.json").stat().st_mode & 0o777
        got = telemq("top", "--once", "--json", "--interval-s=1", f"--data-dir={data_dir}")
        assert (0, "") == (got.returncode, got.stderr)
        shown = json.loads(got.stdout)
        assert {"producer", "consumer"} == {p["role"] for p in shown["brokers"][0]["peers"]}
        assert shown["totals"]["settled_per_s"] > 0
        up.process.send_signal(signal.SIGINT)
        assert 0 == up.wait()
    assert not (data_dir / "up.json").exists()


def test_time_is_over(data_dir: Path) -> None:
    """A demonstration of some seconds."""
    with running_up(data_dir, "--for=3s") as up:
        assert 0 == up.wait()
        report = up.event("report")
    assert ("time over", True) == (report["ended"], report["complete"])
    assert report["lived_s"] >= 3


def test_second_interrupt_ends_everything_at_once(data_dir: Path) -> None:
    """The drain takes too long for whoever waits."""
    with running_up(data_dir, "--rate=5000") as up:
        _until_stored(up)
        # A collector that does not move makes the drain last.
        os.kill(up.pids()["collector-1"], signal.SIGSTOP)
        up.process.send_signal(signal.SIGINT)
        time.sleep(0.2)  # the kernel makes one of two equal signals that are pending
        up.process.send_signal(signal.SIGINT)
        assert 128 + signal.SIGINT == up.wait()
        os.kill(up.pids()["collector-1"], signal.SIGCONT)
    wait_until_gone(data_dir)


def test_nothing_outlives_a_kill_and_the_next_start_goes_on(data_dir: Path) -> None:
    """The machine runs out of memory and the kernel takes the supervisor."""
    with running_up(data_dir, "--rate=5000", "--streamers=2") as up:
        _until_stored(up)
        up.process.kill()
        up.wait()
        wait_until_gone(data_dir)
    # Leases of the killed streamers have to run out first.
    with running_up(data_dir, "--rows=30000", "--streamers=2") as up:
        assert 0 == up.wait()
        assert up.event("report")["complete"] is True
    assert (30_000, 30_000) == counts(data_dir)


def test_killed_parts_are_replaced_and_nothing_is_lost(data_dir: Path) -> None:
    """Each kind of process is killed once, Postgres too."""
    words = ("--rows=40000", "--rate=8000", "--streamers=2", "--collectors=2")
    with running_up(data_dir, *words) as up:
        _until_stored(up)
        for name in ("collector-1", "streamer-1", "broker", "api", "maintain"):
            os.kill(up.pids()[name], signal.SIGKILL)
            up.until(lambda name=name: name in _restarted(up))  # type: ignore[misc] # bound now
        server = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(server, signal.SIGKILL)
        assert 0 == up.wait()
        report = up.event("report")
    assert report["restarts"] >= 6
    assert (40_000, True) == (report["stored"], report["complete"])
    assert (40_000, 40_000) == counts(data_dir)


def test_somebody_s_sigterm_to_streamers_is_not_the_end(data_dir: Path) -> None:
    """An administrator ends the streamers by hand, before all rows are stored."""
    with running_up(data_dir, "--rows=20000", "--rate=5000", "--streamers=2") as up:
        _until_stored(up)
        for name in ("streamer-1", "streamer-2"):
            os.kill(up.pids()[name], signal.SIGTERM)
        assert 0 == up.wait()
        assert 20_000 == up.event("report")["stored"]


def test_second_up_in_the_same_directory_is_refused_by_pid(data_dir: Path) -> None:
    """Somebody forgot that it runs in another window."""
    with running_up(data_dir) as first:
        first.event("starting")
        second = subprocess.run(
            [*UP, f"--data-dir={data_dir}"], capture_output=True, text=True, check=False
        )
        assert 2 == second.returncode
        assert str(data_dir) in second.stderr
        assert str(first.process.pid) in second.stderr


def test_second_up_with_a_dsn_is_refused_too(data_dir: Path, dsn: str) -> None:
    """Two runs would write to the same log files."""
    with running_up(data_dir, TELEMQ_DSN=dsn) as first:
        first.event("starting")
        second = subprocess.run(
            [*UP, f"--data-dir={data_dir}"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "TELEMQ_DSN": dsn},
        )
        assert 2 == second.returncode
        assert f"pid {first.process.pid}" in second.stderr


def test_somebody_s_own_database(data_dir: Path, dsn: str) -> None:
    """A Postgres of one's own: nothing is started, and the DSN is in nobody's arguments."""
    with running_up(data_dir, "--rate=2000", TELEMQ_DSN=dsn) as up:
        api = up.event("starting")["api"]
        up.until(lambda: len(up.pids()) == 5)
        argv = b"".join(Path(f"/proc/{p}/cmdline").read_bytes() for p in up.pids().values())
        assert dsn.encode() not in argv
        up.until(lambda: _gpus(api) > 0)
        up.process.send_signal(signal.SIGTERM)
        assert 0 == up.wait()
        assert up.event("report")["complete"] is True
    assert not (data_dir / "postgres").exists()


def test_port_that_is_taken_later_ends_it_with_its_name(data_dir: Path, dsn: str) -> None:
    """The gateway's port is free at the start and taken while it restarts."""
    with running_up(data_dir, TELEMQ_DSN=dsn) as up:
        api = up.event("starting")["api"].removeprefix("http://")
        up.until(lambda: _gpus(f"http://{api}") >= 0)
        host, port = api.split(":")
        pid = up.pids()["api"]
        os.kill(pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        with _listen(host, int(port)):
            assert 2 == up.wait()
        assert "api does not start" in up._out.read_text()


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[None]:
    """Take a port as soon as it is free."""
    until = time.monotonic() + 10
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                taker.bind((host, port))
                break
            except OSError:
                assert time.monotonic() < until
        taker.listen()
        yield


def _gpus(api: str) -> int:
    """Give how many GPUs the gateway lists, or -1 while it does not answer."""
    connection = http.client.HTTPConnection(api.removeprefix("http://"), timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/api/v1/gpus")
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return -1
    return len(json.loads(body)) if answer.status == 200 else -1


def _restarted(up: Up) -> set[str]:
    started = [line["child"] for line in up.events("child started")]
    return {name for name in started if started.count(name) > 1}


def _until_stored(up: Up) -> None:
    """Wait until the first records are in the database."""
    api = up.event("starting")["api"]
    up.until(lambda: _gpus(api) > 0)
