"""GPUs, hosts and metrics as people see them, made from the board."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec

from telemq.gateway.board import Board
from telemq.gateway.devices import Device, Devices, Pod, metrics_of
from telemq.store.latest import SeriesRow
from tests.unit.test_board import NOW, found

UTIL, TEMP, OWN = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "own_metric"


def moment(time_us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)


def row(id: int, metric: str = UTIL, uuid: str = "GPU-1", **changed: str) -> SeriesRow:
    labels = SeriesRow(id, metric, "0", "nvidia0", uuid, "H100", "host-1", "", "", "", "535.1")
    return msgspec.structs.replace(labels, **changed)


def board(rows: list[SeriesRow], *samples: tuple[int, int, float]) -> Board:
    made = Board(100)
    made.add(rows, now_ns=0)
    made.take(found(*samples), made.due(0), now_ns=0, at_us=NOW)
    return made


def only(made: Board) -> Device:
    ((device, document),) = Devices(made)
    assert json.loads(document)["uuid"] == device.uuid
    return device


def test_a_gpu_has_the_latest_value_of_each_metric() -> None:
    """The middle of a dashboard's page."""
    device = only(board([row(1), row(2, TEMP)], (1, NOW, 97.0), (2, NOW - 500_000, 61.0)))
    assert moment(NOW) == device.last_seen
    assert [(TEMP, 61.0, moment(NOW - 500_000)), (UTIL, 97.0, moment(NOW))] == [
        (name, latest.value, latest.timestamp) for name, latest in device.latest.items()
    ]
    assert "535.1" == device.driver


def test_where_a_gpu_is_follows_its_newest_series() -> None:
    """A board was moved to another host, and its driver updated."""
    moved = row(2, hostname="host-2", gpu_id="3", device="nvidia3", driver="550.5")
    device = only(board([moved, row(1)], (2, NOW, 1.0), (1, NOW - 60_000_000, 9.0)))
    assert ("host-2", "3", "nvidia3", "550.5") == (
        device.hostname, device.gpu_id, device.device, device.driver
    )  # fmt: skip
    assert 1.0 == device.latest[UTIL].value


def test_pods_are_those_of_the_last_few_intervals() -> None:
    """One pod ended a minute ago, two share the GPU, and a metric knows of no pod."""
    rows = [
        row(1, pod="old", namespace="a"),
        row(2, pod="new", namespace="b", container="c"),
        row(3, pod="beside", namespace="a"),
        row(4, TEMP),
    ]
    times = ((1, NOW - 60_000_000), (2, NOW), (3, NOW - 1), (4, NOW))
    device = only(board(rows, *((id, at, 1.0) for id, at in times)))
    assert [
        Pod(namespace="a", pod="beside", container=""),
        Pod(namespace="b", pod="new", container="c"),
    ] == device.pods


def test_a_quick_series_tells_sooner_that_its_pod_has_ended() -> None:
    """Scraped every second: 5 s of silence are enough."""
    rows = [row(1, pod="old"), row(2, pod="new")]
    one = [(1, NOW - 6_000_000, 1.0), (1, NOW - 5_000_000, 1.0), (2, NOW, 1.0)]
    assert ["new"] == [pod.pod for pod in only(board(rows, *one)).pods]


def test_a_gpu_without_any_sample_left_is_there_with_nothing() -> None:
    """All its samples were dropped because of their age."""
    device = only(board([row(1)]))
    assert device.last_seen is None
    assert {} == device.latest
    assert [] == device.pods


def test_gpus_come_sorted_and_are_made_again_only_when_they_changed() -> None:
    """A hundred dashboards ask in the same second."""
    made = board([row(1, uuid="GPU-b"), row(2, uuid="GPU-a")], (1, NOW, 1.0), (2, NOW, 2.0))
    devices = Devices(made)
    first = list(devices)
    assert ["GPU-a", "GPU-b"] == [device.uuid for device, _ in first]
    made.take(found((1, NOW + 1, 3.0)), made.due(1), now_ns=1, at_us=NOW)
    again = list(devices)
    assert again[0][1] is first[0][1]
    assert 3.0 == again[1][0].latest[UTIL].value


def test_a_gpu_that_was_shown_before_its_first_sample_is_made_again() -> None:
    """Somebody asks in the middle of a turn: the series is known, its samples are on their way."""
    made = board([row(1)], (1, NOW, 1.0))
    devices = Devices(made)
    made.add([row(2, uuid="GPU-2")], now_ns=1)
    assert [1, 0] == [len(device.latest) for device, _ in devices]
    made.take(found((2, NOW, 7.0)), made.due(1), now_ns=1, at_us=NOW)
    assert [1, 1] == [len(device.latest) for device, _ in devices]


def test_metrics_have_units_and_the_count_of_their_gpus() -> None:
    """One that telemq does not know is there all the same; a GPU with two pods counts once."""
    made = board([row(1), row(2, pod="p"), row(3, uuid="GPU-2"), row(4, OWN)])
    known, own = metrics_of(made)
    assert (UTIL, "gauge", "%", 2) == (known.name, known.kind, known.unit, known.gpus)
    assert (OWN, "gauge", "", "", 1) == (own.name, own.kind, own.unit, own.help, own.gpus)
    assert [] == metrics_of(Board(1))
