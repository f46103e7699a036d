"""Tells the operator that producers wait for room, and that they no longer do.

A broker that is full does nothing wrong: it holds its producers, and nothing is lost. But if it
lasts, the consumers are too slow or gone, and somebody ought to know.
"""

from __future__ import annotations

from telemq.broker.stats import BrokerStats
from telemq.log import get

__all__ = ["Pressure"]

#: Moments of waiting are ordinary under load; this many snapshots in a row are not.
_SNAPSHOTS = 4


class Pressure:
    """Looks at one snapshot after the other, and logs each change once."""

    def __init__(self) -> None:
        self._log = get()
        self._waiting = 0
        self._is_full = False

    def note(self, stats: BrokerStats) -> None:
        """Take note of the newest snapshot."""
        self._waiting = self._waiting + 1 if stats.producers_waiting else 0
        if self._is_full and not stats.producers_waiting:
            self._is_full = False
            self._log.info("room again")
        elif not self._is_full and self._waiting >= _SNAPSHOTS:
            self._is_full = True
            self._log.warning(
                "no room, producers wait",
                producers_waiting=stats.producers_waiting,
                consumers=stats.consumers,
                held_records=stats.ready_records + stats.leased_records,
                held_bytes=stats.ready_bytes + stats.leased_bytes,
                capacity_records=stats.capacity_records,
                capacity_bytes=stats.capacity_bytes,
            )
