"""Why a connection to a broker does not come about: what libzmq tells only a socket monitor.

A DEALER whose handshake fails stays silent for ever, and after a denial libzmq does not even try
again. No text holds a key.
"""

from __future__ import annotations

import contextlib

import zmq
from zmq.utils.monitor import parse_monitor_message

from telemq.keys import LinkKeys

__all__ = ["Handshake", "use_keys"]

_EVENTS = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_REFUSED = "the broker refuses this key (not allowed, revoked, or for the other role)"
_NEEDS_KEY = "the broker lets nobody in without a key: set --key and --broker-key"
_HAS_NO_KEYS = "the broker has no keys (it runs without --keys), so it is not taken for ours"
_CUT = (
    "the broker ended the handshake: --broker-key is not its key, it has no keys, or it is too "
    "busy to answer in time"
)
_BROKEN = "the other end does not speak ZeroMQ as expected; is the endpoint a broker's?"


def use_keys(link: zmq.Socket[bytes], keys: LinkKeys | None) -> None:
    """Let a socket that is not connected yet use keys, if there are any."""
    if keys is not None:
        link.setsockopt(zmq.CURVE_PUBLICKEY, keys.own.public)
        link.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret)
        link.setsockopt(zmq.CURVE_SERVERKEY, keys.broker)


class Handshake:
    """Watches one socket's handshakes; owned by the thread that owns the socket.

    Args:
        link: not connected yet.
        keys: with which it will connect, or None.

    Attributes:
        socket: to be polled.
    """

    def __init__(self, link: zmq.Socket[bytes], keys: LinkKeys | None) -> None:
        self._link = link
        self._has_keys = keys is not None
        use_keys(link, keys)
        self.socket: zmq.Socket[bytes] = link.get_monitor_socket(int(_EVENTS))

    def fault(self) -> str:
        """Say why the handshake failed since the last call; empty when it did not."""
        fault = ""
        with contextlib.suppress(zmq.Again):
            while True:
                event = parse_monitor_message(self.socket.recv_multipart(zmq.NOBLOCK))
                told = self._explain(event["event"], event["value"])
                # What is known better stays.
                fault = (fault or told) if told in ("", _CUT) else told
        return fault

    def close(self) -> None:
        """Stop watching, usually before the socket is closed."""
        if not self._link.closed:
            self._link.disable_monitor()
        self.socket.close(linger=0)

    def _explain(self, event: int, value: int) -> str:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return _REFUSED
        if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            # Without keys that is what a broker does that is killed or stopped just now.
            return _CUT if self._has_keys else ""
        if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return _HAS_NO_KEYS if self._has_keys else _NEEDS_KEY
        return _BROKEN
