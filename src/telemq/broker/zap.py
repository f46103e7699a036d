"""The ZAP 1.0 handler (RFC 27): libzmq asks it about every CURVE handshake of the broker.

libzmq's I/O thread sends a request for each connection and lets the peer wait for the answer; the
broker's own loop answers, so that the allow-list has one owner. It fails closed: without a handler
no handshake succeeds (ZAP_ENFORCE_DOMAIN), and what cannot be understood is denied::

    request  "1.0" id domain address routing-id mechanism credentials
    reply    "1.0" id status text user-id metadata
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import zmq
from zmq.utils import z85

__all__ = ["Denial", "ZapHandler"]

_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
#: Frames of a CURVE request, with those of the socket before it.
_FRAMES, _KEY_BYTES = 9, 32


class Denial(NamedTuple):
    """One handshake that was denied.

    Attributes:
        domain: which endpoint was asked for.
        address: from where, as far as libzmq knows.
        reason: one of `telemq.broker.admission.DENIALS`.
    """

    domain: str
    address: str
    reason: str


class ZapHandler:
    """Answers the handshakes of one context's sockets; owned by the thread that owns those.

    Args:
        context: whose sockets ask.
        decide: takes a domain and a public key in Z85; gives the user id and an empty text, or an
            empty user id and the denial.

    Attributes:
        socket: to be polled.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        decide: Callable[[str, bytes], tuple[str, str]],
    ) -> None:
        self._decide = decide
        self.socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(_ENDPOINT)

    def answer(self, most: int) -> Iterator[Denial]:
        """Answer what has been asked, at most so many requests; yields those that were denied."""
        for _ in range(most):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(frames) < _FRAMES - 1:
                continue  # no request of libzmq's; whoever it is gets no answer
            route, empty, _, request, domain, address, _, mechanism, *credentials = frames
            user, reason = "", "no_key"
            if mechanism == b"CURVE" and [len(part) for part in credentials] == [_KEY_BYTES]:
                user, reason = self._decide(domain.decode(), z85.encode(credentials[0]))
            status, text = (b"200", b"OK") if user else (b"400", b"denied")
            self.socket.send_multipart(
                [route, empty, _VERSION, request, status, text, user.encode(), b""]
            )
            if not user:
                yield Denial(domain.decode(), address.decode(errors="replace"), reason)
