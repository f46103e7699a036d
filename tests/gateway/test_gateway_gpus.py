"""The two questions of the API, against a real database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest

from tests.support.gateway import DAY, add_samples, add_series, at

A, B = "GPU-aaaa", "GPU-bbbb"


def _values(response: httpx.Response) -> list[float]:
    assert 200 == response.status_code, response.text
    return [record["value"] for record in response.json()]


def _problem(response: httpx.Response, status: int) -> str:
    assert status == response.status_code, response.text
    assert "application/problem+json" == response.headers["content-type"]
    problem: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail"} == problem.keys()
    assert ("about:blank", status) == (problem["type"], problem["status"])
    detail: str = problem["detail"]
    return detail


def test_an_empty_store_lists_no_gpus(api: httpx.Client) -> None:
    """The first look, before anything was collected."""
    for query in ("", "?by=uuid", "?by=gpu_id"):
        assert [] == api.get(f"/api/v1/gpus{query}").json()


def test_gpus_are_listed_sorted_by_uuid_or_by_index(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """Index 10 comes after 2; an index that is no number comes last; a repeated one once."""
    for uuid, gpu_id in [("GPU-b", "10"), ("GPU-a", "2"), ("GPU-C", "2"), ("MIG-x", "0:1")]:
        add_series(conn, uuid, gpu_id=gpu_id)
    expected = ["GPU-C", "GPU-a", "GPU-b", "MIG-x"]
    assert expected == api.get("/api/v1/gpus").json()
    assert expected == api.get("/api/v1/gpus", params={"by": ""}).json()
    assert ["2", "10", "0:1"] == api.get("/api/v1/gpus", params={"by": "gpu_id"}).json()


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("by=name", "accepted: uuid, gpu_id"),
        ("by=uuid&by=uuid", "by is given more than once"),
        ("sort=up", "accepted: by"),
    ],
)
def test_a_list_asked_for_wrongly_says_what_is_accepted(
    api: httpx.Client, query: str, complaint: str
) -> None:
    """Somebody guesses a parameter."""
    assert complaint in _problem(api.get(f"/api/v1/gpus?{query}"), 400)


def test_a_record_has_every_field(api: httpx.Client, conn: psycopg.Connection) -> None:
    """What a program reads; the time has microseconds only when there are any."""
    series = add_series(conn, A, gpu_id="3", pod="train-0")
    add_samples(conn, series, [(at(0), 1.5), (at(0.25), -2)])
    first, second = api.get(f"/api/v1/gpus/{A}/telemetry").json()
    assert {
        "timestamp": "2025-07-18T00:00:00Z",
        "metric_name": "DCGM_FI_DEV_GPU_UTIL",
        "gpu_id": "3",
        "device": "nvidia3",
        "uuid": A,
        "model_name": "NVIDIA H100 80GB HBM3",
        "hostname": "host-1",
        "container": "",
        "pod": "train-0",
        "namespace": "",
        "value": 1.5,
        "labels_raw": f'uuid="{A}"',
    } == first
    assert ("2025-07-18T00:00:00.250000Z", -2.0) == (second["timestamp"], second["value"])


def test_samples_come_ascending_in_time_and_ties_by_series(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """Collectors store in whatever order they win the batches; here 30, 10, 20, over two days."""
    first, second = (add_series(conn, A, metric_name=name) for name in ("M1", "M2"))
    add_samples(conn, second, [(at(30), 31), (at(10), 11), (at(20), 21)])
    add_samples(conn, first, [(at(30), 30), (at(10), 10), (at(20), 20)])
    add_samples(conn, first, [(DAY - timedelta(seconds=1), 0)])
    response = api.get(f"/api/v1/gpus/{A}/telemetry")
    assert [0, 10, 11, 20, 21, 30, 31] == _values(response)


def test_both_bounds_are_inclusive_and_each_may_be_left_out(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """Samples at :10, :20 and :30."""
    add_samples(conn, add_series(conn, A), [(at(second), second) for second in (10, 20, 30)])
    ten, twenty = "2025-07-18T00:00:10Z", "2025-07-18T00:00:20Z"
    for start, end, expected in [
        (ten, twenty, [10, 20]),
        (twenty, "", [20, 30]),
        ("", twenty, [10, 20]),
        ("", "", [10, 20, 30]),
        (twenty, twenty, [20]),
        ("2025-07-18T02:00:20+02:00", "", [20, 30]),
        ("2025-07-18T00:00:20.000001Z", "", [30]),
    ]:
        params = {"start_time": start, "end_time": end}
        assert expected == _values(api.get(f"/api/v1/gpus/{A}/telemetry", params=params)), params
    unescaped = api.get(f"/api/v1/gpus/{A}/telemetry?start_time=2025-07-18T02:00:20+02:00")
    assert [20, 30] == _values(unescaped)


def test_a_known_gpu_with_nothing_in_the_window_is_an_empty_array(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """A GPU that was silent then; one whose only samples are of other days; one with no series."""
    add_samples(conn, add_series(conn, A), [(at(0), 1)])
    conn.execute(
        "INSERT INTO gpu (uuid, gpu_id, device, model_name, hostname)"
        " VALUES ('GPU-new', '', '', '', '')"
    )
    window = {"start_time": "2031-01-01T00:00:00Z", "end_time": "2031-01-02T00:00:00Z"}
    assert [] == _values(api.get(f"/api/v1/gpus/{A}/telemetry", params=window))
    assert [] == _values(api.get("/api/v1/gpus/GPU-new/telemetry"))


def test_a_uuid_is_one_gpu_and_an_index_is_that_gpu_on_every_host(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """Two hosts have a GPU 0 each; a UUID must never show the other host's rows."""
    add_samples(conn, add_series(conn, A, hostname="host-1"), [(at(2), 1), (at(0), 0)])
    add_samples(conn, add_series(conn, B, hostname="host-2"), [(at(1), 2)])
    add_samples(conn, add_series(conn, "GPU-other", gpu_id="1"), [(at(1), 9)])
    assert [0, 1] == _values(api.get(f"/api/v1/gpus/{A}/telemetry"))
    assert [2] == _values(api.get(f"/api/v1/gpus/{B}/telemetry"))
    both = api.get("/api/v1/gpus/0/telemetry")
    assert [0, 2, 1] == _values(both)
    assert ["host-1", "host-2", "host-1"] == [record["hostname"] for record in both.json()]


def test_a_uuid_wins_over_an_equal_index(api: httpx.Client, conn: psycopg.Connection) -> None:
    """An exporter that writes one word into both."""
    add_samples(conn, add_series(conn, "0", gpu_id="7"), [(at(0), 1)])
    add_samples(conn, add_series(conn, A, gpu_id="0"), [(at(0), 2)])
    assert [1] == _values(api.get("/api/v1/gpus/0/telemetry"))


@pytest.mark.parametrize(
    "gpu",
    [
        "GPU-nobody",
        "99",
        "' OR '1'='1",
        "0'; DROP TABLE sample; --",
        "%",
        "%25",
        "..",
        "\0",
        "\ud800",
        "$1",
        "\\x00",
        "{}",
        "%s",
        "x" * 5000,
    ],
)
def test_an_unknown_gpu_is_404_whatever_its_name(
    api: httpx.Client, conn: psycopg.Connection, gpu: str
) -> None:
    """A typing error, or an attack: the id is only ever compared."""
    add_samples(conn, add_series(conn, A), [(at(0), 1)])
    escaped = quote(gpu, safe="", errors="surrogatepass")
    response = api.get(f"/api/v1/gpus/{escaped}/telemetry")
    assert _problem(response, 404)
    assert [1] == _values(api.get(f"/api/v1/gpus/{A}/telemetry"))


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("start_time=not-a-time", "start_time 'not-a-time' is not accepted"),
        ("start_time=2024-99-99T00:00:00Z", "start_time '2024-99-99T00:00:00Z' is no moment"),
        ("end_time=2024/01/01 00:00:00", "end_time '2024/01/01 00:00:00' is not accepted"),
        ("end_time=2024-01-01", "RFC 3339 with an offset"),
        ("start_time=2024-01-02T00:00:00Z&end_time=2024-01-01T00:00:00Z", "is before start_time"),
        ("start_time=&start_time=", "start_time is given more than once"),
        ("start=2024-01-02T00:00:00Z", "accepted: start_time, end_time"),
    ],
)
def test_a_bad_window_says_what_is_wrong_with_it(
    api: httpx.Client, conn: psycopg.Connection, query: str, complaint: str
) -> None:
    """Even when the GPU is unknown, so that a client learns of its mistake first."""
    add_series(conn, A)
    for gpu in (A, "GPU-nobody"):
        assert complaint in _problem(api.get(f"/api/v1/gpus/{gpu}/telemetry?{query}"), 400)


@pytest.mark.parametrize(
    "path", ["/api/v1/gpus/x/metrics", "/api/v1", "/nothing", "/schema", "/app"]
)
def test_an_unknown_path_is_a_problem_document(api: httpx.Client, path: str) -> None:
    """A client of another version."""
    assert "/openapi.json" in _problem(api.get(path), 404)


@pytest.mark.parametrize("path", ["/api/v1/gpus", f"/api/v1/gpus/{A}/telemetry", "/healthz"])
def test_a_wrong_method_names_those_that_are_accepted(api: httpx.Client, path: str) -> None:
    """Nothing can be changed through the API."""
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        response = api.request(method, path)
        assert "GET" in _problem(response, 405)
        assert "GET, OPTIONS" == response.headers["allow"]


def test_labels_reach_the_client_as_they_are(api: httpx.Client, conn: psycopg.Connection) -> None:
    """A model name that would be markup or break the JSON."""
    name = '<script>alert("ü")</script>\\,}{'
    add_samples(conn, add_series(conn, A, model_name=name), [(at(0), 1)])
    response = api.get(f"/api/v1/gpus/{A}/telemetry")
    assert name == response.json()[0]["model_name"]
    assert "nosniff" == response.headers["x-content-type-options"]
    assert "default-src 'none'" in response.headers["content-security-policy"]
