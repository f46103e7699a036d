"""How a telemetry record looks in the API, and how a million of them become JSON.

`Record` is the promise in the OpenAPI document; `RecordWriter` writes it. No object is made per
record: labels are 700 bytes of JSON that are the same for each sample of a series, so they are
spelt once a series, and between them go the time and the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

import msgspec
import orjson

from telemq.record import SeriesLabels
from telemq.store.reader import Sample

__all__ = ["Record", "RecordWriter"]


def _label(description: str, example: str) -> msgspec.Meta:
    return msgspec.Meta(description=description, examples=[example])


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One sample of one metric of one GPU, with the labels of its series."""

    timestamp: Annotated[
        datetime,
        msgspec.Meta(
            description="When the value was true: RFC 3339 in UTC; with microseconds if there are.",
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


class RecordWriter:
    """Writes samples as a JSON array of `Record`, a chunk at a time.

    Args:
        labels: of every series that occurs, by series id.
    """

    def __init__(self, labels: Mapping[int, SeriesLabels]) -> None:
        self._spelt = {series: _spell(of) for series, of in labels.items()}
        self._before = b'[{"timestamp":'

    def chunk(self, samples: Sequence[Sample]) -> bytes:
        """Give the next part of the array: `samples`, at least one."""
        # One call of orjson a column instead of two a record; neither a time nor a number holds a
        # comma, so that the columns can be cut again.
        times = orjson.dumps([s[0] for s in samples], option=orjson.OPT_UTC_Z)[1:-1].split(b",")
        values = orjson.dumps([s[2] for s in samples])[1:-1].split(b",")
        spelt = self._spelt
        parts: list[bytes] = []
        for time, sample, value in zip(times, samples, values, strict=True):
            labels, labels_raw = spelt[sample[1]]
            parts += (time, labels, value, labels_raw)
        parts[-1] = parts[-1].removesuffix(_BETWEEN)
        text = self._before + b"".join(parts)
        self._before = _BETWEEN
        return text

    def end(self) -> bytes:
        """Give the array's last part; the whole of it when there was no chunk."""
        return b"}]" if self._before == _BETWEEN else b"[]"


_BETWEEN = b'},{"timestamp":'


def _spell(labels: SeriesLabels) -> tuple[bytes, bytes]:
    """Give what stands between a record's time and value, and after its value."""
    fields = labels._asdict()
    raw = fields.pop("labels_raw")
    ordered = {name: fields[name] for name in Record.__struct_fields__ if name in fields}
    before = b"," + orjson.dumps(ordered)[1:-1] + b',"value":'
    return before, b',"labels_raw":' + orjson.dumps(raw) + _BETWEEN
