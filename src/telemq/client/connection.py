"""The connection of a peer: a DEALER that carries one core's commands, and comes back by itself.

One thread owns it; only `wake` may be called from others. Nothing happens between calls: the owner
calls `poll` often, at least once a heartbeat, and heartbeats then prove that the owner itself is
alive, not only a thread of libzmq's.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import zmq

from telemq.client.consumer import ConsumerCore
from telemq.client.handshake import Handshake, use_keys
from telemq.client.payload import fit_buffer, has_message, receive_frames, send_frames
from telemq.client.producer import ProducerCore
from telemq.client.session import Command, Reconnect, Transmit
from telemq.clock import monotonic_ns
from telemq.errors import RemoteProtocolError, SettingError
from telemq.keys import LinkKeys
from telemq.log import get
from telemq.protocol import Frames, decode_from_broker, encode

__all__ = ["Connection"]

#: Messages taken in by one `poll` before the owner has its turn.
_BURST = 1000
#: How long `close` waits for BYE and the last SETTLE to leave.
_LINGER_MS = 500


class Connection:
    """What both kinds of link share: connection, polling and the commands of their core."""

    def __init__(
        self,
        endpoint: str,
        core: ProducerCore | ConsumerCore,
        context: zmq.Context[Any] | None,
        keys: LinkKeys | None,
    ) -> None:
        self._endpoint = endpoint
        self._core = core
        self._context: zmq.Context[Any] = context or zmq.Context()
        self._owns_context = context is None
        self._keys = keys
        self._socket: zmq.Socket[bytes] | None = None
        self._handshake: Handshake | None = None
        self._watched: Handshake | None = None
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._poller = zmq.Poller()
        self._poller.register(self._woken.fileno(), zmq.POLLIN)
        self._fault = core.session.fault
        self._log = get(broker=endpoint)
        self._results: list[Command] = []
        self._check_endpoint()

    @property
    def shown(self) -> str:
        """The broker, for logs and errors."""
        return self._endpoint

    @property
    def connected(self) -> bool:
        """Whether there is an open session."""
        return bool(self._core.session.token)

    @property
    def fault(self) -> str:
        """Why there is no session, in words; empty when there is one."""
        return self._core.session.fault

    @property
    def refused(self) -> bool:
        """Whether the broker will never take this peer as it is; see `fault`."""
        return self._core.session.is_final

    def wake(self) -> None:
        """Make a `poll` that waits in the owner's thread return; callable from any thread."""
        # A full buffer means that it is to wake already.
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"\0")

    def close(self) -> None:
        """Say BYE, if there is a session, and free everything."""
        self._run(self._core.session.bye(monotonic_ns()))
        self._disconnect(_LINGER_MS)
        if self._owns_context:
            self._context.term()
        self._waker.close()
        self._woken.close()

    @property
    def socket(self) -> zmq.Socket[bytes] | None:
        """What is readable when there is something to `poll`; another one after a reconnect."""
        return self._socket

    def next_deadline_ns(self) -> int | None:
        """Give when a `poll` is due although nothing came; None when it never is."""
        return self._core.next_deadline_ns()

    def _poll(self, timeout_s: float) -> list[Command]:
        """Do all that is to be done now; wait for up to `timeout_s` if that is nothing."""
        end = time.monotonic() + timeout_s
        while True:
            now_ns = monotonic_ns()
            self._advance(now_ns)
            self._note_changes()
            wait_s = 0.0 if self._results else end - time.monotonic()
            if wait_s > 0 and (deadline_ns := self.next_deadline_ns()) is not None:
                wait_s = min(wait_s, (deadline_ns - now_ns) / 1e9)
            woken, is_readable = self._wait(max(0.0, wait_s))
            if is_readable:
                self._take_in()
            self._note_changes()
            if self._results or woken or time.monotonic() >= end:
                results, self._results = self._results, []
                return results

    def _advance(self, now_ns: int) -> None:
        self._run(self._core.advance(now_ns))

    def _wait(self, wait_s: float) -> tuple[bool, bool]:
        """Wait until there is something to do; tell whether woken, and whether something came."""
        self._watch_handshake()
        # Rounded up: rounded down, the last millisecond before a deadline would spin.
        ready = dict(self._poller.poll(int(wait_s * 1000 + 0.999)))
        if self._watched is not None and self._watched.socket in ready:
            self._note_handshake(self._watched.fault())
        is_woken = self._woken.fileno() in ready
        if is_woken:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        return is_woken, self._socket in ready

    def _watch_handshake(self) -> None:
        """Poll for what becomes of the handshake, as long as there is no session."""
        watched = None if self.connected else self._handshake
        if watched is not self._watched:
            if self._watched is not None:
                self._poller.unregister(self._watched.socket)
            if watched is not None:
                self._poller.register(watched.socket, zmq.POLLIN)
            self._watched = watched

    def _take_in(self) -> None:
        for taken in range(_BURST):
            link = self._socket  # a command may have made a new one
            # Mostly there is one; of many, the rest come without asking.
            if link is None or (taken == 1 and not has_message(link)):
                return
            try:
                control, frames = receive_frames(link)
            except zmq.Again:
                return
            self._run(self._receive(control, frames))

    def _receive(self, control: bytes, frames: Frames) -> list[Command]:
        try:
            message = decode_from_broker(control)
        except RemoteProtocolError as error:
            self._log.warning("message from broker not understood", detail=error.detail)
            return []
        if isinstance(self._core, ConsumerCore):
            return self._core.receive(message, frames, monotonic_ns())
        return self._core.receive(message, monotonic_ns())

    def _run(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Transmit():
                    # There is no pipe any more after a denied handshake, which is told by
                    # `_handshake`, or by silence if it was libzmq's own reconnect.
                    with contextlib.suppress(zmq.Again):
                        self._send(command)
                case Reconnect():
                    self._reconnect()
                case _:
                    self._results.append(command)

    def _send(self, command: Transmit) -> None:
        if self._socket is None:
            return
        send_frames(self._socket, encode(command.message), command.frames)

    def _reconnect(self) -> None:
        self._disconnect(0)
        link: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        # Credit bounds what is under way. A high-water mark would block or drop silently, and with
        # ZeroMQ's own heartbeats a full one aborts the process (libzmq issue 4767).
        link.set_hwm(0)
        link.setsockopt(zmq.LINGER, 0)
        link.setsockopt(zmq.RECONNECT_IVL, 100)
        link.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        link.setsockopt(zmq.HANDSHAKE_IVL, 1000)
        link.setsockopt(zmq.IPV6, int("[" in self._endpoint))
        fit_buffer(link, self._endpoint)
        self._handshake = Handshake(link, self._keys)
        link.connect(self._endpoint)
        self._socket = link
        self._poller.register(link, zmq.POLLIN)

    def _disconnect(self, linger_ms: int) -> None:
        if self._watched is not None:
            self._poller.unregister(self._watched.socket)
            self._watched = None
        if self._handshake is not None:
            self._handshake.close()
        if self._socket is not None:
            self._poller.unregister(self._socket)
            self._socket.close(linger=linger_ms)
        self._handshake = self._socket = None

    def _note_handshake(self, fault: str) -> None:
        # In an open session it is libzmq's own reconnect that failed: the core notices the silence.
        if fault and not self.connected:
            self._disconnect(0)  # or libzmq would try again at once, without any pause
            self._core.session.turned_away(fault, monotonic_ns())

    def _check_endpoint(self) -> None:
        with self._context.socket(zmq.DEALER) as probe:
            use_keys(probe, self._keys)  # or the broker would warn of one without
            try:
                probe.connect(self._endpoint)
            except zmq.ZMQError as error:
                if self._owns_context:
                    self._context.destroy(linger=0)
                self._waker.close()
                self._woken.close()
                accepted = "a ZeroMQ endpoint, such as tcp://127.0.0.1:5601"
                raise SettingError("--broker", self._endpoint, accepted) from error

    def _note_changes(self) -> None:
        fault = self._core.session.fault
        if fault != self._fault:
            self._fault = fault
            if fault:
                self._log.warning("session lost", reason=fault)
            else:
                self._log.info("session open")
