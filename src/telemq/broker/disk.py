"""What the journal asks of a file system: few calls, so that a test can make each of them fail."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from telemq.errors import BusyError, SettingError

__all__ = ["Disk", "lock", "unusable"]


class Disk:
    """The file system of this machine; every call raises `OSError` as the system does."""

    def create(self, path: Path) -> int:
        """Make a file that must not exist, for its owner only; gives its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: bytes) -> None:
        """Append all of the data, or raise; some of it may have been written then."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]

    def sync(self, fd: int) -> None:
        """Have a file's content and length on the disk."""
        # macOS has no fdatasync.
        getattr(os, "fdatasync", os.fsync)(fd)

    def cut(self, path: Path, size_bytes: int) -> None:
        """Shorten a file for good: what came back after a crash would pass for corruption."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, size_bytes)
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self, fd: int) -> None:
        """Free a descriptor."""
        os.close(fd)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is gone already is fine."""
        path.unlink(missing_ok=True)

    def sync_directory(self, path: Path) -> None:
        """Have it on the disk which files a directory has."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def lock(directory: Path) -> int:
    """Make a directory ours until the descriptor that is given back is closed.

    Raises:
        BusyError: somebody else has it.
        SettingError: it cannot be made or written in.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(directory, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise BusyError(f"--journal {directory}: another broker uses it") from error
        raise unusable(directory, error) from error
    return fd


def unusable(directory: Path, error: OSError) -> SettingError:
    """Say that a directory does not do as a journal."""
    accepted = f"a directory to read and write in ({error.strerror})"
    return SettingError("--journal", str(directory), accepted)
