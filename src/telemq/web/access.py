"""What a route says of who may ask it, and whose names a request may ask by."""

from __future__ import annotations

from telemq.endpoint import LOOPBACK

__all__ = ["OPEN", "is_own_host"]

#: As the ``opt`` of a route: for everybody, as often as they like. Pages, assets and health.
OPEN = {"open": True}


def is_own_host(header: str) -> bool:
    """Tell whether a Host header names loopback, by a name that nobody else can point there.

    A web page can let its own name point to 127.0.0.1, and ask through the browser of who looks at
    it: what only loopback protects answers to no other name.
    """
    name, colon, port = header.rpartition(":")
    if not (colon and port.isdigit()):
        name = header
    return name.lower().strip("[]") in LOOPBACK
