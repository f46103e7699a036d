"""A real `telemq up` as a process, what it logs, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from telemq.store.embedded import EmbeddedPostgres

__all__ = ["UP", "Up", "counts", "processes_of", "running_up", "wait_until_gone"]

UP = (sys.executable, "-P", "-m", "telemq_cli", "up", "--api-port=0", "--log-format=json")
_WITHIN_S = 60.0
#: What a killed streamer held is taken over after this, not after the default's 15 s.
_SOON = {"TELEMQ_STREAMER_LEASE_S": "2"}


class Up:
    """One `telemq up` as a process of its own, and what it logs."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path) -> None:
        self.process = process
        self._out = out

    def events(self, name: str) -> list[dict[str, Any]]:
        """Give the log lines of one event so far."""
        lines = [json.loads(line) for line in self._out.read_text().splitlines() if line[:1] == "{"]
        return [line for line in lines if line["event"] == name]

    def event(self, name: str) -> dict[str, Any]:
        """Wait for the first line of an event."""
        self.until(lambda: bool(self.events(name)))
        return self.events(name)[0]

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is so, while this runs."""
        until = time.monotonic() + _WITHIN_S
        while not true():
            assert time.monotonic() < until, self._out.read_text()
            assert self.process.poll() is None or true(), self._out.read_text()
            time.sleep(0.02)

    def wait(self) -> int:
        """Wait for its end; gives the exit code."""
        return self.process.wait(_WITHIN_S)

    def pids(self) -> dict[str, int]:
        """Give the newest process of each child."""
        return {line["child"]: line["pid"] for line in self.events("child started")}


@contextlib.contextmanager
def running_up(data_dir: Path, *words: str, **env: str) -> Iterator[Up]:
    # Beside the data directory: what is not empty and not telemq's is refused.
    out = data_dir.parent / f"out-{time.monotonic_ns()}"
    with (
        out.open("wb") as file,
        subprocess.Popen(
            [*UP, f"--data-dir={data_dir}", *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_SOON, **env},
        ) as process,
    ):
        try:
            yield Up(process, out)
        finally:
            process.kill()


def counts(data_dir: Path) -> tuple[int, int]:
    with EmbeddedPostgres(data_dir) as dsn, psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM telemetry), (SELECT sum(row_count) FROM ledger)"
        ).fetchone()
        assert row is not None
        return row[0], row[1]


def processes_of(data_dir: Path) -> dict[int, str]:
    """Find the processes that know of a data directory, by their words or environment."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / "cmdline").read_bytes()
            known = words + (directory / "environ").read_bytes()
            if bytes(data_dir) in known and int(directory.name) != os.getpid():
                found[int(directory.name)] = words.replace(b"\0", b" ").decode()
    return found


def wait_until_gone(data_dir: Path) -> None:
    until = time.monotonic() + 10
    while left := processes_of(data_dir):
        assert time.monotonic() < until, left
        time.sleep(0.02)
