"""As much of AMQP 0-9-1 as a fast client needs: one connection, one channel, one queue.

::

    frame     type 1 byte | channel 2 | size 4 | payload | 0xCE
    message   method frame (class 2 | method 2 | arguments), then a header frame (class 2 | 0 |
              body size 8 | flags 2), then the body in frames no longer than was agreed upon

Clients in Python parse frame by frame into objects; this one knows the few methods that it expects,
so that what is measured is the server. https://www.rabbitmq.com/amqp-0-9-1-reference
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator

from telemq.errors import TelemqError

__all__ = ["Connection"]

_Method = tuple[int, int]
_RECEIVE_BYTES = 2**20
_FRAME = struct.Struct(">BHI")
_METHOD = struct.Struct(">HH")
_TAG = struct.Struct(">Q")
_END = b"\xce"
_METHODS, _HEADER, _BODY = 1, 2, 3
#: For the server's answers before there is any load.
_ANSWER_S = 20.0

_START, _START_OK, _TUNE, _TUNE_OK = (10, 10), (10, 11), (10, 30), (10, 31)
_OPEN, _OPEN_OK, _CLOSE = (10, 40), (10, 41), (10, 50)
_CHANNEL_OPEN, _CHANNEL_OPEN_OK, _CHANNEL_CLOSE = (20, 10), (20, 11), (20, 40)
_DECLARE, _DECLARE_OK = (50, 10), (50, 11)
_QOS, _QOS_OK, _CONSUME, _CONSUME_OK = (60, 10), (60, 11), (60, 20), (60, 21)
_PUBLISH, _DELIVER, _ACK = (60, 40), (60, 60), (60, 80)
_SELECT, _SELECT_OK = (85, 10), (85, 11)
_DURABLE = 2


def _short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


class Connection:
    """A channel to a queue of a server on loopback; one thread drives it.

    Args:
        port: where the server listens.
        queue: is declared, durable.
    """

    def __init__(self, port: int, queue: bytes) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._queue = queue
        self._in, self._at = b"", 0
        self._out: list[bytes] = [b"AMQP\0\0\x09\x01"]
        self._body: list[bytes] = []
        self._tag = self._missing = 0
        self._heads: dict[int, bytes] = {}
        self._told = b""
        self._frame_bytes = self._open()

    def confirm(self) -> None:
        """Have the server confirm what is published."""
        self._ask(_SELECT, b"\0", _SELECT_OK)

    def consume(self, prefetch: int) -> None:
        """Have messages delivered, so many at most that are not acknowledged."""
        self._ask(_QOS, struct.pack(">IHB", 0, prefetch, 0), _QOS_OK)
        tag, flags, arguments = _short(b"c"), b"\0", bytes(4)
        self._ask(_CONSUME, bytes(2) + _short(self._queue) + tag + flags + arguments, _CONSUME_OK)

    def publish(self, payload: bytes) -> None:
        """Have a transient message sent to the queue with the next `flush`."""
        size = len(payload)
        head = self._heads.get(size) or self._heads.setdefault(size, self._head(size))
        if size <= self._frame_bytes:
            self._out += (head, _FRAME.pack(_BODY, 1, size), payload, _END)
            return
        self._out.append(head)
        for start in range(0, size, self._frame_bytes):
            piece = payload[start : start + self._frame_bytes]
            self._out += (_FRAME.pack(_BODY, 1, len(piece)), piece, _END)

    def acknowledge(self, tag: int) -> None:
        """Have all deliveries up to `tag` settled with the next `flush`."""
        self._method(_ACK, _TAG.pack(tag) + b"\1")

    def flush(self) -> None:
        """Send what has piled up."""
        if self._out:
            self._socket.sendall(b"".join(self._out))
            self._out.clear()

    def wait(self, timeout_s: float) -> None:
        """Take in what comes within the time."""
        if select.select([self._socket], [], [], timeout_s)[0]:
            more = self._socket.recv(_RECEIVE_BYTES)
            if not more:
                raise TelemqError("RabbitMQ has closed the connection")
            self._in, self._at = self._in[self._at :] + more, 0

    def confirms(self) -> Iterator[tuple[int, bool]]:
        """Give the numbers that were confirmed, and whether all before are too."""
        while (frame := self._frame()) is not None:
            kind, payload = frame
            if kind == _METHODS:
                _expect(payload, _ACK)
                yield _TAG.unpack_from(payload, 4)[0], bool(payload[12])

    def deliveries(self) -> Iterator[tuple[int, bytes]]:
        """Give tags and bodies of the messages that have come whole."""
        while (frame := self._frame()) is not None:
            kind, payload = frame
            if kind == _METHODS:
                _expect(payload, _DELIVER)
                (self._tag,) = _TAG.unpack_from(payload, 4 + len(_short(b"c")))
            elif kind == _HEADER:
                (self._missing,) = _TAG.unpack_from(payload, 4)
            elif kind == _BODY:
                self._missing -= len(payload)
                self._body.append(payload)
                if not self._missing:
                    yield self._tag, b"".join(self._body)
                    self._body.clear()

    def close(self) -> None:
        """Send what has piled up, and close."""
        self.flush()
        self._socket.close()

    def _open(self) -> int:
        """Log in and declare the queue; give the most bytes of a frame's payload."""
        self._answer(_START)
        login = _short(b"PLAIN") + struct.pack(">I", 12) + b"\0guest\0guest"
        self._ask(_START_OK, bytes(4) + login + _short(b"en_US"), _TUNE, channel=0)
        channels, frame_bytes, _ = struct.unpack_from(">HIH", self._told)
        self._method(_TUNE_OK, struct.pack(">HIH", channels, frame_bytes, 0), channel=0)
        self._ask(_OPEN, _short(b"/") + bytes(2), _OPEN_OK, channel=0)
        self._ask(_CHANNEL_OPEN, bytes(1), _CHANNEL_OPEN_OK)
        arguments = bytes(4)
        declared = bytes(2) + _short(self._queue) + bytes([_DURABLE]) + arguments
        self._ask(_DECLARE, declared, _DECLARE_OK)
        return int(frame_bytes) - _FRAME.size - len(_END)

    def _head(self, size: int) -> bytes:
        """Give the frames before the body of a message."""
        published = _METHOD.pack(*_PUBLISH) + bytes(2) + _short(b"") + _short(self._queue) + b"\0"
        header = struct.pack(">HHQH", 60, 0, size, 0)
        return b"".join(
            part
            for kind, payload in ((_METHODS, published), (_HEADER, header))
            for part in (_FRAME.pack(kind, 1, len(payload)), payload, _END)
        )

    def _method(self, method: _Method, arguments: bytes, channel: int = 1) -> None:
        payload = _METHOD.pack(*method) + arguments
        self._out += (_FRAME.pack(_METHODS, channel, len(payload)), payload, _END)

    def _ask(self, method: _Method, arguments: bytes, answer: _Method, channel: int = 1) -> None:
        self._method(method, arguments, channel)
        self._answer(answer)

    def _answer(self, wanted: _Method) -> None:
        """Wait for a method, whose arguments are in `_told` then."""
        self.flush()
        self._socket.settimeout(_ANSWER_S)
        while (frame := self._frame()) is None:
            self.wait(_ANSWER_S)
        self._socket.settimeout(None)
        _expect(frame[1], wanted)
        self._told = frame[1][4:]

    def _frame(self) -> tuple[int, bytes] | None:
        """Give the next frame that has come whole."""
        if len(self._in) < self._at + _FRAME.size:
            return None
        kind, _, size = _FRAME.unpack_from(self._in, self._at)
        begin = self._at + _FRAME.size
        if len(self._in) < begin + size + 1:
            return None
        self._at = begin + size + 1
        return kind, self._in[begin : begin + size]


def _expect(payload: bytes, wanted: _Method) -> None:
    method = _METHOD.unpack_from(payload)
    if method == wanted:
        return
    if method in (_CLOSE, _CHANNEL_CLOSE):
        text = payload[7 : 7 + payload[6]].decode(errors="replace")
        raise TelemqError(f"RabbitMQ refused: {text}")
    raise TelemqError(f"RabbitMQ sent {method} in place of {wanted}")
