"""The end of a journal: the one segment that grows.

Entries are gathered, written in large pieces and fsynced. A call that fails raises `OSError` and
changes nothing that is known here; the segment is then to be given up, and to be cut back to what
was synced before another one begins.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from telemq.broker.blocks import Segment
from telemq.broker.disk import Disk
from telemq.broker.entries import HEADER_BYTES, Buffer, Seal, encode_header
from telemq.broker.recovery import path_of

__all__ = ["Tail"]

#: Bytes gathered for one write: the copy is cheap, a call for each small entry is not.
_WRITE_BYTES = 4 * 2**20
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class Tail:
    """The segment that grows; see the module.

    Args:
        directory: of the journal.
        disk: the file system.

    Attributes:
        segment: that grows, or None when the next entry begins one.
        seal: makes its entries.
        given_up: a segment that failed and is not cut back yet.
    """

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk
        self.segment: Segment | None = None
        self.seal = Seal(b"")
        self.given_up: Segment | None = None
        self._fd = -1
        self._synced_bytes = 0
        self._parts: list[Buffer] = []
        self._parts_bytes = 0
        self._is_syncing = False

    def create(self, number: int) -> Segment:
        """Make the file of the next segment; it counts from now on, and `begin` is to follow."""
        path = path_of(self._directory, number)
        self._fd = self._disk.create(path)
        self.segment = Segment(number, path, HEADER_BYTES)
        self._synced_bytes = 0
        return self.segment

    def begin(self, segment: Segment) -> None:
        """Write its header, and have the directory know it."""
        salt = os.urandom(8)
        self.seal = Seal(salt)
        self._disk.write(self._fd, encode_header(segment.number, salt))
        self._disk.sync_directory(self._directory)

    def add(self, segment: Segment, parts: list[Buffer], size_bytes: int) -> None:
        """Append an entry; it may be written now."""
        self._parts += parts
        self._parts_bytes += size_bytes
        segment.size_bytes += size_bytes
        if self._parts_bytes >= _WRITE_BYTES:
            self.write()

    def write(self) -> None:
        """Write what was gathered."""
        if self._parts:
            data = b"".join(self._parts)
            self._drop()
            self._disk.write(self._fd, data)

    def sync(self) -> bool:
        """Have all that was written on disk; tell whether there was something."""
        if self.segment is None or self.segment.size_bytes == self._synced_bytes:
            return False
        self._is_syncing = True
        self._disk.sync(self._fd)
        self._is_syncing = False
        self._synced_bytes = self.segment.size_bytes
        return True

    def leave(self) -> None:
        """Let the segment be as it is; the next entry begins another one."""
        if self.segment is not None:
            self._disk.close(self._fd)
            self.segment = None

    def give_up(self, error: OSError) -> bool:
        """Put nothing more into the segment; tell whether what was synced of it is in doubt."""
        is_doubtful = self._is_syncing and error.errno not in _NO_SPACE
        self._is_syncing = False
        self._drop()
        if self.segment is not None:
            with suppress(OSError):
                self._disk.close(self._fd)
            self.given_up, self.segment = self.segment, None
        return is_doubtful

    def cut_back(self, segment: Segment) -> int:
        """Cut what was not synced off the segment that was given up; gives how much that was.

        If nothing of it was synced, the file is removed.
        """
        if self._synced_bytes:
            self._disk.cut(segment.path, self._synced_bytes)
        else:
            self._disk.remove(segment.path)
            self._disk.sync_directory(self._directory)
        cut_bytes = segment.size_bytes - self._synced_bytes
        segment.size_bytes = self._synced_bytes
        self.given_up = None
        return cut_bytes

    def _drop(self) -> None:
        self._parts.clear()
        self._parts_bytes = 0
