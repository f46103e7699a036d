"""The pipeline as the gateway sees it: real brokers, the store, and either of them missing."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from telemq.errors import SettingError
from telemq.gateway.app import create_app
from telemq.settings import ApiSettings
from tests.support.fleet import gpu, store
from tests.support.gateway import serving
from tests.support.ops import BrokerProcess
from tests.support.running import eventually

_REFUSED = "127.0.0.1:1"


def status(api: httpx.Client) -> Any:
    response = api.get("/api/v1/status")
    assert 200 == response.status_code, response.text
    return response.json()


def test_a_gateway_that_knows_no_broker_says_so(dsn: str, conn: psycopg.Connection) -> None:
    """The setting was left empty: that is not the same as a pipeline without brokers."""
    with serving(ApiSettings(dsn=dsn)) as api:
        found = status(api)
    assert [] == found["brokers"]
    assert found["brokers_known"] is False
    assert {
        "reachable": True, "fault": "", "lag_s": None, "stored_s_ago": None,
        "records_per_s": 0.0, "streams": [], "stream_count": 0, "dead_letters": 0,
    } == found["store"]  # fmt: skip


def test_brokers_are_told_with_their_numbers_and_one_that_is_down_with_its_reason(
    dsn: str, conn: psycopg.Connection
) -> None:
    """One of two brokers was stopped for an update."""
    with (
        BrokerProcess() as broker,
        serving(ApiSettings(dsn=dsn, broker_ops=f"{broker.ops}, {_REFUSED}")) as api,
    ):
        there, gone = status(api)["brokers"]
        assert (broker.ops, True, "") == (there["address"], there["reachable"], there["fault"])
        assert (0, 0, 0) == (there["ready_records"], there["producers"], there["redelivered"])
        assert there["capacity_records"] > 0
        assert (f"http://{_REFUSED}", False) == (gone["address"], gone["reachable"])
        assert "refused" in gone["fault"]
        assert gone["ready_records"] is None
        eventually(lambda: status(api)["brokers"][0]["in_per_s"] == 0.0, "two readings make a rate")


def test_the_store_tells_lag_rate_streams_and_dead_letters(
    dsn: str, conn: psycopg.Connection
) -> None:
    """What was stored in the last minute, what is in flight, and what nobody looked at yet."""
    moment = datetime.now(UTC) - timedelta(seconds=30)
    store(conn, [(gpu(f"GPU-{n}"), moment, n) for n in range(120)])
    conn.execute("INSERT INTO stream_progress VALUES ('s', 'x', 500), ('t', 'y', 7)")
    conn.execute("INSERT INTO stream_lease VALUES ('s', 300, 200, 'me', now())")
    conn.execute(
        "INSERT INTO dead_letter (stream_id, first_row, row_count, reason, payload, dropped_at)"
        " VALUES ('s', 1, 3, 'bad', '', NULL), ('s', 9, 4, 'bad', '', now())"
    )
    with serving(ApiSettings(dsn=dsn)) as api:
        found = status(api)["store"]
    assert 2.0 == found["records_per_s"]
    assert 29 < found["lag_s"] < 90
    assert 0 <= found["stored_s_ago"] < 60
    assert [
        {"stream_id": "s", "next_row": 500, "leases": 1, "lease_rows": 200},
        {"stream_id": "t", "next_row": 7, "leases": 0, "lease_rows": 0},
    ] == found["streams"]
    assert (2, 3) == (found["stream_count"], found["dead_letters"])


@contextlib.contextmanager
def _mute() -> Iterator[str]:
    """A service that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        stop = threading.Event()
        held: list[socket.socket] = []

        def accept() -> None:
            sock.settimeout(0.05)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    held.append(sock.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{sock.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()
            for connection in held:
                connection.close()


def test_nothing_that_does_not_answer_holds_it_up() -> None:
    """A broker that hangs, and no database: the answer says both."""
    with (
        _mute() as mute,
        serving(
            ApiSettings(
                dsn="host=127.0.0.1 port=1", broker_ops=mute, broker_wait_s=0.2, pool_wait_s=0.2
            )
        ) as api,
    ):
        found = status(api)
    assert "no answer within 0.2 s" == found["brokers"][0]["fault"]
    assert found["store"]["reachable"] is False
    assert "Postgres" in found["store"]["fault"]
    assert found["store"]["records_per_s"] is None


def test_a_malformed_address_stops_the_start() -> None:
    """A typing error in a setting is told at once, with its name."""
    with pytest.raises(SettingError, match="--broker-ops"):
        create_app(ApiSettings(broker_ops="https://broker:9601"))
