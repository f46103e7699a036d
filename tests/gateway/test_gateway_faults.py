"""Rows of the fault table that meet the API's questions: what is asked, and how often."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any, LiteralString
from urllib.parse import urlencode

import httpx
import psycopg
import pytest

from telemq.settings import ApiSettings
from tests.support.gateway import add_partition, add_samples, add_series, at, serving
from tests.support.services import running_service

_GPU = "GPU-aaaa"
_PATH = f"/api/v1/gpus/{_GPU}/telemetry"
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "/api/v1/gpus": ("by",),
    _PATH: (
        "start_time", "end_time", "metric", "step", "agg", "order", "limit", "cursor", "format",
    ),
    "/api/v1/fleet/idle": ("below", "minutes", "namespace", "start_time", "end_time"),
    "/api/v1/fleet/usage": ("group_by", "start_time", "end_time"),
    "/api/v1/fleet/health": ("start_time", "end_time"),
}  # fmt: skip
_ATTACKS = (
    "' OR '1'='1", "'; DROP TABLE sample; --", '"; DELETE FROM series; --',
    "1); SELECT pg_sleep(9)", "%(series)s", "%s", "{}", "$1", "\\", "\0", "\ud800", "٣",
    "\u202e", "-1", "1e400", "NaN", "../../etc/passwd", "<script>", "x" * 20_000,
)  # fmt: skip


def _wait_for(condition: Callable[[], bool], wait_s: float = 20) -> None:
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def _in_transaction(conn: psycopg.Connection[Any]) -> int:
    return _sessions(conn, "state <> 'idle'")


def _in_lock(conn: psycopg.Connection[Any]) -> int:
    return _sessions(conn, "wait_event_type = 'Lock'")


def _sessions(conn: psycopg.Connection[Any], which: LiteralString) -> int:
    row = conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'telemq gateway'"
        " AND datname = current_database() AND " + which
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("path", _PARAMETERS)
def test_fault_31_what_a_client_says_reaches_the_database_as_a_value_only(
    api: httpx.Client, conn: psycopg.Connection[Any], path: str
) -> None:
    """Injection, in every parameter of every question: an answer or 4xx, and nothing changed."""
    add_samples(conn, add_series(conn, _GPU, pod="p", namespace="n"), [(at(0), 1)])
    for name in _PARAMETERS[path]:
        for attack in _ATTACKS:
            query = urlencode({name: attack}, errors="surrogatepass")
            response = api.get(f"{path}?{query}")
            assert response.status_code < 500, (name, attack[:50], response.text)
            if response.status_code != 200:
                assert "application/problem+json" == response.headers["content-type"]
                assert len(response.content) < 2000
    assert [1.0] == [record["value"] for record in api.get(_PATH).json()]


@pytest.mark.parametrize("path", ["/api/v1/fleet/usage", f"{_PATH}?step=1s&agg=p95"])
def test_fault_31_a_question_over_the_time_limit_is_told_the_limit(
    dsn: str, conn: psycopg.Connection[Any], path: str
) -> None:
    """A huge range: Postgres gives up, here at a lock, and the client can ask for less."""
    add_partition(conn)
    add_series(conn, _GPU)
    with (
        serving(ApiSettings(dsn=dsn, statement_s_max=0.2)) as api,
        psycopg.connect(dsn) as locker,
    ):
        locker.execute("LOCK TABLE sample IN ACCESS EXCLUSIVE MODE")
        response = api.get(path)
        assert 400 == response.status_code
        assert "--statement-s-max" in response.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/fleet/idle", "/api/v1/fleet/usage", "/api/v1/fleet/health",
        *(f"{_PATH}?format={name}" for name in ("ndjson", "csv", "arrow")), f"{_PATH}?step=1m",
        f"{_PATH}?limit=5",
    ],
)  # fmt: skip
def test_fault_31_a_client_that_goes_away_ends_its_question(
    dsn: str, conn: psycopg.Connection[Any], path: str
) -> None:
    """Somebody asks for too much, waits a while, and closes the page."""
    add_partition(conn)
    add_series(conn, _GPU, pod="p")
    with serving(ApiSettings(dsn=dsn)) as api, psycopg.connect(dsn) as locker:
        locker.execute("LOCK TABLE sample IN ACCESS EXCLUSIVE MODE")
        url = api.base_url
        with contextlib.ExitStack() as clients:
            for _ in range(2):  # who ask the same
                sock = socket.create_connection((url.host, url.port or 0), timeout=10)
                clients.enter_context(sock)
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            _wait_for(lambda: _in_transaction(conn) == (1 if "fleet" in path else 2))
        # A cancellation that comes between two statements does nothing; then it takes six seconds.
        _wait_for(lambda: _in_transaction(conn) == 0)
        locker.rollback()
        assert 200 == api.get(path).status_code


@pytest.mark.parametrize("path", [_PATH, "/api/v1/fleet/usage", "/api/v1/integrity"])
def test_a_gateway_that_is_killed_ends_its_questions(
    dsn: str, conn: psycopg.Connection[Any], path: str
) -> None:
    """Kubernetes takes one for out of memory, again and again, and Postgres is not filled up."""
    add_partition(conn)
    add_series(conn, _GPU)
    free = ("--address=127.0.0.1:0", "--ops-address=127.0.0.1:0")
    with running_service("api", *free, TELEMQ_DSN=dsn) as gateway, psycopg.connect(dsn) as locker:
        url = httpx.URL(gateway.event("gateway listens")["url"])
        locker.execute("LOCK TABLE sample IN ACCESS EXCLUSIVE MODE")
        with socket.create_connection((url.host, url.port or 0), timeout=10) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            _wait_for(lambda: _in_lock(conn) == 1)
            gateway.kill()
            _wait_for(lambda: _in_lock(conn) == 0)
