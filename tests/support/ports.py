"""Ports for servers of the tests that are to have the same one again after a restart."""

from __future__ import annotations

import random
import socket

__all__ = ["free_port"]

#: Below 32,768, where Linux begins to give out ports for outgoing connections: one of those could
#: take a server's port while it is restarted. `telemq up` has 20,000 to 32,000 for itself.
_PORTS = range(10_000, 20_000)


def free_port() -> int:
    """Give a port of loopback that nobody listens on now."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
