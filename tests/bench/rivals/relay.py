"""Bytes from one TCP connection to another, in Python: no messages, no confirms, no threads.

Not a rival but the limit: what this machine carries through a process in between, when nobody asks
what it is. One producer and one consumer.
"""

from __future__ import annotations

import socket
from multiprocessing.connection import Connection

from telemq.bench.carrier import Carrier, Load
from telemq.bench.worker import count_from_here
from telemq.protocol import Payload

__all__ = ["RELAY"]

_HOST = "127.0.0.1"
#: Of one read.
_READ_BYTES = 262_144
_TIMEOUT_S = 60.0
_ROOM = 1_000_000


def _serve(pipe: Connection, load: Load) -> None:
    with socket.create_server((_HOST, 0)) as front, socket.create_server((_HOST, 0)) as back:
        for side in (front, back):
            side.settimeout(_TIMEOUT_S)
        pipe.send((front.getsockname()[1], back.getsockname()[1]))
        consumer, producer = back.accept()[0], front.accept()[0]
    with consumer, producer:
        for end in (consumer, producer):
            end.settimeout(_TIMEOUT_S)
        count_from_here()
        buffer = memoryview(bytearray(_READ_BYTES))
        while count := producer.recv_into(buffer):
            consumer.sendall(buffer[:count])
        pipe.recv()


class _Producer:
    def __init__(self, address: tuple[int, int], _load: Load) -> None:
        self._socket = socket.create_connection((_HOST, address[0]), _TIMEOUT_S)
        self._sent = 0

    def room(self) -> int:
        """Tell that `send` waits by itself."""
        return _ROOM

    def send(self, payload: bytes) -> None:
        """Send, as soon as there is room."""
        self._socket.sendall(payload)
        self._sent += 1

    def poll(self, _timeout_s: float) -> int:
        """Give what was sent since: there are no confirms."""
        sent, self._sent = self._sent, 0
        return sent

    def close(self) -> None:
        """Close; what was sent still arrives."""
        self._socket.close()


class _Consumer:
    """Receives into a buffer of whole messages; those given are good until the next `take`."""

    def __init__(self, address: tuple[int, int], load: Load) -> None:
        self._socket = socket.create_connection((_HOST, address[1]))
        self._size_bytes = load.message_bytes
        self._buffer = memoryview(bytearray(max(1, 2**20 // self._size_bytes) * self._size_bytes))
        self._given_bytes = self._read_bytes = 0

    def take(self, timeout_s: float) -> list[Payload]:
        """Receive what is there, and give the messages that are whole."""
        self._socket.settimeout(timeout_s)
        if self._given_bytes == len(self._buffer):
            self._given_bytes = self._read_bytes = 0
        try:
            self._read_bytes += self._socket.recv_into(self._buffer[self._read_bytes :])
        except TimeoutError:
            return []
        size_bytes, begin = self._size_bytes, self._given_bytes
        self._given_bytes = self._read_bytes - self._read_bytes % size_bytes
        starts = range(begin, self._given_bytes, size_bytes)
        return [self._buffer[start : start + size_bytes] for start in starts]

    def settle(self) -> None:
        """Do nothing: nothing is kept."""

    def close(self) -> None:
        """Close."""
        self._socket.close()


RELAY = Carrier("TCP relay in Python", _serve, _Producer, _Consumer)
