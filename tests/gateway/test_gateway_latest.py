"""How it stands now: GPUs, hosts, metrics, and the text for Prometheus, against a real database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from telemq.settings import ApiSettings
from telemq.store.verify import verify
from tests.support.fleet import gpu, store
from tests.support.gateway import add_samples, add_series, metrics_of, serving
from tests.support.maintaining import DAY, pass_over
from tests.support.running import eventually
from tests.support.shown_fleet import make_fleet

UTIL, TEMP = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP"
SCRIPT = '<script>alert("x")</script>'
S = timedelta(seconds=1)


@pytest.fixture
def api(dsn: str) -> Iterator[httpx.Client]:
    """A gateway that follows quickly."""
    with serving(ApiSettings(dsn=dsn, follow_s=0.05)) as client:
        yield client


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def get(api: httpx.Client, path: str, **params: str) -> Any:
    response = api.get(path, params=params)
    assert 200 == response.status_code, response.text
    return response.json()


def test_an_empty_store_has_nothing_and_says_so(api: httpx.Client) -> None:
    """The first look, before anything was collected."""
    for path in ("devices", "hosts", "metrics"):
        assert [] == get(api, f"/api/v1/{path}")
    assert "" == api.get("/metrics/gpus").text
    assert 404 == api.get("/api/v1/devices/GPU-1").status_code


def test_a_device_has_everything_that_is_known_of_it(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """What a page about a GPU begins with."""
    pod = {"namespace": "research", "pod": "train-0", "container": "train"}
    store(conn, [(gpu("GPU-1", **pod), DAY, 1.5), (gpu("GPU-1", TEMP, **pod), DAY + S / 4, 61)])
    expected = {
        "uuid": "GPU-1",
        "gpu_id": "0",
        "device": "nvidia0",
        "model_name": "NVIDIA H100 80GB HBM3",
        "hostname": "host-1",
        "driver": "535.129.03",
        "pods": [pod],
        "last_seen": "2026-03-01T00:00:00.250000Z",
        "latest": {
            TEMP: {"value": 61.0, "timestamp": "2026-03-01T00:00:00.250000Z"},
            UTIL: {"value": 1.5, "timestamp": "2026-03-01T00:00:00Z"},
        },
    }
    assert [expected] == get(api, "/api/v1/devices")
    assert expected == get(api, "/api/v1/devices/GPU-1")
    assert [
        {
            "hostname": "host-1",
            "gpus": 1,
            "models": ["NVIDIA H100 80GB HBM3"],
            "last_seen": "2026-03-01T00:00:00.250000Z",
        }
    ] == get(api, "/api/v1/hosts")
    assert [(TEMP, "°C", 1), (UTIL, "%", 1)] == [
        (metric["name"], metric["unit"], metric["gpus"]) for metric in get(api, "/api/v1/metrics")
    ]


def test_what_comes_is_seen_soon(api: httpx.Client, conn: psycopg.Connection) -> None:
    """New values, a new metric, a new GPU, and a late sample that changes nothing."""
    store(conn, [(gpu("GPU-1"), DAY, 1)])
    assert 1 == get(api, "/api/v1/devices/GPU-1")["latest"][UTIL]["value"]
    more = [(gpu("GPU-1"), DAY + S, 2.0), (gpu("GPU-1", TEMP), DAY, 3.0), (gpu("GPU-2"), DAY, 4.0)]
    store(conn, [*more, (gpu("GPU-1"), DAY - S, 5.0)])

    def values() -> list[dict[str, float]]:
        devices = get(api, "/api/v1/devices")
        return [{name: of["value"] for name, of in d["latest"].items()} for d in devices]

    eventually(lambda: values() == [{UTIL: 2.0, TEMP: 3.0}, {UTIL: 4.0}], "all is there")


def test_the_last_that_comes_is_seen_though_many_rested(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """Then nothing is committed: what came while its series rested was never seen."""
    fleet = make_fleet(conn, hosts=1251, metrics=(UTIL,))  # of so many, not all are always asked
    began = now()
    fleet.measure(conn, began)

    def newest() -> datetime:
        (device,) = get(api, "/api/v1/devices", host="hopper-001")[:1]
        return datetime.fromisoformat(device["last_seen"])

    assert began == newest()
    time.sleep(2)  # so long was the interval, and half as long is the rest
    for turn in (1, 2):
        later = began + timedelta(minutes=turn)
        fleet.measure(conn, later)
        eventually(lambda: newest() == later, "it is seen")  # noqa: B023  # called at once


def test_a_series_that_was_committed_after_later_ones_is_seen(
    api: httpx.Client, conn: psycopg.Connection, dsn: str
) -> None:
    """Two collectors make series at once; then nothing is committed for long."""
    with psycopg.connect(dsn) as late:
        series = add_series(late, "GPU-late")
        add_samples(conn, add_series(conn, "GPU-1"), [(DAY, 1.0)])
        assert ["GPU-1"] == [device["uuid"] for device in get(api, "/api/v1/devices")]
        add_samples(late, series, [(DAY, 2.0)])

    def values() -> list[list[float]]:
        return [[of["value"] for of in d["latest"].values()] for d in get(api, "/api/v1/devices")]

    eventually(lambda: values() == [[1.0], [2.0]], "both are there, with their samples")


def test_devices_are_chosen_by_host_namespace_and_model(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """Somebody looks at one team's GPUs; an empty choice is none."""
    store(
        conn,
        [
            (gpu("GPU-1", hostname="a", namespace="x", pod="p"), DAY, 1),
            (gpu("GPU-2", hostname="a", model_name="A100"), DAY, 1),
            (gpu("GPU-3", hostname="b", namespace="y", pod="q"), DAY, 1),
        ],
    )

    def uuids(**params: str) -> list[str]:
        return [device["uuid"] for device in get(api, "/api/v1/devices", **params)]

    assert ["GPU-1", "GPU-2", "GPU-3"] == uuids(host="", namespace="", model="")
    assert ["GPU-1", "GPU-2"] == uuids(host="a")
    assert ["GPU-3"] == uuids(namespace="y")
    assert ["GPU-2"] == uuids(host="a", model="A100")
    assert [] == uuids(host="a", namespace="y")
    assert [("a", 2), ("b", 1)] == [(h["hostname"], h["gpus"]) for h in get(api, "/api/v1/hosts")]


@pytest.mark.parametrize(
    "path",
    [
        *("/api/v1/devices", "/api/v1/devices/GPU-1", "/api/v1/hosts", "/api/v1/metrics"),
        *("/metrics/gpus", "/api/v1/integrity", "/api/v1/status", "/api/v1/live"),
    ],
)
def test_a_parameter_that_is_unknown_is_refused(api: httpx.Client, path: str) -> None:
    """A typing error must not answer another question."""
    response = api.get(path, params={"hots": "a"})
    assert 400 == response.status_code
    assert "'hots' is unknown" in response.json()["detail"]
    assert 405 == api.post(path).status_code


def test_a_gpu_that_is_gone_leaves_prometheus_and_stays_in_devices(
    dsn: str, conn: psycopg.Connection
) -> None:
    """A node was taken away a month ago, and its samples are in chunks by now."""
    store(conn, [(gpu("GPU-old"), DAY + n * S, n) for n in range(5)])
    assert pass_over(dsn).chunks
    store(conn, [(gpu("GPU-1"), now(), 7)])
    with serving(ApiSettings(dsn=dsn, stale_s=60)) as api:
        text = api.get("/metrics/gpus").text
        (family,) = text_string_to_metric_families(text)
        assert ["GPU-1"] == [sample.labels["UUID"] for sample in family.samples]
        gone = get(api, "/api/v1/devices/GPU-old")
    assert ("2026-03-01T00:00:04Z", 4.0) == (gone["last_seen"], gone["latest"][UTIL]["value"])


def test_labels_that_are_markup_come_back_as_text(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """Fault 35: an attacker names a pod. It is JSON or text, which no browser takes for HTML."""
    odd = gpu(SCRIPT, pod=SCRIPT, namespace=SCRIPT, hostname=SCRIPT, model_name=SCRIPT)
    store(conn, [(odd, now(), 1)])
    (device,) = get(api, "/api/v1/devices")
    assert [SCRIPT] * 3 == [device["uuid"], device["hostname"], device["pods"][0]["pod"]]
    assert SCRIPT == get(api, "/api/v1/devices", host=SCRIPT)[0]["model_name"]
    (family,) = text_string_to_metric_families(api.get("/metrics/gpus").text)
    assert SCRIPT == family.samples[0].labels["pod"]
    for path, media_type in (
        ("/api/v1/devices", "application/json"),
        ("/api/v1/hosts", "application/json"),
        ("/metrics/gpus", "text/plain; version=0.0.4; charset=utf-8"),
    ):
        headers = api.get(path).headers
        assert media_type == headers["content-type"]
        assert "nosniff" == headers["x-content-type-options"]
        assert "default-src 'none'" in headers["content-security-policy"]


def test_more_series_than_are_allowed_are_a_problem_that_names_the_limit(
    dsn: str, conn: psycopg.Connection
) -> None:
    """A label that changes with every record; the gateway keeps its memory."""
    store(conn, [(gpu("GPU-1", pod=f"p{n}"), DAY, 1) for n in range(3)])
    with serving(ApiSettings(dsn=dsn, board_series_max=2)) as api:
        response = api.get("/api/v1/devices")
        assert 503 == response.status_code
        assert "--board-series-max" in response.json()["detail"]
        assert 200 == api.get("/api/v1/gpus").status_code


def test_without_a_database_it_says_so_and_recovers(dsn: str, conn: psycopg.Connection) -> None:
    """Postgres is cut off for a moment while dashboards ask."""
    store(conn, [(gpu("GPU-1"), DAY, 1)])
    with serving(ApiSettings(dsn="host=127.0.0.1 port=1", follow_s=0.05)) as api:
        response = api.get("/api/v1/devices")
        assert 503 == response.status_code
        assert "Postgres" in response.json()["detail"]
        assert "5" == response.headers["retry-after"]
    with serving(ApiSettings(dsn=dsn, follow_s=0.05)) as api:
        assert 1 == len(get(api, "/api/v1/devices"))
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'telemq gateway' AND datname = current_database()"
        )
        store(conn, [(gpu("GPU-2"), DAY, 1)])
        seen: list[int] = []

        def both() -> bool:
            seen.append(len(get(api, "/api/v1/devices")))
            return seen[-1] == 2

        eventually(both, "the other GPU is there, too")
        assert 0 not in seen, "nobody sees the board while it is loaded anew"


def test_one_query_a_turn_serves_all_who_ask(dsn: str, conn: psycopg.Connection) -> None:
    """A hundred dashboards are as one to Postgres."""
    store(conn, [(gpu("GPU-1"), DAY, 1)])
    with serving(ApiSettings(dsn=dsn, follow_s=3600)) as api:
        for _ in range(50):
            get(api, "/api/v1/devices")
        store(conn, [(gpu("GPU-2"), DAY, 1)])
        assert 1 == len(get(api, "/api/v1/devices"))
        metrics = metrics_of(api)
    assert "telemq_api_board_series 1.0" in metrics


def test_integrity_says_what_verify_says(
    api: httpx.Client, dsn: str, conn: psycopg.Connection
) -> None:
    """A monitor without a command line; a damaged database is 200 with `complete` false."""
    store(conn, [(gpu("GPU-1"), DAY + n * S, n) for n in range(5)])
    pass_over(dsn)
    expected = verify(conn).to_dict()
    assert expected["complete"] is True
    assert expected | {"streams": [_listed(s) for s in expected["streams"]]} == get(
        api, "/api/v1/integrity"
    )
    conn.execute("INSERT INTO stream_progress VALUES ('torn', 'x', 10)")
    with serving(ApiSettings(dsn=dsn)) as other:
        found = get(other, "/api/v1/integrity")
    expected = verify(conn).to_dict()
    assert found["complete"] is False
    assert expected["streams"][0]["problems"] == found["streams"][0]["problems"]
    assert [{"kind": "gap", "first_row": 0, "end_row": 10}] == found["streams"][0]["damages"]


def _listed(stream: dict[str, Any]) -> dict[str, Any]:
    return stream | {"damages": list(stream["damages"])}


def test_integrity_is_found_out_once_for_all_who_ask(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """It reads every sample: a page that is reloaded gets the report that there is."""
    assert 0 == get(api, "/api/v1/integrity")["samples"]
    store(conn, [(gpu("GPU-1"), DAY, 1)])
    assert 0 == get(api, "/api/v1/integrity")["samples"]


def test_integrity_has_a_time_limit(dsn: str, conn: psycopg.Connection) -> None:
    """A database too large for it, here one that is locked."""
    with (
        serving(ApiSettings(dsn=dsn, statement_s_max=0.2)) as api,
        psycopg.connect(dsn) as locker,
    ):
        locker.execute("LOCK TABLE sample IN ACCESS EXCLUSIVE MODE")
        response = api.get("/api/v1/integrity")
    assert 503 == response.status_code
    assert "--statement-s-max" in response.json()["detail"]
    with serving(ApiSettings(dsn="host=127.0.0.1 port=1")) as api:
        assert "cannot be reached" in api.get("/api/v1/integrity").json()["detail"]


def test_a_stop_ends_a_verification(dsn: str, conn: psycopg.Connection) -> None:
    """SIGTERM while a large database is being verified: nobody waits five minutes."""

    def verifying() -> bool:
        return (
            conn.execute(
                "SELECT FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE ONLY sample%'"
            ).fetchone()
            is not None
        )

    with psycopg.connect(dsn) as locker:
        locker.execute("LOCK TABLE sample IN ACCESS EXCLUSIVE MODE")
        with serving(ApiSettings(dsn=dsn, drain_s=0)) as api:
            with pytest.raises(httpx.ReadTimeout):
                api.get("/api/v1/integrity", timeout=0.2)
            eventually(verifying, "it waits for the lock")
        eventually(lambda: not verifying(), "it has ended")
