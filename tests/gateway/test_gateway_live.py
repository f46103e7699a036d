"""Samples as they come: one client, many, slow ones, and those that come back."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from telemq.gateway import live
from telemq.gateway.live import event_id, moment_of
from telemq.settings import ApiSettings
from tests.support.fleet import EPOCH, gpu, store
from tests.support.gateway import metrics_of, serving
from tests.support.maintaining import DAY
from tests.support.running import eventually

UTIL, TEMP = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP"
S = timedelta(seconds=1)


@dataclass
class Event:
    """One server-sent event; a comment has only text."""

    name: str = ""
    id: str = ""
    data: Any = None
    comment: str = ""

    @property
    def samples(self) -> list[tuple[str, float]]:
        """UUID and value of its samples."""
        assert "samples" == self.name, self
        return [(uuid, value) for uuid, _, _, value in self.data["samples"]]


def events(response: httpx.Response) -> Iterator[Event]:
    """Read events and comments as a browser does, but for ``retry``."""
    event = Event()
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            event.name = value
        elif field == "id":
            event.id = value
        elif field == "data":
            event.data = json.loads(value)
        elif line.startswith(":"):
            event.comment = value
        elif not line and event != Event():
            yield event
            event = Event()


@contextlib.contextmanager
def listening(
    api: httpx.Client, last_id: str = "", **params: str | list[str]
) -> Iterator[Iterator[Event]]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with api.stream("GET", "/api/v1/live", params=params, headers=headers) as response:
        assert 200 == response.status_code, response.read()
        assert "text/event-stream; charset=utf-8" == response.headers["content-type"]
        yield events(response)


@pytest.fixture
def settings(dsn: str) -> ApiSettings:
    return ApiSettings(dsn=dsn, follow_s=0.05)


@pytest.fixture
def api(settings: ApiSettings) -> Iterator[httpx.Client]:
    """A gateway that follows quickly."""
    with serving(settings) as client:
        yield client


def gauge(api: httpx.Client, name: str) -> float:
    lines = metrics_of(api).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


def test_a_client_gets_the_latest_and_then_every_sample(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """A chart that goes on while one looks: ten samples a second are ten points."""
    store(conn, [(gpu("GPU-1"), DAY + n * S, n) for n in range(3)])
    with listening(api) as stream:
        first = next(stream)
        assert [["GPU-1", UTIL, "2026-03-01T00:00:02Z", 2.0]] == first.data["samples"]
        assert first.id
        store(conn, [(gpu("GPU-1"), DAY + 3 * S + n * S / 10, n) for n in range(10)])
        second = next(stream)
        assert [("GPU-1", float(n)) for n in range(10)] == second.samples
        assert second.id > first.id
        store(conn, [(gpu("GPU-2"), DAY, 7)])  # it comes to be seen
        assert [("GPU-2", 7.0)] == next(stream).samples


def test_a_client_gets_only_the_gpus_and_metrics_it_wants(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """A heat map of temperatures; a page about two GPUs."""
    both = [gpu(uuid, metric) for uuid in ("GPU-1", "GPU-2", "GPU-3") for metric in (UTIL, TEMP)]
    store(conn, [(labels, DAY, n) for n, labels in enumerate(both)])
    with listening(api, metric=TEMP) as stream:
        assert [1.0, 3.0, 5.0] == sorted(value for _, value in next(stream).samples)
    with listening(api, gpu=["GPU-1", "GPU-3"], metric=[UTIL, TEMP]) as stream:
        assert {"GPU-1", "GPU-3"} == {uuid for uuid, _ in next(stream).samples}
    with listening(api, gpu="GPU-2", metric="") as stream:
        assert [2.0, 3.0] == sorted(value for _, value in next(stream).samples)
        store(conn, [(gpu("GPU-1"), DAY + S, 8), (gpu("GPU-2"), DAY + S, 9)])
        assert [("GPU-2", 9.0)] == next(stream).samples


def test_a_client_that_wants_nothing_that_there_is_waits(
    dsn: str, conn: psycopg.Connection
) -> None:
    """An empty store: comments keep the connection open, and what comes is told."""
    with (
        serving(ApiSettings(dsn=dsn, follow_s=0.05, live_heartbeat_s=0.05)) as api,
        listening(api, gpu="GPU-1") as stream,
    ):
        assert [] == next(stream).samples
        assert "still here" == next(stream).comment
        store(conn, [(gpu("GPU-1"), DAY, 1)])
        assert [("GPU-1", 1.0)] == next(event for event in stream if event.name).samples


def test_a_client_that_comes_back_gets_what_it_missed(
    api: httpx.Client, settings: ApiSettings, conn: psycopg.Connection
) -> None:
    """A train goes through a tunnel; another gateway of the same store answers afterwards."""
    store(conn, [(gpu("GPU-1"), DAY, 0)])
    with listening(api) as stream:
        last_id = next(stream).id
    store(conn, [(gpu("GPU-1"), DAY + n * S, n) for n in range(1, 4)])
    store(conn, [(gpu("GPU-2"), DAY, 9), (gpu("GPU-3"), DAY, 9)])
    with serving(settings) as other, listening(other, last_id, gpu=["GPU-1", "GPU-2"]) as stream:
        event = next(stream)
        assert {("GPU-1", 1.0), ("GPU-1", 2.0), ("GPU-1", 3.0), ("GPU-2", 9.0)} <= {*event.samples}
        assert "GPU-3" not in dict(event.samples)
        assert event.id > last_id
        store(conn, [(gpu("GPU-1"), DAY + 4 * S, 4)])
        assert [("GPU-1", 4.0)] == next(stream).samples


@pytest.mark.parametrize("hours", [2, -2])
def test_a_series_is_resumed_by_its_own_clock(
    api: httpx.Client, conn: psycopg.Connection, hours: int
) -> None:
    """A host whose clock is wrong by hours misses nothing either, and gets no hours of it again."""
    there = datetime.now(UTC) + timedelta(hours=hours)
    store(conn, [(gpu("GPU-1"), there - timedelta(minutes=n), n) for n in range(1, 9)])
    with listening(api) as stream:
        last_id = next(stream).id
    store(conn, [(gpu("GPU-1"), there, 0)])
    eventually(
        lambda: api.get("/api/v1/devices/GPU-1").json()["latest"][UTIL]["value"] == 0, "it is seen"
    )
    with listening(api, last_id) as stream:
        assert [("GPU-1", 0.0)] == next(stream).samples


@pytest.mark.parametrize(
    "last_id",
    [
        pytest.param(
            event_id((datetime.now(UTC) - timedelta(hours=1) - EPOCH) // timedelta(microseconds=1)),
            id="an hour ago",
        ),
        pytest.param(
            event_id((datetime.now(UTC) + timedelta(hours=1) - EPOCH) // timedelta(microseconds=1)),
            id="in an hour",
        ),
        *("t", "x17", "t-1", "7", "t" + "f" * 40, "'; DROP TABLE sample; --"),
    ],
)
def test_a_client_that_was_away_too_long_is_told_and_begins_anew(
    api: httpx.Client, conn: psycopg.Connection, last_id: str
) -> None:
    """A laptop was closed over lunch; or the id is none of ours."""
    store(conn, [(gpu("GPU-1"), DAY, 1)])
    with listening(api, last_id) as stream:
        assert "missed" == next(stream).name
        assert [("GPU-1", 1.0)] == next(stream).samples


def test_more_than_may_wait_is_not_resumed_but_told(dsn: str, conn: psycopg.Connection) -> None:
    """Away for a minute from a fleet that sends a lot: it is not read row by row."""
    with serving(ApiSettings(dsn=dsn, follow_s=0.05, live_samples_max=5)) as api:
        store(conn, [(gpu("GPU-1"), DAY, 0)])
        with listening(api) as stream:
            last_id = next(stream).id
        store(conn, [(gpu("GPU-1"), DAY + n * S / 100, n) for n in range(1, 9)])
        eventually(
            lambda: api.get("/api/v1/devices/GPU-1").json()["latest"][UTIL]["value"] == 8, "seen"
        )
        with listening(api, last_id) as stream:
            assert "missed" == next(stream).name
            assert [("GPU-1", 8.0)] == next(stream).samples


def test_a_client_that_falls_behind_is_told_and_begins_anew(
    dsn: str, conn: psycopg.Connection
) -> None:
    """More comes in one turn than may wait for it; what it holds afterwards is the truth."""
    with serving(ApiSettings(dsn=dsn, follow_s=0.05, live_samples_max=5)) as api:
        store(conn, [(gpu("GPU-1"), DAY, 0)])
        with listening(api) as stream:
            next(stream)
            store(conn, [(gpu("GPU-1"), DAY + n * S, n) for n in range(1, 9)])
            missed = next(stream)
            assert ("missed", {"samples": 8}) == (missed.name, missed.data)
            assert [("GPU-1", 8.0)] == next(stream).samples
            store(conn, [(gpu("GPU-1"), DAY + 9 * S, 9)])
            assert [("GPU-1", 9.0)] == next(stream).samples
        assert 8 == gauge(api, "telemq_api_live_missed_total")


def test_all_clients_live_from_one_turn_and_are_counted(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """Ten dashboards on a wall; each place is given back when its client goes."""
    store(conn, [(gpu("GPU-1"), DAY, 0)])
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(listening(api)) for _ in range(10)]
        for stream in streams:
            next(stream)
        assert 10 == gauge(api, "telemq_api_live_clients")
        store(conn, [(gpu("GPU-1"), DAY + S, 1)])
        for stream in streams:
            assert [("GPU-1", 1.0)] == next(stream).samples
    eventually(lambda: gauge(api, "telemq_api_live_clients") == 0, "all places are given back")


def test_a_stream_goes_on_when_postgres_was_restarted(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """An update of Postgres: the gateway begins anew, and its clients need not."""
    store(conn, [(gpu("GPU-1"), DAY, 0)])
    with listening(api, gpu="GPU-2") as stream:
        next(stream)
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'telemq gateway' AND datname = current_database()"
        )
        for value in range(2):
            store(conn, [(gpu("GPU-2"), DAY + value * S, value)])
            assert [("GPU-2", float(value))] == next(stream).samples


def test_there_is_a_limit_on_clients(dsn: str, conn: psycopg.Connection) -> None:
    """Somebody's loop opens connection after connection."""
    store(conn, [(gpu("GPU-1"), DAY, 0)])
    with serving(ApiSettings(dsn=dsn, follow_s=0.05, live_clients_max=1)) as api:
        with listening(api) as stream:
            next(stream)
            response = api.get("/api/v1/live")
            assert 503 == response.status_code
            assert "application/problem+json" == response.headers["content-type"]
            assert "--live-clients-max" in response.json()["detail"]
            assert "retry-after" in response.headers
        eventually(lambda: gauge(api, "telemq_api_live_clients") == 0, "the place is given back")
        with listening(api) as stream:
            next(stream)


def test_a_client_that_stops_reading_is_cut_off(
    dsn: str, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop that was closed: its place must not be taken for ever."""
    monkeypatch.setattr(live, "_STALL_S", 0.2)
    labels = [gpu(f"GPU-{n:04}-{'x' * 500}") for n in range(1000)]
    store(conn, [(of, DAY, 0) for of in labels])
    with serving(ApiSettings(dsn=dsn, follow_s=0.05)) as api:
        url = api.base_url
        with socket.create_connection((url.host, url.port or 0), timeout=10) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(b"GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(100)
            assert 1 == gauge(api, "telemq_api_live_clients")
            moments = itertools.count(1)

            def cut() -> bool:
                moment = DAY + next(moments) * S
                store(conn, [(of, moment, 1) for of in labels])
                return gauge(api, "telemq_api_live_clients") == 0

            eventually(cut, "it is cut off")


def test_streams_end_when_the_gateway_stops(dsn: str, conn: psycopg.Connection) -> None:
    """SIGTERM: a stream has no end of its own, and nobody waits for the drain's limit."""
    store(conn, [(gpu("GPU-1"), DAY, 0)])
    with contextlib.ExitStack() as client:
        with serving(ApiSettings(dsn=dsn, follow_s=0.05, drain_s=3600)) as api:
            url = api.base_url
            sock = socket.create_connection((url.host, url.port or 0), timeout=10)
            client.enter_context(sock)
            sock.sendall(b"GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            got = b""
            while b"samples" not in got:
                got += sock.recv(2**16)
        got += b"".join(iter(lambda: sock.recv(2**16), b""))
    assert got.endswith(b": the gateway stops\n\n\r\n0\r\n\r\n")


def test_without_a_database_there_is_no_stream() -> None:
    """A problem document, not a stream that says nothing."""
    with serving(ApiSettings(dsn="host=127.0.0.1 port=1")) as api:
        response = api.get("/api/v1/live")
    assert 503 == response.status_code
    assert "Postgres" in response.json()["detail"]


def test_an_id_is_a_moment_and_sorts_as_one() -> None:
    """What a browser sends back is what it was given."""
    assert 1_752_871_354_000_001 == moment_of(event_id(1_752_871_354_000_001))
    assert moment_of("t") is None
    assert moment_of("") is None
