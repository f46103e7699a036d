"""Large answers: bounded memory, clients that leave or stall, and answers that cannot end."""

from __future__ import annotations

import contextlib
import gc
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import psycopg
import pytest

from telemq.gateway import answer
from telemq.settings import ApiSettings
from tests.support.gateway import (
    add_partition,
    add_samples,
    add_series,
    at,
    metrics_of,
    serving,
)

_GPU = "GPU-aaaa"
_PATH = f"/api/v1/gpus/{_GPU}/telemetry"
#: More than the sockets' buffers hold on the way, so that the gateway must wait for its client.
_ROWS = 80_000


@pytest.fixture
def many(conn: psycopg.Connection) -> None:
    """Samples of one GPU, a second apart."""
    add_partition(conn)
    series = add_series(conn, _GPU)
    conn.execute(
        "INSERT INTO sample SELECT %s, %s + i * interval '1 s', i"
        " FROM generate_series(0, %s - 1) i",
        [series, at(0), _ROWS],
    )


def _wait_for(condition: Callable[[], bool], wait_s: float = 10) -> None:
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def _in_transaction(conn: psycopg.Connection) -> int:
    row = conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'telemq gateway'"
        " AND datname = current_database() AND state <> 'idle'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def _metric(api: httpx.Client, line: str) -> float:
    found = [of for of in metrics_of(api).splitlines() if of.startswith(line + " ")]
    return float(found[0].split()[-1]) if found else 0.0


@contextlib.contextmanager
def _reading(api: httpx.Client, bytes_first: int) -> Iterator[socket.socket]:
    """Ask for all of the GPU's telemetry, read its beginning, and then no more."""
    url = api.base_url
    with socket.create_connection((url.host, url.port or 0), timeout=10) as sock:
        sock.sendall(f"GET {_PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        got = 0
        while got < bytes_first:
            got += len(sock.recv(bytes_first))
        yield sock


@pytest.mark.usefixtures("many")
def test_many_chunks_make_one_answer(dsn: str) -> None:
    """A day of one metric, in chunks that do not divide it."""
    with serving(ApiSettings(dsn=dsn, chunk_rows=777)) as api:
        records = api.get(_PATH).json()
        assert list(range(_ROWS)) == [record["value"] for record in records]
        assert _ROWS == _metric(api, "telemq_api_rows_sent_total")


@pytest.mark.usefixtures("many")
def test_a_client_that_goes_away_ends_the_query(dsn: str, conn: psycopg.Connection) -> None:
    """A browser tab is closed in the middle of a download."""
    # With room for more, a question that comes before the first connection has a second one opened.
    with serving(ApiSettings(dsn=dsn, pool_connections=1)) as api:
        with _reading(api, 10_000):
            assert 1 == _in_transaction(conn)
        _wait_for(lambda: _in_transaction(conn) == 0)
        _wait_for(lambda: _metric(api, 'telemq_api_answers_cut_total{reason="gone"}') == 1)
        _wait_for(lambda: _metric(api, "telemq_api_pool_idle") == 1)


def test_a_client_that_goes_away_before_the_first_row_ends_the_query(
    dsn: str, conn: psycopg.Connection
) -> None:
    """Somebody waits for a slow query, here for a lock, and gives up."""
    add_partition(conn)
    add_series(conn, _GPU)
    with serving(ApiSettings(dsn=dsn)) as api, psycopg.connect(dsn) as locker:
        locker.execute("LOCK TABLE sample IN ACCESS EXCLUSIVE MODE")
        url = api.base_url
        with socket.create_connection((url.host, url.port or 0), timeout=10) as sock:
            sock.sendall(f"GET {_PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            _wait_for(lambda: _in_transaction(conn) == 1)
        _wait_for(lambda: _in_transaction(conn) == 0)
        _wait_for(lambda: _metric(api, 'telemq_api_answers_cut_total{reason="gone"}') == 1)


@pytest.mark.usefixtures("many")
def test_a_client_that_stops_reading_is_cut_off(
    dsn: str, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop that was closed: it must not hold a transaction, and its vacuum, for hours."""
    monkeypatch.setattr(answer, "_STALL_S", 0.2)
    with serving(ApiSettings(dsn=dsn)) as api, _reading(api, 10_000):
        _wait_for(lambda: _metric(api, 'telemq_api_answers_cut_total{reason="stalled"}') == 1)
        assert 0 == _in_transaction(conn)


@pytest.mark.usefixtures("many")
def test_an_answer_that_cannot_end_does_not_look_whole(dsn: str, conn: psycopg.Connection) -> None:
    """Postgres ends the session in the middle: the client sees an error, not half of the rows."""
    with serving(ApiSettings(dsn=dsn)) as api, api.stream("GET", _PATH) as response:
        assert 200 == response.status_code
        parts = response.iter_bytes()
        got = [next(parts)]
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'telemq gateway' AND datname = current_database()"
        )
        with pytest.raises(httpx.RemoteProtocolError):
            got.extend(parts)
        with pytest.raises(json.JSONDecodeError):
            json.loads(b"".join(got))
        assert 1 == _metric(api, 'telemq_api_answers_cut_total{reason="failed"}')
        window = {"end_time": "2001-01-01T00:00:00Z"}
        assert [] == api.get(_PATH, params=window).json()


@pytest.mark.usefixtures("many")
def test_a_query_over_its_limit_is_a_problem_that_names_the_limit(
    dsn: str, conn: psycopg.Connection
) -> None:
    """A window too large for the machine, here one that meets a lock."""
    with (
        serving(ApiSettings(dsn=dsn, statement_s_max=0.2)) as api,
        psycopg.connect(dsn) as locker,
    ):
        locker.execute("LOCK TABLE sample IN ACCESS EXCLUSIVE MODE")
        response = api.get(_PATH)
        assert 400 == response.status_code
        assert "limit of 0.2 s (--statement-s-max)" in response.json()["detail"]


@pytest.mark.usefixtures("many")
def test_more_downloads_than_connections_are_told_to_come_again(
    dsn: str, conn: psycopg.Connection
) -> None:
    """Every connection is busy with somebody's download."""
    with serving(ApiSettings(dsn=dsn, pool_connections=1, pool_wait_s=0.2)) as api:
        with _reading(api, 10_000):
            response = api.get("/api/v1/gpus")
            assert 503 == response.status_code
            assert "5" == response.headers["retry-after"]
            assert "all 1 connections are in use" in response.json()["detail"]
            for path in ("/healthz", "/readyz"):  # busy is no reason to be taken out of service
                assert 200 == api.get(path).status_code
        _wait_for(lambda: api.get("/api/v1/gpus").status_code == 200)


@pytest.mark.usefixtures("many")
def test_a_stop_waits_for_downloads_only_so_long(
    dsn: str, conn: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM comes while a client holds a download open; its rows must not look whole."""
    with contextlib.ExitStack() as client:
        with serving(ApiSettings(dsn=dsn, drain_s=0.5)) as api:
            sock = client.enter_context(_reading(api, 10_000))
        assert 0 == _in_transaction(conn)
        rest = b"".join(iter(lambda: sock.recv(2**20), b""))
    assert not rest.endswith(b"0\r\n\r\n")
    logged = capsys.readouterr().out
    assert "stopped" in logged
    assert "Traceback" not in logged


def test_a_stop_tells_those_who_still_wait(dsn: str, conn: psycopg.Connection) -> None:
    """SIGTERM comes while a query waits for a lock: its client learns that it may ask again."""
    add_partition(conn)
    add_series(conn, _GPU)
    with contextlib.ExitStack() as client:
        locker = client.enter_context(psycopg.connect(dsn))
        locker.execute("LOCK TABLE sample IN ACCESS EXCLUSIVE MODE")
        with serving(ApiSettings(dsn=dsn, drain_s=0.5)) as api:
            url = api.base_url
            sock = socket.create_connection((url.host, url.port or 0), timeout=10)
            client.enter_context(sock)
            sock.sendall(f"GET {_PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            _wait_for(lambda: _in_transaction(conn) == 1)
        answered = b"".join(iter(lambda: sock.recv(2**20), b""))
    assert answered.startswith(b"HTTP/1.1 503 ")
    assert b"the gateway is stopping" in answered


@pytest.mark.usefixtures("many")
def test_a_stop_lets_a_download_finish(dsn: str) -> None:
    """SIGTERM comes while a client reads on: it gets its last row."""
    with contextlib.ExitStack() as client:
        got: list[bytes] = []
        with serving(ApiSettings(dsn=dsn)) as api:
            sock = client.enter_context(_reading(api, 10_000))
            reading = threading.Thread(
                target=lambda: got.extend(iter(lambda: sock.recv(2**20), b""))
            )
            reading.start()
        reading.join(10)
    assert b"".join(got).endswith(b"}]\r\n0\r\n\r\n")


def test_clients_that_leave_at_any_moment_leave_nothing_open(
    dsn: str, conn: psycopg.Connection
) -> None:
    """People click on, and their browsers drop what was under way."""
    for name in "ABCD":
        add_samples(
            conn, add_series(conn, "GPU-1", metric_name=name), [(at(n), 1.0) for n in range(100)]
        )
    with serving(ApiSettings(dsn=dsn, chunk_rows=50, rate_per_s=0)) as api:
        place = (api.base_url.host, api.base_url.port or 0)
        for leaves_after_ms in [*range(20)] * 10:
            with socket.create_connection(place) as client:
                client.send(b"GET /api/v1/gpus/GPU-1/telemetry HTTP/1.1\r\nHost: localhost\r\n\r\n")
                select.select([], [], [], leaves_after_ms / 1000)
        assert 200 == api.get("/readyz").status_code
    gc.collect()  # a cursor that is still open would warn now, which fails the test
