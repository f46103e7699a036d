"""A made-up fleet of H100s, written as the CSV that `csv_replay` reads.

The numbers hang together as on a real fleet: a job drives utilisation, utilisation drives power,
power drives temperature, and near the power limit the clock falls; used and free memory sum up to
what the GPU has. Pods own whole hosts (training) or single GPUs (serving); the rest is idle.

The same arguments give the same bytes on every machine and Python: besides arithmetic only
`random.Random.random` and `getrandbits` are used, whose results are specified; no libm function,
no `choice`.
"""

from __future__ import annotations

import csv
import io
import math
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TextIO

from telemq.errors import SettingError, SourceError
from telemq.sources.csv_replay import COLUMNS

__all__ = ["METRICS", "START", "generate"]

#: The metrics of one scrape, in the order in which they are written.
METRICS = (
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_MEM_COPY_UTIL",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_DEC_UTIL",
    "DCGM_FI_DEV_ENC_UTIL",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_MEM_CLOCK",
)
#: Time of the first scrape unless another is given.
START = datetime(2026, 1, 15, 9, 0, tzinfo=UTC)

_MODEL = "NVIDIA H100 80GB HBM3"
_DRIVER = "535.129.03"
_FB_MIB = 81_007  # what such a GPU reports as used and free together
_IDLE_WATTS, _LIMIT_WATTS = 68.0, 700.0
_SM_CLOCK_MHZ, _SM_CLOCK_IDLE_MHZ, _MEM_CLOCK_MHZ = 1980, 345, 2619
_CLOCK_STEP_MHZ = 15


class _Job(NamedTuple):
    namespace: str
    pod: str
    container: str
    util: float  # per cent, on average
    swing: float  # how far utilisation strays from it
    copy_share: float  # memory copy utilisation per GPU utilisation
    fb_mib: int
    decode: float = 0.0  # per cent of the video decoder


_IDLE = _Job("", "", "", 0, 0, 0, 4)
_TRAINING = _Job("research", "llm-pretrain", "trainer", 96, 6, 0.62, 74_300)
_SINGLE = (
    _Job("serving", "chat", "server", 58, 45, 0.45, 67_900),
    _Job("serving", "embed", "server", 31, 35, 0.30, 24_800),
    _Job("vision", "transcode", "worker", 44, 20, 0.35, 11_200, decode=63),
    _Job("research", "notebook", "jupyter", 6, 30, 0.20, 3_100),
    _IDLE,
    _IDLE,
)


@dataclass(slots=True)
class _Gpu:
    """One GPU and its state after the last scrape."""

    host: str
    index: int
    uuid: str
    job: _Job
    chance: random.Random
    util: float = 0.0
    watts: float = _IDLE_WATTS
    celsius: float = 30.0

    def scrape(self) -> tuple[str, ...]:
        """Move on by one scrape, and give the values of `METRICS`."""
        job = self.job
        target = min(100.0, max(0.0, job.util + job.swing * (2 * self.chance.random() - 1)))
        self.util += 0.7 * (target - self.util)
        util = int(self.util + 0.5)
        drawn = 45 if job.namespace else 0  # memory in use keeps a GPU out of its lowest state
        load_watts = _IDLE_WATTS + drawn + 5.9 * self.util + 8 * self.chance.random()
        self.watts += 0.8 * (min(load_watts, _LIMIT_WATTS - self.chance.random()) - self.watts)
        self.celsius += 0.5 * (24 + 0.062 * self.watts - self.celsius)
        fb_used = job.fb_mib + (int(16 * self.chance.random()) if job.namespace else 0)
        clock = _SM_CLOCK_MHZ if job.namespace else _SM_CLOCK_IDLE_MHZ
        clock -= _CLOCK_STEP_MHZ * max(0, int((self.watts - 670) / 5))
        decode = job.decode * (0.8 + 0.4 * self.chance.random())
        return (
            str(util),
            str(int(job.copy_share * self.util)),
            f"{self.watts:.3f}",
            str(int(self.celsius + 0.5)),
            str(fb_used),
            str(_FB_MIB - fb_used),
            str(int(decode)),
            str(int(decode / 2)),
            str(clock),
            str(_MEM_CLOCK_MHZ),
        )

    def labels(self, metric: str) -> tuple[str, ...]:
        """Give the columns before ``value``, without the timestamp, and ``labels_raw``."""
        job, device = self.job, f"nvidia{self.index}"
        raw = {
            "DCGM_FI_DRIVER_VERSION": _DRIVER,
            "Hostname": self.host,
            "UUID": self.uuid,
            "__name__": metric,
            "container": job.container,
            "device": device,
            "gpu": str(self.index),
            "instance": f"{self.host}:9400",
            "job": "dgx_dcgm_exporter",
            "modelName": _MODEL,
            "namespace": job.namespace,
            "pod": job.pod,
        }
        # Prometheus has no empty labels.
        labels_raw = ",".join(f'{name}="{text}"' for name, text in raw.items() if text)
        columns = (metric, str(self.index), device, self.uuid, _MODEL, self.host)
        return (*columns, job.container, job.pod, job.namespace, labels_raw)


def generate(
    path_or_file: Path | TextIO,
    *,
    seed: int = 1,
    hosts: int = 5,
    gpus_per_host: int = 8,
    minutes: float = 6,
    interval_s: int = 60,
    start: datetime = START,
) -> int:
    """Write a DCGM CSV of a made-up fleet and give its number of rows.

    There is a scrape at `start` and one every `interval_s` as long as `minutes` have not passed;
    each holds every metric of every GPU. The last of several hosts lacks a GPU, as on a real fleet.

    Args:
        path_or_file: an existing file is replaced; a text file is written to and left open.
        seed: the same seed gives the same bytes.
        hosts: 1 to 10,000.
        gpus_per_host: 1 to 16.
        minutes: length of the recording, above 0.
        interval_s: between two scrapes, at least 5.
        start: aware; only whole seconds are kept.

    Raises:
        SettingError: an argument is out of its range.
        SourceError: the file cannot be written.
    """
    _check("--hosts", hosts, 1, 10_000)
    _check("--gpus-per-host", gpus_per_host, 1, 16)
    _check("--interval-s", interval_s, 5, 86_400)
    _check("--minutes", minutes, 0.01, 1_000_000)
    if start.tzinfo is None:
        raise SettingError("--start", start.isoformat(), "a time with an offset, such as Z")
    fleet = list(_fleet(seed, hosts, gpus_per_host))
    times = [
        start.astimezone(UTC) + timedelta(seconds=since)
        for since in range(0, math.ceil(minutes * 60), interval_s)
    ]
    try:
        if isinstance(path_or_file, Path):
            with path_or_file.open("w", encoding="ascii", newline="") as file:
                return _write(file, fleet, times)
        return _write(path_or_file, fleet, times)
    except OSError as error:
        raise SourceError(f"{path_or_file}: cannot be written: {error.strerror}") from error


def _check(flag: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SettingError(flag, value, f"{low:g} to {high:g}")


def _fleet(seed: int, hosts: int, gpus_per_host: int) -> Iterator[_Gpu]:
    for h in range(hosts):
        host = f"hopper-{h + 1:03d}"
        trains = h % 3 == 0
        for g in range(gpus_per_host):
            chance = random.Random(f"{seed}/{host}/{g}")
            name = f"GPU-{uuid.UUID(int=chance.getrandbits(128))}"
            job = _TRAINING if trains else _SINGLE[int(len(_SINGLE) * chance.random())]
            if job.pod:
                replica = f"{h}" if trains else f"{chance.getrandbits(32):08x}-{g}"
                job = job._replace(pod=f"{job.pod}-{replica}")
            gpu = _Gpu(host, g, name, job, chance)
            for _ in range(8):
                gpu.scrape()  # until it is as warm as its job makes it
            if not (hosts > 1 and h == hosts - 1 and g > 0 and g == gpus_per_host - 2):
                yield gpu


def _write(file: TextIO, fleet: list[_Gpu], times: list[datetime]) -> int:
    # Real scrapes quote every field except the header's.
    file.write(",".join(COLUMNS) + "\n")
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for time in times:
        values = [gpu.scrape() for gpu in fleet]
        for m, metric in enumerate(METRICS):
            # As in a real one, a metric has one time, and a scrape takes some seconds.
            stamp = (time + timedelta(seconds=m // 3)).strftime("%Y-%m-%dT%H:%M:%SZ")
            for gpu, value in zip(fleet, values, strict=True):
                *labels, labels_raw = gpu.labels(metric)
                writer.writerow((stamp, *labels, value[m], labels_raw))
        file.write(buffer.getvalue())
        buffer.seek(0)
        buffer.truncate()
    return len(times) * len(fleet) * len(METRICS)
