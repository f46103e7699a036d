"""What a record is, and a batch of them in columns.

A *record* is one datapoint: the labels of its series, a time and a value. A *batch* holds records
in columns, because per-record Python objects cost ten times the time of everything else here
(docs/decisions/0001). Nothing in a batch is changed after it is made.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

__all__ = [
    "LABEL_BYTES_MAX",
    "BatchId",
    "RecordBatch",
    "Rejection",
    "SeriesGroup",
    "SeriesLabels",
    "reject_times",
]

#: Longest label accepted. labels_raw of a real exporter is 300 bytes; a megabyte is an attack.
LABEL_BYTES_MAX = 65_536
#: Longest uuid and gpu_id accepted: Postgres indexes them, and an index entry holds 2,700 bytes.
_KEY_BYTES_MAX = 1024


#: Of a record that is rejected after decoding, this much is kept: a label may be long, and every
#: record of its series be rejected.
_REJECTED_CHARS_MAX = 4096
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SeriesLabels(NamedTuple):
    """The ten labels that together identify a series; all text, empty where unknown.

    The order is that of the wire (docs/protocol.md, Record batches) and of the fingerprint.
    """

    metric_name: str
    gpu_id: str
    device: str
    uuid: str
    model_name: str
    hostname: str
    container: str
    pod: str
    namespace: str
    labels_raw: str

    def fault(self) -> str | None:
        """Say why these labels cannot be stored, or None.

        A series needs a metric and a GPU; Postgres text holds no U+0000.
        """
        for name in ("metric_name", "uuid"):
            if not getattr(self, name):
                return f"{name} is empty"
        for name, text in zip(self._fields, self, strict=True):
            if "\0" in text:
                return f"{name} holds U+0000"
            if len(text) > LABEL_BYTES_MAX // 4 and len(text.encode()) > LABEL_BYTES_MAX:
                return f"{name} is longer than {LABEL_BYTES_MAX} bytes"
        for name in ("uuid", "gpu_id"):
            if len(getattr(self, name).encode()) > _KEY_BYTES_MAX:
                return f"{name} is longer than {_KEY_BYTES_MAX} bytes"
        return None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class SeriesGroup:
    """Series that come together again and again.

    A group is equal to itself only. Whoever works something out for all of its series, such as
    their spelling or their ids, finds that again by the one object, and not label by label.

    Attributes:
        labels: at least one series.
    """

    labels: tuple[SeriesLabels, ...]


class BatchId(NamedTuple):
    """A batch's identity: it never changes, whoever publishes the batch and however often.

    Attributes:
        stream_id: the stream's name.
        first_row: index in the stream of the batch's first row, from 0.
    """

    stream_id: str
    first_row: int

    def __str__(self) -> str:
        """As message id on the wire: ``stream#first_row``."""
        return f"{self.stream_id}#{self.first_row}"

    @classmethod
    def parse(cls, message_id: str) -> BatchId:
        """Read a message id; one that has no row number is a stream of its own, at row 0."""
        stream_id, mark, row = message_id.rpartition("#")
        if mark and stream_id and row.isascii() and row.isdigit() and int(row) < 2**53:
            return cls(stream_id, int(row))
        return cls(message_id, 0)


class Rejection(NamedTuple):
    """A row that cannot be a record; it becomes a dead letter.

    Attributes:
        offset: the row's place in the batch, from 0.
        reason: what is wrong with it.
        payload: the row as it was read.
    """

    offset: int
    reason: str
    payload: str


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """A batch of records in columns, and the rows among them that were rejected.

    Attributes:
        series: the distinct series of this batch.
        series_index: (n,) int32, each record's index into `series`.
        time_us: (n,) int64, microseconds since 1970 UTC.
        value: (n,) float64, finite.
        rejected: the rows of the batch that are no records, by ascending offset.
        groups: `series` once more, in groups; empty if they came in none.
    """

    series: tuple[SeriesLabels, ...]
    series_index: npt.NDArray[np.int32]
    time_us: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    rejected: tuple[Rejection, ...] = ()
    groups: tuple[SeriesGroup, ...] = ()

    @classmethod
    def grouped(
        cls,
        groups: tuple[SeriesGroup, ...],
        series_index: npt.NDArray[np.int32],
        time_us: npt.NDArray[np.int64],
        value: npt.NDArray[np.float64],
        rejected: tuple[Rejection, ...] = (),
    ) -> Self:
        """Make a batch whose series are those of `groups`, one after the other."""
        series = tuple(chain.from_iterable(group.labels for group in groups))
        return cls(series, series_index, time_us, value, rejected, groups)

    @property
    def row_count(self) -> int:
        """Rows of the stream that this batch accounts for: records and rejected ones."""
        return len(self.value) + len(self.rejected)

    def offsets(self) -> npt.NDArray[np.int64]:
        """Give each record's place in the batch, (n,): the places no rejected row has."""
        places = np.ones(self.row_count, dtype=bool)
        places[[r.offset for r in self.rejected]] = False
        return np.flatnonzero(places)

    def reject(self, bad: npt.NDArray[np.bool_], reason: str) -> RecordBatch:
        """Give a batch in which the records marked in `bad` (n,) are rejected instead."""
        if not bad.any():
            return self
        more = [
            Rejection(int(offset), reason, _spell(self.series[s], int(t), float(v)))
            for offset, s, t, v in zip(
                self.offsets()[bad],
                self.series_index[bad],
                self.time_us[bad],
                self.value[bad],
                strict=True,
            )
        ]
        keep = ~bad
        return dataclasses.replace(
            self,
            series_index=self.series_index[keep],
            time_us=self.time_us[keep],
            value=self.value[keep],
            rejected=tuple(sorted([*self.rejected, *more])),
        )


def _spell(labels: SeriesLabels, time_us: int, value: float) -> str:
    """Spell a record as a `telemq.record`, so that its dead letter can be retried.

    One that is too long, or whose time no calendar has, is told in words instead, and cut.
    """
    try:
        moment = (_EPOCH + timedelta(microseconds=time_us)).isoformat()
    except OverflowError:
        return f"t={time_us} v={value} {labels}"[:_REJECTED_CHARS_MAX]
    fields = {"timestamp": moment, "value": value, **labels._asdict()}
    text = json.dumps(fields, ensure_ascii=False)
    if len(text) > _REJECTED_CHARS_MAX:
        return f"t={time_us} v={value} {labels}"[:_REJECTED_CHARS_MAX]
    return text


def reject_times(batch: RecordBatch, oldest_us: int, latest_us: int) -> RecordBatch:
    """Give the batch with those records rejected whose time is outside the limits, inclusive."""
    batch = batch.reject(batch.time_us < oldest_us, f"time is before {_shown(oldest_us)}")
    return batch.reject(batch.time_us > latest_us, f"time is after {_shown(latest_us)}")


def _shown(time_us: int) -> str:
    return f"{np.datetime64(time_us // 1_000_000, 's')}Z"
