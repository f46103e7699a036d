"""telemq's services as processes of their own, to be stopped, killed and looked at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from telemq.process import LIFELINE

__all__ = ["Service", "running_broker_process", "running_service"]

_WITHIN_S = 30.0


class Service:
    """One process, its log lines, metrics and memory."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path) -> None:
        self.process = process
        self._out = out

    def events(self, name: str) -> list[dict[str, Any]]:
        """Give the log lines of one event so far."""
        lines = [json.loads(line) for line in self._out.read_text().splitlines() if line[:1] == "{"]
        return [line for line in lines if line["event"] == name]

    def output(self) -> str:
        """Give all that it has written so far."""
        return self._out.read_text()

    def event(self, name: str) -> dict[str, Any]:
        """Wait for the first line of an event."""
        end = time.monotonic() + _WITHIN_S
        while not (found := self.events(name)):
            assert self.process.poll() is None, self._out.read_text()
            assert time.monotonic() < end, f"no {name!r}: {self._out.read_text()}"
            time.sleep(0.01)
        return found[0]

    def metric(self, name: str) -> float:
        """Read a metric at the ops address: of a name with labels, or the sum over all labels."""
        ops = next(line["ops"] for line in self._started() if "ops" in line)
        with urllib.request.urlopen(f"http://{ops}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        heads = (f"{name} ", f"{name}{{")
        return sum(float(line.split()[-1]) for line in lines if line.startswith(heads))

    def rss_bytes(self) -> int:
        """Give its resident size."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def descriptors(self) -> int:
        """Count its open descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def pause(self) -> None:
        """Stop it in the middle of whatever it does."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait()

    def _started(self) -> list[dict[str, Any]]:
        started = ("broker listening", "collector started", "gateway listens")
        return [line for name in started for line in self.events(name)]


@contextlib.contextmanager
def running_service(*words: str, **env: str) -> Iterator[Service]:
    """Run ``telemq WORDS``; it ends with the block, or with the process of the tests."""
    read_end, write_end = os.pipe()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        with out.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "telemq_cli", *words, "--log-format=json"],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, LIFELINE: str(read_end), **env},
                pass_fds=[read_end],
            )
        os.close(read_end)
        try:
            yield Service(process, out)
        finally:
            process.kill()
            process.wait()
            os.close(write_end)


@contextlib.contextmanager
def running_broker_process(
    *words: str, producers: str = "tcp://127.0.0.1:*", consumers: str = "tcp://127.0.0.1:*"
) -> Iterator[tuple[Service, str, str]]:
    """Run a broker; yields it and its endpoints for producers and consumers."""
    binds = (f"--producer-bind={producers}", f"--consumer-bind={consumers}")
    with running_service("broker", *binds, "--ops-address=127.0.0.1:0", *words) as service:
        line = service.event("broker listening")
        yield service, line["producers"], line["consumers"]
