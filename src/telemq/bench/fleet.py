"""A made-up fleet's records in columns, quickly and in any number, in the order of scrapes.

`telemq.sources.synthetic` makes numbers that hang together, one by one; here only their count,
their labels and their order matter. The same arguments give the same records.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from telemq.grouping import SeriesTable
from telemq.record import RecordBatch, SeriesLabels

__all__ = ["METRICS", "START_US", "Fleet", "value_of"]

#: Series of one GPU.
METRICS = 10
#: Time of the first scrape: 2026-01-15 00:00 UTC.
START_US = 1_768_435_200_000_000


def value_of(
    scrape: npt.NDArray[np.int64] | np.int64, number: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Give values by the number of a scrape and of a series.

    Without a pattern, of three decimals, below 1000.
    """
    values: npt.NDArray[np.float64] = (scrape * 7919 + number * 104_729) % 1_000_000 / 1000
    return values


@dataclass(frozen=True, slots=True)
class Fleet:
    """GPUs that are all scraped at once, every `interval_s`.

    Attributes:
        gpus: how many, each with `METRICS` series.
        interval_s: between two scrapes.
    """

    gpus: int = 248
    interval_s: float = 10.0

    @property
    def series(self) -> int:
        """How many series there are."""
        return self.gpus * METRICS

    def gpu(self, number: int) -> str:
        """Give the UUID of a GPU."""
        return f"GPU-{uuid.UUID(int=number + 1)}"

    def metric(self, number: int) -> str:
        """Give the name of a metric, 0 to `METRICS` - 1."""
        return f"DCGM_FI_BENCH_{number}"

    def values(
        self, scrape: npt.NDArray[np.int64], number: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Give the values of records by the numbers of their scrapes and series."""
        return value_of(scrape, number)

    def labels(self, number: int) -> SeriesLabels:
        """Give the labels of a series: as long as real ones."""
        gpu, metric = divmod(number, METRICS)
        host, place = divmod(gpu, 8)
        hostname, pod = f"bench-host-{host:05d}", f"llm-pretrain-{host}-{place}"
        name = self.metric(metric)
        raw = (
            f'DCGM_FI_DRIVER_VERSION="535.129.03",Hostname="{hostname}",UUID="{self.gpu(gpu)}",'
            f'__name__="{name}",container="trainer",device="nvidia{place}",gpu="{place}",'
            f'instance="{hostname}:9400",job="dgx_dcgm_exporter",'
            f'modelName="NVIDIA H100 80GB HBM3",namespace="research",pod="{pod}"'
        )
        return SeriesLabels(
            name, str(place), f"nvidia{place}", self.gpu(gpu), "NVIDIA H100 80GB HBM3", hostname,
            "trainer", pod, "research", raw,
        )  # fmt: skip

    def batches(self, records: int, batch_records: int) -> Iterator[RecordBatch]:
        """Give the first `records` in batches, one scrape after the other."""
        table = SeriesTable(tuple(map(self.labels, range(min(self.series, records)))))
        interval_us = int(self.interval_s * 1e6)
        for first in range(0, records, batch_records):
            rows = np.arange(first, min(first + batch_records, records))
            scrape, number = np.divmod(rows, self.series)
            groups, index = table.pick(number)
            yield RecordBatch.grouped(
                groups,
                index,
                START_US + scrape * interval_us,
                self.values(scrape, number),
            )
