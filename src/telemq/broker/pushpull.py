"""PUSH and PULL: a way in and a way out that are one line of ZeroMQ in any language, at most once.

Neither side hears of the other, so nothing can be confirmed; docs/ways.md tells what is promised.
What is promised here as everywhere: no more is held than there is room for. A PULL socket whose
messages find no room is not read; a PUSH socket that takes no more gives the broker no credit. In
both cases ZeroMQ holds at most its high-water mark for each connection, and whoever sends waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import zmq

from telemq.broker.binding import bind
from telemq.broker.core import Outgoing
from telemq.broker.local import LocalPeer, LocalPeers
from telemq.client.consumer import ConsumerCore
from telemq.client.producer import ProducerCore
from telemq.client.session import Delivered, Delivery
from telemq.clock import monotonic_ns
from telemq.endpoint import is_local
from telemq.errors import SettingError
from telemq.frames import COPY_BYTES_MAX
from telemq.log import get
from telemq.protocol import Payload
from telemq.settings import BrokerSettings

__all__ = ["PullWay", "PushWay", "Send"]

#: Hands on what the core says; the broker's server does it.
Send = Callable[[list[Outgoing]], None]

#: Messages taken in or handed over before others have their turn.
_BURST = 500
#: Longest content type: that of a value of metadata (docs/protocol.md).
_CONTENT_TYPE_MAX = 512
_SECOND = 1_000_000_000
_NOBLOCK = int(zmq.NOBLOCK)


class PullWay:
    """Takes in what anyone PUSHes, as one local producer; owned by the broker's thread.

    One frame is a payload; of two the first is its content type. A message of any other form is
    refused: counted, and logged once a second.

    Args:
        context: of the broker.
        settings: of the broker.
        local: the broker's local peers.
        send: hands on what the core says.
        epoch: of this start of the broker; names the stream, so that ids never come again.
        payload_bytes_max: a longer frame ends its connection.

    Raises:
        SettingError: the endpoint is malformed, or not loopback without ``--insecure``.
        BusyError: somebody else listens there.

    Attributes:
        endpoint: where to PUSH, with the port that was picked.
        pulled: messages taken in.
        refused: messages of a form that is not accepted.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: BrokerSettings,
        local: LocalPeers,
        send: Send,
        *,
        epoch: str,
        payload_bytes_max: int,
    ) -> None:
        self._socket = context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, settings.pull_messages_max)
        self._socket.setsockopt(zmq.MAXMSGSIZE, max(payload_bytes_max, _CONTENT_TYPE_MAX))
        self.endpoint = _bind(self._socket, "--pull", settings.pull, insecure=settings.insecure)
        self._payload_bytes_max = payload_bytes_max
        self._content_type = settings.pull_content_type
        self._stream = f"push/{epoch}"
        self._local, self._send = local, send
        self._core = ProducerCore(
            self._stream,
            window_records=settings.capacity_records,
            window_bytes=settings.capacity_bytes,
            seed=0,
        )
        self._heard: dict[LocalPeer, None] = {}
        self._peer, out = local.join(self._core, self._heard, monotonic_ns())
        send(out)
        self._refusal_ns = -_SECOND
        self.pulled = self.refused = 0

    def step(self) -> None:
        """Take in what there is room for."""
        self._heard.clear()
        self._peer.take()  # confirms: there is nobody to tell
        for _ in range(_BURST):
            frames = self._receive() if self._may_read() else None
            if frames is None:
                return
            self._take_in(frames)

    def is_due(self) -> bool:
        """Tell whether `step` has something to do without new input; it never has."""
        return False

    def watch(self, poller: zmq.Poller) -> None:
        """Let a poller wake up for input, if there is room for some."""
        _watch(poller, self._socket, zmq.POLLIN if self._may_read() else 0)

    def _may_read(self) -> bool:
        # At most one message is held that the broker has no room for: the one that waits for credit
        # and by that asks for it.
        stats = self._core.stats()
        return (
            bool(self._core.session.token)
            and not stats.waiting_messages
            and self._core.room_records() > 0
        )

    def _receive(self) -> list[zmq.Frame] | None:
        try:
            return self._socket.recv_multipart(_NOBLOCK, copy=False)
        except zmq.Again:
            return None

    def _take_in(self, frames: list[zmq.Frame]) -> None:
        content_type = self._content_type
        if len(frames) == 2:
            content_type = _text(frames[0].bytes)
        payload = frames[-1].buffer
        if len(frames) > 2 or not content_type or len(payload) > self._payload_bytes_max:
            self._refuse(len(frames))
            return
        now_ns = monotonic_ns()
        id = f"{self._stream}#{self.pulled}"
        self.pulled += 1
        commands = self._core.publish(
            id,
            1,
            payload if len(payload) > COPY_BYTES_MAX else bytes(payload),
            key="",
            metadata={"content-type": content_type},
            now_ns=now_ns,
        )
        self._send(self._local.do(self._peer, commands, now_ns))

    def _refuse(self, frames: int) -> None:
        self.refused += 1
        now_ns = monotonic_ns()
        if now_ns >= self._refusal_ns + _SECOND:
            self._refusal_ns = now_ns
            get().warning(
                "pulled message refused",
                frames=frames,
                accepted="one frame, or a content type and a payload",
                refused=self.refused,
            )


class PushWay:
    """Fans messages out to whoever PULLs, as one local consumer; owned by the broker's thread.

    It gives credit only while the socket takes a message, so with no puller, or slow ones, messages
    stay in the queue, for others or for later. What ZeroMQ has taken counts as settled.

    Args:
        context: of the broker.
        settings: of the broker.
        local: the broker's local peers.
        send: hands on what the core says.

    Raises:
        SettingError: the endpoint is malformed, or not loopback without ``--insecure``.
        BusyError: somebody else listens there.

    Attributes:
        endpoint: where to PULL, with the port that was picked.
        pushed: messages handed over.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: BrokerSettings,
        local: LocalPeers,
        send: Send,
    ) -> None:
        self._socket = context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, settings.push_messages_max)
        self.endpoint = _bind(self._socket, "--push", settings.push, insecure=settings.insecure)
        self._local, self._send = local, send
        self._core = ConsumerCore("push", credit_records=0, credit_bytes=0, seed=0)
        self._open = False
        self._heard: dict[LocalPeer, None] = {}
        self._peer, out = local.join(self._core, self._heard, monotonic_ns())
        send(out)
        self.pushed = 0

    def step(self) -> None:
        """Hand over what the pullers take."""
        self._heard.clear()
        for _ in range(_BURST):
            for result in self._peer.take():
                if isinstance(result, Delivered):
                    for delivery in result.deliveries:
                        self._hand_over(delivery)
            is_open = bool(cast(int, self._socket.get(zmq.EVENTS)) & zmq.POLLOUT)
            if is_open != self._open:
                # One message at a time: whatever it counts, it is delivered when nothing else is.
                self._open = is_open
                credit = int(is_open)
                now_ns = monotonic_ns()
                commands = self._core.allow(credit, credit, now_ns)
                self._send(self._local.do(self._peer, commands, now_ns))
            if not self._peer.results:
                return

    def is_due(self) -> bool:
        """Tell whether `step` has something to do without new input."""
        return bool(self._peer.results)

    def watch(self, poller: zmq.Poller) -> None:
        """Let a poller wake up when the socket takes messages again."""
        _watch(poller, self._socket, 0 if self._open else zmq.POLLOUT)

    def _hand_over(self, delivery: Delivery) -> None:
        now_ns = monotonic_ns()
        try:
            self._push(delivery.payload)
        except zmq.Again:
            # The last puller went away a moment ago.
            commands = self._core.settle([delivery], "retry", "", now_ns)
        else:
            self.pushed += 1
            if delivery.dead:
                get().warning("dead letter pushed", id=delivery.id, reason=delivery.dead)
            commands = self._core.settle([delivery], "ok", "", now_ns)
        self._send(self._local.do(self._peer, commands, now_ns))

    def _push(self, payload: Payload) -> None:
        self._socket.send(payload, _NOBLOCK, copy=len(payload) <= COPY_BYTES_MAX)


def _bind(socket: zmq.Socket[bytes], flag: str, endpoint: str, *, insecure: bool) -> str:
    if not is_local(endpoint) and not insecure:
        # There are no keys on this way: whoever reaches it may use it.
        accepted = "a loopback or ipc endpoint, unless --insecure is given"
        raise SettingError(flag, endpoint, accepted)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 1000)
    return bind(socket, flag, endpoint)


def _watch(poller: zmq.Poller, socket: zmq.Socket[bytes], events: int) -> None:
    if events:
        poller.register(socket, events)
    elif socket in poller:
        poller.unregister(socket)


def _text(frame: bytes) -> str:
    """Give a content type, or nothing if it is none."""
    try:
        text = frame.decode()
    except UnicodeDecodeError:
        return ""
    return text if len(text) <= _CONTENT_TYPE_MAX else ""
