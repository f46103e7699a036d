"""A broker as a process of its own, to be killed and started again at the same endpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from telemq.process import LIFELINE

__all__ = ["KillableBroker", "inspect_journal", "killable_broker"]

_WITHIN_S = 30.0


class KillableBroker:
    """One broker, in any number of lives; it ends with the test, however that ends.

    Args:
        scratch: for its sockets and its log; a short path.
        flags: of the command.
        wrap: words before the command, such as those of strace.

    Attributes:
        producers: endpoint.
        consumers: endpoint.
    """

    def __init__(self, scratch: Path, *flags: str, wrap: tuple[str, ...] = ()) -> None:
        self._flags = flags
        self._wrap = wrap
        self._log = scratch / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self.producers = f"ipc://{scratch}/p"
        self.consumers = f"ipc://{scratch}/c"

    def start(self) -> None:
        """Begin a life, and wait until it listens."""
        lifeline, self._lifeline = os.pipe()
        words = (
            *self._wrap,
            *(sys.executable, "-P", "-m", "telemq_cli", "broker", "--log-format=json"),
            f"--producer-bind={self.producers}",
            f"--consumer-bind={self.consumers}",
            "--ops-address=127.0.0.1:0",
            *self._flags,
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                words,
                stdout=log,
                stderr=log,
                pass_fds=(lifeline,),
                env={**os.environ, LIFELINE: str(lifeline)},
            )
        os.close(lifeline)
        end = time.monotonic() + _WITHIN_S
        while not self.events("broker listening"):
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.01)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Give the log lines of one event in this life."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line[:1] == "{"]
        return [line for line in lines if line["event"] == name]

    def kill(self) -> None:
        """End this life without a word, as SIGKILL does."""
        if self._process is None:
            return
        # The end of its lifeline is its end, too, when strace stands between.
        os.close(self._lifeline)
        if not self._wrap:
            self._process.kill()
        self._process.wait(_WITHIN_S)
        self._process = None

    def get(self, path: str) -> tuple[int, str]:
        """Ask the ops address; gives status and text."""
        address = self.events("broker listening")[0]["ops"]
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """Give the value of a metric without labels."""
        lines = self.get("/metrics")[1].splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


@contextmanager
def killable_broker(*flags: str, wrap: tuple[str, ...] = ()) -> Iterator[KillableBroker]:
    """Run a broker; at the end it is killed."""
    # Not pytest's directory: the path of a Unix socket has little more than 100 bytes.
    with tempfile.TemporaryDirectory(prefix="telemq-") as scratch:
        broker = KillableBroker(Path(scratch), *flags, wrap=wrap)
        try:
            broker.start()
            yield broker
        finally:
            broker.kill()


def inspect_journal(directory: Path) -> tuple[int, dict[str, Any]]:
    """Run ``telemq journal inspect``; gives the exit code and what it printed."""
    words = (sys.executable, "-P", "-m", "telemq_cli", "journal", "inspect", "--json")
    done = subprocess.run([*words, str(directory)], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)
