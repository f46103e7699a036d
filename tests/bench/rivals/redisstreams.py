"""Redis Streams: XADD in pipelines, one consumer group, XREADGROUP COUNT, XACK and XDEL.

hiredis packs and parses in C; the commands are written to the socket in one go. As much is under
way as telemq's window allows. Settled entries are deleted, or the stream would grow for ever; a
stream that nobody trims holds everything in memory.
"""

from __future__ import annotations

import select
import shutil
import socket
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from telemq.bench.carrier import Carrier, Load
from telemq.bench.measure import Part
from telemq.errors import TelemqError
from tests.bench.rivals.server import serve

__all__ = ["APPENDONLY", "MEMORY", "missing"]

_STREAM, _GROUP = b"bench", b"collectors"
_RECEIVE_BYTES = 2**20
#: Entries of one XREADGROUP, and their bytes: few enough that settling overlaps with reading.
_COUNT, _READ_BYTES = 1000, 2**20


def missing() -> str:
    """Say what is not installed."""
    if not shutil.which("redis-server"):
        return "no redis-server on the PATH; Debian: apt-get install redis-server"
    return "" if find_spec("hiredis") else "no hiredis; pip install hiredis"


def _serve(pipe: Connection, *words: str) -> Part:
    with TemporaryDirectory(prefix="telemq-bench-") as folder:
        return serve(
            pipe, Path(folder), "redis-server", "--port", "{port}", "--bind", "127.0.0.1",
            "--save", "", "--dir", folder, *words,
        )  # fmt: skip


def _serve_memory(pipe: Connection, _load: Load) -> Part:
    return _serve(pipe, "--appendonly", "no")


def _serve_appendonly(pipe: Connection, _load: Load) -> Part:
    return _serve(pipe, "--appendonly", "yes", "--appendfsync", "everysec")


class _Client:
    """A connection that pipelines: commands pile up until `flush`, replies come in order."""

    def __init__(self, port: int) -> None:
        import hiredis

        self._pack = hiredis.pack_command
        self._reader = hiredis.Reader()
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._out: list[bytes] = []

    def add(self, *command: str | int | float | bytes | memoryview) -> None:
        """Have a command sent with the next `flush`."""
        # Its stub takes tuples of one only.
        self._out.append(self._pack(command))  # type: ignore[arg-type]

    def flush(self) -> None:
        """Send what has piled up."""
        if self._out:
            self._socket.sendall(b"".join(self._out))
            self._out.clear()

    def reply(self) -> Any:
        """Give the next reply that has come, or False."""
        reply = self._reader.gets()
        if isinstance(reply, Exception):
            raise TelemqError(f"Redis refused: {reply}")
        return reply

    def wait(self, timeout_s: float) -> None:
        """Take in what comes within the time."""
        if select.select([self._socket], [], [], timeout_s)[0]:
            more = self._socket.recv(_RECEIVE_BYTES)
            if not more:
                raise TelemqError("Redis has closed the connection")
            self._reader.feed(more)

    def ask(self, *command: bytes) -> Any:
        """Send one command and wait for its reply."""
        self.add(*command)
        self.flush()
        while (reply := self.reply()) is False:
            self.wait(10)
        return reply

    def close(self) -> None:
        """Close."""
        self._socket.close()


class _Producer:
    def __init__(self, port: int, load: Load) -> None:
        self._client = _Client(port)
        self._window = load.window_messages
        self._under_way = 0

    def room(self) -> int:
        return self._window - self._under_way

    def send(self, payload: bytes) -> None:
        self._client.add(b"XADD", _STREAM, b"*", b"p", payload)
        self._under_way += 1

    def poll(self, timeout_s: float) -> int:
        self._client.flush()
        self._client.wait(timeout_s)
        confirmed = 0
        while self._client.reply() is not False:
            confirmed += 1
        self._under_way -= confirmed
        return confirmed

    def close(self) -> None:
        self._client.close()


class _Consumer:
    def __init__(self, port: int, load: Load) -> None:
        self._client = _Client(port)
        groups = {b"CREATE": (b"$", b"MKSTREAM")}
        try:
            for word, more in groups.items():
                self._client.ask(b"XGROUP", word, _STREAM, _GROUP, *more)
        except TelemqError as error:
            if "BUSYGROUP" not in str(error):  # another consumer was first
                raise
        self._name = str(id(self)).encode()
        self._count = max(1, min(_COUNT, _READ_BYTES // load.message_bytes))
        self._ids: list[bytes] = []
        self._is_asked = False
        self._acks = 0

    def take(self, timeout_s: float) -> list[bytes]:
        if not self._is_asked:
            self._client.add(
                b"XREADGROUP", b"GROUP", _GROUP, self._name, b"COUNT", self._count,
                b"BLOCK", 1000, b"STREAMS", _STREAM, b">",
            )  # fmt: skip
            self._is_asked = True
            self._client.flush()
        self._client.wait(timeout_s)
        while (reply := self._client.reply()) is not False:
            if self._acks:
                self._acks -= 1
                continue
            self._is_asked = False
            if reply:
                entries = reply[0][1]
                self._ids = [id for id, _ in entries]
                return [fields[1] for _, fields in entries]
        return []

    def settle(self) -> None:
        # The next question goes in the same packet, ahead of which Redis works the two off.
        self._client.add(b"XACK", _STREAM, _GROUP, *self._ids)
        self._client.add(b"XDEL", _STREAM, *self._ids)
        self._acks = 2

    def close(self) -> None:
        if self._acks and not self._is_asked:
            self._client.flush()
            while self._acks:
                self._client.wait(1)
                while self._acks and self._client.reply() is not False:
                    self._acks -= 1
        self._client.close()


MEMORY = Carrier("Redis Streams", _serve_memory, _Producer, _Consumer, missing)
APPENDONLY = Carrier(
    "Redis Streams, AOF everysec", _serve_appendonly, _Producer, _Consumer, missing
)
