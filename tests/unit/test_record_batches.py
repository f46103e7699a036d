"""Records and batches: identity, labels, and rows that are rejected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemq.record import LABEL_BYTES_MAX, BatchId, RecordBatch, Rejection, SeriesLabels

LABELS = SeriesLabels("m", "0", "nvidia0", "GPU-1", "H100", "host", "", "", "", "")


@given(st.text(min_size=1, max_size=40), st.integers(0, 2**53 - 1))
def test_identity_survives_its_way_as_a_message_id(stream: str, row: int) -> None:
    """Every batch, whatever its stream is called."""
    assert BatchId(stream, row) == BatchId.parse(str(BatchId(stream, row)))


@pytest.mark.parametrize(
    ("message_id", "expected"),
    [
        ("s#12", BatchId("s", 12)),
        ("a#b#7", BatchId("a#b", 7)),
        ("plain", BatchId("plain", 0)),
        ("s#", BatchId("s#", 0)),
        ("#5", BatchId("#5", 0)),
        ("s#-1", BatchId("s#-1", 0)),
        ("s#1x", BatchId("s#1x", 0)),
        ("s#٣", BatchId("s#٣", 0)),
        (f"s#{2**53}", BatchId(f"s#{2**53}", 0)),
    ],
)
def test_id_without_a_row_number_is_a_stream_of_its_own(message_id: str, expected: BatchId) -> None:
    """A foreign producer that names its messages as it likes."""
    assert expected == BatchId.parse(message_id)


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        (LABELS, None),
        (LABELS._replace(metric_name=""), "metric_name is empty"),
        (LABELS._replace(uuid=""), "uuid is empty"),
        (LABELS._replace(pod="a\0b"), "pod holds U+0000"),
        (LABELS._replace(labels_raw="x" * LABEL_BYTES_MAX), None),
        (
            LABELS._replace(labels_raw="x" * (LABEL_BYTES_MAX + 1)),
            "labels_raw is longer than 65536 bytes",
        ),
        (LABELS._replace(labels_raw="é" * 40_000), "labels_raw is longer than 65536 bytes"),
        (LABELS._replace(labels_raw="é" * 20_000), None),
        (LABELS._replace(uuid="u" * 1025), "uuid is longer than 1024 bytes"),
        (LABELS._replace(gpu_id="é" * 513), "gpu_id is longer than 1024 bytes"),
        (LABELS._replace(uuid="u" * 1024), None),
    ],
)
def test_labels_that_cannot_be_stored_are_named(labels: SeriesLabels, fault: str | None) -> None:
    """A broken exporter."""
    assert fault == labels.fault()


def batch(values: list[float], rejected: tuple[Rejection, ...] = ()) -> RecordBatch:
    n = len(values)
    return RecordBatch(
        (LABELS,),
        np.zeros(n, np.int32),
        np.arange(n, dtype=np.int64),
        np.array(values, np.float64),
        rejected,
    )


def test_rejected_rows_count_and_keep_their_places() -> None:
    """A file with a bad row in the middle: the others keep their row numbers."""
    some = batch([1, 2, 3], (Rejection(0, "bad", "x"), Rejection(2, "bad", "y")))
    assert 5 == some.row_count
    assert [1, 3, 4] == some.offsets().tolist()


def test_rejecting_more_keeps_every_place() -> None:
    """Times outside the accepted range are found only in the collector."""
    before = batch([10, 20, 30], (Rejection(1, "bad", "x"),))
    after = before.reject(np.array([False, True, False]), "too old")
    assert (4, 4) == (before.row_count, after.row_count)
    assert [0, 3] == after.offsets().tolist()
    assert [10, 30] == after.value.tolist()
    assert [(1, "bad"), (2, "too old")] == [r[:2] for r in after.rejected]
    assert '"timestamp": "1970-01-01T00:00:00.000001+00:00", "value": 20.0' in (
        after.rejected[1].payload
    )
    assert '"uuid": "GPU-1"' in after.rejected[1].payload


def test_rejecting_nothing_gives_the_same_batch() -> None:
    """Nearly every batch."""
    some = batch([1])
    assert some.reject(np.array([False]), "never") is some
