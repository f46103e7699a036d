"""Ports for servers of the tests that are to have the same one again after a restart."""

from __future__ import annotations

import os
import random
import socket
from collections import deque

__all__ = ["free_port"]

#: Below 32,768, where Linux begins to give out ports for outgoing connections: one of those could
#: take a server's port while it is restarted. `telemq up` has 20,000 to 32,000 for itself. Each
#: process of the tests has its own: two could find the same one free before either listens.
_PORTS = range(
    10_000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")),
    20_000,
    int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
)
#: Given lately: whoever got one may not listen yet, or no more for a moment.
_given: deque[int] = deque(maxlen=200)


def free_port() -> int:
    """Give a port of loopback that nobody listens on now, and that was not given lately."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.append(port)
        return port
