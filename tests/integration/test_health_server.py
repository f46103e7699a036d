"""The ops address over real sockets: answers, refusals, and clients that behave badly."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from telemq import health
from telemq.errors import BusyError, SettingError, TelemqError
from telemq.health import OpsServer


class Service:
    """What an ops server asks: a reason not to be ready, and metrics."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.registry = CollectorRegistry()
        Counter("telemq_test_records", "Records.", registry=self.registry).inc(3)

    def ready(self) -> str | None:
        """Give the reason, as a service does."""
        return self.reason


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def address(service: Service) -> Iterator[str]:
    with OpsServer("127.0.0.1:0", ready=service.ready, registry=service.registry) as server:
        yield server.address


def _get(address: str, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=5)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def _connect(address: str) -> socket.socket:
    host, port = health.host_and_port("--ops-address", address)
    return socket.create_connection((host, port), timeout=5)


def test_healthz_answers_while_not_ready(address: str, service: Service) -> None:
    """Postgres is down: the process must not be restarted for it."""
    service.reason = "no database"
    assert (200, "ok\n") == _get(address, "/healthz")


def test_readyz_tells_the_reason(address: str, service: Service) -> None:
    """A collector has lost its broker and found it again."""
    service.reason = "no broker at tcp://127.0.0.1:5602"
    assert (503, "no broker at tcp://127.0.0.1:5602\n") == _get(address, "/readyz")
    service.reason = None
    assert (200, "ready\n") == _get(address, "/readyz")


def test_metrics_are_prometheus_text(address: str) -> None:
    """Prometheus scrapes the service."""
    status, text = _get(address, "/metrics")
    assert 200 == status
    assert "telemq_test_records_total 3.0" in text


def test_unknown_path_is_404_that_names_the_known(address: str) -> None:
    """Somebody opens the ops address in a browser."""
    status, text = _get(address, "/")
    assert 404 == status
    assert "/readyz" in text


def test_document_is_json_and_its_failure_is_503_with_the_reason(service: Service) -> None:
    """A service has a page of its own, and now and then cannot make it."""
    answers = iter([b"[1]"])

    def document() -> bytes:
        for answer in answers:
            return answer
        raise TelemqError("nothing left to tell")

    with OpsServer(
        "127.0.0.1:0",
        ready=service.ready,
        registry=service.registry,
        documents={"/own.json": document},
    ) as server:
        assert (200, "[1]") == _get(server.address, "/own.json")
        assert (503, "nothing left to tell\n") == _get(server.address, "/own.json")
        assert "/own.json" in _get(server.address, "/")[1]


def test_busy_address_names_flag_and_address(address: str, service: Service) -> None:
    """Two brokers are started on one machine with the default ops address."""
    with pytest.raises(BusyError, match=f"--ops-address {address}"):
        OpsServer(address, ready=service.ready, registry=service.registry)


def test_address_is_free_again_after_close(service: Service) -> None:
    """A service is restarted at once, on the same port."""
    with OpsServer("127.0.0.1:0", ready=service.ready, registry=service.registry) as server:
        address = server.address
        assert 200 == _get(address, "/healthz")[0]
    with OpsServer(address, ready=service.ready, registry=service.registry):
        assert 200 == _get(address, "/healthz")[0]


@pytest.mark.parametrize("address", ["127.0.0.1", "9601", "127.0.0.1:", ":9601", "a:b", "h:70000"])
def test_malformed_address_is_refused(address: str, service: Service) -> None:
    """A typing error in a setting."""
    with pytest.raises(SettingError, match="host:port"):
        OpsServer(address, ready=service.ready, registry=service.registry)


def test_other_than_loopback_needs_insecure(service: Service) -> None:
    """A service is told to listen for the whole network."""
    with pytest.raises(SettingError, match="--insecure"):
        OpsServer("0.0.0.0:0", ready=service.ready, registry=service.registry)
    with OpsServer(
        "0.0.0.0:0", ready=service.ready, registry=service.registry, insecure=True
    ) as server:
        assert 200 == _get(server.address, "/healthz")[0]


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_loopback(service: Service) -> None:
    """A cluster that speaks IPv6 only."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with OpsServer("[::1]:0", ready=service.ready, registry=service.registry) as server:
        assert 200 == _get(server.address, "/healthz")[0]


def test_silent_client_holds_nobody_up_and_is_dropped(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port scanner connects and says nothing, or one byte now and then."""
    monkeypatch.setattr(health, "_REQUEST_S", 0.3)
    with (
        OpsServer("127.0.0.1:0", ready=service.ready, registry=service.registry) as server,
        _connect(server.address) as silent,
        _connect(server.address) as dribbling,
    ):
        assert 200 == _get(server.address, "/healthz")[0]
        assert b"" == silent.recv(1)
        assert _dribble(dribbling, until=time.monotonic() + 5)


def _dribble(client: socket.socket, until: float) -> bool:
    """Send a byte now and then; give whether the server ended it in time."""
    client.settimeout(0.1)
    while time.monotonic() < until:
        try:
            client.sendall(b"G")
            if client.recv(1) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_too_many_clients_are_dropped_and_room_comes_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody opens connections without end."""
    monkeypatch.setattr(health, "_CLIENTS_MAX", 4)
    with OpsServer("127.0.0.1:0", ready=service.ready, registry=service.registry) as server:
        held = [_connect(server.address) for _ in range(4)]
        with _connect(server.address) as fifth:
            assert b"" == fifth.recv(1)
        for client in held:
            client.close()
        until = time.monotonic() + 5
        status = 0
        while status != 200 and time.monotonic() < until:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status = _get(server.address, "/healthz")[0]
        assert 200 == status


def test_client_that_goes_away_is_no_fault(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A probe gives up and resets its connection in the middle."""
    with _connect(address) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(b"GET /metr")
    assert 200 == _get(address, "/healthz")[0]
    assert "" == capfd.readouterr().err
