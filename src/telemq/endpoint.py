"""Which addresses are within this machine; pure."""

from __future__ import annotations

__all__ = ["LOOPBACK", "is_local"]

#: Hosts that only this machine reaches.
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def is_local(endpoint: str) -> bool:
    """Tell whether only this machine reaches a ZeroMQ endpoint."""
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    return endpoint.startswith(("ipc://", "inproc://")) or host in LOOPBACK
