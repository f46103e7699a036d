"""`telemq up` on a real terminal: the panel, Ctrl-C as a key, and what is left on the screen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

# The terminal becomes the controlling one, so that its Ctrl-C sends SIGINT to the whole group.
_ATTACH = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
_CTRL_C = b"\x03"
_SHOW_CURSOR, _HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


class Terminal:
    """The other side of a terminal: keys go in, what is drawn comes out."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._drawn = b""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self._master, key)

    def raw(self) -> str:
        """Give all that was drawn so far, control sequences included."""
        return self._drawn.decode(errors="replace")

    def until_shows(self, pattern: str) -> str:
        """Wait until it shows what matches; gives what matched."""
        until = time.monotonic() + 60
        while not (found := re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw()))):
            assert time.monotonic() < until, self.raw()
            time.sleep(0.02)
        return found[0]

    def _read(self) -> None:
        # When the last process of it has ended, Linux answers with EIO.
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 65_536):
                self._drawn += data


@contextlib.contextmanager
def _up(data_dir: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 45, 120, 0, 0))
    up = ("-P", "-m", "telemq_cli", "up", "--api-port=0", f"--data-dir={data_dir}", *words)
    process = subprocess.Popen(
        [sys.executable, "-c", _ATTACH, *up],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(slave)
    terminal = Terminal(master)
    with process:
        try:
            yield process, terminal
        finally:
            process.kill()
    terminal.thread.join(10)
    os.close(master)


def test_ctrl_c_drains_and_leaves_a_report(tmp_path: Path) -> None:
    """Somebody tries telemq, watches it for a while, and ends it."""
    with _up(tmp_path / "data", "--rate=5000") as (process, terminal):
        terminal.until_shows(r"stored +[1-9][0-9,]* +[0-9,]+ since the start")
        terminal.until_shows(r"dashboard +http://127\.0\.0\.1:\d+/ ")
        terminal.until_shows(r"http://127\.0\.0\.1:\d+/swagger")
        terminal.press(_CTRL_C)
        terminal.until_shows(r"ended +stopped, after")
        terminal.until_shows(r"verify +complete")
        assert 0 == process.wait(30)
    # Ctrl-C reached the supervisor alone: no child died of it.
    assert "child died" not in terminal.raw()
    assert terminal.raw().rindex(_SHOW_CURSOR) > terminal.raw().rindex(_HIDE_CURSOR)


def test_second_ctrl_c_gives_the_cursor_back(tmp_path: Path) -> None:
    """The drain takes too long for whoever waits."""
    with _up(tmp_path / "data", "--rate=5000") as (process, terminal):
        pid = int(terminal.until_shows(r"collector-1 +running +\d+").split()[-1])
        # A collector that does not move makes the drain last.
        os.kill(pid, signal.SIGSTOP)
        terminal.until_shows(r"with 1 streamers")
        terminal.press(_CTRL_C)
        terminal.until_shows(r"draining (streamer|collector)")
        terminal.press(_CTRL_C)
        assert 130 == process.wait(30)
        os.kill(pid, signal.SIGCONT)
    assert terminal.raw().rindex(_SHOW_CURSOR) > terminal.raw().rindex(_HIDE_CURSOR)
