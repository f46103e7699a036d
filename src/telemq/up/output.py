"""What a child process prints: its last lines in memory, all of them in a file of bounded size."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from pathlib import Path
from typing import IO

__all__ = ["LOG_BYTES_MAX", "Output"]

#: Size at which a log file is moved to ``.1``, over the one before: each child has twice this.
LOG_BYTES_MAX = 4 * 2**20
#: A longer line is cut in two: nothing else bounds what a child prints without a line's end.
_LINE_BYTES_MAX = 65_536
_LAST_LINES = 20


class Output:
    """Takes one child's output, over all of its restarts.

    Args:
        path: the log file; it is added to, and its directory must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: deque[str] = deque(maxlen=_LAST_LINES)

    def follow(self, pipe: IO[bytes]) -> threading.Thread:
        """Read `pipe` in a thread until its end, then close it; gives the thread."""
        thread = threading.Thread(
            target=self._read, args=(pipe,), name=f"output {self.path.stem}", daemon=True
        )
        thread.start()
        return thread

    def last_lines(self) -> list[str]:
        """Give the newest lines, oldest first, without line ends."""
        return list(self._last)

    def reason(self) -> str:
        """Give the line that most likely tells why the child ended."""
        lines = [line for line in self._last if line.strip()]
        told = [line for line in lines if line.startswith("telemq: ")]
        return (told or lines or ["it printed nothing"])[-1].removeprefix("telemq: ")

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while line := pipe.readline(_LINE_BYTES_MAX):
                self._last.append(line.decode(errors="replace").rstrip("\n"))
                # A full disk must not stop the reading: the child would block on its next line.
                with contextlib.suppress(OSError):
                    self._write(line)

    def _write(self, line: bytes) -> None:
        # Opened for each line: a service prints one a second, and the file may be moved away.
        with self.path.open("ab") as file:
            file.write(line)
            full = file.tell() >= LOG_BYTES_MAX
        if full:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
