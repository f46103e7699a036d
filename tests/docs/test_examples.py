"""Every example runs, as a reader would run it, against real parts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from telemq.settings import ApiSettings, CollectorSettings
from tests.support import brokers
from tests.support.brokers import running_broker as running_keyed
from tests.support.gateway import serving
from tests.support.http import http_broker
from tests.support.keys import Keys
from tests.support.running import running_broker, running_collector

EXAMPLES = Path(__file__).parents[2] / "examples"


def start(name: str, *args: str) -> "subprocess.Popen[str]":
    """Start an example."""
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *args], stdout=subprocess.PIPE, text=True
    )


def output(example: "subprocess.Popen[str]") -> str:
    """Wait for an example's good end, and give what it printed."""
    text, _ = example.communicate(timeout=60)
    assert example.returncode == 0, text
    return text


def collector_settings(dsn: str, consumers: str) -> CollectorSettings:
    """Settings of a collector for one broker and database."""
    return CollectorSettings(dsn=dsn, broker=consumers, ops_address="127.0.0.1:0")


@pytest.mark.parametrize(("name", "rows"), [("01_publish.py", 30), ("04_own_source.py", 600)])
def test_producer_stores_each_row_once_even_when_it_runs_twice(
    name: str, rows: int, dsn: str, conn: psycopg.Connection
) -> None:
    """Somebody writes a producer from the protocol, or with the library, and restarts it."""
    with (
        running_broker() as broker,
        running_collector(collector_settings(dsn, broker.consumers)),
    ):
        for _ in range(2):
            assert "stored" in output(start(name, broker.producers))
    assert (rows,) == conn.execute("SELECT count(*) FROM telemetry").fetchone()
    assert (rows,) == conn.execute("SELECT sum(stored) FROM ledger").fetchone()


def test_plain_consumer_receives_what_a_plain_producer_published() -> None:
    """Two programs that know only ZeroMQ and JSON use the broker between them."""
    with running_broker() as broker:
        consumer = start("02_consume.py", broker.consumers, "3")
        producer = start("01_publish.py", broker.producers)
        received = output(consumer)
        assert 3 == output(producer).count("stored")
    for first_row in (0, 10, 20):
        assert f"example/01#{first_row}: 10 records, attempt 1" in received


def test_query_prints_what_the_gateway_has(dsn: str) -> None:
    """Somebody asks the gateway with nothing but the standard library."""
    with (
        running_broker() as broker,
        running_collector(collector_settings(dsn, broker.consumers)),
    ):
        output(start("01_publish.py", broker.producers))
    with serving(ApiSettings(dsn=dsn)) as gateway:
        text = output(start("03_query.py", str(gateway.base_url).rstrip("/")))
    assert "1 GPUs" in text
    assert "30 records in the last ten minutes" in text


def test_producer_with_a_key_is_let_in(tmp_path: Path) -> None:
    """Somebody connects to a broker with keys from a language that has ZeroMQ."""
    keys = Keys(tmp_path)
    keys.peer("example", "producer")
    with running_keyed(keys=keys.path) as broker:
        files = (str(keys.secret_file("example")), str(keys.broker_file))
        assert "WELCOME" in output(start("07_keys.py", broker.producers, *files))


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("token", ["", "canary-token"])
def test_curl_session(token: str) -> None:
    """Somebody has nothing but a shell."""
    with http_broker(http_token=token) as (_, client):
        session = subprocess.run(
            ["sh", str(EXAMPLES / "05_curl.sh"), str(client.base_url).rstrip("/")],
            env={**os.environ, **({"TELEMQ_BROKER_HTTP_TOKEN": token} if token else {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (0, "") == (session.returncode, session.stderr), session
    lines = [line for line in session.stdout.splitlines() if line]
    ids = [json.loads(line).get("id") for line in lines[:5]]
    assert [ids[0], "example/05#0", "example/05#0", ids[0], "example/05#0"] == ids
    assert ['{"outcome":"ok"}', "the queue is empty"] == lines[5:]


def test_push_and_pull_are_one_line_of_zeromq_each() -> None:
    """Somebody has a language with ZeroMQ and no patience."""
    address = "tcp://127.0.0.1:*"
    with brokers.running_broker(pull=address, push=address) as broker:
        assert broker.ways.pull is not None
        assert broker.ways.push is not None
        text = output(
            start("06_push_pull.py", broker.ways.pull.endpoint, broker.ways.push.endpoint)
        )
    assert ["pushed 3 records", "pulled 0", "pulled 1", "pulled 2"] == text.splitlines()


def test_every_example_is_tested() -> None:
    """An example is added and nobody runs it."""
    tested = Path(__file__).read_text()
    examples = [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.sh")]
    assert [] == [path.name for path in examples if f'"{path.name}"' not in tested]
