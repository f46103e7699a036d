"""How a telemetry record looks to others, and how a million of them become JSON or CSV.

`Record` is the promise in the OpenAPI document; the writers keep it. No object is made per record:
labels are 700 bytes of JSON that are the same for each sample of a series, so they are spelt once a
series, and between them go the time and the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Protocol

import msgspec
import numpy.typing as npt
import orjson

from telemq.csv_safe import csv_line
from telemq.record import SeriesLabels
from telemq.store.samples import Samples

__all__ = ["CsvWriter", "JsonWriter", "Record", "Writer"]

_COLUMN = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


def _label(description: str, example: str) -> msgspec.Meta:
    return msgspec.Meta(description=description, examples=[example])


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One sample of one metric of one GPU, with the labels of its series."""

    timestamp: Annotated[
        datetime,
        msgspec.Meta(
            description="When the value was true, or the start of its step: RFC 3339 in UTC; with "
            "microseconds if there are.",
            examples=["2025-07-18T20:42:34Z"],
        ),
    ]
    metric_name: Annotated[str, _label("The DCGM field.", "DCGM_FI_DEV_GPU_UTIL")]
    gpu_id: Annotated[str, _label("The GPU's index on its host; repeats on every host.", "0")]
    device: Annotated[str, _label("The device's name on its host.", "nvidia0")]
    uuid: Annotated[str, _label("The GPU's identity.", "GPU-07e435ef-3091-c9d0-8b2b-e7ffe076dbb8")]
    model_name: Annotated[str, _label("The GPU's model.", "NVIDIA H100 80GB HBM3")]
    hostname: Annotated[str, _label("The host.", "hopper-001")]
    container: Annotated[str, _label("The container that used the GPU, or empty.", "train")]
    pod: Annotated[str, _label("The pod that used the GPU, or empty.", "train-0")]
    namespace: Annotated[str, _label("The pod's namespace, or empty.", "research")]
    value: Annotated[
        float,
        msgspec.Meta(
            description="The value, in the unit of its metric: %, MHz, °C, W, MiB …",
            examples=[97.0],
        ),
    ]
    labels_raw: Annotated[
        str, _label("All labels as the exporter wrote them.", 'gpu="0",device="nvidia0"')
    ]


class Writer(Protocol):
    """Writes the samples of one answer, a chunk at a time; made with the labels of its series."""

    def chunk(self, samples: Samples) -> bytes:
        """Give the next part of the answer: `samples`, at least one."""

    def end(self) -> bytes:
        """Give the answer's last part; the whole of it when there was no chunk."""


class JsonWriter:
    """Writes samples as a JSON array of `Record`, or as lines of one `Record` each (NDJSON).

    Args:
        labels: of every series that occurs, by series id.
        lines: NDJSON.
    """

    def __init__(self, labels: Mapping[int, SeriesLabels], *, lines: bool = False) -> None:
        self._between = b'}\n{"timestamp":' if lines else b'},{"timestamp":'
        self._before = b'{"timestamp":' if lines else b'[{"timestamp":'
        self._end, self._empty = (b"}\n", b"") if lines else (b"}]", b"[]")
        self.go_on(labels)

    def go_on(self, labels: Mapping[int, SeriesLabels]) -> None:
        """Go on with samples of other series, in the same answer."""
        self._spelt = {series: self._spell(of) for series, of in labels.items()}

    def chunk(self, samples: Samples) -> bytes:
        """Give the next part: `samples`, at least one."""
        times, values = _columns(samples)
        spelt = self._spelt
        parts: list[bytes] = []
        for time, series, value in zip(times, samples.series.tolist(), values, strict=True):
            labels, labels_raw = spelt[series]
            parts += (time, labels, value, labels_raw)
        parts[-1] = parts[-1].removesuffix(self._between)
        text = self._before + b"".join(parts)
        self._before, self._empty = self._between, self._end
        return text

    def end(self) -> bytes:
        """Give the last part; the whole of it when there was no chunk."""
        return self._empty

    def _spell(self, labels: SeriesLabels) -> tuple[bytes, bytes]:
        """Give what stands between a record's time and value, and after its value."""
        before, raw = _split(labels)
        text = b"," + orjson.dumps(before)[1:-1] + b',"value":'
        return text, b',"labels_raw":' + orjson.dumps(raw) + self._between


class CsvWriter:
    """Writes samples as CSV with a header; text that a spreadsheet would run is made text.

    Args:
        labels: of every series that occurs, by series id.
    """

    def __init__(self, labels: Mapping[int, SeriesLabels]) -> None:
        self._header = csv_line(Record.__struct_fields__).encode()
        self.go_on(labels)

    def go_on(self, labels: Mapping[int, SeriesLabels]) -> None:
        """Go on with samples of other series, in the same answer."""
        self._spelt = {series: self._spell(of) for series, of in labels.items()}

    def chunk(self, samples: Samples) -> bytes:
        """Give the next part: `samples`, at least one."""
        times, values = _columns(samples)
        spelt = self._spelt
        parts = [self.end()]
        for time, series, value in zip(times, samples.series.tolist(), values, strict=True):
            labels, labels_raw = spelt[series]
            parts += (time[1:-1], labels, value, labels_raw)
        return b"".join(parts)

    def end(self) -> bytes:
        """Give the last part: the header, when there was no chunk."""
        header, self._header = self._header, b""
        return header

    @staticmethod
    def _spell(labels: SeriesLabels) -> tuple[bytes, bytes]:
        before, raw = _split(labels)
        return csv_line(["", *before.values(), ""], end="").encode(), csv_line(["", raw]).encode()


def _columns(samples: Samples) -> tuple[list[bytes], list[bytes]]:
    """Spell times, in quotes, and values as JSON does.

    One call of orjson a column instead of two a record; neither a time nor a number holds a comma,
    so that the columns can be cut again.
    """
    return _cut(samples.times()), _cut(samples.values)


def _cut(column: npt.NDArray[Any]) -> list[bytes]:
    try:
        text = orjson.dumps(column, option=_COLUMN)
    except TypeError:  # of an array it takes no time in the last two days of the year 9999
        text = orjson.dumps(column.tolist(), option=_COLUMN)
    return text[1:-1].split(b",")


def _split(labels: SeriesLabels) -> tuple[dict[str, str], str]:
    """Give the labels that stand before a record's value, in order, and the one after it."""
    fields = labels._asdict()
    raw = fields.pop("labels_raw")
    return {name: fields[name] for name in Record.__struct_fields__ if name in fields}, raw
