"""The broker's status document: asked for by one thread, made by the one that owns the core.

The broker's thread never waits and makes a snapshot only when somebody has asked since the last
one, at most once a second: with 4,000 peers one takes some milliseconds. Encoding is the asker's.

::

    ops thread     document: ask, wait ──────────────> encode the snapshot
    broker thread            offer: somebody asked? ──> snapshot
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from telemq import __version__
from telemq.broker.core import BrokerCore
from telemq.broker.stats import BrokerStatus
from telemq.errors import TelemqError

__all__ = ["PEERS_SHOWN_MAX", "StatusBoard"]

#: Peers in one document: twice what a broker takes by default, 4 MB of JSON.
PEERS_SHOWN_MAX = 8192
#: Least time between two snapshots.
_EVERY_NS = 1_000_000_000
#: Longest wait for a snapshot; the broker's loop comes round ten times a second.
_WAIT_S = 2.0


class StatusBoard:
    """Holds the latest snapshot of a broker.

    Args:
        core: whose snapshots; touched by `offer` only.
        now_ns: the monotonic clock of the core.
    """

    def __init__(self, core: BrokerCore, now_ns: Callable[[], int]) -> None:
        self._core = core
        self._now_ns = now_ns
        self._began_ns = now_ns()
        self._taken_ns = self._began_ns - _EVERY_NS
        self._asked = False
        self._status: BrokerStatus | None = None
        self._changed = threading.Condition()

    def offer(self) -> None:
        """Make a snapshot, if somebody waits for one; for the thread that owns the core."""
        if not self._asked:
            return
        now_ns = self._now_ns()
        if now_ns < self._taken_ns + _EVERY_NS:
            return
        stats = self._core.stats()
        peers = self._core.peer_stats(now_ns, PEERS_SHOWN_MAX)
        status = BrokerStatus(
            version=__version__,
            uptime_s=(now_ns - self._began_ns) / 1e9,
            heartbeat_s=self._core.limits.heartbeat_ns / 1e9,
            stats=stats,
            peers=peers,
            peers_left_out=stats.producers + stats.consumers - len(peers),
        )
        with self._changed:
            self._asked = False
            self._taken_ns, self._status = now_ns, status
            self._changed.notify_all()

    def document(self) -> bytes:
        """Give a snapshot that is younger than a second, or the next one, as JSON.

        Raises:
            TelemqError: the broker's thread did not make one in time: it is stuck.
        """
        with self._changed:
            before, taken_ns = self._status, self._taken_ns
            if before is None or self._now_ns() >= taken_ns + _EVERY_NS:
                self._asked = True
                if not self._changed.wait_for(lambda: self._status is not before, _WAIT_S):
                    raise TelemqError(f"the broker's loop did not come round in {_WAIT_S:g} s")
            status = self._status
        return msgspec.json.encode(status)
