"""A command on a terminal of its own: what a person would see of it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Self

__all__ = ["Terminal"]

_DEADLINE_S = 30.0


class Terminal:
    """Runs a command of telemq on a pseudo terminal; a context manager.

    Args:
        words: of the command.
        columns: of the terminal.
        lines: of the terminal.
        command: what runs instead of telemq.
        env: variables besides those of this process.
    """

    def __init__(
        self,
        *words: str,
        columns: int = 120,
        lines: int = 30,
        command: tuple[str, ...] = (),
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.text = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        own = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES", "NO_COLOR"}}
        self.process = subprocess.Popen(
            [*(command or (sys.executable, "-P", "-m", "telemq_cli")), *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**own, "TERM": "xterm", **env},
            start_new_session=True,
        )
        os.close(theirs)

    def until(self, *wanted: bytes) -> bytes:
        """Read until all of that was seen; give what was read since the last time.

        Raises:
            AssertionError: it was not, within half a minute, or the command has ended.
        """
        seen = b""
        deadline = time.monotonic() + _DEADLINE_S
        while not all(text in seen for text in wanted):
            assert time.monotonic() < deadline, f"{wanted} is not in {seen!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                try:
                    seen += os.read(self._ours, 65_536)
                except OSError:  # Linux's way of saying that nobody has the other end any more
                    raise AssertionError(f"{wanted} is not in {seen!r}, and it ended") from None
        self.text += seen
        return seen

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def end(self, signal_number: int) -> int:
        """Send a signal, and give the exit code."""
        self.process.send_signal(signal_number)
        deadline = time.monotonic() + _DEADLINE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self._ours], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self._ours, 65_536)
                except OSError:
                    break
        return self.process.wait(_DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
