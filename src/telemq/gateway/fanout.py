"""Who hears of what came: one turn's samples to any number of live clients, each bounded; pure.

Clients with the same filter share what is picked for them, and its spelling. A client for which
more than its limit would wait loses all that waits, and is told how much: it then begins anew from
the board. So a slow client costs a bounded amount of memory and no other client anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import orjson

from telemq.gateway.board import Board, Update
from telemq.store.latest import SeriesRow

__all__ = ["Fanout", "Filter", "Picked", "Watcher"]

#: Samples spelt at a time: some 2 ms of the gateway's loop, and 200 KB.
_PIECE = 2000
_TIMES = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


@dataclass(frozen=True, slots=True)
class Filter:
    """Which series a client wants.

    Attributes:
        gpus: UUIDs; empty for all.
        metrics: names of metrics; empty for all.
    """

    gpus: frozenset[str] = frozenset()
    metrics: frozenset[str] = frozenset()

    def mask(self, board: Board) -> npt.NDArray[np.bool_]:
        """Tell of each slot whether it is wanted."""
        mask = np.ones(len(board), np.bool_)
        if self.gpus:
            mask &= np.array([uuid in self.gpus for uuid in board.uuids], np.bool_)[board.gpu]
        if self.metrics:
            mask &= np.array([m in self.metrics for m in board.metrics], np.bool_)[board.metric]
        return mask


@dataclass(eq=False)
class Picked:
    """Samples for clients with the same filter, ascending in time.

    Attributes:
        series: of the board; only looked up in.
        slots: (n,) of the samples.
        time_us: (n,) int64, microseconds since 1970 UTC.
        value: (n,) float64.
        at_us: the database's clock when they were read.
    """

    series: Sequence[SeriesRow]
    slots: npt.NDArray[np.intp]
    time_us: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    at_us: int
    _spelt: dict[int, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.slots)

    def pieces(self) -> Iterator[bytes]:
        """Yield the samples as JSON documents ``{"samples":[[uuid, metric, time, value], …]}``."""
        for start in range(0, len(self), _PIECE):
            if start not in self._spelt:
                self._spelt[start] = self._spell(slice(start, start + _PIECE))
            yield self._spelt[start]

    def _spell(self, part: slice) -> bytes:
        # Neither a time nor a number holds a comma, so a whole column is spelt and cut again.
        times = orjson.dumps(self.time_us[part].view("M8[us]"), option=_TIMES)[1:-1].split(b",")
        values = orjson.dumps(self.value[part], option=_TIMES)[1:-1].split(b",")
        rows = map(self.series.__getitem__, self.slots[part].tolist())
        names = [orjson.dumps((row.uuid, row.metric_name))[:-1] for row in rows]
        spelt = map(b",".join, zip(names, times, values, strict=True))
        return b'{"samples":[' + b"],".join(spelt) + b"]]}"


class Watcher:
    """One client's place: what waits for it.

    Args:
        wanted: its filter.
        samples_max: most samples that wait.
        wake: called when there is something to take; may be called more often.
    """

    def __init__(self, wanted: Filter, samples_max: int, wake: Callable[[], None]) -> None:
        self.wanted = wanted
        self.closed = False
        self.wake = wake
        self._samples_max = samples_max
        self._waiting: deque[Picked] = deque()
        self._samples = 0
        self._missed = 0

    def put(self, picked: Picked) -> None:
        """Let samples wait, or count them as missed with all that waited."""
        self._samples += len(picked)
        self._waiting.append(picked)
        if self._missed or self._samples > self._samples_max:
            self._missed += self._samples
            self._samples = 0
            self._waiting.clear()
        self.wake()

    @property
    def missed(self) -> int:
        """How many samples were missed and not told yet."""
        return self._missed

    def take(self) -> Picked | None:
        """Give what waited longest; None if there is nothing."""
        if not self._waiting:
            return None
        picked = self._waiting.popleft()
        self._samples -= len(picked)
        return picked

    def take_missed(self) -> int:
        """Give how many samples were missed since this was asked last."""
        missed, self._missed = self._missed, 0
        return missed


class Fanout:
    """All live clients.

    Args:
        samples_max: most samples that wait for one of them.
        clients_max: most clients.

    Attributes:
        closed: the gateway stops.
        missed: samples that clients missed, all together.
    """

    def __init__(self, samples_max: int, clients_max: int) -> None:
        self.closed = False
        self.missed = 0
        self._samples_max = samples_max
        self._clients_max = clients_max
        self._watchers: dict[Watcher, None] = {}
        #: What each filter wants of a board, with the number of its series then.
        self._masks: dict[Filter, tuple[Board, int, npt.NDArray[np.bool_]]] = {}

    @property
    def clients(self) -> int:
        """How many there are."""
        return len(self._watchers)

    @property
    def full(self) -> bool:
        """Whether there is no place for another."""
        return self.clients >= self._clients_max

    def watch(self, wanted: Filter, wake: Callable[[], None]) -> Watcher:
        """Give a new client's place; what comes from now on waits there."""
        watcher = Watcher(wanted, self._samples_max, wake)
        watcher.closed = self.closed
        self._watchers[watcher] = None
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Give up a place."""
        self._watchers.pop(watcher, None)
        if all(other.wanted != watcher.wanted for other in self._watchers):
            self._masks.pop(watcher.wanted, None)

    def publish(self, board: Board, update: Update) -> None:
        """Tell everybody what a turn brought."""
        picked: dict[Filter, Picked] = {}
        for watcher in self._watchers:
            wanted = watcher.wanted
            if wanted not in picked:
                picked[wanted] = _pick(board, update, self._mask(board, wanted))
            if len(picked[wanted]):
                before = watcher.missed
                watcher.put(picked[wanted])
                self.missed += watcher.missed - before

    def _mask(self, board: Board, wanted: Filter) -> npt.NDArray[np.bool_]:
        known = self._masks.get(wanted)
        if known is None or known[0] is not board or known[1] != len(board):
            known = self._masks[wanted] = (board, len(board), wanted.mask(board))
        return known[2]

    def close(self) -> None:
        """End all clients, and those that come: the gateway stops."""
        self.closed = True
        for watcher in self._watchers:
            watcher.closed = True
            watcher.wake()


def _pick(board: Board, update: Update, mask: npt.NDArray[np.bool_]) -> Picked:
    chosen = mask[update.slots]
    return Picked(
        board.series,
        update.slots[chosen],
        update.time_us[chosen],
        update.value[chosen],
        update.at_us,
    )
