"""`telemq health` against real ops addresses, as a health check in a container calls it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry

from telemq.errors import SettingError
from telemq.health import OpsServer
from telemq.probe import ops_url
from telemq.settings import ApiSettings
from tests.support.commands import telemq
from tests.support.gateway import serving
from tests.support.ops import BrokerProcess
from tests.support.ports import free_port

_VARIABLES = (
    "TELEMQ_BROKER_OPS_ADDRESS",
    "TELEMQ_STREAMER_OPS_ADDRESS",
    "TELEMQ_COLLECTOR_OPS_ADDRESS",
    "TELEMQ_API_ADDRESS",
)


@contextmanager
def service(reason: str | None = None, host: str = "127.0.0.1") -> Iterator[str]:
    """An ops address as a service has one, with the reason why it is not ready; yields it."""
    registry = CollectorRegistry()
    with OpsServer(f"{host}:0", ready=lambda: reason, registry=registry, insecure=True) as server:
        yield server.address


@contextmanager
def silence() -> Iterator[str]:
    """Something that takes connections and never answers; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def two_ports() -> Iterator[tuple[str, str]]:
    """A service, and the next port, which is taken so that nobody can listen there."""
    while True:
        with service() as address, socket.socket() as taken:
            host, _, port = address.rpartition(":")
            try:
                taken.bind((host, int(port) + 1))
            except OSError:  # somebody else has it: take another pair
                continue
            yield address, f"{host}:{int(port) + 1}"
            return


def nowhere(**addresses: str) -> dict[str, str]:
    """Give all four addresses; where none is given, nobody listens."""
    return {name: f"127.0.0.1:{free_port()}" for name in _VARIABLES} | addresses


def test_component_of_a_container_is_found_without_being_named() -> None:
    """One image for all components: its health check has no arguments."""
    with BrokerProcess() as broker:
        address = broker.ops.removeprefix("http://")
        got = telemq("health", **nowhere(TELEMQ_BROKER_OPS_ADDRESS=address))
    assert (0, f"broker {broker.ops}: ready\n", "") == (got.returncode, got.stdout, got.stderr)


def test_component_that_cannot_work_is_not_well_but_alive() -> None:
    """A collector has lost its broker: nothing for it, but no reason to restart it."""
    with service("no broker") as address:
        variables = nowhere(TELEMQ_COLLECTOR_OPS_ADDRESS=address)
        ready = telemq("health", **variables)
        live = telemq("health", "--live", **variables)
    told = f"telemq: collector http://{address}: it answered 503: no broker\n"
    assert (1, "", told) == (ready.returncode, ready.stdout, ready.stderr)
    assert (0, f"collector http://{address}: ok\n") == (live.returncode, live.stdout)


def test_gateway_without_database_tells_the_reason_of_its_problem_document() -> None:
    """Postgres is not there yet."""
    with serving(ApiSettings(dsn="host=/nonexistent", pool_wait_s=0.2)) as client:
        got = telemq("health", str(client.base_url))
    assert 1 == got.returncode
    assert "it answered 503: " in got.stderr
    assert "{" not in got.stderr


def test_nothing_that_listens_is_not_well() -> None:
    """The process has ended, or is not there yet."""
    variables = nowhere()
    got = telemq("health", **variables)
    assert (1, "") == (got.returncode, got.stdout)
    assert "no service of telemq listens here" in got.stderr
    for address in variables.values():
        assert address in got.stderr


def test_one_of_two_that_is_not_ready_is_enough() -> None:
    """Several containers share a network, as those of a pod do."""
    with service() as well, service("no database") as ill:
        got = telemq(
            "health",
            **nowhere(TELEMQ_BROKER_OPS_ADDRESS=well, TELEMQ_STREAMER_OPS_ADDRESS=ill),
        )
        named = telemq(
            "health",
            "broker",
            **nowhere(TELEMQ_BROKER_OPS_ADDRESS=well, TELEMQ_STREAMER_OPS_ADDRESS=ill),
        )
    assert (1, f"broker http://{well}: ready\n") == (got.returncode, got.stdout)
    assert f"streamer http://{ill}: it answered 503: no database" in got.stderr
    assert (0, f"broker http://{well}: ready\n", "") == (
        named.returncode,
        named.stdout,
        named.stderr,
    )


def test_worker_that_is_gone_is_told() -> None:
    """One of a collector's workers has died and is being started again."""
    with two_ports() as (first, second):
        variables = nowhere(TELEMQ_COLLECTOR_OPS_ADDRESS=first, TELEMQ_COLLECTOR_WORKERS="2")
        got = telemq("health", **variables)
    assert (1, f"collector http://{first}: ready\n") == (got.returncode, got.stdout)
    assert f"telemq: collector http://{second}: nothing listens there\n" == got.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_address_of_all_interfaces_is_asked_on_this_machine(host: str) -> None:
    """In a container a component listens on every address."""
    with service(host=host) as address:
        got = telemq("health", **nowhere(TELEMQ_API_ADDRESS=address))
    assert (0, f"api http://{address}: ready\n") == (got.returncode, got.stdout)


def test_answer_that_does_not_come_is_not_waited_for_long() -> None:
    """A process is stopped, or its network swallows everything."""
    with silence() as address, service() as well:
        begin = time.monotonic()
        got = telemq("health", address, well, "--wait-s", "0.5")
        took_s = time.monotonic() - begin
    assert (1, f"http://{well}: ready\n") == (got.returncode, got.stdout)
    assert f"telemq: http://{address}: no answer within 0.5 s\n" == got.stderr
    assert took_s < 5  # most of it is the start of a process on a busy machine


def test_escape_sequences_of_others_do_not_reach_the_terminal() -> None:
    """The port belongs to something else."""
    with service("\x1b[31mred\nmore") as address:
        got = telemq("health", address)
    assert f"telemq: http://{address}: it answered 503: \\x1b[31mred\n" == got.stderr


@pytest.mark.parametrize("word", ["brokers", "127.0.0.1", "https://a:1", "a:1/metrics", "a:b"])
def test_what_is_no_address_is_told(word: str) -> None:
    """A typing error."""
    got = telemq("health", word)
    assert 2 == got.returncode
    assert f"WHERE: {word!r} is not accepted; it must be one of broker, streamer" in got.stderr


def test_addresses_are_taken_as_people_write_them() -> None:
    """Copied from a log line, or a browser."""
    assert "http://[::1]:5" == ops_url("WHERE", "[::1]:5")
    assert "http://a:1" == ops_url("WHERE", "http://A:1/")
    with pytest.raises(SettingError, match="WHERE"):
        ops_url("WHERE", "http://u:p@a:1")


def test_health_imports_no_service() -> None:
    """It runs every few seconds in every container: imports are what takes time."""
    code = (
        "import sys; sys.argv[1:] = ['health', '127.0.0.1:1']\n"
        "from telemq_cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "slow = {'psycopg', 'zmq', 'litestar', 'uvicorn', 'numpy', 'structlog', 'msgspec'}\n"
        "print(sorted(slow & set(sys.modules)))\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert "[]\n" == shown.stdout
