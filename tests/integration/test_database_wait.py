"""Waiting for a Postgres that is not there yet, and not waiting for one that refuses."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psycopg
import pytest

from telemq import log
from telemq.store.cluster import Cluster
from telemq.store.embedded import EmbeddedPostgres
from telemq.store.wait import connect
from tests.support.brokers import DEADLINE_S, until
from tests.support.commands import telemq


@pytest.fixture(autouse=True)
def _told(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("warning", "json")


def test_server_that_starts_later_is_waited_for(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """`helm install` starts Postgres and everybody who needs it at the same moment."""
    data_dir = tmp_path_factory.mktemp("d") / "d"  # short: a socket's path has 107 bytes at most
    server = EmbeddedPostgres(data_dir)
    dsn = f"host={data_dir} user=telemq dbname=telemq password=hunter2"
    starter = threading.Timer(0.5, server.start)
    began = time.monotonic()
    starter.start()
    try:
        with connect(dsn, DEADLINE_S) as conn:
            assert (1,) == conn.execute("SELECT 1").fetchone()
            assert conn.autocommit
    finally:
        starter.join()
        server.stop()
    said = capsys.readouterr().out
    assert 1 <= said.count("waiting for Postgres") <= 1 + (time.monotonic() - began) // 10
    assert "it does not answer" in said
    assert "hunter2" not in said


def test_server_that_restarts_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its pod is replaced: it ends when the last session has, and answers nobody meanwhile."""
    server = EmbeddedPostgres(tmp_path / "data")
    with server as dsn:
        last = psycopg.connect(dsn)
        running = Cluster(tmp_path / "data" / "postgres").server()
        assert running is not None
        os.kill(running.pid, signal.SIGTERM)  # Postgres's "smart" shutdown
        until(lambda: _refused(dsn), "the server shuts down")
        ender = threading.Timer(0.5, last.close)  # then its guard starts it again
        ender.start()
        with connect(dsn, DEADLINE_S) as conn:
            assert (1,) == conn.execute("SELECT 1").fetchone()
        ender.join()
    assert "it is starting up or shutting down" in capsys.readouterr().out


def _refused(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return True
    return False


@pytest.mark.parametrize(
    "where",
    ["host=127.0.0.1 port=1", "host=telemetry-postgres.invalid", "host=/nonexistent"],
)
def test_server_that_never_comes_is_given_up_with_the_reason(where: str) -> None:
    """The Postgres of the values is misspelt: the pod must end and say so, not hang."""
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match=r"refused|resolve|No such file"):
        connect(f"{where} user=telemq", 0.7)
    assert 0.7 <= time.monotonic() - began < 0.7 + DEADLINE_S


@pytest.mark.parametrize("wrong", ["user=stranger", "dbname=none"])
def test_server_that_refuses_is_not_waited_for(dsn: str, wrong: str) -> None:
    """A wrong user or database: waiting would only hide the reason."""
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        connect(f"{dsn} {wrong}", 600)
    assert time.monotonic() - began < DEADLINE_S


def test_without_a_wait_it_is_tried_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody migrates by hand and has mistyped the port."""
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect("host=127.0.0.1 port=1", 0)
    assert "" == capsys.readouterr().out


def test_migrate_waits_as_its_variable_says() -> None:
    """The init container of every pod that needs the schema."""
    got = telemq(
        "migrate",
        TELEMQ_DSN="postgresql://u:hunter2@127.0.0.1:1/t",
        TELEMQ_MIGRATE_WAIT_S="0.5",
    )
    assert 1 == got.returncode
    assert "waiting for Postgres" in got.stdout
    assert "the database cannot be used" in got.stderr
    assert "hunter2" not in got.stdout + got.stderr
