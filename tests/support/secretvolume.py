"""A Secret's volume as the kubelet lays it out, and changes it: all at once, through one link."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

__all__ = ["SecretVolume"]


class SecretVolume:
    """``NAME -> ..data/NAME`` for every first part of a path, and ``..data -> ..TIMESTAMP``.

    Args:
        directory: where it is mounted; to be made.

    Attributes:
        directory: the same.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = itertools.count(1)
        directory.mkdir(parents=True)

    def write(self, files: dict[str, bytes]) -> None:
        """Make its content these files and no others, in the order of the kubelet's writer."""
        data = self.directory / "..data"
        old = os.readlink(data) if data.is_symlink() else ""
        stamp = f"..2026_01_01_00_00_00.{next(self._numbers)}"
        for name, content in files.items():
            path = self.directory / stamp / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o440)
        beside = self.directory / "..data_tmp"
        beside.symlink_to(stamp)
        beside.rename(data)
        first = {Path(name).parts[0] for name in files}
        for name in first:
            if not (self.directory / name).is_symlink():
                (self.directory / name).symlink_to(f"..data/{name}")
        for link in self.directory.iterdir():
            if not link.name.startswith("..") and link.name not in first:
                link.unlink()
        if old:
            shutil.rmtree(self.directory / old)
