"""Samples of GPUs with any labels, stored as a collector stores them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg

from telemq.record import BatchId, RecordBatch, SeriesLabels
from telemq.store.writer import StoredBatch, Writer

__all__ = ["EPOCH", "gpu", "store"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_rows = itertools.count()


def gpu(uuid: str, metric: str = "DCGM_FI_DEV_GPU_UTIL", **changed: str) -> SeriesLabels:
    """Labels of a metric of a GPU."""
    return SeriesLabels(
        metric_name=metric,
        gpu_id="0",
        device="nvidia0",
        uuid=uuid,
        model_name="NVIDIA H100 80GB HBM3",
        hostname="host-1",
        container="",
        pod="",
        namespace="",
        labels_raw=f'DCGM_FI_DRIVER_VERSION="535.129.03",UUID="{uuid}"',
    )._replace(**changed)


def store(
    conn: psycopg.Connection[Any], samples: Sequence[tuple[SeriesLabels, datetime, float]]
) -> None:
    """Store samples, each of a series, a time and a value, as one batch."""
    series = list(dict.fromkeys(labels for labels, _, _ in samples))
    batch = RecordBatch(
        tuple(series),
        np.array([series.index(labels) for labels, _, _ in samples], np.int32),
        np.array([(at - EPOCH) // timedelta(microseconds=1) for _, at, _ in samples], np.int64),
        np.array([value for _, _, value in samples], np.float64),
    )
    id = BatchId(f"stream-{next(_rows)}", 0)
    Writer(conn).store([StoredBatch(id, len(samples), b"", batch)])
