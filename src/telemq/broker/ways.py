"""The ways in and out of a broker besides the protocol: those that are switched on, as one.

Each is a local peer, or many, of the same core (`local`); docs/ways.md tells what each promises.
"""

from __future__ import annotations

import os

import zmq

from telemq.broker.core import BrokerCore
from telemq.broker.http.way import HttpWay
from telemq.broker.local import LocalPeers
from telemq.broker.pushpull import PullWay, PushWay, Send
from telemq.settings import BrokerSettings

__all__ = ["Ways"]

#: How long closing waits for what ZeroMQ was handed.
_LINGER_MS = 500


class Ways:
    """What is on of PULL, PUSH and HTTP; owned by the broker's thread.

    Args:
        settings: of the broker.
        core: of the broker.
        local: the broker's local peers.
        poller: of the broker; it wakes up for what comes by these ways.
        send: hands on what the core says.

    Raises:
        SettingError: an address is malformed, or not loopback without ``--insecure``.
        BusyError: somebody else listens there.

    Attributes:
        epoch: of this start; part of the ids that the broker itself gives.
        pull: the way in for PUSH sockets, or None.
        push: the way out to PULL sockets, or None.
        http: HTTP's side in the broker's thread, or None.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        core: BrokerCore,
        local: LocalPeers,
        poller: zmq.Poller,
        send: Send,
    ) -> None:
        self.epoch = os.urandom(6).hex()
        self.pull: PullWay | None = None
        self.push: PushWay | None = None
        self.http: HttpWay | None = None
        self._local, self._poller = local, poller
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        if settings.pull or settings.push:
            self._context = zmq.Context()
        try:
            if self._context and settings.pull:
                bytes_max = core.limits.largest_bytes
                self.pull = PullWay(
                    self._context,
                    settings,
                    local,
                    send,
                    epoch=self.epoch,
                    payload_bytes_max=bytes_max,
                )
            if self._context and settings.push:
                self.push = PushWay(self._context, settings, local, send)
            if settings.http:
                self.http = HttpWay(settings, core, local, send, epoch=self.epoch)
        except BaseException:
            self.close()
            raise
        ways = (self.pull, self.push, self.http)
        self._on: list[PullWay | PushWay | HttpWay] = [way for way in ways if way]

    def step(self) -> None:
        """Do all that can be done now, each way for a while."""
        for way in self._on:
            way.step()

    def prepare(self) -> int | None:
        """Set the poller to what is waited for; gives when to stop waiting even so, or None."""
        if not self._on:
            return None
        for way in self._on:
            way.watch(self._poller)
        if any(way.is_due() for way in self._on):
            return 0
        deadlines = [self._local.next_deadline_ns()]
        if self.http:
            deadlines.append(self.http.next_deadline_ns())
        return min((d for d in deadlines if d is not None), default=None)

    def close(self) -> None:
        """Free the sockets: what was handed over may still leave, what was not read is lost."""
        if self.http:
            self.http.close()
        if self._context:
            self._context.destroy(linger=_LINGER_MS)
