"""Faults 31, 32, 33 and 35: clients that ask for what there is not, too much, or half of it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar.routes import HTTPRoute
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis import checks as schemathesis_checks
from schemathesis.core.result import Ok

from telemq.gateway.app import create_app
from telemq.settings import ApiSettings
from tests.support.gateway import add_samples, add_series, at, serving
from tests.support.hostile import document, hostile_requests
from tests.support.running import eventually
from tests.support.services import Service, running_service
from tests.support.tokens import bearer_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

MB = 10**6
#: The GPU of the document's examples, so that they find it.
_GPU = "GPU-07e435ef-3091-c9d0-8b2b-e7ffe076dbb8"
_SCRIPT = "<script>alert(document.domain)</script>"
#: Requests of each operation in each of schemathesis' two moods.
_EXAMPLES = 25


@pytest.fixture
def stored(conn: psycopg.Connection) -> None:
    """Samples with labels that nobody would choose."""
    odd = ("", _SCRIPT, "=cmd|'/c calc'!A0", 'a"b\\c,d\n\té\U0001f600', "x" * 3000)
    for n, label in enumerate(odd):
        series = add_series(conn, _GPU, metric_name=f"METRIC_{n}", pod=label, model_name=label)
        values = (0.0, -1.5, 1e300, 97.0)
        add_samples(conn, series, [(at(60 * i + n), value) for i, value in enumerate(values)])
    add_samples(conn, add_series(conn, "GPU-2", gpu_id="7", hostname="host-2"), [(at(1), 1.0)])


@contextlib.contextmanager
def gateway(dsn: str, *words: str) -> Iterator[tuple[Service, str]]:
    """Run a gateway as a process of its own; yields it and its URL."""
    free = ("--address=127.0.0.1:0", "--ops-address=127.0.0.1:0")
    with running_service("api", *free, *words, TELEMQ_DSN=dsn) as service:
        yield service, service.event("gateway listens")["url"]


@pytest.fixture
def api(dsn: str, stored: None) -> Iterator[httpx.Client]:
    """A gateway that answers as often as it is asked.

    It is a process of its own: Hypothesis takes what draws from `random` for a strategy, and the
    connection pool does so whenever it opens a connection.
    """
    limits = ("--rate-per-s=0", "--statement-s-max=20", "--pool-wait-s=30")
    with (
        gateway(dsn, *limits) as (_, url),
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        yield client


def asked(api: httpx.Client, method: str, url: str, **given: Any) -> httpx.Response:
    """Ask, and read the answer unless it never ends."""
    request = api.build_request(method, url, **given)
    response = api.send(request, stream=True)
    with contextlib.closing(response):
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            response._content = b""
        else:
            response.read()
    return response


# ---- 31 ------------------------------------------------------------------------------------


_SCHEMA = schemathesis.openapi.from_dict(document())
_OPERATIONS = {
    found.ok().label: found.ok()
    for found in _SCHEMA.get_all_operations()
    if isinstance(found, Ok)  # a schema that cannot be read is told by the count below
}
schemathesis_checks.load_all_checks()
_CHECKS: list[Any] = schemathesis_checks.CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)


@pytest.mark.parametrize("operation", _OPERATIONS.values(), ids=list(_OPERATIONS))
def test_fault_31_no_request_breaks_the_gateway_or_gets_what_is_not_in_the_document(
    api: httpx.Client, operation: APIOperation[Any, Any, Any, Any]
) -> None:
    """Schemathesis, with requests that fit the document and with those that do not."""
    moods = [GenerationMode.POSITIVE]
    if list(operation.iter_parameters()):  # else there is nothing that could be wrong
        moods.append(GenerationMode.NEGATIVE)
    cases = st.one_of(*(operation.as_strategy(generation_mode=mood) for mood in moods))
    seen: dict[int, int] = {}

    @settings(
        max_examples=_EXAMPLES * len(moods),
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, known=st.booleans())
    def ask(case: Case[Any], known: bool) -> None:
        for name in case.path_parameters or {}:
            if known:
                case.path_parameters[name] = _GPU
        given = case.as_transport_kwargs(base_url=str(api.base_url))
        response = asked(
            api, given["method"], given["url"], params=given.get("params"),
            headers=_sendable(given.get("headers")),
        )  # fmt: skip
        seen[response.status_code] = seen.get(response.status_code, 0) + 1
        checks = _CHECKS
        if "json" not in response.headers["content-type"]:
            checks = [c for c in checks if c.__name__ != "response_schema_conformance"]
        case.validate_response(response, checks=checks)

    ask()
    print(f"{operation.label}: {seen}")
    assert seen
    assert len(_OPERATIONS) == len(document()["paths"])


def _sendable(headers: Any) -> dict[str, str]:
    return {name: value for name, value in (headers or {}).items() if value.isprintable()}


def test_fault_31_hostile_values_of_every_parameter_are_4xx_or_an_answer(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """SQL injection, times and numbers that there are not, in each parameter that there is."""
    paths = document()["paths"]
    count = 0
    for template, path, query in hostile_requests():
        response = asked(api, "GET", path, params=query)
        count += 1
        described = paths[template]["get"]["responses"]
        assert str(response.status_code) in described, (path, query, response.text[:300])
        assert response.status_code < 500, (path, query)
        if response.status_code >= 400:
            assert "application/problem+json" == response.headers["content-type"]
    print(f"{count} hostile values")
    assert conn.execute("SELECT count(*) > 20 FROM sample").fetchone() == (True,)


def test_fault_31_a_query_that_takes_too_long_is_stopped_in_postgres(
    dsn: str, conn: psycopg.Connection, stored: None
) -> None:
    """A range over years: the client learns which limit it met, and Postgres has its core back."""
    with (
        serving(ApiSettings(dsn=dsn, statement_s_max=0.3)) as api,
        psycopg.connect(dsn) as locker,
    ):
        locker.execute("LOCK TABLE sample IN ACCESS EXCLUSIVE MODE")
        response = api.get(f"/api/v1/gpus/{_GPU}/telemetry")
        assert 400 == response.status_code
        assert "--statement-s-max" in response.json()["detail"]
        row = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'telemq gateway' AND state = 'active'"
        ).fetchone()
        assert row == (0,)


# ---- 32, 33 --------------------------------------------------------------------------------


def connect(url: str) -> socket.socket:
    """Open a bare connection."""
    place = httpx.URL(url)
    return socket.create_connection((place.host, place.port or 0), timeout=30)


def test_fault_32_three_hundred_half_sent_requests_keep_nobody_out(
    dsn: str, conn: psycopg.Connection
) -> None:
    """A slow loris: the others are served meanwhile, and the halves are cut off in time."""
    halves = (
        b"", b"G", b"GET /api/v1/gpus HTTP/1.1\r\nHost: localhost\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 900,
        b"POST /api/v1/gpus HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab",
    )  # fmt: skip
    with gateway(dsn, "--request-s-max=3") as (service, url), contextlib.ExitStack() as stack:
        with httpx.Client(base_url=url, trust_env=False, timeout=20) as honest:
            assert [] == honest.get("/api/v1/gpus").json()
            idle = service.descriptors()
            raws = []
            for n in range(300):
                raws.append(stack.enter_context(connect(url)))
                raws[-1].sendall(halves[n % len(halves)])
            eventually(lambda: service.descriptors() >= idle + 290, "they are all open")
            began = time.monotonic()
            for _ in range(20):
                assert 200 == honest.get("/api/v1/gpus").status_code
            took_s = time.monotonic() - began
        with httpx.Client(base_url=url, trust_env=False, timeout=20) as another:
            assert 200 == another.get("/api/v1/gpus").status_code
        for raw in raws:
            with contextlib.suppress(ConnectionError):
                while raw.recv(65_536):
                    pass
        eventually(lambda: service.descriptors() <= idle + 10, "they were dropped", 30)
        print(f"300 half-sent requests; 20 honest ones meanwhile took {took_s:.2f} s")


def send_all(raw: socket.socket, head: bytes, part: bytes, count: int) -> tuple[bytes, int]:
    """Send a head and then a part so many times; gives the answer and how much was taken."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        raw.sendall(head)
        for _ in range(count):
            raw.sendall(part)
            sent += len(part)
    answer = b""
    with contextlib.suppress(ConnectionError):
        while more := raw.recv(65_536):
            answer += more
    return answer, sent


@pytest.mark.parametrize(
    ("head", "part", "count", "status"),
    [
        (
            b"GET /api/v1/gpus HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n",
            bytes(MB), 100, 413,
        ),
        (
            b"POST /api/v1/gpus HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"f4240\r\n" + bytes(MB) + b"\r\n", 100, 413,
        ),
        (b"GET /api/v1/gpus HTTP/1.1\r\nX: ", b"x" * 100_000, 20, 431),
        (b"GET /api/v1/gpus HTTP/1.1\r\n", b"X-Y: zzzz\r\n" * 10_000, 20, 431),
    ],
    ids=["100 MB", "100 MB in chunks", "2 MB in a header", "2 MB of headers"],
)  # fmt: skip
def test_fault_33_what_is_too_large_is_refused_and_not_kept(
    dsn: str, conn: psycopg.Connection, head: bytes, part: bytes, count: int, status: int
) -> None:
    """A body of 100 MB, 2 MB of headers: an answer that says so, and no memory spent."""
    with gateway(dsn) as (service, url):
        assert [] == httpx.get(f"{url}/api/v1/gpus", trust_env=False).json()
        before = service.rss_bytes()
        for _ in range(3):
            with connect(url) as raw:
                answer, sent = send_all(raw, head, part, count)
            found = re.match(rb"HTTP/1\.1 (\d+) ", answer)
            # In chunks it may have been answered before it was too large: POST is 405 here.
            allowed = {status, 405} if b"chunked" in head else {status}
            assert found is None or int(found[1]) in allowed, answer[:200]
            assert found or sent < count * len(part), "neither answered nor cut off"
        grew = service.rss_bytes() - before
        print(f"{count * len(part) / MB:.0f} MB three times: {answer[:40]!r}, {grew / MB:.1f} MB")
        assert grew < 30 * MB
        assert [] == httpx.get(f"{url}/api/v1/gpus", trust_env=False).json()


# ---- 35 ------------------------------------------------------------------------------------


def test_fault_35_a_script_in_a_label_stays_text(api: httpx.Client) -> None:
    """Somebody names a pod or a model so, or sends a link: no browser takes it for a page."""
    links = (f"/api/v1/gpus/{_GPU}/telemetry", f"/api/v1/gpus/{_SCRIPT}/telemetry",
             f"/api/v1/gpus?by={_SCRIPT}", f"/{_SCRIPT}")  # fmt: skip
    for link in links:
        response = api.get(link, headers={"Accept": "text/html"})
        media_type = response.headers["content-type"].partition(";")[0]
        assert media_type in {"application/json", "application/problem+json"}, link
        assert "nosniff" == response.headers["x-content-type-options"]
        assert "default-src 'none'" in response.headers["content-security-policy"]
    telemetry = api.get(links[0]).json()
    assert _SCRIPT in {record["model_name"] for record in telemetry}


def test_fault_35_no_page_runs_a_script_that_is_not_this_servers() -> None:
    """Even if a label got into a page: its policy lets no script run that stands in it."""
    settings = ApiSettings(dsn="host=/nonexistent")
    pages = 0
    with serving(settings) as api:
        for route in create_app(settings).routes:
            assert isinstance(route, HTTPRoute)
            if "{" in route.path_format or route.path_format in document()["paths"]:
                continue
            response = api.get(route.path_format)
            if response.headers["content-type"].startswith("text/html"):
                pages += 1
                policy = _directives(response.headers["content-security-policy"])
                assert ["'none'"] == policy["default-src"]
                assert ["'self'"] == policy["script-src"]
                assert ["'self'"] == policy["connect-src"]
                for name in ("base-uri", "frame-ancestors"):
                    assert ["'none'"] == policy[name]
                assert not re.search(r"https?:", json.dumps(policy))
    assert pages >= 2


def _directives(policy: str) -> dict[str, list[str]]:
    parts = (directive.split() for directive in policy.split(";"))
    return {name: values for name, *values in parts}


# ---- tokens, with all of it ----------------------------------------------------------------


def test_fault_31_with_tokens_every_operation_refuses_strangers_as_the_document_says(
    dsn: str, conn: psycopg.Connection, stored: None
) -> None:
    """A new operation is guarded without anybody thinking of it."""
    friend = bearer_of(conn)
    with serving(ApiSettings(dsn=dsn, tokens="on", rate_per_s=0)) as api:
        for template, item in document()["paths"].items():
            path = re.sub(r"\{.*?\}", _GPU, template)
            guarded = "security" in item["get"]
            if guarded:
                assert {"401", "403", "429"} <= item["get"]["responses"].keys()
                assert 401 == asked(api, "GET", path).status_code
            answer = asked(api, "GET", path, headers=friend)
            assert answer.status_code not in {401, 403}, path
            assert guarded == (template not in {"/healthz", "/readyz"})
