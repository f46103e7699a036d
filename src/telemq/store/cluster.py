"""A Postgres cluster on disk, and the server process that may be running on it.

Everything here is read from the files that Postgres keeps, so it holds for any process that looks.
What changes something is only for the owner of the directory (`telemq.store.embedded`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from telemq import log
from telemq.errors import EmbeddedError
from telemq.store.binaries import Binaries

__all__ = ["NAME", "STOP_S", "Cluster", "Server", "environment"]

#: Name of the database and of its user.
NAME = "telemq"
#: A fast shutdown writes shared_buffers out at worst; a slow disk needs some seconds for it.
STOP_S = 30.0
#: Postgres itself kills what is left 5 s after SIGQUIT.
_QUIT_S = 10.0
#: It takes half a second; the rest is for disks where each of its thousand files takes 0.1 s.
_INITDB_S = 120.0
_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Server:
    """A running postmaster.

    Attributes:
        pid: its process.
        socket_dir: where its socket is.
        ready: it accepts connections; else it starts, recovers or stops.
    """

    pid: int
    socket_dir: str
    ready: bool


class Cluster:
    """One cluster directory; it need not exist.

    Args:
        path: absolute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pid_file = path / "postmaster.pid"

    def major(self) -> int | None:
        """Give the Postgres version that it is of, or None when there is no cluster."""
        try:
            return int((self.path / "PG_VERSION").read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise EmbeddedError(f"{self.path / 'PG_VERSION'} holds no version: {error}") from error

    def create(self, binaries: Binaries, prefix: list[str]) -> None:
        """Make the cluster, with the database, beside its place and rename it when complete.

        So a kill in the middle leaves no half-made one. Each attempt has a directory of its own,
        because the initdb of a killed owner lives on for a moment.

        Args:
            binaries: whose cluster it becomes.
            prefix: see `telemq.store.binaries.run_as`.

        Raises:
            EmbeddedError: with what initdb said.
        """
        for left in self.path.parent.glob(f"{self.path.name}.new-*"):
            shutil.rmtree(left, ignore_errors=True)
        new = self.path.with_name(f"{self.path.name}.new-{secrets.token_hex(4)}")
        # C.UTF-8 of Postgres itself, and C for the rest, need no locale of the host. Before 17 it
        # is C alone, which sorts the same.
        provider = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        initdb = [
            *(str(binaries.directory / "initdb"), f"--pgdata={new}", f"--username={NAME}"),
            *("--auth=trust", "--data-checksums", "--encoding=UTF8", "--locale=C"),
            *(provider if binaries.major >= 17 else []),
        ]
        postgres = [str(binaries.directory / "postgres"), "--single", "-D", str(new), "postgres"]
        try:
            _run([*prefix, *initdb], "", self.path)
            _run([*prefix, *postgres], f"CREATE DATABASE {NAME}", self.path)
            new.rename(self.path)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def server(self) -> Server | None:
        """Give the server that runs on this cluster, whoever started it."""
        try:
            lines = [line.strip() for line in os.fsdecode(self._pid_file.read_bytes()).splitlines()]
        except FileNotFoundError:
            return None
        # Lines: pid, directory, start time, port, socket directory, address, memory, status.
        if len(lines) < 5 or not lines[0].isdigit() or not _serves(int(lines[0]), lines[1]):
            return None
        return Server(int(lines[0]), lines[4], lines[7:8] == ["ready"])

    def end_server(self) -> None:
        """End the server, if one runs here, and remove what a killed one left.

        Its pid file must go: where pids start again at 1, as in a container, Postgres takes any
        process that has that pid now for a running server. Its other check, of who uses the
        cluster's shared memory, still keeps two servers from running here.

        Raises:
            EmbeddedError: it does not end.
        """
        for number, wait_s in ((signal.SIGINT, STOP_S), (signal.SIGQUIT, _QUIT_S)):
            server = self.server()
            if server is None:
                break
            log.get().info("ending server without owner", pid=server.pid, signal=number.name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, number)
            deadline = time.monotonic() + wait_s
            while self.server() is not None and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        if (server := self.server()) is not None:
            raise EmbeddedError(
                f"the server with pid {server.pid} on {self.path} does not end; kill that process"
            )
        self._pid_file.unlink(missing_ok=True)


def _serves(pid: int, directory: str) -> bool:
    """Tell whether that process is a Postgres on `directory`: it may have got an old pid.

    Its arguments tell, because anybody may read them; its working directory, for one, is hidden
    from a root without CAP_SYS_PTRACE, as in a container.
    """
    if os.path.exists("/proc/self/cmdline"):
        try:
            arguments = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
        except OSError:
            return False
        return os.path.basename(arguments[0]) == "postgres" and directory in arguments
    command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return f"postgres -D {directory} " in shown


def _run(command: list[str], text: str, cluster: Path) -> None:
    ran = subprocess.run(
        command,
        input=text,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=_INITDB_S,
        env=environment(),
    )
    # The single-user server ends with 0 whatever the statement did.
    if ran.returncode or "ERROR:" in ran.stdout:
        said = "\n".join(ran.stdout.strip().splitlines()[-8:])
        raise EmbeddedError(f"cannot make the Postgres cluster {cluster}:\n{said}")


def environment() -> dict[str, str]:
    """Give the environment for the server's programs: nothing of the user's reaches into them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}
