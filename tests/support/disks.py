"""A disk that fails on demand, and forgets at a crash what nobody had synced."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from telemq.broker.disk import Disk

__all__ = ["CrashDisk"]


class CrashDisk(Disk):
    """Files in a real directory, and beside them what of each would survive a power cut.

    Pages whose fsync failed are lost for good, and a later fsync of the same file says nothing of
    it: that is what Linux does.

    Attributes:
        fail: by the name of a method: the error code that its next call raises.
        free_bytes: what may still be written before there is no space; None for no limit.
        peak_bytes: most bytes of all files at a time.
    """

    def __init__(self) -> None:
        self.fail: dict[str, int] = {}
        self.free_bytes: int | None = None
        self.peak_bytes = 0
        self._paths: dict[int, Path] = {}
        #: What is there now, and what of it is on the disk.
        self._now: dict[Path, bytearray] = {}
        self._safe: dict[Path, bytes] = {}
        #: Spans of a file that the kernel dropped.
        self._lost: dict[Path, list[tuple[int, int]]] = {}
        self._listed: set[Path] = set()

    def create(self, path: Path) -> int:
        self._maybe_fail("create")
        fd = super().create(path)
        self._paths[fd] = path
        self._now[path], self._safe[path], self._lost[path] = bytearray(), b"", []
        return fd

    def write(self, fd: int, data: bytes) -> None:
        room = len(data) if self.free_bytes is None else min(len(data), self.free_bytes)
        if self.free_bytes is not None:
            self.free_bytes -= room
        super().write(fd, data[:room])
        self._now[self._paths[fd]] += data[:room]
        self.peak_bytes = max(self.peak_bytes, sum(map(len, self._now.values())))
        if room < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._maybe_fail("write")

    def sync(self, fd: int) -> None:
        path = self._paths[fd]
        if "sync" in self.fail:
            self._lost[path].append((len(self._safe[path]), len(self._now[path])))
        self._maybe_fail("sync")
        safe = bytearray(self._now[path])
        for start, end in self._lost[path]:
            safe[start:end] = bytes(max(0, min(end, len(safe)) - start))
        self._safe[path] = bytes(safe)

    def cut(self, path: Path, size_bytes: int) -> None:
        self._maybe_fail("cut")
        super().cut(path, size_bytes)
        if path in self._now:
            del self._now[path][size_bytes:]
            self._safe[path] = self._safe[path][:size_bytes]

    def remove(self, path: Path) -> None:
        self._maybe_fail("remove")
        super().remove(path)
        self._now.pop(path, None)

    def sync_directory(self, path: Path) -> None:
        self._maybe_fail("sync_directory")
        self._listed = set(self._now)

    def crash(self, share: float, *, ghosts: bool) -> None:
        """Cut the power: of what was not synced, this share is there afterwards.

        Args:
            share: 0 to 1, of the bytes of each file that were not synced.
            ghosts: files that were removed, and the directory not synced since, are back.
        """
        for path in set(self._now) | self._listed:
            is_there = path in self._listed if ghosts or path not in self._now else True
            if not is_there or (path not in self._now and not ghosts):
                path.unlink(missing_ok=True)
                continue
            now, safe = self._now.get(path, bytearray()), self._safe[path]
            kept = len(safe) + int(share * max(0, len(now) - len(safe)))
            path.write_bytes(safe + now[len(safe) : kept])
        self._now = {p: bytearray(p.read_bytes()) for p in self._now if p.exists()}
        self._forget_descriptors()

    def adopt(self, directory: Path) -> None:
        """Begin anew with what is there: all of it is safe."""
        for path in directory.glob("*.journal"):
            self._now[path] = bytearray(path.read_bytes())
            self._safe[path], self._lost[path] = bytes(self._now[path]), []
        self._listed = set(self._now)

    def _forget_descriptors(self) -> None:
        for fd in self._paths:
            try:
                os.close(fd)
            except OSError:  # the journal closed it
                continue
        self._paths.clear()

    def close(self, fd: int) -> None:
        super().close(fd)
        del self._paths[fd]

    def _maybe_fail(self, call: str) -> None:
        code = self.fail.pop(call, 0)
        if code:
            raise OSError(code, os.strerror(code))
