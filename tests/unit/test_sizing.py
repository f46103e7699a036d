"""What a fleet needs, by hand and by rule."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemq.errors import SettingError
from telemq.sizing import Figures, Fleet, size

#: Round figures, so that a reader can follow the sums.
FIGURES = Figures(
    streamer_s=1, broker_s=0.5, collector_s=2, postgres_s=4,
    sample_bytes=100, chunked_bytes=5, chunk_bytes=36_000, series_bytes=1000, ledger_bytes=200,
    batch_records=1000,
    wire_bytes=400, process_bytes=10**8, broker_bytes=10**7, peer_bytes=10**4, wal_bytes=10**9,
)  # fmt: skip


def test_sums_by_hand() -> None:
    """A thousand GPUs with forty metrics every tenth of a second: 400,000 records a second."""
    needed = size(Fleet(1000, 40, 0.1, days=9, outage_s=10, load=0.5), FIGURES)
    assert (400_000, 40_000) == (needed.records_per_s, needed.series)
    # CPU seconds a second, halved by the load: 0.4, 0.2, 0.8 and 1.6 cores at full load.
    assert (1, 2, 2, 3.2) == (
        needed.streamers, needed.brokers, needed.collectors, needed.postgres_cores,
    )  # fmt: skip
    # Ten seconds' records, over two brokers.
    assert (2_000_000, 800_000_000) == (needed.broker_queue_records, needed.broker_queue_bytes)
    # 125 hosts and two collectors.
    assert 10**7 + 127 * 10**4 + 960_000_000 == needed.broker_memory_bytes
    # A chunk has 36,000 records, so each takes a byte of it; eight GPUs' 320 are a batch of 200
    # bytes in the ledger. Two of the ten days are not in chunks.
    per_day, raw_per_day = (round(400_000 * 86_400 * each) for each in (5 + 1 + 0.625, 100.625))
    assert per_day == needed.disk_bytes_per_day
    assert 2 * raw_per_day + 8 * per_day + 40_000 * 1000 + 10**9 == needed.disk_bytes


def test_smallest_fleet_can_lose_any_one_process() -> None:
    """One workstation: a broker and a collector worker may die all the same."""
    needed = size(Fleet(1, 1, 60), FIGURES)
    assert (1, 2, 2) == (needed.streamers, needed.brokers, needed.collectors)
    assert 12_000 == needed.broker_queue_records
    # A minute's batch is of one record.
    assert 24 * 60 * (5 + 600 + 200) == needed.disk_bytes_per_day


FLEETS = st.builds(
    Fleet,
    gpus=st.integers(1, 100_000),
    metrics=st.integers(1, 500),
    interval_s=st.floats(0.1, 3600),
    days=st.floats(0, 400),
    outage_s=st.floats(0, 3600),
    load=st.floats(0.05, 1),
)


@given(FLEETS, st.integers(1, 5))
def test_more_of_anything_never_needs_less(fleet: Fleet, times: int) -> None:
    """An operator asks what it takes to grow."""
    before = size(fleet)
    for change in ("gpus", "metrics", "days", "outage_s"):
        more = min(getattr(fleet, change) * times, 10_000)
        grown = dataclasses.replace(fleet, **{change: max(getattr(fleet, change), more)})
        after = size(grown)
        assert before.disk_bytes <= after.disk_bytes
        assert before.collectors <= after.collectors
        # Of one broker, unless there are more of them by then.
        assert (
            before.brokers < after.brokers
            or before.broker_memory_bytes <= after.broker_memory_bytes
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [("gpus", 0), ("metrics", 0), ("interval_s", 0.0), ("days", -1.0), ("load", 0.0)],
)
def test_value_outside_its_range_is_named(name: str, value: float) -> None:
    """A typing error."""
    changed: dict[str, Any] = {name: value}
    with pytest.raises(SettingError, match="--" + name.replace("_", "-")):
        dataclasses.replace(Fleet(1), **changed)
