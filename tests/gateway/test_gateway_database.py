"""The gateway without its database, with one that has no schema, and after it came back."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import psycopg
import pytest

from telemq.settings import ApiSettings
from telemq.store.embedded import EmbeddedPostgres
from telemq.store.migrate import migrate
from tests.support.gateway import add_samples, add_series, at, serving
from tests.support.postgres import Databases

_PATHS = ("/api/v1/gpus", "/api/v1/gpus?by=gpu_id", "/api/v1/gpus/GPU-1/telemetry")


def _unavailable(api: httpx.Client, complaint: str) -> None:
    for path in (*_PATHS, "/readyz"):
        response = api.get(path)
        assert 503 == response.status_code, (path, response.text)
        assert "application/problem+json" == response.headers["content-type"]
        assert "5" == response.headers["retry-after"]
        assert complaint in response.json()["detail"]
    assert "ok\n" == api.get("/healthz").text


def _wait_until_ready(api: httpx.Client, wait_s: float = 20) -> None:
    deadline = time.monotonic() + wait_s
    while api.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline, api.get("/readyz").text
        time.sleep(0.05)


def test_the_gateway_starts_before_its_database_and_outlives_it(tmp_path: Path) -> None:
    """Services start in any order; then Postgres is restarted for an update."""
    server = EmbeddedPostgres(tmp_path / "data")
    with server as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        migrate(conn)
        add_samples(conn, add_series(conn, "GPU-1"), [(at(0), 1)])
    with serving(ApiSettings(dsn=dsn, pool_wait_s=0.3)) as api:
        _unavailable(api, "no connection to Postgres within 0.3 s")
        for _ in range(2):
            with server:
                _wait_until_ready(api)
                for path in _PATHS:
                    assert 200 == api.get(path).status_code
            _unavailable(api, "Postgres")


def test_a_restart_of_postgres_between_two_requests_is_not_noticed(tmp_path: Path) -> None:
    """All of the pool's connections are dead, and none of them fails a request."""
    server = EmbeddedPostgres(tmp_path / "data")
    with server as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        migrate(conn)
    with serving(ApiSettings(dsn=dsn)) as api:
        for _ in range(2):
            with server:
                assert [200, 200] == [api.get(path).status_code for path in _PATHS[:2]]


def test_a_database_without_a_schema_is_not_ready(postgres: Databases) -> None:
    """The database was made anew while the gateway runs; it serves when the schema is there."""
    with postgres.fresh(migrated=False) as dsn, serving(ApiSettings(dsn=dsn)) as api:
        _unavailable(api, "no telemq schema of this version yet")
        with psycopg.connect(dsn, autocommit=True) as conn:
            migrate(conn)
        _wait_until_ready(api)
        assert [] == api.get("/api/v1/gpus").json()


def test_a_fault_of_ours_tells_nothing_of_its_inside_and_writes_nothing(
    dsn: str, conn: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    """A query that fails, here because it would write: sessions are read-only."""
    conn.execute("ALTER TABLE gpu RENAME TO kept")
    conn.execute(
        "CREATE FUNCTION writes() RETURNS text LANGUAGE sql AS $$"
        " INSERT INTO kept (uuid, gpu_id, device, model_name, hostname)"
        " VALUES ('GPU-written', '', '', '', '') RETURNING uuid $$"
    )
    conn.execute("CREATE VIEW gpu AS SELECT writes() AS uuid")
    with serving(ApiSettings(dsn=dsn)) as api:
        response = api.get("/api/v1/gpus")
    assert 500 == response.status_code
    assert "application/problem+json" == response.headers["content-type"]
    assert "it failed on this request; its log says why" == response.json()["detail"]
    assert "read-only transaction" in capsys.readouterr().out
    assert (0,) == conn.execute("SELECT count(*) FROM kept").fetchone()
