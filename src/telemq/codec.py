"""How a batch of records travels: encode and decode of a message's payload.

Two content types (docs/protocol.md, Record batches)::

    telemq.batch   {"series": [[10 labels], ...], "s": [index, ...], "t": [us, ...],
                    "v": [number, ...], "x": [[offset, reason, row], ...]}
    telemq.record  {"timestamp": "2025-07-18T20:42:34Z", "metric_name": ..., "value": 1.5, ...}
                   or an array of such objects

NaN and the infinities are not JSON: `encode` refuses them, `decode` never makes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from telemq.errors import RecordError
from telemq.protocol import Payload
from telemq.record import RecordBatch, Rejection, SeriesLabels
from telemq.spelling import DECODE_ERRORS, SeriesReader, Speller

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


class _Numbers(msgspec.Struct):
    """What follows after series in lines, read in one pass; all of it strictly typed."""

    s: list[int]
    t: list[int]
    v: list[float]
    x: tuple[Rejection, ...] = ()
    series: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_records = msgspec.json.Decoder(list[msgspec.Raw])
_record = msgspec.json.Decoder(Record)
_columns = msgspec.json.Decoder(_Columns)
_numbers_of_batch = msgspec.json.Decoder(_Numbers)


class Encoder:
    """Encodes batches as `BATCH`, and remembers how series are spelt.

    Args:
        series_max: series remembered; beyond it all are forgotten and learnt again.
    """

    def __init__(self, series_max: int = 1_000_000) -> None:
        self._speller = Speller(series_max)

    def encode(self, batch: RecordBatch) -> bytes:
        """Encode one batch.

        Raises:
            RecordError: a value is not finite; nothing of the batch is encoded.
        """
        if not np.isfinite(batch.value).all():
            raise RecordError("a value is NaN or infinite; only finite numbers can be sent")
        columns: dict[str, object] = {
            "s": batch.series_index,
            "t": batch.time_us,
            "v": batch.value,
        }
        if batch.rejected:
            columns["x"] = [tuple(r) for r in batch.rejected]
        rest = orjson.dumps(columns, option=orjson.OPT_SERIALIZE_NUMPY)
        return b"".join((self._speller.spell(batch), memoryview(rest)[1:]))


class Decoder:
    """Decodes payloads of both content types, and remembers the series it has read.

    Series that were spelt the same way before are recognised by their bytes and not parsed or
    checked again.

    Args:
        series_max: series remembered; beyond it all are forgotten and learnt again.
    """

    def __init__(self, series_max: int = 1_000_000) -> None:
        self._reader = SeriesReader(series_max)

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
            text = bytes(payload)
            batch = self._decode_lines(text) or self._decode_columns(text)
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

    def _decode_lines(self, text: bytes) -> RecordBatch | None:
        """Decode what our own encoder makes; None for all else, right or wrong."""
        lines = self._reader.read_lines(text)
        if lines is None:
            return None
        try:
            raw = _numbers_of_batch.decode(b"".join((b"{", memoryview(text)[lines.end :])))
            index = np.fromiter(raw.s, np.int64, len(raw.s))
            times = np.fromiter(raw.t, np.int64, len(raw.t))
        except (*DECODE_ERRORS, OverflowError):
            return None
        if raw.series is not msgspec.UNSET:
            return None
        # Finite, all of them: to msgspec a number outside the range of a double is an error.
        value = np.fromiter(raw.v, np.float64, len(raw.v))
        count = sum(len(group.labels) for group in lines.groups)
        _check_columns(count, index, times, value, raw.x)
        batch = RecordBatch.grouped(lines.groups, index.astype(np.int32), times, value, raw.x)
        return _without_faults(batch, lines.faults)

    def _decode_columns(self, text: bytes) -> RecordBatch:
        try:
            raw = _columns.decode(text)
            if isinstance(raw.series, msgspec.UnsetType):
                raise RecordError("payload has no 'series'")
            series, faults = self._reader.read(raw.series)
        except DECODE_ERRORS as error:
            raise RecordError(
                f"payload is not an object with series, s, t and v: {error}"
            ) from error
        index, times = _integers(raw.s, "s"), _integers(raw.t, "t")
        value = _numbers(raw.v)
        _check_columns(len(series), index, times, value, raw.x)
        batch = RecordBatch(series, index.astype(np.int32), times, value, raw.x)
        return _without_faults(batch, faults)


def _without_faults(batch: RecordBatch, faults: Iterable[tuple[int, str]]) -> RecordBatch:
    for place, fault in faults:
        batch = batch.reject(batch.series_index == place, fault)
    return batch


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
    except DECODE_ERRORS as error:
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
        except (*DECODE_ERRORS, RecordError, OverflowError) as error:
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
