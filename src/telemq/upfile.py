"""Where a running `telemq up` can be asked: a small file in its data directory.

It lets `telemq top` find the broker of this machine without being told a port that was picked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

__all__ = ["NAME", "announced", "find"]

#: The file's name in the data directory.
NAME = "up.json"
_FILE_BYTES_MAX = 4096


class _Up(msgspec.Struct, frozen=True):
    pid: Annotated[int, msgspec.Meta(gt=0)]  # 0 and less would mean whole groups to kill()
    broker: str


@contextlib.contextmanager
def announced(data_dir: Path, broker_ops: str) -> Iterator[None]:
    """Tell where the broker's ops address is, for as long as this process runs it.

    Args:
        data_dir: owned by this process.
        broker_ops: ``host:port``.

    Raises:
        OSError: the file cannot be written.
    """
    path, new = data_dir / NAME, data_dir / f".{NAME}.new"
    text = msgspec.json.encode(_Up(os.getpid(), f"http://{broker_ops}"))
    # Under another name first: a reader never sees half of it.
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
    new.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find(data_dir: Path) -> str | None:
    """Give the URL of the broker's ops address, or None if no `telemq up` runs there.

    One that was killed leaves its file; it is told by its pid.
    """
    try:
        with (data_dir / NAME).open("rb") as file:
            up = msgspec.json.decode(file.read(_FILE_BYTES_MAX), type=_Up)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return up.broker if _runs(up.pid) else None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # it is somebody else's
    except (OSError, OverflowError):
        return False
    return True
