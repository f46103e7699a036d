"""The board: the latest value of every series, in columns; pure.

A series has a *slot*, its place in every column, for as long as the board lives. What changes it is
`add` (series that were not there) and `take` (samples later than what is known); both leave it
whole. The latest is the sample with the greatest time, as everywhere in telemq, so one of a host
whose clock is ahead stays the latest until that time has come.

Which series are asked for new samples is decided here too. A series is *hot* while samples of it
arrive, and asked in every turn. The others, of pods that ended and GPUs that are gone, are asked
once in `SWEEP_S`, so that one that comes back, or whose samples are late by hours, is seen within
that time, and a history of a million pods costs a sixtieth of it a turn. Of many hot series, each
is left alone for half of the time in which its samples usually come. A series is *behind* from a
commit until it is asked, and only those are: where nothing is committed, the last ones are asked
when it is their turn, and then nothing is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from telemq.errors import StoreError
from telemq.store.columns import NEVER_US
from telemq.store.latest import Found, SeriesRow

__all__ = ["HOT_S", "SWEEP_S", "Board", "Due", "Update"]

#: A series is hot this long after its last sample came: twice the slowest usual scrape, and more.
HOT_S = 600.0
#: How often a series that is not hot is asked.
SWEEP_S = 60.0
#: After loading nobody knows when a sample came: one with so young a time makes its series hot.
_YOUNG_US = 3_600_000_000
#: So few series are all asked in every turn: it takes some 20 ms of one of Postgres' cores.
_SMALL = 10_000
#: Longest time that a hot series is left alone.
_REST_S = 30.0
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Due:
    """The slots to ask for new samples.

    Attributes:
        hot: those whose samples are expected, in partitions only.
        cold: those that may have come back, in chunks too.
    """

    hot: npt.NDArray[np.intp]
    cold: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.hot) + len(self.cold)


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What one turn brought, ascending in time.

    Attributes:
        turn: its number.
        at_us: the database's clock at its snapshot.
        slots: (n,) the slot of each sample.
        time_us: (n,) int64, microseconds since 1970 UTC.
        value: (n,) float64.
    """

    turn: int
    at_us: int
    slots: npt.NDArray[np.intp]
    time_us: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]


class Board:
    """The latest value of every series.

    Args:
        series_max: most series.

    Attributes:
        series: by slot.
        uuids: of the GPUs, by their index.
        metrics: names of the metrics, by their index.
        gpu: (n,) each slot's GPU.
        metric: (n,) each slot's metric.
        last_us: (n,) the time of each slot's latest sample; `NEVER_US` if there is none.
        value: (n,) its value.
        interval_us: (n,) between its latest two; 0 if not known.
        gpu_changes: (gpus,) how often something of a GPU changed.
        turn: number of the last turn.
        at_us: the database's clock at its snapshot.
    """

    def __init__(self, series_max: int) -> None:
        self._series_max = series_max
        self.series: list[SeriesRow] = []
        self.uuids: list[str] = []
        self.metrics: list[str] = []
        self._gpu_of: dict[str, int] = {}
        self._metric_of: dict[str, int] = {}
        self.slots_of: list[list[int]] = []
        self.gpu = np.empty(0, np.int32)
        self.metric = np.empty(0, np.int32)
        self.last_us = np.empty(0, np.int64)
        self.value = np.empty(0, np.float64)
        self.interval_us = np.empty(0, np.int64)
        self.gpu_changes = np.empty(0, np.int64)
        self.turn = 0
        self.at_us = 0
        self._ids = np.empty(0, np.int32)
        self._by_id = np.empty(0, np.intp)
        self._came_ns = np.empty(0, np.int64)
        self._asked_ns = np.empty(0, np.int64)
        #: Between the arrivals of a series' samples; 0 if not known.
        self._pace_ns = np.empty(0, np.int64)
        self._behind = np.empty(0, np.bool_)

    def __len__(self) -> int:
        return len(self.series)

    @property
    def last_id(self) -> int:
        """The greatest id of a series; 0 if there is none."""
        return int(self._ids[self._by_id[-1]]) if len(self) else 0

    def ids(self, slots: npt.NDArray[np.intp]) -> npt.NDArray[np.int32]:
        """Give the ids of the series at `slots`."""
        return self._ids[slots]

    def gpu_index(self, uuid: str) -> int | None:
        """Give the index of a GPU; None if it has no series."""
        return self._gpu_of.get(uuid)

    def add(self, rows: Sequence[SeriesRow], *, now_ns: int) -> None:
        """Add series; those that are there already are passed over. They are asked next.

        After the first turn they are hot, because a series is made just before its first sample.

        Args:
            rows: some series.
            now_ns: monotonic.

        Raises:
            StoreError: there are more than the board may hold; none of `rows` was added.
        """
        known = np.isin(np.array([row.id for row in rows], np.int32), self._ids)
        new = [row for row, there in zip(rows, known, strict=True) if not there]
        self.check(len(self) + len(new))
        for slot, row in enumerate(new, len(self)):
            gpu = self._gpu_of.setdefault(row.uuid, len(self.uuids))
            if gpu == len(self.uuids):
                self.uuids.append(row.uuid)
                self.slots_of.append([])
            self.slots_of[gpu].append(slot)
            if self._metric_of.setdefault(row.metric_name, len(self.metrics)) == len(self.metrics):
                self.metrics.append(row.metric_name)
        self.series += new
        count, never = len(new), np.full(len(new), NEVER_US)
        gpus = np.array([self._gpu_of[row.uuid] for row in new], np.int32)
        metrics = np.array([self._metric_of[row.metric_name] for row in new], np.int32)
        self.gpu = np.concatenate([self.gpu, gpus])
        self.metric = np.concatenate([self.metric, metrics])
        self.last_us = np.concatenate([self.last_us, never])
        self.value = np.concatenate([self.value, np.zeros(count)])
        self.interval_us = np.concatenate([self.interval_us, np.zeros(count, np.int64)])
        came = np.full(count, now_ns if self.turn else NEVER_US)
        self._came_ns = np.concatenate([self._came_ns, came])
        self._asked_ns = np.concatenate([self._asked_ns, never])
        self._pace_ns = np.concatenate([self._pace_ns, np.zeros(count, np.int64)])
        self._behind = np.concatenate([self._behind, np.ones(count, np.bool_)])
        more = np.zeros(len(self.uuids) - len(self.gpu_changes), np.int64)
        self.gpu_changes = np.concatenate([self.gpu_changes, more])
        self.gpu_changes[gpus] += 1
        self._ids = np.concatenate([self._ids, np.array([row.id for row in new], np.int32)])
        self._by_id = np.argsort(self._ids)

    def check(self, count: int) -> None:
        """Refuse so many series if the board may not hold them.

        Raises:
            StoreError: naming the limit.
        """
        if count > self._series_max:
            raise StoreError(
                f"there are more than {self._series_max:,} series: this gateway keeps the latest "
                "values of so many (--board-series-max)"
            )

    def due(self, now_ns: int, *, committed: bool = True) -> Due:
        """Give what is to be asked now.

        Args:
            now_ns: monotonic.
            committed: whether anything may have been committed since the last `take`.
        """
        self._behind |= committed
        hot = self._hot(now_ns)
        cold = (~hot | (self.last_us == NEVER_US)) & (self._asked_ns <= now_ns - int(SWEEP_S * _NS))
        hot &= ~cold
        if len(self) <= _SMALL:
            hot = ~cold
        else:
            rest_ns = np.minimum(self._pace_ns // 2, int(_REST_S * _NS))
            hot &= self._came_ns <= now_ns - rest_ns
        return Due(np.flatnonzero(hot & self._behind), np.flatnonzero(cold & self._behind))

    def _hot(self, now_ns: int) -> npt.NDArray[np.bool_]:
        return self._came_ns > now_ns - int(HOT_S * _NS)

    def take(self, found: Found, due: Due, *, now_ns: int, at_us: int) -> Update:
        """Take what was found for `due`, and give it back in order.

        Args:
            found: samples later than what was known of their series.
            due: what was asked.
            now_ns: monotonic, as it was for `due`.
            at_us: the database's clock at the snapshot.
        """
        loading = self.turn == 0
        # Of one that is not hot, chunks are asked as well, and only when it is due as cold.
        self._behind[due.hot] = ~self._hot(now_ns)[due.hot]
        self._behind[due.cold] = False
        self.turn += 1
        self.at_us = at_us
        order = np.argsort(found.time_us, kind="stable")
        time_us, value = found.time_us[order], found.value[order]
        places = np.searchsorted(self._ids, found.series[order], sorter=self._by_id)
        slots = self._by_id[places]
        moved, counts = np.unique(slots, return_counts=True)
        before = self.last_us[moved]
        # Of a slot that comes several times, the last one stays.
        self.last_us[slots], self.value[slots] = time_us, value
        known = before != NEVER_US
        self._learn_intervals(moved, counts, before, slots, time_us)
        # A recording that is replayed faster than it was made comes faster than its times tell.
        again = moved[known & (self._came_ns[moved] != NEVER_US)]
        came_ns = (now_ns - self._came_ns[again]) if len(again) else again
        self._pace_ns[again] = np.minimum(self.interval_us[again] * 1000, came_ns)
        self._came_ns[moved] = now_ns
        # Spread, so that the cold ones are not all due at the same time.
        phase_ns = due.cold % int(SWEEP_S) * _NS if len(due.cold) > len(self) // 60 else 0
        self._asked_ns[due.cold] = now_ns - phase_ns
        if loading:
            old = moved[self.last_us[moved] < at_us - _YOUNG_US]
            self._came_ns[old] = NEVER_US
        self.gpu_changes[self.gpu[moved]] += 1
        return Update(self.turn, at_us, slots, time_us, value)

    def _learn_intervals(
        self,
        moved: npt.NDArray[np.intp],
        counts: npt.NDArray[np.intp],
        before: npt.NDArray[np.int64],
        slots: npt.NDArray[np.intp],
        time_us: npt.NDArray[np.int64],
    ) -> None:
        """Take the interval of each slot that moved from its latest two samples."""
        order = np.argsort(slots, kind="stable")  # of each slot, still ascending in time
        ends = np.cumsum(counts) - 1
        several = counts > 1
        previous = before.copy()
        previous[several] = time_us[order][ends[several] - 1]
        told = previous != NEVER_US
        self.interval_us[moved[told]] = (self.last_us[moved] - previous)[told]
