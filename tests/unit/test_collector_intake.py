"""Whatever is delivered becomes something that the store accepts, row for row."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest

from telemq.client.session import Delivery
from telemq.codec import BATCH, RECORD, Encoder
from telemq.collector.intake import Intake, batch_id
from telemq.record import BatchId, reject_times
from tests.support.batches import NOW_US, labels, record_batch

DAY_US = 86_400_000_000


def _delivery(**changed: Any) -> Delivery:
    delivery = Delivery(
        session="s",
        lease=1,
        lease_ms=30_000,
        id="stream#20",
        records=3,
        key="",
        metadata={"content-type": BATCH},
        payload=Encoder().encode(record_batch(3)),
        attempt=1,
        dead="",
    )
    return msgspec.structs.replace(delivery, **changed)


@pytest.fixture
def intake() -> Intake:
    return Intake(age_days_max=10, ahead_s_max=60, series_max=100)


def test_batch_is_decoded_under_its_identity(intake: Intake) -> None:
    """The everyday case."""
    stored = intake.read(_delivery(), NOW_US)
    assert (BatchId("stream", 20), 3, 3) == (stored.id, stored.row_count, stored.stored)
    assert "" == stored.reason


def test_dead_letter_is_kept_and_not_decoded(intake: Intake) -> None:
    """Its payload may be what killed the collectors before us."""
    stored = intake.read(_delivery(dead="20 attempts"), NOW_US)
    assert (None, "20 attempts", 3) == (stored.batch, stored.reason, stored.row_count)
    assert _delivery().payload == stored.payload


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"payload": b"\xff\0{"}, "payload is not an object"),
        ({"payload": b"{}"}, "payload has no 'series'"),
        ({"records": 4}, "the header counts 4 rows, the payload holds 3"),
        ({"metadata": {}}, "content type '' is unknown"),
        ({"metadata": {"content-type": RECORD}, "payload": b"[1"}, "payload is not JSON"),
    ],
)
def test_payload_that_does_not_decode_is_kept_whole(
    intake: Intake, changed: dict[str, Any], reason: str
) -> None:
    """A foreign producer's mistakes; every row of the header is accounted for."""
    delivery = _delivery(**changed)
    stored = intake.read(delivery, NOW_US)
    assert stored.batch is None
    assert reason in stored.reason
    assert (delivery.records, delivery.payload) == (stored.row_count, stored.payload)


@pytest.mark.parametrize(
    ("offset_us", "accepted"),
    [
        (-10 * DAY_US, True),
        (-10 * DAY_US - 1, False),
        (0, True),
        (60_000_000, True),
        (60_000_001, False),
        (2**62, False),
        (-(2**62), False),
    ],
)
def test_times_outside_the_limits_are_rejected(
    intake: Intake, offset_us: int, accepted: bool
) -> None:
    """A host whose clock is in the year 9999: such a day would need a partition of its own."""
    payload = Encoder().encode(record_batch(1, time_us=NOW_US + offset_us))
    stored = intake.read(_delivery(records=1, payload=payload), NOW_US)
    assert accepted == (stored.stored == 1)
    assert 1 == stored.row_count


def test_only_the_records_with_bad_times_are_rejected() -> None:
    """One host of many has a wrong clock; rows rejected before stay where they are."""
    batch = record_batch(6, bad=(2,), time_us=1_000_000_000_000)
    times = batch.time_us.copy()
    times[0], times[4] = 5, 9_000_000_000_000
    rejected = reject_times(
        dataclasses.replace(batch, time_us=times), 1_000_000_000, 2_000_000_000_000
    )
    assert [1.0, 3.0, 4.0] == rejected.value.tolist()
    assert [
        (0, "time is before 1970-01-01T00:16:40Z"),
        (2, "value is empty"),
        (5, "time is after 1970-01-24T03:33:20Z"),
    ] == [(r.offset, r.reason) for r in rejected.rejected]
    assert np.array_equal([1, 3, 4], rejected.offsets())


def test_only_the_records_with_labels_that_cannot_be_stored_are_rejected(intake: Intake) -> None:
    """An exporter went mad: Postgres can neither index such a uuid nor hold U+0000."""
    batch = record_batch(4, gpus=4)
    series = (labels(0), labels(1, uuid="é" * 600), labels(2, pod="a\0b"), labels(3))
    payload = Encoder().encode(dataclasses.replace(batch, series=series))
    stored = intake.read(_delivery(records=4, payload=payload), NOW_US)
    assert stored.batch is not None
    assert [0.0, 3.0] == stored.batch.value.tolist()
    assert [(1, "uuid is longer than 1024 bytes"), (2, "pod holds U+0000")] == [
        (r.offset, r.reason) for r in stored.batch.rejected
    ]


def test_ids_that_postgres_cannot_hold_stay_apart() -> None:
    """A foreign producer's id with U+0000 in it, and others that would look the same."""
    ids = ["a\0b#5", "a\0c#5", "a␀b#5", "a\0b#6", "a#5"]
    stored = [batch_id(i) for i in ids]
    assert len(ids) == len(set(stored))
    assert not any("\0" in b.stream_id for b in stored)
    assert [5, 5, 5, 6, 5] == [b.first_row for b in stored]
    assert BatchId("a", 5) == stored[-1]
