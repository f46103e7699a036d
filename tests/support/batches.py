"""Batches for tests: small, distinct, and with times that a collector accepts."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from telemq.codec import Encoder
from telemq.record import BatchId, RecordBatch, Rejection, SeriesLabels
from telemq.store.writer import StoredBatch

__all__ = ["NOW_US", "labels", "record_batch", "stored_batch"]

#: Now, to the second. (Noon of today was more than an hour ahead all morning, and was rejected.)
NOW_US = int(datetime.now(UTC).timestamp()) * 1_000_000


def labels(gpu: int = 0, metric: str = "DCGM_FI_DEV_GPU_UTIL", **changed: str) -> SeriesLabels:
    """Labels of one metric of one GPU; every eight GPUs share a host."""
    return SeriesLabels(
        metric_name=metric,
        gpu_id=str(gpu % 8),
        device=f"nvidia{gpu % 8}",
        uuid=f"GPU-{gpu:08d}",
        model_name="NVIDIA H100 80GB HBM3",
        hostname=f"host-{gpu // 8:03d}",
        container="",
        pod="",
        namespace="",
        labels_raw=f'gpu="{gpu}"',
    )._replace(**changed)


def record_batch(
    count: int, *, gpus: int = 3, first: int = 0, bad: tuple[int, ...] = (), time_us: int = NOW_US
) -> RecordBatch:
    """`count` rows, those at the offsets `bad` rejected; the values tell rows apart."""
    rows = np.array([row for row in range(count) if row not in bad], np.int64)
    return RecordBatch(
        tuple(labels(gpu) for gpu in range(gpus)),
        (rows % gpus).astype(np.int32),
        time_us + first + rows,
        (first + rows).astype(np.float64),
        tuple(Rejection(row, "value is empty", f"row {row}") for row in bad),
    )


def stored_batch(
    first_row: int = 0, count: int = 10, *, stream: str = "s", bad: tuple[int, ...] = ()
) -> StoredBatch:
    """The batch of a stream that begins at `first_row`; its samples' values are its rows."""
    batch = record_batch(count, first=first_row, bad=bad)
    return StoredBatch(BatchId(stream, first_row), count, Encoder().encode(batch), batch)
