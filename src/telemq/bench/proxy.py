"""libzmq's own proxy as a carrier: the limit for a broker on ZeroMQ.

`zmq.proxy` is a loop in C between two sockets that only copies frames: it keeps nothing, confirms
nothing and bounds nothing but messages. Its ends only send and receive.
"""

from __future__ import annotations

import contextlib
import threading
from multiprocessing.connection import Connection

import zmq

from telemq.bench.carrier import Carrier, Load
from telemq.bench.worker import count_from_here
from telemq.protocol import Payload

__all__ = ["PROXY", "Proxy"]

_ANY = "tcp://127.0.0.1:0"
#: A payload up to here is copied into Python's memory: above, the bookkeeping costs less.
_COPY_BYTES_MAX = 32_768
#: Messages that a consumer takes at a time.
_TAKEN_MAX = 1000


class Proxy:
    """`zmq.proxy` between two kinds of socket, and ends that only send and receive.

    Args:
        front: type of the socket that producers connect to.
        back: type of the socket that consumers connect to.
        has_keys: whether all is encrypted by CURVE; it asks nobody who they are.
    """

    def __init__(self, front: int, back: int, *, has_keys: bool = False) -> None:
        self._front, self._back, self._has_keys = front, back, has_keys

    def serve(self, pipe: Connection, load: Load) -> None:
        """Forward until told to stop."""
        context = zmq.Context()
        front, back = context.socket(self._front), context.socket(self._back)
        public, secret = zmq.curve_keypair()
        for side in (front, back):
            side.set_hwm(load.window_messages)
            side.setsockopt(zmq.LINGER, 0)
            if self._has_keys:
                side.setsockopt(zmq.CURVE_SERVER, 1)
                side.setsockopt(zmq.CURVE_SECRETKEY, secret)
            side.bind(_ANY)
        endpoints = [side.getsockopt_string(zmq.LAST_ENDPOINT) for side in (front, back)]
        pipe.send((*endpoints, public if self._has_keys else b""))
        count_from_here()

        def forward() -> None:
            # It ends when the context does: the steerable proxy of libzmq 4.3.5 was seen to miss
            # its TERMINATE after a run of small messages.
            with front, back, contextlib.suppress(zmq.ContextTerminated):
                zmq.proxy(front, back)

        forwarder = threading.Thread(target=forward, name="proxy")
        forwarder.start()
        try:
            pipe.recv()
        finally:  # also when a run that failed is ended: the process would wait for the thread
            context.term()
            forwarder.join()

    def sender(self, address: tuple[str, str, bytes], load: Load) -> _Producer:
        """Connect a producer; the address has both endpoints, and the proxy's key or nothing."""
        endpoint, _, key = address
        kind = zmq.DEALER if self._front == zmq.ROUTER else zmq.PUSH
        return _Producer(kind, endpoint, key, load)

    def receiver(self, address: tuple[str, str, bytes], load: Load) -> _Consumer:
        """Connect a consumer; the address is that of `sender`."""
        _, endpoint, key = address
        kind = zmq.DEALER if self._back == zmq.DEALER else zmq.PULL
        return _Consumer(kind, endpoint, key, load, has_sender=self._front == zmq.ROUTER)


class _Producer:
    """Sends frames; a high-water mark holds it up, and nothing is ever confirmed."""

    def __init__(self, kind: int, endpoint: str, key: bytes, load: Load) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.set_hwm(load.window_messages)
        _encrypt(self._socket, key)
        self._socket.connect(endpoint)
        self._copies = load.message_bytes <= _COPY_BYTES_MAX
        self._sent = 0

    def room(self) -> int:
        """Tell that `send` waits by itself."""
        return 1_000_000

    def send(self, payload: bytes) -> None:
        """Send, as soon as there is room."""
        self._socket.send(payload, 0, copy=self._copies)
        self._sent += 1

    def poll(self, _timeout_s: float) -> int:
        """Give what was sent since: there are no confirms."""
        sent, self._sent = self._sent, 0
        return sent

    def close(self) -> None:
        """Close once all is sent."""
        self._socket.close(linger=-1)
        self._context.term()


class _Consumer:
    """Receives frames, and settles nothing."""

    def __init__(
        self, kind: int, endpoint: str, key: bytes, load: Load, *, has_sender: bool
    ) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.set_hwm(1000)
        _encrypt(self._socket, key)
        self._socket.connect(endpoint)
        self._copies = load.message_bytes <= _COPY_BYTES_MAX
        self._has_sender = has_sender

    def take(self, timeout_s: float) -> list[Payload]:
        """Receive all that is there."""
        receive, wait_ms = self._socket.recv, int(1000 * timeout_s)
        taken: list[Payload] = []
        # A receive in vain costs twice as much as asking first.
        while len(taken) < _TAKEN_MAX and self._socket.poll(wait_ms):
            wait_ms = 0
            if self._has_sender:  # what a ROUTER puts in front
                receive()
            taken.append(receive() if self._copies else receive(copy=False).buffer)
        return taken

    def settle(self) -> None:
        """Do nothing: a proxy keeps nothing."""

    def close(self) -> None:
        """Close."""
        self._socket.close(linger=0)
        self._context.term()


def _encrypt(socket: zmq.Socket[bytes], key: bytes) -> None:
    """Let a socket connect to the owner of a key, with a key of its own."""
    if key:
        socket.setsockopt(zmq.CURVE_SERVERKEY, key)
        public, secret = zmq.curve_keypair()
        socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, secret)


_ROUTER_DEALER = Proxy(zmq.ROUTER, zmq.DEALER)

PROXY = Carrier(
    "zmq.proxy ROUTER/DEALER", _ROUTER_DEALER.serve, _ROUTER_DEALER.sender, _ROUTER_DEALER.receiver
)
