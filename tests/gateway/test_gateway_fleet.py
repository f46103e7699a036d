"""Who is idle, who used how much, what is wrong: against what a few lines of Python find."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import psycopg
import pytest

from telemq.settings import ApiSettings
from tests.support.gateway import add_samples, add_series, at, serving
from tests.support.maintaining import pass_over

_UTIL, _TEMP = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP"
_POWER, _ENERGY = "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
_XID, _ECC = "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"
_PATHS = tuple(f"/api/v1/fleet/{name}" for name in ("idle", "usage", "health"))
#: The window of all these tests: the first six hours of the day.
_HOURS = 6
_WINDOW = {"start_time": at(0).isoformat(), "end_time": at(_HOURS * 3600).isoformat()}


@pytest.fixture
def api(dsn: str) -> Iterator[httpx.Client]:
    """A client of a gateway that keeps no answer."""
    with serving(ApiSettings(dsn=dsn, fleet_keep_s=0)) as client:
        yield client


def _told(api: httpx.Client, name: str, **params: Any) -> list[dict[str, Any]]:
    response = api.get(f"/api/v1/fleet/{name}", params={**_WINDOW, **params})
    assert 200 == response.status_code, response.text
    found: list[dict[str, Any]] = response.json()
    return found


def _every(seconds: float, value: float, start: float = 0, end: float = _HOURS * 3600) -> Any:
    """Samples of one value, from start to end, both inclusive."""
    count = int((end - start) // seconds) + 1
    return [(at(start + n * seconds), value) for n in range(count)]


# Usage


def test_gpu_hours_utilisation_and_energy_are_those_of_each_group(
    api: httpx.Client, conn: psycopg.Connection[Any]
) -> None:
    """Two GPUs of one host: one is the research team's all the time, one passes on at noon."""
    for metric, values in ((_UTIL, (80.0, 20.0, 0.0)), (_POWER, (500.0, 200.0, 100.0))):
        first = add_series(conn, "GPU-a", metric_name=metric, pod="a", namespace="research")
        add_samples(conn, first, _every(60, values[0]))
        for namespace, pod, value, start in (("web", "b", values[1], 0), ("", "", values[2], 3)):
            series = add_series(
                conn, "GPU-b", gpu_id="1", metric_name=metric, pod=pod, namespace=namespace
            )
            add_samples(conn, series, _every(60, value, start * 3600, (start + 3) * 3600))
    complete = {"gpus_without_utilization": 0, "gpus_without_energy": 0}
    research = {"gpu_hours": 6, "mean_utilization": 80, "energy_kwh": 3, "gpus": 1, **complete}
    web = {"gpu_hours": 3, "mean_utilization": 20, "energy_kwh": 0.6, "gpus": 1, **complete}
    nobody = {"gpu_hours": 3, "mean_utilization": 0, "energy_kwh": 0.3, "gpus": 1, **complete}
    namespaces = [
        {"group": "research", **research}, {"group": "", **nobody}, {"group": "web", **web},
    ]  # fmt: skip
    assert namespaces == _told(api, "usage")
    assert namespaces == _told(api, "usage", group_by="namespace")
    assert [
        {"group": "research/a", **research}, {"group": "", **nobody}, {"group": "web/b", **web},
    ] == _told(api, "usage", group_by="pod")  # fmt: skip
    (host,) = _told(api, "usage", group_by="host")
    assert ("host-1", 12, 2) == (host["group"], host["gpu_hours"], host["gpus"])
    assert pytest.approx(45, abs=0.1) == host["mean_utilization"]
    assert pytest.approx(3.9, abs=0.01) == host["energy_kwh"]
    half = _told(api, "usage", end_time=at(3 * 3600 - 1).isoformat())
    assert [("research", 2.9833), ("web", 2.9833)] == [(u["group"], u["gpu_hours"]) for u in half]


@pytest.mark.parametrize("where", ["partitions", "chunks", "both"])
def test_the_time_between_two_samples_counts_unless_it_is_too_long(
    api: httpx.Client, conn: psycopg.Connection[Any], dsn: str, where: str
) -> None:
    """Uneven samples with outages, of two series that are one pod: an exporter was updated."""
    choose = random.Random(3)
    moments = sorted(choose.random() * _HOURS * 3600 for _ in range(80))
    values = [choose.random() * 100 for _ in moments]
    series = [
        add_series(conn, "GPU-a", pod="p", hostname="h", model_name=name) for name in ("A", "B")
    ]
    for place, (moment, value) in enumerate(zip(moments, values, strict=True)):
        add_samples(conn, series[place % 2], [(at(moment), value)])
    if where != "partitions":
        pass_over(dsn, now=datetime.now(UTC))
    if where == "both":  # some more come late
        extra = [choose.random() * _HOURS * 3600 for _ in range(20)]
        add_samples(conn, series[0], [(at(moment), 50.0) for moment in extra])
        moments = sorted([*moments, *extra])
    expected_s = sum(b - a for a, b in pairwise(moments) if b - a <= 600)
    outages = sum(b - a > 600 for a, b in pairwise(moments))
    assert 3 < outages < 40
    (usage,) = _told(api, "usage")
    assert pytest.approx(expected_s / 3600, abs=1e-4) == usage["gpu_hours"]
    assert 1 == usage["gpus"]
    assert 0 < usage["mean_utilization"] < 100


def test_what_no_gpu_measures_is_null_and_what_some_do_not_is_counted(
    api: httpx.Client, conn: psycopg.Connection[Any]
) -> None:
    """A GPU in MIG mode has no utilisation; an old exporter tells nothing but the clock."""
    add_samples(conn, add_series(conn, "GPU-a", metric_name=_POWER), _every(60, 360))
    add_samples(conn, add_series(conn, "GPU-b", metric_name="DCGM_FI_DEV_SM_CLOCK"), _every(60, 1))
    (usage,) = _told(api, "usage")
    assert {
        "group": "", "gpu_hours": 12, "mean_utilization": None, "energy_kwh": 2.16, "gpus": 2,
        "gpus_without_utilization": 2, "gpus_without_energy": 1,
    } == usage  # fmt: skip


def test_energy_is_what_the_counter_rose_by_where_no_power_is_told(
    api: httpx.Client, conn: psycopg.Connection[Any]
) -> None:
    """The counter, in mJ, begins anew when the driver is loaded again, within a bin and at one."""
    joules = [1e6 + 300 * 60 * n for n in range(5 * 60)]
    joules[100:] = [value - joules[100] for value in joules[100:]]
    joules[200:] = [value - joules[200] for value in joules[200:]]
    rises = sum(b - a for a, b in pairwise(joules) if b >= a)
    series = add_series(conn, "GPU-a", metric_name=_ENERGY)
    add_samples(conn, series, [(at(60 * n), 1000 * value) for n, value in enumerate(joules)])
    (usage,) = _told(api, "usage")
    assert 299 / 60 == pytest.approx(usage["gpu_hours"], abs=1e-4)
    # A bin in which it began anew is left out: ten minutes of 300.
    assert rises / 3.6e6 * 0.95 < usage["energy_kwh"] <= rises / 3.6e6


def test_numbers_that_mean_not_measured_are_no_measurement(
    api: httpx.Client, conn: psycopg.Connection[Any]
) -> None:
    """DCGM's blank values, and worse, from a broken exporter: the fleet's answer stands."""
    util, power = (add_series(conn, "GPU-a", metric_name=name) for name in (_UTIL, _POWER))
    add_samples(conn, util, _every(60, 50))
    add_samples(conn, power, _every(60, 100))
    blanks = [2147483632.0, 1.4e14, 9.2e18, 1.7e308, -1.7e308, 1.7e308]
    for series in (util, power):
        add_samples(conn, series, [(at(30 + 60 * n), of) for n, of in enumerate(blanks)])
    (usage,) = _told(api, "usage")
    assert (50, 0.6) == (usage["mean_utilization"], usage["energy_kwh"])
    assert [] == _told(api, "health")


# Idle


def _pod(conn: psycopg.Connection[Any], uuid: str, samples: Any, **labels: Any) -> None:
    add_samples(conn, add_series(conn, uuid, **{"pod": uuid, "namespace": "n", **labels}), samples)


@pytest.fixture(params=["partitions", "chunks"])
def idlers(request: Any, dsn: str, conn: psycopg.Connection[Any]) -> None:
    """GPUs that are idle in all the ways that there are, as of the sixth hour."""
    end = _HOURS * 3600
    _pod(conn, "busy", _every(60, 90))
    _pod(conn, "always", _every(60, 0))
    _pod(conn, "since-the-fifth", [*_every(60, 90, 0, 5 * 3600), *_every(60, 3, 5 * 3600 + 60)])
    _pod(conn, "too-short", [*_every(60, 90, 0, end - 1200), *_every(60, 0, end - 1140)])
    _pod(conn, "a-peak", [*_every(60, 0, 0, end - 60), (at(end), 5.0)])
    _pod(conn, "gone", _every(60, 0, 0, end - 600))
    _pod(conn, "no-pod", _every(60, 0), pod="", namespace="")
    _pod(conn, "elsewhere", _every(30, 1), namespace="other")
    _pod(conn, "rare", _every(1200, 0))
    _pod(conn, "new", _every(60, 0, end - 1500))
    _pod(conn, "other-metric", _every(60, 0), metric_name=_TEMP)
    if request.param == "chunks":
        pass_over(dsn, now=datetime.now(UTC))


@pytest.mark.usefixtures("idlers")
def test_idle_is_who_has_a_pod_and_did_not_use_it_up_to_the_end(api: httpx.Client) -> None:
    """The longest idle first; whoever worked a moment ago, has gone or is new is not."""
    told = _told(api, "idle")
    assert ["rare", "always", "elsewhere", "since-the-fifth"] == [gpu["pod"] for gpu in told]
    assert {
        "uuid": "since-the-fifth",
        "hostname": "host-1",
        "gpu_id": "0",
        "model_name": "NVIDIA H100 80GB HBM3",
        "namespace": "n",
        "pod": "since-the-fifth",
        "container": "",
        "mean_utilization": 3,
        "idle_minutes": 60,
        "since": "2025-07-18T05:01:00Z",
    } == told[-1]
    assert 361 == told[1]["idle_minutes"]


@pytest.mark.usefixtures("idlers")
def test_the_limits_of_idle_can_be_chosen(api: httpx.Client) -> None:
    """A stricter or a more patient operator; one team's pods."""
    for params, expected in [
        ({"minutes": "20"}, ["rare", "always", "elsewhere", "since-the-fifth", "new", "too-short"]),
        ({"minutes": "90"}, ["rare", "always", "elsewhere"]),
        ({"minutes": "60"}, ["rare", "always", "elsewhere", "since-the-fifth"]),
        ({"minutes": "60.5"}, ["rare", "always", "elsewhere"]),
        ({"below": "2.5"}, ["rare", "always", "elsewhere"]),
        ({"below": "0"}, []),
        ({"below": "5.1"}, ["rare", "always", "a-peak", "elsewhere", "since-the-fifth"]),
        ({"namespace": "other"}, ["elsewhere"]),
        ({"namespace": "' OR '1'='1"}, []),
        ({"start_time": at(5.75 * 3600).isoformat()}, []),
    ]:
        assert expected == [gpu["pod"] for gpu in _told(api, "idle", **params)], params


# Health


def test_health_says_what_is_wrong_with_whom(
    api: httpx.Client, conn: psycopg.Connection[Any]
) -> None:
    """Nothing of a GPU that is well; of one with two problems both."""
    end = _HOURS * 3600
    for uuid, metric, samples in [
        ("well", _UTIL, _every(60, 50)),
        ("well", _TEMP, _every(60, 85)),
        ("well", _XID, _every(60, 0)),
        ("well", _ECC, _every(60, 0)),
        ("hot", _UTIL, _every(60, 50)),
        ("hot", _TEMP, [*_every(60, 60, 0, 3600), (at(3660), 93), (at(3720), 88), (at(3780), 60)]),
        ("bad", _UTIL, _every(60, 50)),
        ("bad", _XID, [*_every(60, 0, 0, 600), (at(660), 31), *_every(60, 79, 720)]),
        ("bad", _ECC, [*_every(60, 0, 0, 600), *_every(60, 1, 660, 1200), (at(1260), 3)]),
        ("silent", _UTIL, _every(10, 50, 0, end - 31)),
        ("late", _UTIL, _every(10, 50, 0, end - 30)),
        ("slow", _UTIL, _every(600, 50, 0, end - 1200)),
        ("broken", _UTIL, [*_every(10, 50, 0, 600), *_every(10, 50, 5 * 3600, end - 60)]),
        ("once", _UTIL, [(at(5), 1.0)]),
        ("gone", _UTIL, [(at(-5000), 1.0)]),
    ]:
        add_samples(conn, add_series(conn, uuid, metric_name=metric), samples)
    found = {gpu["uuid"]: gpu for gpu in _told(api, "health")}
    assert ["bad", "broken", "hot", "silent"] == list(found)
    assert ["host-1", "0", "NVIDIA H100 80GB HBM3"] == [
        found["bad"][name] for name in ("hostname", "gpu_id", "model_name")
    ]
    assert [
        {"kind": "xid", "detail": "XID 79", "value": 79, "since": "2025-07-18T00:11:00Z"},
        {
            "kind": "ecc", "detail": "3 double-bit errors", "value": 3,
            "since": "2025-07-18T00:11:00Z",
        },
    ] == found["bad"]["problems"]  # fmt: skip
    assert ["hot"] == found["bad"]["not_measured"]
    assert [
        {
            "kind": "hot", "detail": "up to 93 °C; the limit is 85 °C", "value": 93,
            "since": "2025-07-18T01:01:00Z",
        }
    ] == found["hot"]["problems"]  # fmt: skip
    assert [
        {
            "kind": "silent", "detail": "no sample for 40 s; it had one every 10 s", "value": 40,
            "since": "2025-07-18T05:59:20Z",
        }
    ] == found["silent"]["problems"]  # fmt: skip
    assert ["silent"] == [problem["kind"] for problem in found["broken"]["problems"]]


def test_health_says_of_how_many_gpus_something_is_not_measured(
    api: httpx.Client, conn: psycopg.Connection[Any]
) -> None:
    """No exporter tells XID errors: an empty list must not look like health."""
    for uuid in ("a", "b"):
        add_samples(conn, add_series(conn, uuid), _every(60, 50))
    add_samples(conn, add_series(conn, "b", metric_name=_TEMP), _every(60, 50))
    response = api.get(_PATHS[2], params=_WINDOW)
    assert [] == response.json()
    assert "hot=1, xid=2, ecc=2" == response.headers["telemq-not-measured"]


def test_the_limit_of_heat_is_a_setting(dsn: str, conn: psycopg.Connection[Any]) -> None:
    """A fleet that is cooled by air."""
    add_samples(conn, add_series(conn, "a", metric_name=_TEMP), _every(60, 85))
    for hot_c, expected in ((84.5, 1), (85.0, 0)):
        with serving(ApiSettings(dsn=dsn, hot_c=hot_c)) as api:
            assert expected == len(_told(api, "health"))


# All three


def test_an_empty_fleet_is_an_empty_answer(api: httpx.Client) -> None:
    """The first look."""
    for path in _PATHS:
        for params in ({}, _WINDOW, {"start_time": "", "end_time": ""}):
            assert [] == api.get(path, params=params).json()


def test_the_window_is_the_last_day_unless_it_is_given(
    api: httpx.Client, conn: psycopg.Connection[Any]
) -> None:
    """A dashboard asks without a window; its GPU has samples of now."""
    now = datetime.now(UTC)
    samples = [(now - timedelta(minutes=n), 0.0) for n in range(180)]
    _pod(conn, "GPU-a", [*samples, (now - timedelta(hours=25), 0.0)])
    assert ["GPU-a"] == [gpu["pod"] for gpu in api.get(_PATHS[0]).json()]
    (usage,) = api.get(_PATHS[1]).json()
    assert 179 / 60 == pytest.approx(usage["gpu_hours"], abs=1e-3)
    assert [] == api.get(_PATHS[2]).json()
    later = {"end_time": (now + timedelta(days=1)).isoformat()}
    assert ["GPU-a"] == [gpu["pod"] for gpu in api.get(_PATHS[0], params=later).json()]


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("start_time=not-a-time", "RFC 3339"),
        ("start_time=2024-01-02T00:00:00Z&end_time=2024-01-01T00:00:00Z", "is before start_time"),
        ("start_time=9999-01-01T00:00:00Z", "in the future"),
        ("start_time=2025-01-01T00:00:00Z&end_time=2025-02-02T00:00:00Z", "limit of 31 days"),
        ("start_time=0001-01-01T00:00:00Z", "--fleet-days-max"),
        ("sort=up", "is unknown; accepted: "),
        ("end_time=&end_time=", "more than once"),
    ],
)
@pytest.mark.parametrize("path", _PATHS)
def test_fault_31_a_bad_or_a_huge_window_is_refused(
    api: httpx.Client, path: str, query: str, complaint: str
) -> None:
    """Typing errors, and somebody who asks for all of history."""
    response = api.get(f"{path}?{query}")
    assert 400 == response.status_code
    assert complaint in response.json()["detail"]
    assert "application/problem+json" == response.headers["content-type"]


def test_windows_at_the_ends_of_time_are_answered(api: httpx.Client) -> None:
    """Fuzzers ask for the year 1."""
    for path in _PATHS:
        assert [] == api.get(path, params={"end_time": "0001-01-01T00:00:00Z"}).json()
        both = {"start_time": "9999-12-31T23:59:59Z", "end_time": "9999-12-31T23:59:59Z"}
        assert [] == api.get(path, params=both).json()


@pytest.mark.parametrize(
    ("name", "query", "complaint"),
    [
        ("idle", "below=-1", "below '-1' is not accepted; it must be a number, 0 to 100"),
        ("idle", "below=nan", "below"),
        ("idle", "below=1e1", "below"),
        ("idle", "minutes=0", "minutes"),
        ("idle", "minutes=inf", "minutes"),
        ("usage", "group_by=team", "accepted: namespace, pod, host"),
        ("usage", "group_by=1%3BDROP TABLE sample", "accepted: namespace, pod, host"),
    ],
)
def test_other_parameters_say_what_they_accept(
    api: httpx.Client, name: str, query: str, complaint: str
) -> None:
    """Typing errors and attacks."""
    response = api.get(f"/api/v1/fleet/{name}?{query}")
    assert 400 == response.status_code
    assert complaint in response.json()["detail"]


def _names(found: Sequence[dict[str, Any]]) -> list[str]:
    return [gpu["uuid"] for gpu in found]


def test_an_answer_is_kept_for_a_moment_and_no_longer(
    dsn: str, conn: psycopg.Connection[Any]
) -> None:
    """Ten dashboards ask every five seconds; other questions are other answers."""
    _pod(conn, "a", _every(60, 0))
    with serving(ApiSettings(dsn=dsn, fleet_keep_s=3600)) as api:
        assert ["a"] == _names(_told(api, "idle"))
        _pod(conn, "b", _every(60, 0))
        assert ["a"] == _names(_told(api, "idle"))
        assert ["a", "b"] == _names(_told(api, "idle", minutes="31"))
    with serving(ApiSettings(dsn=dsn, fleet_keep_s=0)) as api:
        assert ["a", "b"] == _names(_told(api, "idle"))
        _pod(conn, "c", _every(60, 0))
        assert ["a", "b", "c"] == _names(_told(api, "idle"))
