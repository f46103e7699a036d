"""Many links in one thread: who of them has something to do now.

A link is polled by its owner. With a thousand of them, polling each in turn costs more than what
they carry; this asks libzmq once who has input, and lets time pass for all a few times a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

import zmq

from telemq.client.link import ConsumerLink, ProducerLink

__all__ = ["ManyLinks", "context_for"]

L = TypeVar("L", ConsumerLink, ProducerLink)

#: How often every link is polled, whether it has input or not: heartbeats and reconnects are due
#: to within this.
_SWEEP_S = 0.05
#: Sockets of a link: its own and both ends of its monitor, twice while it makes a new connection.
_SOCKETS = 6


def context_for(links: int) -> zmq.Context[Any]:
    """Give a context in which so many links fit; libzmq's default of 1,023 sockets is for 170."""
    context: zmq.Context[Any] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, _SOCKETS * (links + 1))
    return context


class ManyLinks(Generic[L]):
    """The links of one thread.

    Args:
        links: all of one kind; they are closed by their owner.
    """

    def __init__(self, links: Iterable[L]) -> None:
        self._links: list[L] = list(links)
        self._poller = zmq.Poller()
        self._registered: dict[L, zmq.Socket[bytes]] = {}
        self._by_socket: dict[zmq.Socket[bytes], L] = {}
        self._swept_at = 0.0

    def due(self, timeout_s: float) -> Sequence[L]:
        """Wait for up to `timeout_s`; give the links that are to be polled now, with timeout 0."""
        now = time.monotonic()
        if now >= self._swept_at + _SWEEP_S:
            self._swept_at = now
            return self._links
        for link in self._links:
            if self._registered.get(link) is not link.socket:
                self._register(link)
        wait_s = min(timeout_s, self._swept_at + _SWEEP_S - now)
        ready = self._poller.poll(max(0, int(wait_s * 1000)))
        return [self._by_socket[found] for found, _ in ready]

    def _register(self, link: L) -> None:
        """Follow a link to its new socket."""
        old = self._registered.pop(link, None)
        if old is not None:
            self._poller.unregister(old)
            del self._by_socket[old]
        if link.socket is not None:
            self._poller.register(link.socket, zmq.POLLIN)
            self._registered[link] = link.socket
            self._by_socket[link.socket] = link
