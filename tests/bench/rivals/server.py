"""A rival's server: a process on a free port of loopback that ends when its bench does."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from telemq.bench.measure import Part, process_usage
from telemq.errors import TelemqError
from tests.support.ports import free_port

__all__ = ["Server", "serve", "serving"]

#: Prints the server's pid. When our end of standard input is closed, which is when we are gone,
#: however that happens, it ends its process group: itself, the server, and what that has forked.
#: All of them hold its output, so that reading this to its end waits for the last one.
_GUARD = '"$@" 3>&1 >"$0" 2>&1 </dev/null & echo $!; read _; kill -9 -$$'
#: RabbitMQ takes 3 s on a quiet machine.
_START_S = 60.0
#: For a killed server to be gone; the kernel takes back its memory first.
_END_S = 30.0


class Server:
    """A running server.

    Attributes:
        port: where it listens.
        pid: of its process.
    """

    def __init__(self, port: int, pid: int) -> None:
        self.port, self.pid = port, pid
        self._before_s = process_usage("", pid).cpu_s

    def usage(self, name: str) -> Part:
        """Give what it used since it listened."""
        part = process_usage(name, self.pid)
        return replace(part, cpu_s=part.cpu_s - self._before_s)


@contextlib.contextmanager
def serving(
    folder: Path, *words: str, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a program until the context ends; then nothing of it writes to its folder any more.

    Args:
        folder: where it runs, and where what it says goes.
        words: the program and its arguments; ``{port}`` in them becomes a free port.
        environment: in place of ours; ``{port}`` as in `words`.

    Raises:
        TelemqError: it does not listen; the text holds what it said.
        subprocess.TimeoutExpired: it was killed, and is not gone.
    """
    port, log = free_port(), folder / "log"
    command = [word.replace("{port}", str(port)) for word in words]
    if environment is not None:
        environment = {n: value.replace("{port}", str(port)) for n, value in environment.items()}
    guard = subprocess.Popen(
        ["sh", "-c", _GUARD, str(log), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    try:
        assert guard.stdout is not None
        pid = int(guard.stdout.readline())
        _wait_until_it_listens(port, pid, log)
        yield Server(port, pid)
    finally:
        guard.communicate(timeout=_END_S)


def _wait_until_it_listens(port: int, pid: int, log: Path) -> None:
    end = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > end or not os.path.exists(f"/proc/{pid}"):
            raise TelemqError(f"the server does not listen: {log.read_text()[-2000:]}")
        time.sleep(0.02)


def serve(
    pipe: Connection, folder: Path, *words: str, environment: Mapping[str, str] | None = None
) -> Part:
    """Run a program for a carrier: send its port, wait for the end, and say what it used."""
    with serving(folder, *words, environment=environment) as server:
        pipe.send(server.port)
        pipe.recv()
        return server.usage("broker")
