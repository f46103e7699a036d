"""The table of `telemq gpus`, worked out from what the store told; pure.

What a GPU does now is in its newest samples, one a metric, and they must lie in the window that is
shown: a value of an hour ago is not what a GPU does now. Only `last_seen` goes back further.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from telemq.errors import SettingError
from telemq.look.names import near
from telemq.look.place import by_place

if TYPE_CHECKING:
    from telemq.store.recent import Gpu, Newest, Slot  # with psycopg, which no rule needs

__all__ = ["METRICS", "SORTS", "GpuRow", "Pod", "Wanted", "ordered", "rows_of"]

_UTIL, _TEMP, _POWER = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE"
_FB_USED, _FB_FREE = "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"
#: The metrics that are shown; the first is also shown over time.
METRICS = (_UTIL, _TEMP, _POWER, _FB_USED, _FB_FREE)
#: Pods that share a GPU are in one scrape; scrapes are a second apart at least.
_SAME_SCRAPE = timedelta(seconds=1)


class Pod(NamedTuple):
    """Who uses a GPU."""

    namespace: str
    pod: str
    container: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRow:
    """One GPU; what is not known is None.

    Attributes:
        gpu: where it is.
        pods: whose it was in its newest scrape.
        utilization_percent: DCGM_FI_DEV_GPU_UTIL.
        memory_used_mib: DCGM_FI_DEV_FB_USED.
        memory_total_mib: used and free together.
        temperature_celsius: DCGM_FI_DEV_GPU_TEMP.
        power_watts: DCGM_FI_DEV_POWER_USAGE.
        last_seen: time of its newest sample.
        recent: mean utilisation in equal parts of the window, oldest first.
    """

    gpu: Gpu
    pods: tuple[Pod, ...] = ()
    utilization_percent: float | None = None
    memory_used_mib: float | None = None
    memory_total_mib: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    last_seen: datetime | None = None
    recent: tuple[float | None, ...] = ()

    @property
    def memory_used(self) -> float | None:
        """Part of the memory that is in use, 0 to 1."""
        if self.memory_used_mib is None or not self.memory_total_mib:
            return None
        return self.memory_used_mib / self.memory_total_mib

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as plain values, for JSON; names as in `/api/v1/devices`."""
        gpu = self.gpu
        return {
            "uuid": gpu.uuid,
            "gpu_id": gpu.gpu_id,
            "device": gpu.device,
            "model_name": gpu.model_name,
            "hostname": gpu.hostname,
            "pods": [pod._asdict() for pod in self.pods],
            "last_seen": self.last_seen,
            "utilization_percent": self.utilization_percent,
            "memory_used_mib": self.memory_used_mib,
            "memory_total_mib": self.memory_total_mib,
            "temperature_celsius": self.temperature_celsius,
            "power_watts": self.power_watts,
            "utilization_recent_percent": list(self.recent),
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which GPUs are shown; each may be a pattern with ``*`` and ``?``; empty is any.

    Attributes:
        host: of its host.
        model: of its model.
        namespace: of one of its pods.
    """

    host: str = ""
    model: str = ""
    namespace: str = ""

    def of(self, gpus: Iterable[Gpu]) -> list[Gpu]:
        """Give those of that host and model.

        Raises:
            SettingError: there are GPUs, and none of them has such a host or model.
        """
        left = list(gpus)
        for flag, pattern, name_of in (
            ("--host", self.host, _hostname),
            ("--model", self.model, _model_name),
        ):
            if pattern and left:
                names = sorted({name_of(gpu) for gpu in left})
                left = [gpu for gpu in left if fnmatchcase(name_of(gpu), pattern)]
                if not left:
                    told = f"one of {near(pattern, names)}; or a pattern with * and ?"
                    raise SettingError(flag, pattern, told)
        return left

    def has(self, row: GpuRow) -> bool:
        """Tell whether one of its pods is of that namespace."""
        return not self.namespace or any(
            fnmatchcase(pod.namespace, self.namespace) for pod in row.pods
        )


def rows_of(
    gpus: Sequence[Gpu],
    newest: Iterable[Newest],
    slots: Iterable[Slot],
    last_seen: Mapping[int, datetime],
    slot_count: int,
) -> list[GpuRow]:
    """Put together what was read.

    Args:
        gpus: those that are shown.
        newest: of their series, in the window.
        slots: of their utilisation.
        last_seen: of those GPUs that have nothing in the window.
        slot_count: parts of the window.
    """
    of_gpu: dict[int, list[Newest]] = defaultdict(list)
    for sample in newest:
        of_gpu[sample.gpu].append(sample)
    recent: dict[int, list[float | None]] = defaultdict(lambda: [None] * slot_count)
    for slot in slots:
        recent[slot.gpu][slot.slot] = slot.mean
    return [
        _row(gpu, of_gpu.get(gpu.id, []), tuple(recent[gpu.id]), last_seen.get(gpu.id))
        for gpu in gpus
    ]


def ordered(rows: Iterable[GpuRow], by: str) -> list[GpuRow]:
    """Give rows in the order of one of `SORTS`; those where it is not known come last."""
    key = SORTS[by]
    in_place = sorted(rows, key=lambda row: by_place(row.gpu))
    if key is None:
        return in_place
    keyed = [(key(row), row) for row in in_place]
    known = sorted(
        ((number, row) for number, row in keyed if number is not None), key=lambda pair: pair[0]
    )
    return [row for _, row in known] + [row for number, row in keyed if number is None]


#: Orders by name; what a row is ordered by, least first; None is by place.
SORTS: dict[str, Callable[[GpuRow], float | None] | None] = {
    "host": None,
    "util": lambda row: _minus(row.utilization_percent),
    "idle": lambda row: row.utilization_percent,
    "memory": lambda row: _minus(row.memory_used),
    "temp": lambda row: _minus(row.temperature_celsius),
    "power": lambda row: _minus(row.power_watts),
    "silent": lambda row: row.last_seen.timestamp() if row.last_seen else None,
}


def _row(
    gpu: Gpu,
    samples: list[Newest],
    recent: tuple[float | None, ...],
    last_seen: datetime | None,
) -> GpuRow:
    if not samples:
        return GpuRow(gpu=gpu, last_seen=last_seen, recent=recent)
    latest: dict[str, Newest] = {}
    for sample in sorted(samples, key=lambda s: s.ts):
        latest[sample.metric_name] = sample
    value = {name: sample.value for name, sample in latest.items()}
    last = max(latest.values(), key=lambda s: s.ts)
    pods = {
        Pod(s.namespace, s.pod, s.container)
        for s in samples
        if s.pod and s.metric_name == last.metric_name and last.ts - s.ts < _SAME_SCRAPE
    }
    used, free = value.get(_FB_USED), value.get(_FB_FREE)
    return GpuRow(
        gpu=gpu,
        pods=tuple(sorted(pods)),
        utilization_percent=value.get(_UTIL),
        memory_used_mib=used,
        memory_total_mib=None if used is None or free is None else used + free,
        temperature_celsius=value.get(_TEMP),
        power_watts=value.get(_POWER),
        last_seen=last.ts,
        recent=recent,
    )


def _hostname(gpu: Gpu) -> str:
    return gpu.hostname


def _model_name(gpu: Gpu) -> str:
    return gpu.model_name


def _minus(number: float | None) -> float | None:
    return None if number is None else -number
