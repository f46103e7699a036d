"""Where the embedded server's socket is: a directory that nobody but its user can enter.

That is the data directory, unless its path is too long for a socket's address; then it is a short
directory of its own, named after the data directory so that the next start finds it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from pathlib import Path

from telemq.errors import EmbeddedError

__all__ = ["SocketDir", "give_to_owner"]

_SOCKET = ".s.PGSQL.5432"
#: A socket's address holds so many bytes, less the final zero: 104 on macOS, 108 on Linux.
_PATH_BYTES = 103 if sys.platform == "darwin" else 107


class SocketDir:
    """The directory of the socket of the server in `data_dir`; see `path`."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        socket = os.fsencode(data_dir / _SOCKET)
        #: The directory.
        self.path = data_dir
        if len(socket) > _PATH_BYTES or b"," in socket:  # in a DSN a comma separates hosts
            name = hashlib.blake2b(os.fsencode(data_dir), digest_size=8).hexdigest()
            self.path = Path(tempfile.gettempdir()) / f"telemq-{name}"

    def make(self) -> None:
        """Make it, or find it again, without what a killed server left in it.

        Postgres would take that for a running server when another process has its pid now.

        Raises:
            EmbeddedError: somebody else has made it.
            OSError: it cannot be made, or something else is in its place.
        """
        if self.path != self._data_dir:
            self._make_private()
        self._clear()

    def _make_private(self) -> None:
        self.path.mkdir(mode=0o700, exist_ok=True)
        # Through a descriptor: in a directory that all may write to, a name can change its meaning.
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(folder).st_uid not in (os.geteuid(), self._data_dir.stat().st_uid):
                raise EmbeddedError(f"{self.path} is another user's; use a shorter --data-dir")
            os.fchmod(folder, 0o700)
            give_to_owner(folder, self._data_dir)
        finally:
            os.close(folder)

    def remove(self) -> None:
        """Remove it unless it is the data directory; the server must have ended."""
        if self.path != self._data_dir:
            with contextlib.suppress(OSError):  # it was never made, or is not ours
                self._clear()
                self.path.rmdir()

    def _clear(self) -> None:
        for name in (_SOCKET, f"{_SOCKET}.lock"):
            (self.path / name).unlink(missing_ok=True)


def give_to_owner(fd: int, data_dir: Path) -> None:
    """Give the open file that root made to the user whose data directory it serves."""
    if os.geteuid() == 0:
        owner = data_dir.stat()
        os.fchown(fd, owner.st_uid, owner.st_gid)
