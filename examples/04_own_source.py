"""Publish records of your own through telemq's library: batches in columns, kept until confirmed.

    python examples/04_own_source.py tcp://127.0.0.1:5601

The stream's rows are numbered by you. A batch with the same stream and first row is the same batch:
publish it again after a crash, and it is stored once all the same.
"""

import sys
import time

import numpy as np

from telemq.client.link import ProducerLink
from telemq.clock import utc_us
from telemq.codec import BATCH, Encoder
from telemq.record import BatchId, RecordBatch, SeriesLabels

STREAM = "example/04"
BATCHES, SECONDS = 5, 60


def batch() -> RecordBatch:
    """Measure: here, a minute of two made-up temperatures."""
    series = tuple(
        SeriesLabels(
            metric_name="DCGM_FI_DEV_GPU_TEMP",
            gpu_id=str(gpu),
            device=f"nvidia{gpu}",
            uuid=f"GPU-own-{gpu}",
            model_name="",
            hostname="example",
            container="",
            pod="",
            namespace="",
            labels_raw="",
        )
        for gpu in range(2)
    )
    index = np.tile(np.arange(2, dtype=np.int32), SECONDS)
    times = utc_us() - np.repeat(np.arange(SECONDS, dtype=np.int64)[::-1], 2) * 1_000_000
    return RecordBatch(series, index, times, 40 + 10 * np.sin(times / 1e7) + index)


def main(endpoint: str) -> None:
    """Publish five batches and wait until they are stored."""
    encoder = Encoder()
    link = ProducerLink(endpoint, name="example 04", window_records=10_000, window_bytes=4 * 2**20)
    try:
        row = 0
        for _ in range(BATCHES):
            records = batch()
            link.publish(
                str(BatchId(STREAM, row)),
                records.row_count,
                encoder.encode(records),
                metadata={"content-type": BATCH},
            )
            row += records.row_count
        end = time.monotonic() + 60
        while link.unconfirmed() and time.monotonic() < end:
            for id in link.poll(1.0):
                print("stored", id)
        if link.unconfirmed():
            sys.exit(f"{link.unconfirmed()} batches not stored; {link.fault}")
    finally:
        link.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5601")
