"""Samples in columns, as they are read; pure.

Postgres sends times and values as the bytes that it keeps, so a chunk of them becomes columns in a
few calls, and no object is made per sample. Who wants objects asks for `Samples.rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

__all__ = ["Sample", "Samples", "SeriesSamples"]

#: A sample, or what a step of a series became: when, series id, value.
Sample = tuple[datetime, int, float]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Postgres counts microseconds from 2000.
_POSTGRES_US = (datetime(2000, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
#: What `timestamptz_send`, `int4send` and `float8send` of a row give, one after the other.
_ROW = np.dtype([("time", ">i8"), ("series", ">i4"), ("value", ">f8")])


class SeriesSamples(NamedTuple):
    """The samples of one series, in any order.

    Attributes:
        series: its id.
        times: of each sample, as `timestamptz_send` gives it.
        values: of each sample, as `float8send` gives it.
    """

    series: int
    times: bytes
    values: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Samples in order of rows; columns of equal length.

    Attributes:
        times_us: microseconds since 1970, UTC.
        series: ids.
        values: in the unit of each one's metric.
    """

    times_us: npt.NDArray[np.int64]
    series: npt.NDArray[np.int32]
    values: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rows: Iterable[Sample]) -> Self:
        """Make the columns of rows."""
        rows = list(rows)
        return cls(
            np.array([(at - _EPOCH) // timedelta(microseconds=1) for at, _, _ in rows], np.int64),
            np.array([series for _, series, _ in rows], np.int32),
            np.array([value for _, _, value in rows], np.float64),
        )

    @classmethod
    def packed(cls, rows: Iterable[bytes]) -> Self:
        """Read rows of 20 bytes: `timestamptz_send`, `int4send` and `float8send` of each."""
        read = np.frombuffer(b"".join(rows), _ROW)
        return cls(
            read["time"] + np.int64(_POSTGRES_US),
            read["series"].astype(np.int32),
            read["value"].astype(np.float64),
        )

    @classmethod
    def merged(cls, found: Iterable[SeriesSamples], *, descending: bool = False) -> Self:
        """Bring the samples of some series into the order of rows, (time, series id, value)."""
        parts = sorted(found)
        times = np.frombuffer(b"".join(part.times for part in parts), ">i8")
        times_us = times + np.int64(_POSTGRES_US)
        ids = np.array([part.series for part in parts], np.int32)
        series = np.repeat(ids, [len(part.times) // 8 for part in parts])
        values = np.frombuffer(b"".join(part.values for part in parts), ">f8").astype(np.float64)
        order = _order(times_us, series, values)
        if descending:
            order = order[::-1]
        return cls(times_us[order], series[order], values[order])

    def __len__(self) -> int:
        return len(self.times_us)

    def __getitem__(self, part: slice) -> Samples:
        return Samples(self.times_us[part], self.series[part], self.values[part])

    def times(self) -> npt.NDArray[np.datetime64]:
        """Give the times as moments of UTC."""
        return self.times_us.view("datetime64[us]")

    def rows(self) -> Iterator[Sample]:
        """Yield (time, series id, value) of each."""
        columns = (self.times_us.tolist(), self.series.tolist(), self.values.tolist())
        for time_us, series, value in zip(*columns, strict=True):
            yield _EPOCH + timedelta(microseconds=time_us), series, value


def _order(
    times_us: npt.NDArray[np.int64],
    series: npt.NDArray[np.int32],
    values: npt.NDArray[np.float64],
) -> npt.NDArray[np.intp]:
    """Give the places of samples in order of rows; series stand one after the other by their id."""
    # A stable sort by time alone finds that each series is sorted, or nearly so, and merges them:
    # 0.01 ms for 3,600 samples of ten series, where a sort by three keys takes 0.4.
    order = np.argsort(times_us, kind="stable")
    same = (np.diff(times_us[order]) == 0) & (np.diff(series[order]) == 0)
    return np.lexsort((values, series, times_us)) if same.any() else order
