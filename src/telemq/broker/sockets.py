"""The broker's two ROUTER sockets: frames in, frames out, and nothing decided.

libzmq 4.3.5 drops silently where a broker must not, so every default that does is overridden here,
each with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import zmq

from telemq.broker.binding import bind
from telemq.broker.door import Door
from telemq.broker.peers import PeerId
from telemq.client.payload import fit_buffer, has_message, receive_frames, send_frames
from telemq.clock import monotonic_ns
from telemq.endpoint import is_local
from telemq.errors import RemoteProtocolError, SettingError
from telemq.keys import KeyDirectory
from telemq.protocol import (
    PACK_BYTES_MAX,
    Frames,
    FromPeer,
    PublishPack,
    Role,
    decode_from_peer,
)
from telemq.settings import BrokerSettings

__all__ = ["Arrival", "Routers"]

_LINGER_MS = 500
#: int, because or-ing flag enums was 15 % of a first broker's time.
_NOBLOCK, _SNDMORE = int(zmq.NOBLOCK), int(zmq.SNDMORE)
#: A thread of libzmq for each role, as ZMQ_AFFINITY counts them: what comes in is read (and
#: decrypted) while what goes out is written. One thread for both takes 12 % longer with keys.
_THREADS: dict[Role, int] = {"producer": 0b01, "consumer": 0b10}


class Arrival(NamedTuple):
    """One message of a peer, not decoded yet.

    Attributes:
        peer: where it came from.
        control: the control frame.
        frames: the payload frames.
    """

    peer: PeerId
    control: bytes
    frames: Frames

    def decode(self) -> FromPeer:
        """Read the control frame.

        Raises:
            RemoteProtocolError: it is not a message of the protocol.
        """
        # Those that libzmq gives begin with a zero, and nobody else knows them. One that a peer
        # chose could be taken by another, whom libzmq would then leave without any answer.
        if self.peer.route[:1] != b"\0":
            detail = "the socket has a routing id of its own choice; leave it unset"
            raise RemoteProtocolError("bad_message", detail)
        message = decode_from_peer(self.control)
        if len(self.frames) > 1 and not isinstance(message, PublishPack):
            detail = f"{1 + len(self.frames)} frames; a message has one, PUBLISH two, PACK more"
            raise RemoteProtocolError("bad_message", detail)
        return message


class Routers:
    """Two bound ROUTER sockets, one for each role; owned by one thread.

    Args:
        settings: of the broker.
        payload_bytes_max: of one message; frames longer than this, and than a PACK's, end the
            connection.

    Raises:
        SettingError: an endpoint is malformed, or not loopback without keys or ``--insecure``; the
            key directory is not usable.
        BusyError: somebody else listens there.

    Attributes:
        endpoints: where each role connects, with the port that was picked.
        door: lets peers in by their keys, or None without ``--keys``.
        poller: what `wait` waits for; others may add what belongs to the same thread.
    """

    def __init__(self, settings: BrokerSettings, payload_bytes_max: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(len(_THREADS))
        self.door: Door | None = None
        self._sockets: dict[Role, zmq.Socket[bytes]] = {}
        self._frame_bytes_max = max(payload_bytes_max, PACK_BYTES_MAX)
        try:
            if settings.keys:
                self.door = Door(self._context, KeyDirectory(Path(settings.keys)))
            self.endpoints: dict[Role, str] = {
                "producer": self._bind("producer", settings.producer_bind, settings),
                "consumer": self._bind("consumer", settings.consumer_bind, settings),
            }
        except BaseException:
            if self.door:
                self.door.close()
            self._context.destroy(linger=0)
            raise
        self.poller = zmq.Poller()
        for polled in (*self._sockets.values(), *(self.door.sockets if self.door else ())):
            self.poller.register(polled, zmq.POLLIN)

    def _bind(self, role: Role, endpoint: str, settings: BrokerSettings) -> str:
        flag = f"--{role}-bind"
        if not (is_local(endpoint) or settings.keys or settings.insecure):
            accepted = "a loopback address, unless --keys or --insecure is given"
            raise SettingError(flag, endpoint, accepted)
        router: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        router.setsockopt(zmq.AFFINITY, _THREADS[role])
        # Credit bounds what is under way in both directions; a full high-water mark would drop
        # silently. A peer that is gone makes sending fail instead of vanish.
        router.set_hwm(0)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.MAXMSGSIZE, self._frame_bytes_max)
        # 30 s by default: silent connections would lock out everybody else.
        router.setsockopt(zmq.HANDSHAKE_IVL, 1000)
        router.setsockopt(zmq.BACKLOG, 1024)
        router.setsockopt(zmq.TCP_KEEPALIVE, 1)
        router.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
        router.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
        router.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        fit_buffer(router, endpoint)
        if self.door:
            self.door.guard(router, role)
        bound = bind(router, flag, endpoint)
        self._sockets[role] = router
        return bound

    def watch(self, descriptor: int) -> None:
        """Let `wait` end when a descriptor can be read, too."""
        self.poller.register(descriptor, zmq.POLLIN)

    def wait(self, wait_ms: int) -> list[Role]:
        """Wait for input; gives the roles that have some."""
        ready = dict(self.poller.poll(wait_ms))
        if self.door:
            self.door.attend(ready, monotonic_ns())
        return [role for role, router in self._sockets.items() if router in ready]

    def receive(self, role: Role, most: int) -> Iterator[Arrival]:
        """Yield what has come from peers of one role, at most so many messages."""
        router, door = self._sockets[role], self.door
        for taken in range(most):
            # Mostly there is one; of many, the rest come without asking.
            if taken == 1 and not has_message(router):
                return
            arrival = _receive(role, router, has_keys=door is not None)
            if arrival is None:
                return
            if door is None or door.admits(arrival.peer):
                yield arrival

    def send(self, peer: PeerId, control: bytes, frames: Frames) -> bool:
        """Send one message; tell whether the peer could be reached."""
        router = self._sockets[peer.role]
        try:
            router.send(peer.route, _NOBLOCK | _SNDMORE)
            send_frames(router, control, frames)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def close(self) -> None:
        """Free the sockets, once what was sent has left, or after a moment."""
        if self.door:
            self.door.close()
        self._context.destroy(linger=_LINGER_MS)


def _receive(role: Role, router: zmq.Socket[bytes], *, has_keys: bool) -> Arrival | None:
    try:
        if has_keys:
            first = router.recv(_NOBLOCK, copy=False)
            # What the ZAP handler said of this connection's key; no peer can write it.
            peer = PeerId(role, first.bytes, str(first.get("User-Id")))
        else:
            peer = PeerId(role, router.recv(_NOBLOCK))
    except zmq.Again:
        return None
    # Behind the routing id there always is a frame.
    return Arrival(peer, *receive_frames(router))
