"""File descriptors: one a connection, so their limit is a limit on connections."""

from __future__ import annotations

import resource

from telemq.log import get

__all__ = ["ensure_descriptors"]

#: Beyond the peers': libzmq's own, logs, metrics, files, and connections that only begin.
_RESERVE = 256


def ensure_descriptors(peers_max: int) -> bool:
    """Raise this process's soft limit as far as `peers_max` needs and the hard limit allows.

    Without a free descriptor libzmq cannot accept anybody, which no peer could tell from a broker
    that is down; so it is told at the start. Gives whether there are enough.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = peers_max + _RESERVE
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return True
    if hard == resource.RLIM_INFINITY or hard >= needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        return True
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    get().warning(
        "too few file descriptors for --peers-max",
        descriptors=hard,
        needed=needed,
        remedy=f"raise the limit (ulimit -n, LimitNOFILE), or set --peers-max {hard - _RESERVE}"
        if hard > _RESERVE
        else "raise the limit (ulimit -n, LimitNOFILE)",
    )
    return False
