"""The broker's process: the pure core, its sockets round it, owned by one thread.

A synchronous loop: poll, take in what has come, let the core decide, send what it says. Measured on
this kind of work, that is five to ten times the rate of the asyncio sockets.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import ExitStack

from telemq.broker.core import BrokerCore, Outgoing
from telemq.broker.descriptors import ensure_descriptors
from telemq.broker.door import DoorStats
from telemq.broker.journaled import JournaledCore
from telemq.broker.keeper import JournalStats, Keeper
from telemq.broker.limits import BrokerLimits
from telemq.broker.local import LocalPeers, is_local
from telemq.broker.metrics import BrokerMetrics
from telemq.broker.pressure import Pressure
from telemq.broker.sockets import Routers
from telemq.broker.status import StatusBoard
from telemq.broker.ways import Ways
from telemq.broker.ways_metrics import serving_http
from telemq.clock import monotonic_ns
from telemq.errors import RemoteProtocolError
from telemq.health import OpsServer
from telemq.log import Seldom, get
from telemq.protocol import Error, Role, Welcome, encode
from telemq.settings import BrokerSettings

__all__ = ["BrokerServer", "limits_of", "run"]

#: Messages taken in from one socket before the other has its turn.
_BURST = 500
#: Longest sleep, so that a stop is noticed.
_WAIT_MAX_MS = 100
#: How often the snapshot that metrics read is renewed.
_SNAPSHOT_S = 0.25
_SECOND = 1_000_000_000
#: What a peer is told that goes into the log; made once, since to write it as a union costs more
#: than the question whether a message is one.
_TOLD = (Welcome, Error)


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
        retry_ns=settings.retry_ms * 1_000_000,
        retry_ns_max=settings.retry_ms_max * 1_000_000,
        heartbeat_ns=int(settings.heartbeat_s * _SECOND),
        peers_max=settings.peers_max,
        errors_max=settings.errors_per_s_max,
        errors_ns=_SECOND,
    )


class BrokerServer:
    """Two bound sockets and a core; `step` in a loop, then `close`.

    Args:
        settings: of the broker.

    Raises:
        SettingError: an endpoint is malformed, or not loopback without keys or ``--insecure``; the
            key directory is not usable.
        BusyError: somebody else listens there.

    Attributes:
        core: the rules and all state.
        producer_endpoint: where producers connect, with the port that was picked.
        consumer_endpoint: where consumers connect, with the port that was picked.
        ways: what is on of PULL, PUSH and HTTP.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self.core, self._keeper = _core_of(settings)
        try:
            self._routers = Routers(settings, self.core.limits.largest_bytes)
        except BaseException:
            if self._keeper is not None:
                self._keeper.close()
            raise
        if self._keeper is not None:
            self._routers.watch(self._keeper.wakeup.fileno())
        self.producer_endpoint = self._routers.endpoints["producer"]
        self.consumer_endpoint = self._routers.endpoints["consumer"]
        self._log = get()
        self._advanced_ns = 0
        self._seldom = Seldom()
        self._local = LocalPeers(self.core)
        try:
            self.ways = Ways(settings, self.core, self._local, self._routers.poller, self._send)
        except BaseException:
            if self._keeper is not None:
                self._keeper.close()
            self._routers.close()
            raise

    def step(self, wait_ms: int) -> None:
        """Wait for input for up to `wait_ms`, or the core's next deadline; then do all there is."""
        now_ns = monotonic_ns()
        due_ns = self.core.next_deadline_ns()
        for deadline_ns in (due_ns, self.ways.prepare()):
            if deadline_ns is not None:
                # Rounded up: rounded down, the last millisecond before a deadline would spin.
                wait_ms = max(0, min(wait_ms, -(-(deadline_ns - now_ns) // 1_000_000)))
        taken = [self._take_in(role) for role in self._routers.wait(wait_ms)]
        self.ways.step()
        now_ns = monotonic_ns()
        if door := self._routers.door:
            for role, key in door.reread(now_ns):
                self._send(self.core.revoke(role, key, now_ns))
        # After a stall, what peers have said meanwhile is heard before any is taken for silent.
        if max(taken, default=0) >= _BURST and now_ns < self._advanced_ns + _SECOND:
            self._exchange(now_ns)
            return
        self._advanced_ns = now_ns
        self._send(self._local.speak(now_ns))
        if due_ns is not None and due_ns <= now_ns:
            self._send(self.core.advance(now_ns))
        self._send(self._local.advance(now_ns))
        self._exchange(now_ns)

    def drain(self) -> None:
        """Grant no more credit, so that the queue runs empty."""
        self._send(self.core.drain(monotonic_ns()))

    def door_stats(self) -> DoorStats | None:
        """Give a frozen snapshot of who was let in and who was not, or None without keys."""
        return self._routers.door.stats() if self._routers.door else None

    def close(self) -> None:
        """Say BYE to all peers and free the sockets; what is noted goes into the journal."""
        self.ways.close()
        try:
            self._exchange(monotonic_ns())
            self._send(self.core.close())
        finally:
            if self._keeper is not None:
                self._keeper.close()
            self._routers.close()

    def journal_stats(self) -> JournalStats | None:
        """Give a frozen snapshot of the journal; None without one."""
        return None if self._keeper is None else self._keeper.stats

    def messages_at_risk(self) -> int:
        """Tell how many messages would be gone if this process ended now."""
        if isinstance(self.core, JournaledCore):
            return self.core.unsynced_messages()
        stats = self.core.stats()
        return stats.ready_messages + stats.leased_messages

    def _exchange(self, now_ns: int) -> None:
        if self._keeper is not None and isinstance(self.core, JournaledCore):
            self._send(self._keeper.exchange(self.core, now_ns))

    def _take_in(self, role: Role) -> int:
        count = 0
        for arrival in self._routers.receive(role, _BURST):
            count += 1
            now_ns = monotonic_ns()
            try:
                message = arrival.decode()
            except RemoteProtocolError as error:
                self._send(self.core.refuse(arrival.peer, error, now_ns))
            else:
                self._send(self.core.receive(arrival.peer, message, arrival.frames, now_ns))
        return count

    def _send(self, outgoing: list[Outgoing]) -> None:
        # A queue, not recursion: what a loss leads to goes after what was decided before it, or a
        # third peer would get its messages out of order and take that for a gap.
        pending = deque(outgoing)
        while pending:
            out = pending.popleft()
            if is_local(out.peer):
                pending += self._local.hear(out, monotonic_ns())
                continue
            if isinstance(out.message, _TOLD):
                self._note(out)
            if not self._routers.send(out.peer, encode(out.message), out.frames):
                pending += self.core.peer_lost(out.peer, monotonic_ns())

    def _note(self, out: Outgoing) -> None:
        if isinstance(out.message, Welcome):
            name = self.core.name_of(out.peer)
            key = {"key": out.peer.key.partition("/")[0]} if out.peer.key else {}
            self._log.info("session open", role=out.peer.role, peer=name, **key)
        elif isinstance(out.message, Error):
            self._note_refusal(out.peer.role, out.message)

    def _note_refusal(self, role: Role, error: Error) -> None:
        """Log one refusal of each code a second: a peer may earn them as fast as it can send."""
        unsaid = self._seldom.due(error.code, monotonic_ns())
        if unsaid is not None:
            self._log.warning(
                "peer refused",
                role=role,
                code=error.code,
                detail=error.detail,
                unsaid_before=unsaid,
            )


def _core_of(settings: BrokerSettings) -> tuple[BrokerCore, Keeper | None]:
    limits, secret = limits_of(settings), os.urandom(32)
    if not settings.journal:
        return BrokerCore(limits, secret), None
    core = JournaledCore(limits, secret)
    return core, Keeper(settings, core)


def run(settings: BrokerSettings, stop: threading.Event) -> int:
    """Run a broker until stopped and drained; gives the exit code.

    Raises:
        SettingError: a setting is not accepted.
        BusyError: an address is in use.
    """
    log = get()
    ensure_descriptors(settings.peers_max)
    server = BrokerServer(settings)
    metrics = BrokerMetrics(server.core.stats(), server.journal_stats())
    board = StatusBoard(server.core, monotonic_ns)
    with ExitStack() as stack:
        try:
            ops = OpsServer(
                settings.ops_address,
                ready=metrics.not_ready,
                registry=metrics.registry,
                documents={"/status.json": board.document},
                insecure=settings.insecure,
            )
            stack.enter_context(ops)
            stack.enter_context(serving_http(settings, server.ways, metrics))
        except BaseException:
            server.close()
            raise
        log.info(
            "broker listening",
            producers=server.producer_endpoint,
            consumers=server.consumer_endpoint,
            ops=ops.address,
        )
        try:
            _serve(server, metrics, board, stop)
            server.drain()
            log.info("broker draining", held=_held(server), at_risk=server.messages_at_risk())
            _serve(server, metrics, board, stop, until=time.monotonic() + settings.drain_s)
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
    board: StatusBoard,
    stop: threading.Event,
    until: float | None = None,
) -> None:
    """Serve until stopped; or, given `until`, until nothing can be lost or that moment."""
    next_snapshot, pressure = 0.0, Pressure()
    while True:
        if until is None:
            if stop.is_set():
                return
        elif time.monotonic() >= until or not server.messages_at_risk():
            return
        server.step(_WAIT_MAX_MS)
        now = time.monotonic()
        if now >= next_snapshot:
            next_snapshot = now + _SNAPSHOT_S
            metrics.snapshot = server.core.stats()
            pressure.note(metrics.snapshot)
            metrics.journal = server.journal_stats()
            metrics.door = server.door_stats()
        board.offer()
