"""Links to several brokers that share nothing, owned by one thread and waited for together."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import zmq

from telemq.client.link import ConsumerLink, ProducerLink
from telemq.clock import monotonic_ns
from telemq.engine.resolve import Endpoints, Resolver
from telemq.log import get

__all__ = ["Brokers", "ManyEnd"]

L = TypeVar("L", bound=ProducerLink | ConsumerLink)


class Brokers(Generic[L]):
    """One link for each endpoint, made and dropped as the endpoints change.

    A link whose address is gone from DNS *retires*: a broker that drains is taken out of DNS first,
    and what it holds must still come out of it. It is dropped when its session ends.

    Args:
        endpoints: as given by ``--broker``.
        resolve_s: seconds between two looks at DNS.
        resolve: asks for one host name.
        connect: makes a link to an endpoint; the context is shared, and so is its thread.

    Raises:
        SettingError: an endpoint is malformed.

    Attributes:
        links: by endpoint.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        resolve_s: float,
        resolve: Resolver,
        connect: Callable[[str, zmq.Context[zmq.Socket[bytes]]], L],
    ) -> None:
        self.shown = ",".join(endpoints)
        self.links: dict[str, L] = {}
        self._connect = connect
        self._context = zmq.Context()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._turn = 0
        self._seen: tuple[str, ...] = ()
        self._log = get()
        self._endpoints = Endpoints(
            endpoints, every_s=resolve_s, on_change=self.wake, resolve=resolve
        )
        try:
            self.follow()
        except BaseException:
            self.close()
            raise

    @property
    def connected(self) -> list[L]:
        """The links with a session, another one first each time it is asked for."""
        links = [link for link in self.links.values() if link.connected]
        self._turn += 1
        turn = self._turn % len(links) if links else 0
        return links[turn:] + links[:turn]

    @property
    def fault(self) -> str:
        """Why none of the links has a session; empty when one has."""
        if any(link.connected for link in self.links.values()):
            return ""
        faults = [f"{endpoint}: {link.fault}" for endpoint, link in self.links.items()]
        return "; ".join([*faults, *filter(None, [self._endpoints.fault])]) or "not resolved yet"

    @property
    def refused(self) -> bool:
        """Whether every broker has refused this peer for good."""
        return bool(self.links) and all(link.refused for link in self.links.values())

    def is_retired(self, link: L) -> bool:
        """Tell whether a link's address is gone from DNS."""
        return all(self.links.get(endpoint) is not link for endpoint in self._seen)

    def follow(self) -> list[L]:
        """Make links to new endpoints, drop retired ones without a session; give the dropped."""
        current = self._endpoints.current
        if current != self._seen:
            self._seen = current
            for endpoint in current:
                if endpoint not in self.links:
                    self.links[endpoint] = self._connect(endpoint, self._context)
        dropped = []
        for endpoint in [e for e in self.links if e not in current]:
            if not self.links[endpoint].connected:
                self._log.info("broker gone", broker=endpoint)
                dropped.append(self.links.pop(endpoint))
        return dropped

    def wait(self, wait_s: float) -> bool:
        """Wait until a link has something to do, at most `wait_s`; tell whether woken by `wake`."""
        now_ns = monotonic_ns()
        poller = zmq.Poller()
        poller.register(self._woken.fileno(), zmq.POLLIN)
        for link in self.links.values():
            deadline_ns = link.next_deadline_ns()
            if deadline_ns is not None:
                wait_s = min(wait_s, max(0.0, (deadline_ns - now_ns) / 1e9))
            if link.socket is not None:
                poller.register(link.socket, zmq.POLLIN)
        # Rounded up: rounded down, the last millisecond before a deadline would spin.
        ready = dict(poller.poll(int(wait_s * 1000 + 0.999)))
        if self._woken.fileno() not in ready:
            return False
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        return True

    def wake(self) -> None:
        """Make a `wait` return; callable from any thread."""
        # A full buffer means that it is to wake already.
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"\0")

    def close(self) -> None:
        """Close every link and free everything."""
        self._endpoints.close()
        for link in self.links.values():
            link.close()
        self._context.term()
        self._waker.close()
        self._woken.close()


class ManyEnd:
    """What both ends have in common; see `telemq.engine.base.Engine`."""

    _brokers: Brokers[ProducerLink] | Brokers[ConsumerLink]

    @property
    def shown(self) -> str:
        """The brokers, as given."""
        return self._brokers.shown

    @property
    def connected(self) -> bool:
        """Whether there is a session with any broker."""
        return bool(self._brokers.connected)

    @property
    def fault(self) -> str:
        """Why there is no session with any broker; empty when there is one."""
        return self._brokers.fault

    @property
    def refused(self) -> bool:
        """Whether every broker has refused this peer for good."""
        return self._brokers.refused

    def wake(self) -> None:
        """Make a `poll` that waits return; callable from any thread."""
        self._brokers.wake()

    def close(self) -> None:
        """Say BYE to every broker, and free everything."""
        self._brokers.close()
