"""Samples in columns, as they are read; pure.

Postgres sends times and values as the bytes that it keeps, so a chunk of them becomes columns in a
few calls, and no object is made per sample. Who wants objects asks for `Samples.rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import numpy as np
import numpy.typing as npt

__all__ = ["Sample", "Samples"]

#: A sample, or what a step of a series became: when, series id, value.
Sample = tuple[datetime, int, float]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Postgres counts microseconds from 2000.
_POSTGRES_US = (datetime(2000, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
#: What `timestamptz_send`, `int4send` and `float8send` of a row give, one after the other.
_ROW = np.dtype([("time", ">i8"), ("series", ">i4"), ("value", ">f8")])


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
