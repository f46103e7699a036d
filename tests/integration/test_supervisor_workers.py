"""`telemq collect --workers 2`: processes side by side under one that watches them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_COLLECT = (sys.executable, "-P", "-m", "telemq_cli", "collect", "--workers=2")


@contextmanager
def _collect(out: Path, dsn: str) -> Iterator[subprocess.Popen[bytes]]:
    variables = {"TELEMQ_DSN": dsn, "TELEMQ_COLLECTOR_OPS_ADDRESS": "127.0.0.1:0"}
    with (
        out.open("wb") as file,
        subprocess.Popen(
            [*_COLLECT, "--broker=tcp://127.0.0.1:1"],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _workers(parent: int) -> list[int]:
    listing = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in listing.split()]


def _until_told(out: Path, what: str, times: int) -> None:
    until = time.monotonic() + 30
    while out.read_text().count(what) < times:
        assert time.monotonic() < until, out.read_text()
        time.sleep(0.02)


def test_workers_are_watched_and_drained(tmp_path: Path, dsn: str) -> None:
    """A pod with two workers loses one, and is then ended by Kubernetes."""
    out = tmp_path / "out"
    with _collect(out, dsn) as process:
        _until_told(out, '"postgres connected"', 2)
        before = _workers(process.pid)
        assert 2 == len(before)
        for pid in before:
            assert dsn.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        os.kill(before[0], signal.SIGKILL)
        _until_told(out, '"postgres connected"', 3)
        assert 2 == len(_workers(process.pid))
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(30)
        assert 2 == out.read_text().count('"collector stopped"')


def test_workers_do_not_outlive_their_parent(tmp_path: Path, dsn: str) -> None:
    """The parent gets a SIGKILL."""
    out = tmp_path / "out"
    with _collect(out, dsn) as process:
        _until_told(out, '"postgres connected"', 2)
        workers = _workers(process.pid)
        process.kill()
    until = time.monotonic() + 10
    while any(_lives(pid) for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
