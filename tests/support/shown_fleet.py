"""A made-up fleet in the database, with samples that look like work, for those who look at it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from tests.support.gateway import add_partition

__all__ = ["METRICS", "Fleet", "make_fleet", "now", "value_of"]

#: The metrics that the dashboard's first page follows, and one that it does not.
METRICS = (
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_SM_CLOCK",
)
_MEMORY_MIB = 81_559


@dataclass(frozen=True, slots=True)
class Fleet:
    """The series of a fleet.

    Attributes:
        uuids: of the GPUs, host by host.
        series: (series id, number of the GPU, metric), GPU by GPU.
    """

    uuids: Sequence[str]
    series: Sequence[tuple[int, int, str]]

    def measure(self, conn: psycopg.Connection, *moments: datetime) -> None:
        """Insert a sample of every series at each moment."""
        for day in {
            moment.replace(hour=0, minute=0, second=0, microsecond=0) for moment in moments
        }:
            add_partition(conn, day)
        with conn.cursor().copy("COPY sample (series_id, ts, value) FROM STDIN") as copy:
            for moment in moments:
                for series, gpu, metric in self.series:
                    copy.write_row((series, moment, value_of(metric, gpu, moment)))


def now() -> datetime:
    """Give the present second."""
    return datetime.now(UTC).replace(microsecond=0)


def make_fleet(
    conn: psycopg.Connection,
    *,
    hosts: int = 3,
    gpus_per_host: int = 8,
    model_name: str = "NVIDIA H100 80GB HBM3",
    metrics: Sequence[str] = METRICS,
) -> Fleet:
    """Insert GPUs and series, and no sample yet; two of three GPUs have a pod."""
    gpus = list(_gpus(hosts, gpus_per_host, model_name))
    with conn.cursor() as cursor:
        with cursor.copy(
            "COPY gpu (uuid, gpu_id, device, model_name, hostname) FROM STDIN"
        ) as copy:
            for row in gpus:
                copy.write_row(row)
        ids: dict[str, int] = dict(cursor.execute("SELECT uuid, id FROM gpu").fetchall())
        with cursor.copy(
            "COPY series (fingerprint, gpu, metric_name, gpu_id, device, model_name, hostname,"
            " container, pod, namespace, labels_raw) FROM STDIN"
        ) as copy:
            for number, (uuid, gpu_id, device, model, hostname) in enumerate(gpus):
                pod = ("", "", "") if number % 3 == 2 else _POD
                raw = f'DCGM_FI_DRIVER_VERSION="535.129.03",uuid="{uuid}"'
                for metric in metrics:
                    labels = (metric, gpu_id, device, model, hostname, *pod, raw)
                    print_of = hashlib.blake2b(repr((uuid, labels)).encode(), digest_size=16)
                    copy.write_row((print_of.digest(), ids[uuid], *labels))
        series = cursor.execute(
            "SELECT s.id, g.uuid, s.metric_name FROM series s JOIN gpu g ON g.id = s.gpu"
        ).fetchall()
    numbers = {uuid: number for number, (uuid, *_) in enumerate(gpus)}
    known = sorted((numbers[uuid], metric, id_) for id_, uuid, metric in series)
    return Fleet([uuid for uuid, *_ in gpus], [(id_, gpu, metric) for gpu, metric, id_ in known])


_POD = ("trainer", "llm-pretrain-0", "research")


def _gpus(hosts: int, gpus_per_host: int, model: str) -> Iterator[tuple[str, str, str, str, str]]:
    for host in range(hosts):
        for gpu in range(gpus_per_host):
            uuid = f"GPU-{host:08x}-{gpu:04x}-4000-8000-0123456789ab"
            yield uuid, str(gpu), f"nvidia{gpu}", model, f"hopper-{host + 1:03}"


def value_of(metric: str, gpu: int, moment: datetime) -> float:
    """Give what a GPU measures at a moment: always the same for the same arguments."""
    load = 0.5 + 0.5 * math.sin(gpu * 1.7 + moment.timestamp() / 300)
    values = {
        "DCGM_FI_DEV_GPU_UTIL": round(100 * load),
        "DCGM_FI_DEV_GPU_TEMP": round(35 + 40 * load),
        "DCGM_FI_DEV_POWER_USAGE": round(90 + 600 * load, 1),
        "DCGM_FI_DEV_FB_USED": round(70_000 * load),
        "DCGM_FI_DEV_FB_FREE": _MEMORY_MIB - round(70_000 * load),
        "DCGM_FI_DEV_SM_CLOCK": round(1200 + 780 * load),
    }
    return values.get(metric, 0)
