"""The socket of a peer: a DEALER that carries one core's commands, and comes back by itself.

One thread owns a link; only `wake` may be called from others. Nothing happens between calls: the
owner calls `poll` often, at least once a heartbeat, and heartbeats then prove that the owner itself
is alive, not only a thread of libzmq's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import zmq

from telemq.client.consumer import ConsumerCore, ConsumerStats
from telemq.client.handshake import Handshake, use_keys
from telemq.client.payload import send_payload
from telemq.client.producer import ProducerCore, ProducerStats
from telemq.client.session import Command, Confirmed, Delivery, Lost, Reconnect, Transmit
from telemq.clock import monotonic_ns
from telemq.errors import RemoteProtocolError, SettingError
from telemq.keys import LinkKeys
from telemq.log import get
from telemq.protocol import Payload, decode_from_broker, encode

__all__ = ["ConsumerLink", "ProducerLink"]

#: Messages taken in by one `poll` before the owner has its turn.
_BURST = 1000
#: int, because or-ing flag enums costs more than the rest of a call.
_NOBLOCK, _SNDMORE = int(zmq.NOBLOCK), int(zmq.SNDMORE)
#: A payload from here on is received without a copy; below, the bookkeeping costs more.
_COPY_BYTES_MAX = 32_768
#: How long `close` waits for BYE and the last SETTLE to leave.
_LINGER_MS = 500


class _Link:
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
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
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
            self._run(self._core.advance(now_ns))
            self._note_changes()
            wait_s = 0.0 if self._results else max(0.0, end - time.monotonic())
            deadline_ns = self._core.next_deadline_ns()
            if deadline_ns is not None:
                wait_s = min(wait_s, max(0.0, (deadline_ns - now_ns) / 1e9))
            woken = self._wait(wait_s)
            self._take_in()
            self._note_changes()
            if self._results or woken or time.monotonic() >= end:
                results, self._results = self._results, []
                return results

    def _wait(self, wait_s: float) -> bool:
        poller = zmq.Poller()
        poller.register(self._woken.fileno(), zmq.POLLIN)
        if self._socket is not None:
            poller.register(self._socket, zmq.POLLIN)
        if self._handshake is not None:
            poller.register(self._handshake.socket, zmq.POLLIN)
        # Rounded up: rounded down, the last millisecond before a deadline would spin.
        ready = dict(poller.poll(int(wait_s * 1000 + 0.999)))
        if self._handshake is not None and self._handshake.socket in ready:
            self._note_handshake(self._handshake.fault())
        if self._woken.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
            return True
        return False

    def _take_in(self) -> None:
        for _ in range(_BURST):
            link = self._socket  # a command may have made a new one
            if link is None:
                return
            try:
                frame = link.recv(_NOBLOCK, copy=False)
            except zmq.Again:
                return
            control, payload = frame.bytes, None
            while frame.more:
                frame = link.recv(_NOBLOCK, copy=False)
                payload = frame.buffer if len(frame) > _COPY_BYTES_MAX else frame.bytes
            self._run(self._receive(control, payload))

    def _receive(self, control: bytes, payload: Payload | None) -> list[Command]:
        try:
            message = decode_from_broker(control)
        except RemoteProtocolError as error:
            self._log.warning("message from broker not understood", detail=error.detail)
            return []
        if isinstance(self._core, ConsumerCore):
            return self._core.receive(message, payload, monotonic_ns())
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
        control = encode(command.message)
        if command.payload is None:
            self._socket.send(control, _NOBLOCK)
            return
        self._socket.send(control, _NOBLOCK | _SNDMORE)
        send_payload(self._socket, command.payload)

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
        self._handshake = Handshake(link, self._keys)
        link.connect(self._endpoint)
        self._socket = link

    def _disconnect(self, linger_ms: int) -> None:
        if self._handshake is not None:
            self._handshake.close()
        if self._socket is not None:
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


class ProducerLink(_Link):
    """Publishes messages to one broker, and keeps each until the broker confirms it.

    Args:
        endpoint: the broker's endpoint for producers.
        name: for the broker's log.
        window_records: most unconfirmed records.
        window_bytes: most unconfirmed payload bytes.
        context: to share with other links of the same thread; by default the link has its own.
        keys: for a broker that has keys, or None.

    Raises:
        SettingError: the endpoint is malformed.
    """

    _core: ProducerCore

    def __init__(
        self,
        endpoint: str,
        *,
        name: str,
        window_records: int,
        window_bytes: int,
        context: zmq.Context[Any] | None = None,
        keys: LinkKeys | None = None,
    ) -> None:
        core = ProducerCore(
            name, window_records=window_records, window_bytes=window_bytes, seed=_seed()
        )
        super().__init__(endpoint, core, context, keys)

    def room_records(self) -> int:
        """Tell how many more records may be published; 0 when the window is full."""
        return self._core.room_records()

    def publish(
        self,
        id: str,
        records: int,
        payload: Payload,
        *,
        key: str = "",
        metadata: dict[str, str] | None = None,
    ) -> None:
        """Hand over a message; it is sent when there is credit and kept until it is confirmed.

        Small messages are sent together: at the next `poll`, or once enough of them wait.

        Raises:
            LocalProtocolError: that id is kept already, or the message is too large.
        """
        if self._core.keep(id, records, payload, key=key, metadata=metadata or {}):
            self.flush()

    def flush(self) -> None:
        """Send what there is credit for now, rather than at the next `poll`."""
        self._run(self._core.flush(monotonic_ns()))

    def forget(self, id: str) -> None:
        """Drop a message that somebody else sees to now."""
        self._core.forget(id)

    def poll(self, timeout_s: float) -> list[str]:
        """Do all input and output; give the ids confirmed since the last call.

        Returns at once when there are some, otherwise after `timeout_s` or a `wake`.

        Raises:
            LocalProtocolError: a kept message is larger than this broker takes.
        """
        confirmed = [c for c in self._poll(timeout_s) if isinstance(c, Confirmed)]
        return [id for command in confirmed for id in command.ids]

    def unconfirmed(self) -> int:
        """Tell how many messages are kept."""
        stats = self._core.stats()
        return stats.waiting_messages + stats.sent_messages

    def stats(self) -> ProducerStats:
        """Give a frozen snapshot."""
        return self._core.stats()


class ConsumerLink(_Link):
    """Receives messages from one broker and settles them.

    Args:
        endpoint: the broker's endpoint for consumers.
        name: for the broker's log.
        credit_records: most records delivered and not settled.
        credit_bytes: most payload bytes delivered and not settled.
        context: to share with other links of the same thread; by default the link has its own.
        keys: for a broker that has keys, or None.

    Raises:
        SettingError: the endpoint is malformed.
    """

    _core: ConsumerCore

    def __init__(
        self,
        endpoint: str,
        *,
        name: str,
        credit_records: int,
        credit_bytes: int,
        context: zmq.Context[Any] | None = None,
        keys: LinkKeys | None = None,
    ) -> None:
        self._lost: list[Delivery] = []
        core = ConsumerCore(
            name, credit_records=credit_records, credit_bytes=credit_bytes, seed=_seed()
        )
        super().__init__(endpoint, core, context, keys)

    def poll(self, timeout_s: float) -> list[Delivery]:
        """Do all input and output; give the messages delivered since the last call.

        Returns at once when there are some, otherwise after `timeout_s` or a `wake`.
        """
        results = self._poll(timeout_s)
        self._lost = [d for c in results if isinstance(c, Lost) for d in c.deliveries]
        lost = set(self._lost)
        return [c for c in results if isinstance(c, Delivery) and c not in lost]

    def lost(self) -> Sequence[Delivery]:
        """Give what, as the last `poll` found, will be delivered again, to us or to another."""
        return self._lost

    def settle(
        self,
        deliveries: Iterable[Delivery],
        outcome: Literal["ok", "retry", "bury"] = "ok",
        reason: str = "",
    ) -> None:
        """Be done with deliveries; those of a session that is over are ignored."""
        self._run(self._core.settle(deliveries, outcome, reason, monotonic_ns()))

    def renew(self, deliveries: Iterable[Delivery]) -> None:
        """Let the leases of these deliveries begin anew."""
        self._run(self._core.renew(deliveries, monotonic_ns()))

    def allow(self, records: int, size_bytes: int) -> None:
        """Hold at most this much from now on."""
        self._run(self._core.allow(records, size_bytes, monotonic_ns()))

    def pause(self) -> None:
        """Take no more deliveries; what was delivered may still be settled."""
        self._run(self._core.pause(monotonic_ns()))

    def stats(self) -> ConsumerStats:
        """Give a frozen snapshot."""
        return self._core.stats()


def _seed() -> int:
    return int.from_bytes(os.urandom(8), "big")
