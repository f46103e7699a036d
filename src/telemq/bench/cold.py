"""An embedded Postgres that can be made to forget what it has read, as after a night.

It is stopped, the pages of its files are dropped from the kernel's page cache, and it is started
again. Only its own files are dropped, which needs no root and slows nobody else down. What a disk
or a hypervisor keeps beyond that, they keep.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from telemq.errors import TelemqError
from telemq.store.embedded import EmbeddedPostgres

__all__ = ["ColdPostgres", "cached_share", "evict"]

#: More than this of the pages still in memory is not cold.
_SHARE_MAX = 0.02
_LIBC = ctypes.CDLL(None, use_errno=True)


class ColdPostgres:
    """A server of its own in `data_dir`, a context manager; see `EmbeddedPostgres`.

    Args:
        data_dir: an empty directory.
    """

    def __init__(self, data_dir: Path) -> None:
        self._server = EmbeddedPostgres(data_dir)
        self._files = self._server.data_dir / "postgres"
        self.dsn = ""

    def __enter__(self) -> Self:
        self.dsn = self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop()

    def chill(self) -> None:
        """Restart the server with none of its files in memory; all its connections end.

        Raises:
            TelemqError: the pages stay, or this is no Linux; the server runs.
        """
        if not hasattr(os, "posix_fadvise"):
            raise TelemqError("only Linux can be told to drop a file from memory")
        self._server.stop()
        evict(self._files)
        share = cached_share(self._files)
        dsn = self._server.start()
        if dsn != self.dsn:
            raise TelemqError("the server listens elsewhere after a restart")
        if share > _SHARE_MAX:
            raise TelemqError(f"the file system keeps {share:.0%} of Postgres' files in memory")


def evict(folder: Path) -> None:
    """Have the kernel drop the pages of all files in a folder."""
    for descriptor in _opened(folder):
        os.fsync(descriptor)  # a page that is not on the disk stays
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def cached_share(folder: Path) -> float:
    """Tell how much of a folder's files is in memory, of 1.

    It asks for each page and reads none. A read that does not wait would be simpler, but it has
    the page fetched, and finds it there if the disk is quicker than the next look.

    Raises:
        OSError: the kernel does not say.
    """
    pages = cached = 0
    for descriptor in _opened(folder):
        if size_bytes := os.fstat(descriptor).st_size:
            resident = _resident(descriptor, size_bytes)
            pages += len(resident)
            cached += int(np.count_nonzero(resident & 1))
    return cached / max(1, pages)


def _resident(descriptor: int, size_bytes: int) -> npt.NDArray[np.uint8]:
    """Ask mincore(2): the lowest bit of each page of a file says whether it is in memory."""
    resident = np.zeros(-(-size_bytes // mmap.PAGESIZE), np.uint8)
    with mmap.mmap(descriptor, size_bytes, prot=mmap.PROT_READ) as view:
        content = np.frombuffer(view, np.uint8)
        failed = _LIBC.mincore(
            ctypes.c_void_p(content.ctypes.data),
            ctypes.c_size_t(size_bytes),
            ctypes.c_void_p(resident.ctypes.data),
        )
        del content  # or the view could not be closed
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return resident


def _opened(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                yield descriptor
            finally:
                os.close(descriptor)
