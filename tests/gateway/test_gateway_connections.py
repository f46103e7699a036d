"""What one connection may do, said in bytes: heads, bodies, time, and answers nobody reads."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from telemq.settings import ApiSettings
from tests.support.gateway import metrics_of, serving
from tests.support.running import eventually

_GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
#: A database that is not there: these tests ask nothing of it.
_DSN = "host=/nonexistent"


@pytest.fixture
def api() -> Iterator[httpx.Client]:
    """A gateway with small limits."""
    settings = ApiSettings(
        dsn=_DSN, head_bytes_max=4096, body_bytes_max=100, request_s_max=0.3, connections_max=20
    )
    with serving(settings) as client:
        yield client


@contextlib.contextmanager
def connected(api: httpx.Client) -> Iterator[socket.socket]:
    """Open a bare connection."""
    url = httpx.URL(api.base_url)
    with socket.create_connection((url.host, url.port or 0), timeout=20) as raw:
        yield raw


def answers(raw: socket.socket) -> list[tuple[int, bytes]]:
    """Read to the end; gives status and body of each answer."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := raw.recv(65_536):
            data += part
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length, head
        found.append((int(head.split()[1]), data[: int(length[1])]))
        data = data[int(length[1]) :]
    return found


def refused(raw: socket.socket, status: int, names: str) -> dict[str, Any]:
    """Read to the end: one problem document that names the limit."""
    ((found, body),) = answers(raw)
    assert status == found
    problem: dict[str, Any] = json.loads(body)
    assert status == problem["status"]
    assert names in problem["detail"]
    return problem


@pytest.mark.parametrize(
    "head",
    [
        _GET + b"X: " + b"x" * 5000 + b"\r\n\r\n",
        _GET + b"X: " + b"x" * 5000,
        _GET + b"X-Some-Header: some value\r\n" * 150 + b"\r\n",
        b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 5000,
        _GET + b"a:b\r\n" * 200 + b"\r\n",
    ],
    ids=["one line", "a line without end", "many lines", "path", "path without end", "short lines"],
)
def test_a_head_that_is_too_large_is_431(api: httpx.Client, head: bytes) -> None:
    """A cookie that grew, or somebody who looks for the end of our memory."""
    with connected(api) as raw:
        raw.sendall(head)
        refused(raw, 431, "--head-bytes-max 4096")
    assert 'refused_total{reason="head"} 1.0' in metrics_of(api)


@pytest.mark.parametrize(
    "request_",
    [
        _GET + b"Content-Length: 101\r\n\r\n",
        _GET + b"Content-Length: 101\r\nExpect: 100-continue\r\n\r\n",
        _GET + b"Content-Length: 1000000000000\r\n\r\n" + b"x" * 200_000,
        b"POST /nothing HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 0x65,
    ],
    ids=["announced", "expecting", "begun", "in chunks"],
)
def test_a_body_that_is_too_large_is_413(api: httpx.Client, request_: bytes) -> None:
    """A client that posts where there is nothing to post; nothing of it is kept."""
    with connected(api) as raw:
        raw.sendall(request_)
        found = answers(raw)
    # One in chunks may have been answered for what it asked by then.
    assert found[0][0] in ({413, 404} if b"chunked" in request_ else {413})
    assert 'refused_total{reason="body"} 1.0' in metrics_of(api)


def test_a_small_body_is_not_looked_at(api: httpx.Client) -> None:
    """Some clients send `{}` with a GET."""
    response = api.request("GET", "/healthz", content=b"{}")
    assert (200, "ok\n") == (response.status_code, response.text)
    assert 200 == api.get("/healthz").status_code


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (b"GET", 408),
        (_GET, 408),
        (_GET + b"Content-Length: 5\r\n\r\nab", 200),
        (_GET + b"\r\n" + _GET, 200),
    ],
    ids=["nothing", "a word", "a head without end", "a body without end", "a second one"],
)
def test_a_request_that_does_not_end_is_cut_off(
    api: httpx.Client, sent: bytes, status: int | None
) -> None:
    """A phone in a lift, or a slow loris. What was whole is answered."""
    with connected(api) as raw:
        raw.sendall(sent)
        found = [status for status, _ in answers(raw)]
    assert found[:1] == ([] if status is None else [status])


def test_a_byte_now_and_then_wins_no_time(api: httpx.Client) -> None:
    """The limit is for the whole request, not from byte to byte."""
    with connected(api) as raw:
        ended = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not ended.wait(0.05):
                    raw.sendall(b"x")

        raw.sendall(_GET + b"X: ")
        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert raw.recv(100).startswith(b"HTTP/1.1 408 ")
        finally:
            ended.set()
            dripping.join()
    assert 'refused_total{reason="slow"} 1.0' in metrics_of(api)


def test_the_connection_after_the_last_is_told_so(api: httpx.Client) -> None:
    """A crowd, or a client that opens and forgets; who leaves makes room."""
    with contextlib.ExitStack() as crowd:
        raws = [crowd.enter_context(connected(api)) for _ in range(19)]
        for raw in raws:
            raw.sendall(_GET + b"\r\n")
            assert raw.recv(1000).startswith(b"HTTP/1.1 200")
        with connected(api) as one, connected(api) as more:
            one.sendall(_GET + b"\r\n")
            assert one.recv(1000).startswith(b"HTTP/1.1 200")
            refused(more, 503, "connections")
    eventually(lambda: api.get("/healthz").status_code == 200, "there is room again")
    assert 'refused_total{reason="connections"}' in metrics_of(api)


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n",
             b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
             b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"],
    ids=["TLS", "version", "path", "CONNECT", "length", "smuggling"],
)  # fmt: skip
def test_what_is_no_request_is_a_problem_too(api: httpx.Client, sent: bytes) -> None:
    """https:// instead of http://, a scanner, or two servers that are to read one request apart."""
    with connected(api) as raw:
        raw.sendall(sent)
        refused(raw, 400, "HTTP")


def test_requests_on_one_connection_are_measured_apart(api: httpx.Client) -> None:
    """Fifty questions in one go and one after the other: each has its own head."""
    with connected(api) as raw:
        line = _GET + b"X: " + b"x" * 1000 + b"\r\n\r\n"
        raw.sendall(line * 19 + line.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert [200] * 20 == [status for status, _ in answers(raw)]
    for _ in range(50):
        assert 200 == api.get("/healthz", headers={"X": "x" * 1000}).status_code
