"""How a batch of records travels: encode and decode of a message's payload.

Two content types (docs/protocol.md, Record batches)::

    telemq.batch   {"series": [[10 labels], ...], "s": [index, ...], "t": [us, ...],
                    "v": [number, ...], "x": [[offset, reason, row], ...]}
    telemq.record  {"timestamp": "2025-07-18T20:42:34Z", "metric_name": ..., "value": 1.5, ...}
                   or an array of such objects

NaN and the infinities are not JSON: `encode` refuses them, `decode` never makes them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from telemq.errors import RecordError
from telemq.protocol import Payload
from telemq.record import RecordBatch, Rejection, SeriesLabels

__all__ = ["BATCH", "RECORD", "Decoder", "Encoder", "Record"]

#: Content type of a batch in columns.
BATCH = "telemq.batch"
#: Content type of plain records, for producers that want no encoder.
RECORD = "telemq.record"


class Record(msgspec.Struct, kw_only=True):
    """One telemetry record, as in the API: the names and units of the `telemetry` view."""

    timestamp: datetime
    metric_name: str
    gpu_id: str = ""
    device: str = ""
    uuid: str
    model_name: str = ""
    hostname: str = ""
    container: str = ""
    pod: str = ""
    namespace: str = ""
    value: float
    labels_raw: str = ""


_ABSENT = msgspec.Raw()


class _Columns(msgspec.Struct):
    """A payload in columns, taken apart and not yet read: one pass over what may be 500 KB."""

    series: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET
    s: msgspec.Raw = _ABSENT
    t: msgspec.Raw = _ABSENT
    v: msgspec.Raw = _ABSENT
    x: tuple[Rejection, ...] = ()


_records = msgspec.json.Decoder(list[msgspec.Raw])
_record = msgspec.json.Decoder(Record)
_columns = msgspec.json.Decoder(_Columns)
_labels = msgspec.json.Decoder(SeriesLabels)
#: What decoding raises. A thousand nested brackets are a RecursionError, not a MsgspecError.
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Encoder:
    """Encodes batches as `BATCH`, and remembers how each series is spelt in JSON.

    Labels are 500 bytes a series and come again in every batch; spelt anew each time they would be
    most of the work.

    Args:
        series_max: series remembered; beyond it all are forgotten and learnt again.
    """

    def __init__(self, series_max: int = 1_000_000) -> None:
        self._max = series_max
        self._spelt: dict[SeriesLabels, orjson.Fragment] = {}

    def encode(self, batch: RecordBatch) -> bytes:
        """Encode one batch.

        Raises:
            RecordError: a value is not finite; nothing of the batch is encoded.
        """
        if not np.isfinite(batch.value).all():
            raise RecordError("a value is NaN or infinite; only finite numbers can be sent")
        columns: dict[str, object] = {
            "series": [self._spelt.get(s) or self._spell(s) for s in batch.series],
            "s": batch.series_index,
            "t": batch.time_us,
            "v": batch.value,
        }
        if batch.rejected:
            columns["x"] = [tuple(r) for r in batch.rejected]
        return orjson.dumps(columns, option=orjson.OPT_SERIALIZE_NUMPY)

    def _spell(self, labels: SeriesLabels) -> orjson.Fragment:
        if len(self._spelt) >= self._max:
            self._spelt.clear()
        return self._spelt.setdefault(labels, orjson.Fragment(orjson.dumps(tuple(labels))))


class Decoder:
    """Decodes payloads of both content types, and remembers the series it has read.

    A series that was spelt the same way before is recognised by its bytes and not parsed or
    checked again.

    Args:
        series_max: series remembered; beyond it all are forgotten and learnt again.
    """

    def __init__(self, series_max: int = 1_000_000) -> None:
        self._max = series_max
        self._read: dict[bytes, SeriesLabels] = {}
        #: Of those that cannot be stored, why; empty as a rule.
        self._faults: dict[bytes, str] = {}

    def decode(self, payload: Payload, content_type: str, row_count: int) -> RecordBatch:
        """Decode a message's payload.

        Args:
            payload: the payload frame.
            content_type: `BATCH` or `RECORD`.
            row_count: the count of the message's header; the payload must hold as many rows.

        Raises:
            RecordError: the payload as a whole is not of that type. A single bad record does not
                raise: it is among the batch's `rejected`.
        """
        if content_type == BATCH:
            batch = self._decode_columns(payload)
        elif content_type == RECORD:
            batch = _decode_records(payload)
        else:
            raise RecordError(
                f"content type {content_type!r} is unknown; accepted: {BATCH}, {RECORD}"
            )
        if batch.row_count != row_count:
            raise RecordError(
                f"the header counts {row_count} rows, the payload holds {batch.row_count}"
            )
        return batch

    def _decode_columns(self, payload: Payload) -> RecordBatch:
        try:
            raw = _columns.decode(payload)
            if isinstance(raw.series, msgspec.UnsetType):
                raise RecordError("payload has no 'series'")
            series, faults = self._series(raw.series)
        except _DECODE_ERRORS as error:
            raise RecordError(
                f"payload is not an object with series, s, t and v: {error}"
            ) from error
        index, times = _integers(raw.s, "s"), _integers(raw.t, "t")
        value = _numbers(raw.v)
        _check_columns(len(series), index, times, value, raw.x)
        batch = RecordBatch(series, index.astype(np.int32), times, value, raw.x)
        for place, fault in faults:
            batch = batch.reject(batch.series_index == place, fault)
        return batch

    def _series(
        self, raws: list[msgspec.Raw]
    ) -> tuple[tuple[SeriesLabels, ...], list[tuple[int, str]]]:
        """Give the labels of each series, and the places of those that cannot be stored."""
        keys = list(map(bytes, raws))
        known = self._read.get
        found = cast("tuple[SeriesLabels, ...]", tuple(map(known, keys)))
        if None in found:
            # All again, since learning may have forgotten what was known.
            series = tuple(known(key) or self._learn(key) for key in keys)
            told = [(place, labels.fault()) for place, labels in enumerate(series)]
            return series, [(place, fault) for place, fault in told if fault]
        if self._faults:
            told = [(place, self._faults.get(key)) for place, key in enumerate(keys)]
            return found, [(place, fault) for place, fault in told if fault]
        return found, []

    def _learn(self, key: bytes) -> SeriesLabels:
        labels = _labels.decode(key)
        if len(self._read) >= self._max:
            self._read.clear()
            self._faults.clear()
        if fault := labels.fault():
            self._faults[key] = fault
        return self._read.setdefault(key, labels)


def _check_columns(
    series_count: int,
    index: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    value: npt.NDArray[np.float64],
    rejected: tuple[Rejection, ...],
) -> None:
    if not len(index) == len(times) == len(value):
        raise RecordError(f"s, t and v differ in length: {len(index)}, {len(times)}, {len(value)}")
    if len(index) and not (index.min() >= 0 and index.max() < series_count):
        raise RecordError(f"s holds an index outside the {series_count} series")
    offsets = [r.offset for r in rejected]
    rows = len(value) + len(rejected)
    if offsets != sorted(set(offsets)) or any(not 0 <= offset < rows for offset in offsets):
        raise RecordError("offsets in x are not ascending places of the batch")


def _column(raw: msgspec.Raw, name: str) -> npt.NDArray[np.generic]:
    if raw is _ABSENT:
        raise RecordError(f"payload has no {name!r}")
    try:
        # orjson reads a column of numbers three times faster than msgspec does.
        column = orjson.loads(memoryview(raw))
    except orjson.JSONDecodeError as error:
        raise RecordError(f"{name} is not JSON: {error}") from error
    if not isinstance(column, list):
        raise RecordError(f"{name} is not an array")
    try:
        return np.array(column) if column else np.empty(0, np.int64)
    except ValueError as error:
        raise RecordError(f"{name} is not an array of numbers") from error


def _integers(raw: msgspec.Raw, name: str) -> npt.NDArray[np.int64]:
    array = _column(raw, name)
    if array.dtype != np.int64 or array.ndim != 1:
        raise RecordError(f"{name} holds something other than integers of 64 bits")
    return array.astype(np.int64, copy=False)


def _numbers(raw: msgspec.Raw) -> npt.NDArray[np.float64]:
    array = _column(raw, "v")
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise RecordError("v holds something other than numbers")
    value = array.astype(np.float64)
    if not np.isfinite(value).all():
        raise RecordError("v holds a number outside the range of a double")
    return value


def _decode_records(payload: Payload) -> RecordBatch:
    text = bytes(payload)
    try:
        raws = _records.decode(text) if text.lstrip()[:1] == b"[" else [msgspec.Raw(text)]
    except _DECODE_ERRORS as error:
        raise RecordError(f"payload is not JSON: {error}") from error
    series: dict[SeriesLabels, int] = {}
    index: list[int] = []
    times: list[int] = []
    values: list[float] = []
    rejected: list[Rejection] = []
    for offset, raw in enumerate(raws):
        shown = bytes(raw).decode(errors="replace")
        try:
            record = _record.decode(raw)
            time_us = _microseconds(record.timestamp)
        except (*_DECODE_ERRORS, RecordError, OverflowError) as error:
            rejected.append(Rejection(offset, str(error), shown))
            continue
        labels = SeriesLabels(*(getattr(record, name) for name in SeriesLabels._fields))
        if fault := labels.fault():
            rejected.append(Rejection(offset, fault, shown))
            continue
        index.append(series.setdefault(labels, len(series)))
        times.append(time_us)
        values.append(record.value)
    return RecordBatch(
        tuple(series),
        np.array(index, np.int32),
        np.array(times, np.int64),
        np.array(values, np.float64),
        tuple(rejected),
    )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _microseconds(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise RecordError("timestamp has no offset; RFC 3339 needs Z or +hh:mm")
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
