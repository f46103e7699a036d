"""The broker's process: two ROUTER sockets round the pure core, owned by one thread.

A synchronous loop: poll, take in what has come, let the core decide, send what it says. Measured on
this kind of work, that is five to ten times the rate of the asyncio sockets.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from typing import NamedTuple

import zmq

from telemq.broker.core import BrokerCore, Outgoing
from telemq.broker.limits import BrokerLimits
from telemq.broker.metrics import BrokerMetrics
from telemq.broker.peers import PeerId
from telemq.clock import monotonic_ns
from telemq.errors import BusyError, RemoteProtocolError, SettingError
from telemq.health import LOOPBACK, OpsServer
from telemq.log import get
from telemq.protocol import (
    CONTROL_BYTES_MAX,
    Error,
    FromPeer,
    Payload,
    Role,
    Welcome,
    decode_from_peer,
    encode,
)
from telemq.settings import BrokerSettings

__all__ = ["BrokerServer", "limits_of", "run"]

#: Messages taken in from one socket before the other has its turn.
_BURST = 500
#: A payload from here on is sent and received without a copy; below, the bookkeeping costs more.
_COPY_BYTES_MAX = 32_768
#: Longest sleep, so that a stop is noticed.
_WAIT_MAX_MS = 100
#: How often the snapshot that metrics read is renewed.
_SNAPSHOT_S = 0.25
_LINGER_MS = 500
_SECOND = 1_000_000_000
#: int, because or-ing flag enums was 15 % of a first broker's time.
_NOBLOCK, _SNDMORE = int(zmq.NOBLOCK), int(zmq.SNDMORE)


class _Arrival(NamedTuple):
    route: bytes
    control: bytes
    payload: Payload | None
    frames: int


def limits_of(settings: BrokerSettings) -> BrokerLimits:
    """Turn settings into the core's limits."""
    return BrokerLimits(
        capacity_records=settings.capacity_records,
        capacity_bytes=settings.capacity_bytes,
        message_bytes_max=settings.message_bytes_max,
        credit_records_max=settings.credit_records_max,
        credit_bytes_max=settings.credit_bytes_max,
        lease_ns=int(settings.lease_s * _SECOND),
        attempts_max=settings.attempts_max,
        heartbeat_ns=int(settings.heartbeat_s * _SECOND),
        peers_max=settings.peers_max,
    )


class BrokerServer:
    """Two bound sockets and a core; `step` in a loop, then `close`.

    Args:
        settings: of the broker.

    Raises:
        SettingError: an endpoint is malformed, or not loopback without ``--insecure``.
        BusyError: somebody else listens there.

    Attributes:
        core: the rules and all state.
        producer_endpoint: where producers connect, with the port that was picked.
        consumer_endpoint: where consumers connect, with the port that was picked.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self.core = BrokerCore(limits_of(settings), os.urandom(32))
        self._log = get()
        self._context = zmq.Context()
        self._sockets: dict[Role, zmq.Socket[bytes]] = {}
        try:
            producers = self._bind("producer", settings.producer_bind, settings)
            consumers = self._bind("consumer", settings.consumer_bind, settings)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.producer_endpoint, self.consumer_endpoint = producers, consumers
        self._poller = zmq.Poller()
        for router in self._sockets.values():
            self._poller.register(router, zmq.POLLIN)

    def _bind(self, role: Role, endpoint: str, settings: BrokerSettings) -> str:
        flag = f"--{role}-bind"
        host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
        is_local = endpoint.startswith(("ipc://", "inproc://")) or host in LOOPBACK
        if not is_local and not settings.insecure:
            raise SettingError(flag, endpoint, "a loopback address, unless --insecure is given")
        router: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        # Credit bounds what is under way in both directions; a full high-water mark would drop
        # silently. A peer that is gone makes sending fail instead of vanish.
        router.set_hwm(0)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.MAXMSGSIZE, max(self.core.limits.largest_bytes, CONTROL_BYTES_MAX))
        # 30 s by default: silent connections would lock out everybody else.
        router.setsockopt(zmq.HANDSHAKE_IVL, 1000)
        router.setsockopt(zmq.BACKLOG, 1024)
        router.setsockopt(zmq.TCP_KEEPALIVE, 1)
        router.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
        router.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
        router.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        router.setsockopt(zmq.IPV6, int("[" in endpoint))
        try:
            router.bind(endpoint)
        except zmq.ZMQError as error:
            router.close()
            if error.errno in (zmq.EADDRINUSE, zmq.EADDRNOTAVAIL, errno.EACCES):
                raise BusyError(f"{flag} {endpoint}: {error.strerror}") from error
            accepted = "a ZeroMQ endpoint, such as tcp://127.0.0.1:5601"
            raise SettingError(flag, endpoint, accepted) from error
        self._sockets[role] = router
        return router.getsockopt_string(zmq.LAST_ENDPOINT)

    def step(self, wait_ms: int) -> None:
        """Wait for input for up to `wait_ms`, or the core's next deadline; then do all there is."""
        now_ns = monotonic_ns()
        deadline_ns = self.core.next_deadline_ns()
        if deadline_ns is not None:
            # Rounded up: rounded down, the last millisecond before a deadline would spin.
            wait_ms = max(0, min(wait_ms, -(-(deadline_ns - now_ns) // 1_000_000)))
        ready = dict(self._poller.poll(wait_ms))
        for role, router in self._sockets.items():
            if router in ready:
                self._take_in(role, router)
        now_ns = monotonic_ns()
        deadline_ns = self.core.next_deadline_ns()
        if deadline_ns is not None and deadline_ns <= now_ns:
            self._send(self.core.advance(now_ns))

    def drain(self) -> None:
        """Grant no more credit, so that the queue runs empty."""
        self._send(self.core.drain(monotonic_ns()))

    def close(self) -> None:
        """Say BYE to all peers and free the sockets."""
        self._send(self.core.close())
        self._context.destroy(linger=_LINGER_MS)

    def _take_in(self, role: Role, router: zmq.Socket[bytes]) -> None:
        for _ in range(_BURST):
            arrival = _receive(router)
            if arrival is None:
                return
            peer = PeerId(role, arrival.route)
            now_ns = monotonic_ns()
            try:
                message = _decode(arrival)
            except RemoteProtocolError as error:
                self._send(self.core.refuse(peer, error, now_ns))
            else:
                self._send(self.core.receive(peer, message, arrival.payload, now_ns))

    def _send(self, outgoing: list[Outgoing]) -> None:
        # A queue, not recursion: what a loss leads to goes after what was decided before it, or a
        # third peer would get its messages out of order and take that for a gap.
        pending = deque(outgoing)
        while pending:
            out = pending.popleft()
            if isinstance(out.message, Welcome | Error):
                self._note(out)
            router = self._sockets[out.peer.role]
            try:
                router.send(out.peer.route, _NOBLOCK | _SNDMORE)
                if out.payload is None:
                    router.send(encode(out.message), _NOBLOCK)
                    continue
                router.send(encode(out.message), _NOBLOCK | _SNDMORE)
                router.send(out.payload, _NOBLOCK, copy=len(out.payload) <= _COPY_BYTES_MAX)
            except zmq.ZMQError as error:
                if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                    raise
                pending += self.core.peer_lost(out.peer, monotonic_ns())

    def _note(self, out: Outgoing) -> None:
        if isinstance(out.message, Error):
            self._log.warning(
                "peer refused",
                role=out.peer.role,
                code=out.message.code,
                detail=out.message.detail,
            )
        else:
            name = self.core.name_of(out.peer)
            self._log.info("session open", role=out.peer.role, peer=name)


def _receive(router: zmq.Socket[bytes]) -> _Arrival | None:
    try:
        route = router.recv(_NOBLOCK)
    except zmq.Again:
        return None
    frames, control, payload = 0, b"", None
    while router.getsockopt(zmq.RCVMORE):
        frame = router.recv(copy=False)
        frames += 1
        if frames == 1:
            control = frame.bytes
        elif frames == 2:
            payload = frame.buffer if len(frame.buffer) > _COPY_BYTES_MAX else frame.bytes
    return _Arrival(route, control, payload, frames)


def _decode(arrival: _Arrival) -> FromPeer:
    if arrival.frames not in (1, 2):
        detail = f"{arrival.frames} frames; a message has one, PUBLISH has two"
        raise RemoteProtocolError("bad_message", detail)
    return decode_from_peer(arrival.control)


def run(settings: BrokerSettings, stop: threading.Event) -> int:
    """Run a broker until stopped and drained; gives the exit code.

    Raises:
        SettingError: a setting is not accepted.
        BusyError: an address is in use.
    """
    log = get()
    server = BrokerServer(settings)
    metrics = BrokerMetrics(server.core.stats())
    try:
        ops = OpsServer(
            settings.ops_address,
            ready=metrics.not_ready,
            registry=metrics.registry,
            insecure=settings.insecure,
        )
    except BaseException:
        server.close()
        raise
    with ops:
        log.info(
            "broker listening",
            producers=server.producer_endpoint,
            consumers=server.consumer_endpoint,
            ops=ops.address,
        )
        try:
            _serve(server, metrics, stop)
            server.drain()
            log.info("broker draining", held=_held(server))
            _serve(server, metrics, stop, until=time.monotonic() + settings.drain_s)
        finally:
            log.info("broker stopped", held=_held(server))
            server.close()
    return 0


def _held(server: BrokerServer) -> int:
    stats = server.core.stats()
    return stats.ready_messages + stats.leased_messages


def _serve(
    server: BrokerServer,
    metrics: BrokerMetrics,
    stop: threading.Event,
    until: float | None = None,
) -> None:
    """Serve until stopped; or, given `until`, until nothing is held or that moment."""
    next_snapshot = 0.0
    while True:
        if until is None:
            if stop.is_set():
                return
        elif time.monotonic() >= until or not _held(server):
            return
        server.step(_WAIT_MAX_MS)
        now = time.monotonic()
        if now >= next_snapshot:
            next_snapshot = now + _SNAPSHOT_S
            metrics.snapshot = server.core.stats()
