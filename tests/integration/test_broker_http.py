"""HTTP as a way in and out: what curl gets, what it waits for, and what it cannot break."""

from __future__ import annotations

import json
import re
import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import psycopg
import pytest

from telemq.broker.http.app import openapi_json
from telemq.broker.http.bodies import ConsumedBody, PublishedBody
from telemq.broker.server import BrokerServer, run
from telemq.errors import BusyError, SettingError
from telemq.settings import BrokerSettings, CollectorSettings
from tests.support.brokers import DEADLINE_S, PlainPeer, running_broker, until
from tests.support.http import http_broker
from tests.support.running import running_collector


def take(client: httpx.Client, query: str = "") -> ConsumedBody:
    """Consume a message that must be there."""
    response = client.post(f"/consume{query}")
    assert 200 == response.status_code, response.text
    return msgspec.json.decode(response.content, type=ConsumedBody)


def queue(client: httpx.Client, payload: Any = "x", query: str = "", **fields: Any) -> str:
    """Publish a message that must be taken; gives its id."""
    response = client.post(f"/publish{query}", json={"payload": payload, **fields})
    assert response.status_code in (200, 202), response.text
    return msgspec.json.decode(response.content, type=PublishedBody).id


def detail(response: httpx.Response, status: int) -> str:
    """The detail of a problem."""
    assert status == response.status_code, response.text
    return str(response.json()["detail"])


@pytest.mark.parametrize(
    ("payload", "fields", "content_type", "records", "form"),
    [
        ({"a": [1, 2.5, None]}, {}, "telemq.record", 1, "json"),
        ([{"a": 1}, {"a": 2}, {"a": 3}], {}, "telemq.record", 3, "json"),
        ([1, 2], {"metadata": {"content-type": "mine"}}, "mine", 1, "json"),
        ([1, 2], {"records": 7}, "telemq.record", 7, "json"),
        ("schön \n text", {}, "text/plain", 1, "text"),
        ("17", {}, "text/plain", 1, "text"),
        ("", {}, "text/plain", 1, "text"),
        (None, {}, "telemq.record", 1, "json"),
    ],
)
def test_what_is_published_is_consumed(
    payload: Any, fields: dict[str, Any], content_type: str, records: int, form: str
) -> None:
    """Any JSON value or text, in and out."""
    with http_broker() as (broker, client):
        id = queue(client, payload, key="k", **fields)
        message = take(client)
        assert (id, "k", records, form) == (
            message.id, message.key, message.records, message.payload_form
        )  # fmt: skip
        assert payload == message.payload
        assert {"content-type": content_type} == message.metadata
        assert (1, "", "", 0) == (message.attempt, message.dead, message.lease, message.lease_ms)
        until(lambda: broker.stats.counters.settled == 1, "it is settled")


def test_bytes_that_are_no_text_come_out_as_base64() -> None:
    """A producer of the protocol publishes what JSON cannot show."""
    with http_broker() as (broker, client), PlainPeer(broker.producers, "producer") as producer:
        producer.hello()
        producer.say("WANT", 1, 1, 10, 1000)
        producer.hear("GRANT")
        producer.say("PUBLISH", "a", 1, "", {}, payload=b"\xff\x00")
        message = take(client)
        assert ("base64", "/wA=") == (message.payload_form, message.payload)
        producer.hear("CONFIRM")


def test_ids_that_the_broker_gives_number_the_rows() -> None:
    """The ledger knows a batch by its stream and first row; these must not overlap, or recur."""
    streams = []
    for _ in range(2):
        with http_broker() as (_, client):
            ids = [queue(client, [{}, {}, {}]), queue(client, {}), queue(client, {})]
        stream = ids[0].rpartition("#")[0]
        assert [f"{stream}#0", f"{stream}#3", f"{stream}#4"] == ids
        streams.append(stream)
    assert streams[0] != streams[1]


def test_id_that_is_queued_already_is_not_queued_twice() -> None:
    """A client did not get its answer, and repeats the request."""
    with http_broker() as (broker, client):
        assert "a#1" == queue(client, id="a#1") == queue(client, id="a#1")
        until(lambda: broker.stats.counters.duplicates == 1, "it is known")
        assert 1 == broker.stats.ready_messages


def test_stored_is_answered_when_a_consumer_has_settled() -> None:
    """The client wants to know that it may forget the message."""
    with http_broker() as (broker, client), ThreadPoolExecutor(1) as pool:
        later = pool.submit(client.post, "/publish?confirm=stored", json={"payload": 1})
        message = take(client, "?ack=manual")
        assert not later.done()
        assert broker.ways.http is not None
        assert (1, 1) == (broker.ways.http.waiting, broker.ways.http.leases)
        client.post("/settle", json={"lease": message.lease})
        response = later.result(DEADLINE_S)
        assert (200, {"id": message.id, "stored": True}) == (response.status_code, response.json())
        until(lambda: broker.stats.producers == 0, "its producer has left")


def test_not_stored_in_time_says_how_to_go_on_waiting() -> None:
    """No collector runs."""
    with http_broker() as (broker, client):
        query = "?confirm=stored&timeout_s=0.1"
        response = client.post(f"/publish{query}", json={"payload": 1, "id": "a#1"})
        assert "'a#1' is queued, but was not stored in time" in detail(response, 503)
        assert "1" == response.headers["retry-after"]
        detail(client.post(f"/publish{query}", json={"payload": 1, "id": "a#1"}), 503)
        assert 1 == broker.stats.ready_messages


def test_full_queue_makes_a_publisher_wait_and_then_refuses_it_without_a_trace() -> None:
    """P1 holds for HTTP, too: what found no room was not taken."""
    with http_broker(capacity_records=2) as (broker, client):
        queue(client), queue(client)
        response = client.post("/publish?timeout_s=0.2", json={"payload": "x"})
        assert "no room in time" in detail(response, 503)
        assert "1" == response.headers["retry-after"]
        until(lambda: broker.stats.producers == 0, "its producer has left")
        assert (2, 2) == (broker.stats.counters.accepted, broker.stats.ready_records)
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(client.post, "/publish", json={"payload": n}) for n in range(4)]
            until(lambda: broker.stats.producers == 4, "all wait")
            assert not any(one.done() for one in waiting)
            taken = [take(client).id for _ in range(6)]
            assert [202] * 4 == [one.result(DEADLINE_S).status_code for one in waiting]
        assert 6 == len(set(taken))


def test_consumer_waits_for_a_message_up_to_its_time() -> None:
    """Long polling."""
    with http_broker() as (broker, client), ThreadPoolExecutor(1) as pool:
        assert 204 == client.post("/consume?timeout_s=0").status_code
        assert 204 == client.post("/consume?timeout_s=0.1").status_code
        later = pool.submit(take, client)
        until(lambda: broker.stats.consumers == 1, "it waits")
        id = queue(client)
        assert id == later.result(DEADLINE_S).id


@pytest.mark.parametrize("ack", ["auto", "manual"])
def test_consumer_that_goes_away_while_it_waits_swallows_nothing(ack: str) -> None:
    """Ctrl-C on curl; the message is the next one's, at its first attempt."""
    with http_broker() as (broker, client):
        gone = [
            socket.create_connection((client.base_url.host, client.base_url.port or 0))
            for _ in range(5)
        ]
        host = f"{client.base_url.host}:{client.base_url.port}"
        for one in gone:
            one.sendall(f"POST /consume?ack={ack} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        until(lambda: broker.stats.consumers == 5, "all wait")
        for one in gone:
            one.close()
        until(lambda: broker.stats.consumers == 0, "all are gone")
        id = queue(client)
        message = take(client)
        assert (id, 1) == (message.id, message.attempt)


def test_message_that_is_under_way_to_a_client_that_leaves_goes_back() -> None:
    """It goes away in the very moment in which its message comes; over and over."""
    with http_broker(attempts_max=1000) as (broker, client):
        host = f"{client.base_url.host}:{client.base_url.port}"
        for _ in range(30):
            address = (client.base_url.host, client.base_url.port or 0)
            with socket.create_connection(address) as leaving:
                leaving.sendall(
                    f"POST /consume?ack=manual HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
                )
                until(lambda: broker.stats.consumers == 1, "it waits")
                leaving.close()
                id = queue(client)
            until(lambda: broker.stats.consumers == 0 or broker.stats.leased_messages, "gone")
            message = take(client)
            assert id == message.id
            until(lambda: broker.stats.consumers == 0, "nobody is left")


def test_lease_that_runs_out_goes_to_another_and_cannot_be_settled() -> None:
    """A client took a message and died."""
    with http_broker(lease_s=0.2) as (broker, client):
        id = queue(client)
        first = take(client, "?ack=manual")
        assert 200 == first.lease_ms
        second = take(client, "?ack=manual")
        assert (id, 2) == (second.id, second.attempt)
        assert "that lease is over" in detail(
            client.post("/settle", json={"lease": first.lease}), 410
        )
        assert 1 == broker.stats.counters.leases_expired
        assert {"outcome": "ok"} == client.post("/settle", json={"lease": second.lease}).json()
        until(lambda: broker.stats.counters.settled == 1, "it is settled once")
        until(lambda: broker.stats.consumers == 0, "both have left")


def test_outcomes_do_what_they_say() -> None:
    """Retry, then bury; the dead letter is delivered with its reason and kept."""
    with http_broker() as (broker, client):
        queue(client)
        for attempt in (1, 2):
            message = take(client, "?ack=manual")
            assert attempt == message.attempt
            outcome = {1: "retry", 2: "bury"}[attempt]
            client.post(
                "/settle", json={"lease": message.lease, "outcome": outcome, "reason": "no sense"}
            ).raise_for_status()
        dead = take(client)
        assert "no sense" == dead.dead
        until(lambda: broker.stats.counters.buried == 1, "it is kept")
        for lease in (message.lease, "nonsense", ""):
            detail(client.post("/settle", json={"lease": lease}), 410)


def test_token_is_asked_of_everybody_and_never_told() -> None:
    """The broker is reached from other machines."""
    secret = "canary-4711-token"
    with http_broker(http_token=secret) as (broker, client):
        for given in (None, "Bearer wrong", f"Basic {secret}", "Bearer", f"Bearer {secret}x"):
            headers = {"authorization": given} if given else {}
            for path in ("/publish", "/consume", "/settle"):
                response = client.post(path, headers=headers, json={"payload": 1})
                assert "bearer token" in detail(response, 401)
                assert 'Bearer realm="telemq"' == response.headers["www-authenticate"]
                assert secret not in response.text
        assert 401 == client.get("/metrics").status_code
        assert 200 == client.get("/healthz").status_code
        assert 0 == broker.stats.counters.sessions
        known = {"authorization": f"Bearer {secret}", "origin": "https://elsewhere"}
        assert 202 == client.post("/publish", headers=known, json={"payload": 1}).status_code
    assert secret not in repr(BrokerSettings(http_token=secret))


def test_without_a_token_it_is_for_this_machine() -> None:
    """Anybody who reaches it could take the messages."""
    settings = BrokerSettings(
        producer_bind="tcp://127.0.0.1:*", consumer_bind="tcp://127.0.0.1:*",
        ops_address="127.0.0.1:0", http="0.0.0.0:0",
    )  # fmt: skip
    with pytest.raises(SettingError, match=r"--http: '0.0.0.0:0' .* TELEMQ_BROKER_HTTP_TOKEN"):
        run(settings, threading.Event())


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"host": "evil.example:9604", "origin": "http://evil.example:9604"},
    ],
)
def test_web_pages_from_elsewhere_are_refused(headers: dict[str, str]) -> None:
    """A page makes a browser of this machine post here, or gives us a name of its own."""
    with http_broker() as (broker, client):
        queue(client)
        detail(client.post("/consume", headers=headers), 403)
        detail(client.post("/publish", headers=headers, json={"payload": 1}), 403)
        assert 1 == broker.stats.counters.accepted
        own = str(client.base_url).rstrip("/")
        assert 200 == client.post("/consume", headers={"origin": own}).status_code


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/publish", b"", "truncated"),
        ("/publish", b"[1]", "Expected `object`"),
        ("/publish", b'{"payload": NaN}', "malformed"),
        ("/publish", b"{}", "payload"),
        ("/publish", b'{"payload": 1, "keys": ""}', "keys"),
        ("/publish", b'{"payload": 1, "id": ""}', "$.id"),
        ("/publish", b'{"payload": []}', "empty array"),
        ("/publish", b'{"payload": 1, "metadata": {"a": 1}}', "$.metadata"),
        ("/publish", b'{"payload": 1, "records": -1}', "$.records"),
        ("/publish", b'{"payload": "\\ud800"}', "not accepted"),
        ("/publish", b'{"payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not accepted"),
        ("/publish?confirm=maybe", b'{"payload": 1}', "accepted: queued, stored"),
        ("/publish?timeout_s=-1", b'{"payload": 1}', "accepted: 0 to 60"),
        ("/publish?timeout_s=nan", b'{"payload": 1}', "accepted: 0 to 60"),
        ("/publish?timeout=1", b'{"payload": 1}', "accepted: confirm and timeout_s"),
        ("/consume?ack=no", b"", "accepted: auto, manual"),
        ("/consume?timeout_s=1e9", b"", "accepted: 0 to 60"),
        ("/settle", b'{"lease": "a", "outcome": "lost"}', "$.outcome"),
        ("/settle", b'{"lease": 1}', "$.lease"),
    ],
)
def test_wrong_requests_are_told_what_is_accepted(path: str, body: bytes, says: str) -> None:
    """A typing error in a shell script."""
    with http_broker() as (broker, client):
        assert says in detail(client.post(path, content=body), 400)
        assert 0 == broker.stats.counters.accepted


def test_header_that_would_not_fit_the_protocol_is_refused() -> None:
    """Metadata of 100 KB would end the session of the consumer that gets it."""
    with http_broker() as (_, client):
        metadata = {f"{n:0>500}": "x" * 500 for n in range(100)}
        response = client.post("/publish", json={"payload": 1, "metadata": metadata})
        assert "63488 are accepted" in detail(response, 400)


def test_bodies_and_messages_have_limits() -> None:
    """Somebody posts a file."""
    with http_broker(http_body_bytes_max=2048, message_bytes_max=1024) as (broker, client):
        assert "at most 2048 bytes" in detail(client.post("/publish", content=b"x" * 2049), 413)
        chunks = (b"x" * 100 for _ in range(30))
        assert "at most 2048 bytes" in detail(client.post("/publish", content=chunks), 413)
        response = client.post("/publish", json={"payload": "x" * 1025})
        assert "the broker takes 2000000 and 1024" in detail(response, 413)
        response = client.post("/publish", json={"payload": 1, "records": 2_000_001})
        detail(response, 413)
        queue(client, "x" * 1024)
        assert 1 == broker.stats.counters.accepted


def test_waiting_consumers_are_limited_and_leave_room_for_publishers() -> None:
    """A thousand curls wait; whoever brings a message must still get in."""
    with http_broker(http_requests_max=2) as (broker, client), ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(take, client) for _ in range(2)]
        until(lambda: broker.stats.consumers == 2, "both wait")
        response = client.post("/consume")
        assert "2 requests consume already" in detail(response, 503)
        assert "1" == response.headers["retry-after"]
        sent = {queue(client), queue(client)}
        assert sent == {one.result(DEADLINE_S).id for one in waiting}


def test_half_sent_requests_keep_nobody_out(capsys: pytest.CaptureFixture[str]) -> None:
    """300 connections send the beginning of a body, and nothing more."""
    with http_broker(http_requests_max=5) as (_, client):
        address = (client.base_url.host, client.base_url.port or 0)
        head = f"POST /publish HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
        half = [socket.create_connection(address) for _ in range(300)]
        try:
            for one in half:
                one.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            id = queue(client)
            assert id == take(client).id
        finally:
            for one in half:
                one.close()
        id = queue(client)
        assert id == take(client).id
    assert "error" not in capsys.readouterr().out


def test_bodies_under_way_are_limited_in_bytes() -> None:
    """Many large bodies at once; those that do not fit are told to come later."""
    with http_broker(http_requests_max=1, http_body_bytes_max=10_000) as (_, client):
        address = (client.base_url.host, client.base_url.port or 0)
        head = f"POST /publish HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
        half = [socket.create_connection(address, timeout=DEADLINE_S) for _ in range(2)]
        try:
            for one in half:
                one.sendall(f"{head}Content-Length: 9000\r\n\r\n{'x' * 8000}".encode())
            ready, _, _ = select.select(half, [], [], DEADLINE_S)
            assert 1 == len(ready)
            assert b"HTTP/1.1 503" == ready[0].recv(12)
        finally:
            for one in half:
                one.close()
        until(lambda: client.post("/publish", json={"payload": 1}).status_code == 202, "room again")


def test_leases_are_limited() -> None:
    """A client takes and takes, and settles nothing."""
    with http_broker(http_leases_max=2) as (_, client):
        queue(client), queue(client), queue(client)
        lease = take(client, "?ack=manual").lease
        take(client, "?ack=manual")
        assert "--http-leases-max" in detail(client.post("/consume?ack=manual"), 503)
        client.post("/settle", json={"lease": lease}).raise_for_status()
        take(client)


def test_records_of_curl_are_stored_and_what_is_no_record_is_a_dead_letter(
    dsn: str, conn: psycopg.Connection
) -> None:
    """One object, an array, a text, and a record with a bad value; a repeated id is stored once."""
    record = {
        "timestamp": datetime.now(UTC).isoformat(),
        "metric_name": "DCGM_FI_DEV_GPU_UTIL",
        "uuid": "GPU-1",
    }
    with http_broker() as (broker, client):
        collector = CollectorSettings(dsn=dsn, broker=broker.consumers, ops_address="127.0.0.1:0")
        with running_collector(collector):
            stored = "?confirm=stored"
            queue(client, {**record, "value": 1}, stored)
            queue(client, [{**record, "value": n} for n in (2, 3, 4)], stored)
            queue(client, [{**record, "value": 5}, {**record, "value": "six"}], stored)
            queue(client, "not a record", stored)
            for _ in range(2):
                queue(client, {**record, "value": 7}, stored, id="mine#0")
    values = conn.execute("SELECT value FROM telemetry ORDER BY value").fetchall()
    assert [1, 2, 3, 4, 5, 7] == [value for (value,) in values]
    reasons = conn.execute("SELECT reason FROM dead_letter ORDER BY first_row").fetchall()
    assert ["value", "text/plain"] == [
        found.group() for (reason,) in reasons if (found := re.search("text/plain|value", reason))
    ]
    assert (6, 2) == conn.execute("SELECT sum(stored), sum(rejected) FROM ledger").fetchone()


def test_broker_that_stops_tells_whoever_waits() -> None:
    """SIGTERM while curls wait for a message."""
    stop = threading.Event()
    with running_broker() as spare:
        address = spare.producers.rpartition(":")[2]
    settings = BrokerSettings(
        producer_bind="tcp://127.0.0.1:*", consumer_bind="tcp://127.0.0.1:*",
        ops_address="127.0.0.1:0", http=f"127.0.0.1:{address}",
    )  # fmt: skip
    broker = threading.Thread(target=run, args=(settings, stop))
    broker.start()
    url = f"http://127.0.0.1:{address}"
    try:
        with httpx.Client(base_url=url, timeout=DEADLINE_S, trust_env=False) as client:

            def answers() -> bool:
                try:
                    return client.get("/readyz").status_code == 200
                except httpx.TransportError:
                    return False

            until(answers, "it serves")
            with ThreadPoolExecutor(1) as pool:
                later = pool.submit(client.post, "/consume")
                text = "telemq_broker_http_waiting_requests 1.0"
                until(lambda: text in client.get("/metrics").text, "it waits")
                stop.set()
                assert "the broker is stopping" in detail(later.result(DEADLINE_S), 503)
    finally:
        stop.set()
        broker.join(DEADLINE_S)
    assert not broker.is_alive()


def test_address_in_use_is_told_and_frees_everything() -> None:
    """Two brokers on one machine."""
    with http_broker() as (_, client):
        settings = BrokerSettings(
            producer_bind="tcp://127.0.0.1:*", consumer_bind="tcp://127.0.0.1:*",
            ops_address="127.0.0.1:0", http=f"127.0.0.1:{client.base_url.port}",
        )  # fmt: skip
        with pytest.raises(BusyError, match="--http 127"):
            run(settings, threading.Event())


def test_document_is_whole_and_its_pages_load_from_here() -> None:
    """Somebody reads how to use it, without a network."""
    document = json.loads(openapi_json())
    assert "3.1.0" == document["openapi"]
    assert {"/publish", "/consume", "/settle", "/healthz", "/readyz", "/metrics"} == set(
        document["paths"]
    )
    for reference in re.findall(rb'"\$ref": "#/(.*?)"', openapi_json()):
        target: Any = document
        for part in reference.decode().split("/"):
            target = target[part]
    for name, schema in document["components"]["schemas"].items():
        for field, about in schema["properties"].items():
            assert "description" in about or field == "payload", f"{name}.{field}"
    with http_broker() as (_, client):
        assert openapi_json() == client.get("/openapi.json").content
        for page in ("/swagger", "/redoc"):
            response = client.get(page)
            assert 200 == response.status_code
            assert not re.search(r"(src|href)=\"?(https?:)?//", response.text)


def test_metrics_count_answers_and_ways() -> None:
    """An operator wants to know who uses which way."""
    with http_broker(pull="tcp://127.0.0.1:*", push="tcp://127.0.0.1:*") as (_, client):
        queue(client)
        client.post("/settle", json={"lease": "x"})
        client.get("/nothing")
        text = client.get("/metrics").text
        for line in (
            'telemq_broker_http_requests_total{path="/publish",status="202"} 1.0',
            'telemq_broker_http_requests_total{path="/settle",status="410"} 1.0',
            'telemq_broker_http_requests_total{path="other",status="404"} 1.0',
            "telemq_broker_pulled_messages_total 0.0",
            "telemq_broker_pull_refused_messages_total 0.0",
            "telemq_broker_pushed_messages_total 0.0",
        ):
            assert line in text


def test_ways_are_off_unless_asked_for() -> None:
    """A broker opens no door that nobody wanted."""
    server = BrokerServer(
        BrokerSettings(producer_bind="tcp://127.0.0.1:*", consumer_bind="tcp://127.0.0.1:*")
    )
    try:
        ways = server.ways
        assert (None, None, None) == (ways.pull, ways.push, ways.http)
        assert 0 == server.core.stats().producers
    finally:
        server.close()
