"""Faults 1 and 7 of whole machines, for streamers and collectors that have more than one.

Real services and a real Postgres; each row of the file has a time of its own, and after so many
times the file each must be there exactly so often, as `test_kills` has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nats
import psycopg
import pytest

from telemq.collector import service as collector
from telemq.settings import BrokerSettings, CollectorSettings, StreamerSettings
from telemq.sources.synthetic import generate
from telemq.store.verify import verify
from telemq.streamer import service as streamer
from tests.support.brokers import RunningBroker
from tests.support.nats import NatsServer, running_cluster
from tests.support.running import eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

#: How often the file is gone through, and how fast: some seconds of load.
LOOPS, RATE = 60, 4000.0


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """A fleet of two hosts, 15 GPUs, three scrapes."""
    path = tmp_path / "fleet.csv"
    generate(path, seed=4, hosts=2, minutes=3)
    return path


@contextlib.contextmanager
def services(
    dsn: str, csv: Path, rows: int, streaming: dict[str, Any], collecting: dict[str, Any]
) -> Iterator[Future[int]]:
    """Run one streamer, whose result is given, and two collectors, each in a thread."""
    stop = threading.Event()
    shared: dict[str, Any] = {"dsn": dsn, "ops_address": "127.0.0.1:0"}
    with ThreadPoolExecutor(3) as threads:
        settings = CollectorSettings(**shared, **collecting)
        stored = [threads.submit(collector.run, settings, stop) for _ in range(2)]
        source = StreamerSettings(
            **shared,
            **streaming,
            rows=rows,
            rate=RATE,
            clock="recorded",
            batch_records=50,
            lease_s=3,
            window_records=2000,
        )
        streamed = threads.submit(streamer.run, source, csv, stop)
        try:
            yield streamed
        finally:
            stop.set()
    assert [0, 0] == [one.result() for one in stored]


def rows_of(csv: Path) -> int:
    """Count a file's rows; the generator's have no line breaks inside."""
    return len(csv.read_text().splitlines()) - 1


def stored_rows(conn: psycopg.Connection) -> int:
    """Count the rows that are stored so far."""
    row = conn.execute("SELECT coalesce(sum(row_count), 0) FROM ledger").fetchone()
    assert row is not None
    return int(row[0])


def assert_each_row_is_stored(conn: psycopg.Connection, csv: Path) -> None:
    """Assert that each row is there `LOOPS` times, and that ``verify`` says so."""
    times = conn.execute(
        "SELECT n, count(*) FROM"
        " (SELECT count(*) AS n FROM sample GROUP BY series_id, ts) AS each GROUP BY n"
    ).fetchall()
    assert [(LOOPS, rows_of(csv))] == times
    assert verify(conn).complete


def under_load(
    conn: psycopg.Connection, streamed: Future[int], rows: int, fault: Callable[[], None]
) -> None:
    """Do the fault once a quarter is stored, and wait for the end."""
    eventually(lambda: stored_rows(conn) >= rows // 4, "a quarter is stored", 60)
    assert not streamed.done()
    fault()
    assert stored_rows(conn) < rows, "it was over before the fault"
    assert 0 == streamed.result(90)


def test_one_of_two_brokers_is_killed_and_never_comes_back(
    dsn: str, conn: psycopg.Connection, csv: Path
) -> None:
    """Fault 1: a machine with a broker burns; what it held is published to the other."""
    rows = LOOPS * rows_of(csv)
    bind: dict[str, Any] = {
        "producer_bind": "tcp://127.0.0.1:*",
        "consumer_bind": "tcp://127.0.0.1:*",
    }
    brokers = [RunningBroker(BrokerSettings(**bind, heartbeat_s=0.2)) for _ in range(2)]
    ends = (
        {"broker": ",".join(one.producers for one in brokers)},
        {"broker": ",".join(one.consumers for one in brokers)},
    )
    with services(dsn, csv, rows, *ends) as streamed:
        under_load(conn, streamed, rows, lambda: brokers[0].stop(bye=False))
    assert all(one.stats.counters.accepted > 0 for one in brokers), "one of them had no work"
    brokers[1].stop()
    assert_each_row_is_stored(conn, csv)


def leader_of(server: NatsServer, stream: str) -> str:
    """Ask a server who leads a stream."""

    async def ask() -> str:
        client = await nats.connect(f"nats://{server.address}")
        info = await client.jetstream().stream_info(stream)
        await client.close()
        assert info.cluster is not None
        assert info.cluster.replicas is not None
        assert len(info.cluster.replicas) == 2, "the stream is not on three servers"
        return info.cluster.leader or ""

    return asyncio.run(ask())


def test_leader_of_a_jetstream_cluster_is_killed(
    dsn: str, conn: psycopg.Connection, csv: Path, tmp_path: Path
) -> None:
    """The server that leads the stream dies by SIGKILL under load, and stays dead."""
    rows = LOOPS * rows_of(csv)
    with running_cluster(tmp_path / "nats") as servers:
        hosts = ",".join(server.address for server in servers)
        engine = {
            "engine": f"nats://{hosts}/telemetry",
            "replicas": 3,
            "stream_bytes_max": 256 * 2**20,
        }

        def kill_the_leader() -> None:
            leader = leader_of(servers[0], "telemetry")
            print(f"leader {leader} is killed")
            next(server for server in servers if server.name == leader).kill()

        with services(dsn, csv, rows, engine, {**engine, "lease_s": 5.0}) as streamed:
            under_load(conn, streamed, rows, kill_the_leader)
    assert_each_row_is_stored(conn, csv)
