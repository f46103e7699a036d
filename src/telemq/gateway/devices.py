"""What the board looks like to people: GPUs, hosts and metrics; pure.

A GPU's document is made when somebody asks and it changed, a few at a time: a fleet of ten thousand
takes a third of a second, in which others have their turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
import numpy as np

from telemq import dcgm
from telemq.gateway.board import Board
from telemq.store.columns import NEVER_US

__all__ = ["Device", "Devices", "Host", "LatestValue", "MetricInfo", "Pod", "metrics_of"]

#: Between two samples of a series of which only one is known.
_INTERVAL_US = 10_000_000
#: A pod is there whose last sample is at most so many intervals older than the GPU's.
_INTERVALS = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _meta(description: str, *examples: object) -> msgspec.Meta:
    return msgspec.Meta(description=description, examples=list(examples))


_Moment = Annotated[
    datetime, _meta("When the value was true: RFC 3339 in UTC.", "2025-07-18T20:42:34Z")
]


# The first three are many, and not watched by the garbage collector for that reason.
class Pod(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A pod that uses a GPU."""

    namespace: Annotated[str, _meta("Its namespace.", "research")]
    pod: Annotated[str, _meta("Its name.", "train-0")]
    container: Annotated[str, _meta("The container.", "train")]


class LatestValue(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The latest sample of a metric."""

    value: Annotated[
        float, _meta("The value, in the unit that `/api/v1/metrics` tells of its metric.", 97.0)
    ]
    timestamp: _Moment


class Device(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A GPU: what it is, where it was seen last, and its latest values."""

    uuid: Annotated[str, _meta("Its identity.", "GPU-07e435ef-3091-c9d0-8b2b-e7ffe076dbb8")]
    gpu_id: Annotated[str, _meta("Its index on its host; repeats on every host.", "0")]
    device: Annotated[str, _meta("The device's name on its host.", "nvidia0")]
    model_name: Annotated[str, _meta("Its model.", "NVIDIA H100 80GB HBM3")]
    hostname: Annotated[str, _meta("Its host.", "hopper-001")]
    driver: Annotated[str, _meta("Version of its driver; empty if not told.", "535.129.03")]
    pods: Annotated[
        list[Pod],
        _meta(
            "The pods that use it, or did at `last_seen`.",
            [{"namespace": "research", "pod": "train-0", "container": "train"}],
        ),
    ]
    last_seen: Annotated[
        datetime | None,
        _meta(
            "Time of its latest sample: RFC 3339 in UTC; null if none is stored yet, or all were "
            "dropped because of their age.",
            "2025-07-18T20:42:34Z",
        ),
    ]
    latest: Annotated[
        dict[str, LatestValue],
        _meta(
            "The latest sample of each metric, by the metric's name.",
            {"DCGM_FI_DEV_GPU_UTIL": {"value": 97.0, "timestamp": "2025-07-18T20:42:34Z"}},
        ),
    ]


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A host."""

    hostname: Annotated[str, _meta("Its name.", "hopper-001")]
    gpus: Annotated[int, _meta("How many GPUs were seen last on it.", 8)]
    models: Annotated[list[str], _meta("Their models, sorted.", ["NVIDIA H100 80GB HBM3"])]
    last_seen: Annotated[
        datetime | None,
        _meta(
            "Time of the latest sample: RFC 3339 in UTC; null as of a GPU.", "2025-07-18T20:42:34Z"
        ),
    ]


class MetricInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A metric."""

    name: Annotated[str, _meta("The DCGM field.", "DCGM_FI_DEV_GPU_UTIL")]
    kind: Annotated[
        str, _meta("`gauge`; or `counter` for what only grows while a driver is loaded.", "gauge")
    ]
    unit: Annotated[str, _meta("%, MHz, °C, W, MiB …; empty if it has none, or is unknown.", "%")]
    help: Annotated[
        str, _meta("What it is; empty if unknown.", "Share of time in which a kernel ran.")
    ]
    gpus: Annotated[int, _meta("How many GPUs have it.", 248)]


class Devices:
    """The GPUs of a board, each made anew only when something of it changed.

    Args:
        board: whose.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self._made: dict[int, tuple[int, Device, bytes]] = {}
        self._encoder = msgspec.json.Encoder()

    def one(self, gpu: int) -> tuple[Device, bytes]:
        """Give a GPU by its index in the board, and its JSON."""
        changes = int(self.board.gpu_changes[gpu])
        made = self._made.get(gpu)
        if made is None or made[0] != changes:
            device = _device(self.board, gpu)
            made = self._made[gpu] = (changes, device, self._encoder.encode(device))
        return made[1], made[2]

    def __iter__(self) -> Iterator[tuple[Device, bytes]]:
        """Yield all GPUs, sorted by UUID."""
        for gpu in sorted(range(len(self.board.uuids)), key=self.board.uuids.__getitem__):
            yield self.one(gpu)


def metrics_of(board: Board) -> list[MetricInfo]:
    """Give the metrics that there are, sorted by name."""
    gpu_count = max(1, len(board.uuids))
    pairs = np.unique(board.metric.astype(np.int64) * gpu_count + board.gpu)
    gpus = np.bincount(pairs // gpu_count, minlength=len(board.metrics)).tolist()
    return [
        MetricInfo(name=name, gpus=count, **dcgm.field(name)._asdict())
        for name, count in sorted(zip(board.metrics, gpus, strict=True))
    ]


def _device(board: Board, gpu: int) -> Device:
    # Ascending in time, so that of a metric the newest series is the last.
    slots = sorted(board.slots_of[gpu], key=board.last_us.__getitem__)
    newest = board.series[slots[-1]]
    seen_us = int(board.last_us[slots[-1]])
    latest: dict[str, LatestValue] = {}
    pods: dict[Pod, None] = {}
    driver = newest.driver
    for slot in slots:
        row, at_us = board.series[slot], int(board.last_us[slot])
        if at_us == NEVER_US:
            continue
        latest[row.metric_name] = LatestValue(value=float(board.value[slot]), timestamp=_at(at_us))
        interval_us = int(board.interval_us[slot]) or _INTERVAL_US
        if (row.pod or row.namespace) and at_us >= seen_us - _INTERVALS * interval_us:
            pods[Pod(namespace=row.namespace, pod=row.pod, container=row.container)] = None
        driver = row.driver or driver
    return Device(
        uuid=newest.uuid,
        gpu_id=newest.gpu_id,
        device=newest.device,
        model_name=newest.model_name,
        hostname=newest.hostname,
        driver=driver,
        pods=sorted(pods, key=lambda p: (p.namespace, p.pod, p.container)),
        last_seen=None if seen_us == NEVER_US else _at(seen_us),
        latest=dict(sorted(latest.items())),
    )


def _at(time_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_us)
