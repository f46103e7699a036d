"""beanstalkd: put, reserve and delete, pipelined, by a client of our own: none is kept up.

The protocol has no batches, so several of each command are written at once, and their answers read
as they come. A journal (``-b``) is not asked for: this is its quickest way.
"""

from __future__ import annotations

import select
import shutil
import socket
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from telemq.bench.carrier import Carrier, Load
from telemq.bench.measure import Part
from telemq.errors import TelemqError
from tests.bench.rivals.server import serve

__all__ = ["BEANSTALKD", "missing"]

_RECEIVE_BYTES = 2**20
#: Reserves under way: enough that the server always has one to answer.
_RESERVES, _RESERVE_BYTES = 128, 2**20


def missing() -> str:
    """Say what is not installed."""
    if shutil.which("beanstalkd"):
        return ""
    return "no beanstalkd on the PATH; Debian: apt-get install beanstalkd"


def _serve(pipe: Connection, load: Load) -> Part:
    size = str(max(65_535, load.message_bytes))
    with TemporaryDirectory(prefix="telemq-bench-") as folder:
        words = ("beanstalkd", "-l", "127.0.0.1", "-p", "{port}", "-z", size)
        return serve(pipe, Path(folder), *words)


class _Client:
    """A connection whose answers are lines, some with a body behind them."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in = bytearray()
        self._at = 0
        self.out: list[bytes] = []

    def flush(self) -> None:
        """Send what has piled up in `out`."""
        if self.out:
            self._socket.sendall(b"".join(self.out))
            self.out.clear()

    def wait(self, timeout_s: float) -> None:
        """Take in what comes within the time."""
        if select.select([self._socket], [], [], timeout_s)[0]:
            more = self._socket.recv(_RECEIVE_BYTES)
            if not more:
                raise TelemqError("beanstalkd has closed the connection")
            del self._in[: self._at]
            self._at = 0
            self._in += more

    def answer(self) -> tuple[list[bytes], bytes] | None:
        """Give the next answer that has come whole: its words and its body."""
        end = self._in.find(b"\r\n", self._at)
        if end < 0:
            return None
        words = bytes(self._in[self._at : end]).split()
        if words[0] != b"RESERVED":
            self._at = end + 2
            return words, b""
        begin, size = end + 2, int(words[2])
        if len(self._in) < begin + size + 2:
            return None
        self._at = begin + size + 2
        return words, bytes(self._in[begin : begin + size])

    def close(self) -> None:
        """Close."""
        self._socket.close()


class _Producer:
    def __init__(self, port: int, load: Load) -> None:
        self._client = _Client(port)
        self._window, self._under_way = load.window_messages, 0

    def room(self) -> int:
        return self._window - self._under_way

    def send(self, payload: bytes) -> None:
        self._client.out += (b"put 0 0 60 %d\r\n" % len(payload), payload, b"\r\n")
        self._under_way += 1

    def poll(self, timeout_s: float) -> int:
        self._client.flush()
        self._client.wait(timeout_s)
        confirmed = 0
        while (answer := self._client.answer()) is not None:
            if answer[0][0] != b"INSERTED":
                raise TelemqError(f"beanstalkd refused a put: {answer[0]}")
            confirmed += 1
        self._under_way -= confirmed
        return confirmed

    def close(self) -> None:
        self._client.close()


class _Consumer:
    def __init__(self, port: int, load: Load) -> None:
        self._client = _Client(port)
        self._reserves = max(4, min(_RESERVES, _RESERVE_BYTES // load.message_bytes))
        self._client.out.append(b"reserve\r\n" * self._reserves)
        self._client.flush()
        self._ids: list[bytes] = []

    def take(self, timeout_s: float) -> list[bytes]:
        self._client.flush()
        self._client.wait(timeout_s)
        bodies = []
        while (answer := self._client.answer()) is not None:
            words, body = answer
            if words[0] == b"RESERVED":
                self._ids.append(words[1])
                bodies.append(body)
            elif words[0] != b"DELETED":
                raise TelemqError(f"beanstalkd refused: {words}")
        return bodies

    def settle(self) -> None:
        self._client.out += (b"delete %b\r\nreserve\r\n" % id for id in self._ids)
        self._ids.clear()

    def close(self) -> None:
        self._client.close()


BEANSTALKD = Carrier("beanstalkd", _serve, _Producer, _Consumer, missing)
