"""What `telemq gpus` makes of what the store told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from telemq.errors import SettingError
from telemq.look.board import METRICS, SORTS, GpuRow, Pod, Wanted, ordered, rows_of
from telemq.store.recent import Gpu, Newest, Slot

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
UTIL, TEMP, POWER, FB_USED, FB_FREE = METRICS


def gpu(number: int, host: str = "", model: str = "NVIDIA H100 80GB HBM3") -> Gpu:
    """A GPU; every eight share a host."""
    index = str(number % 8)
    return Gpu(
        number, f"GPU-{number}", index, f"nvidia{index}", model, host or f"host-{number // 8}"
    )


def newest(
    of: int, metric: str, value: float, *, ago_s: float = 0, pod: str = "", namespace: str = "ns"
) -> Newest:
    """The newest sample of one series."""
    at = AT - timedelta(seconds=ago_s)
    return Newest(of, metric, namespace if pod else "", pod, "main" if pod else "", at, value)


def one(*samples: Newest) -> GpuRow:
    """The row of GPU 1."""
    (row,) = rows_of([gpu(1)], samples, [], {}, 4)
    return row


def test_row_has_the_newest_value_of_each_metric() -> None:
    """Its pod has ended, and another one has begun: two series of each metric."""
    row = one(
        newest(1, UTIL, 20, ago_s=60, pod="old"),
        newest(1, UTIL, 80, pod="new"),
        newest(1, FB_USED, 30_000, ago_s=1, pod="new"),
        newest(1, FB_FREE, 50_000, ago_s=1, pod="new"),
    )
    assert (80, 30_000, 80_000) == (
        row.utilization_percent,
        row.memory_used_mib,
        row.memory_total_mib,
    )
    assert 0.375 == row.memory_used
    assert (None, None) == (row.temperature_celsius, row.power_watts)
    assert AT == row.last_seen


def test_pods_are_those_of_the_newest_scrape() -> None:
    """One pod has ended a minute ago; two share the GPU now."""
    row = one(
        newest(1, UTIL, 1, ago_s=60, pod="ended"),
        newest(1, UTIL, 2, pod="b"),
        newest(1, UTIL, 2, ago_s=0.1, pod="a"),
        newest(1, TEMP, 40, ago_s=2, pod="ended"),
    )
    assert (Pod("ns", "a", "main"), Pod("ns", "b", "main")) == row.pods


def test_gpu_that_was_given_back_has_no_pod() -> None:
    """The pod has ended, and the exporter goes on without its labels."""
    assert () == one(newest(1, UTIL, 1, ago_s=30, pod="ended"), newest(1, UTIL, 0)).pods


def test_silent_gpu_is_shown_without_values_and_with_the_time_it_was_seen() -> None:
    """Its host is down since yesterday."""
    yesterday = AT - timedelta(days=1)
    (row,) = rows_of([gpu(1)], [], [], {1: yesterday}, 4)
    assert GpuRow(gpu=gpu(1), last_seen=yesterday, recent=(None,) * 4) == row


def test_history_has_gaps_where_nothing_came() -> None:
    """The exporter was restarted."""
    (row,) = rows_of([gpu(1)], [newest(1, UTIL, 1)], [Slot(1, 0, 10), Slot(1, 3, 40)], {}, 4)
    assert (10, None, None, 40) == row.recent


def test_json_names_are_those_of_the_api() -> None:
    """A script reads both."""
    told = one(newest(1, UTIL, 50, pod="a")).to_dict()
    assert {"uuid", "gpu_id", "device", "model_name", "hostname", "pods", "last_seen"} < set(told)
    assert [{"namespace": "ns", "pod": "a", "container": "main"}] == told["pods"]


def test_hosts_and_indexes_are_in_the_order_in_which_people_count() -> None:
    """host-2 before host-10, index 2 before index 10."""
    gpus = [gpu(1, "host-10"), gpu(2, "host-2"), gpu(0, "host-2"), gpu(3, "a")]
    rows = ordered((GpuRow(gpu=g) for g in gpus), "host")
    assert [("a", "3"), ("host-2", "0"), ("host-2", "2"), ("host-10", "1")] == [
        (row.gpu.hostname, row.gpu.gpu_id) for row in rows
    ]


@pytest.mark.parametrize(
    ("by", "first"),
    [("util", 2), ("idle", 1), ("memory", 2), ("temp", 2), ("power", 2), ("silent", 2)],
)
def test_every_order_has_what_is_not_known_last(by: str, first: int) -> None:
    """Some GPUs are silent, whatever is asked for."""
    rows = [
        GpuRow(gpu=gpu(0)),
        *(
            GpuRow(
                gpu=gpu(n),
                utilization_percent=n,
                memory_used_mib=n,
                memory_total_mib=10,
                temperature_celsius=n,
                power_watts=n,
                last_seen=AT - timedelta(seconds=n),
            )
            for n in (1, 2)
        ),
    ]
    assert [first, 3 - first, 0] == [row.gpu.id for row in ordered(rows, by)]
    assert {"host", by} <= set(SORTS)


def test_filters_take_names_and_patterns() -> None:
    """One rack, one model, one team."""
    gpus = [gpu(1, "rack-1-a"), gpu(2, "rack-2-a"), gpu(3, "rack-2-b", "NVIDIA L4")]
    assert [2, 3] == [g.id for g in Wanted(host="rack-2-*").of(gpus)]
    assert [2] == [g.id for g in Wanted(host="rack-2-*", model="*H100*").of(gpus)]
    assert [1] == [g.id for g in Wanted(host="rack-1-a").of(gpus)]
    of_team = Wanted(namespace="team-*")
    assert of_team.has(GpuRow(gpu=gpu(1), pods=(Pod("x", "p", ""), Pod("team-a", "q", ""))))
    assert not of_team.has(GpuRow(gpu=gpu(1)))


def test_name_that_nothing_has_is_refused_with_near_ones() -> None:
    """A typing error: an empty table would look like a fleet that is down."""
    gpus = [gpu(n, f"hopper-{n:03}") for n in range(40)]
    with pytest.raises(SettingError, match=r"--host: 'hoper-007' .* hopper-007, .* \(40 in all\)"):
        Wanted(host="hoper-007").of(gpus)
    with pytest.raises(SettingError, match=r"--model: 'A100'.*NVIDIA H100"):
        Wanted(host="hopper-00*", model="A100").of(gpus)
    assert [] == Wanted(host="x").of([])
