"""The ops address of a service: ``/healthz``, ``/readyz`` and ``/metrics`` over HTTP.

``/healthz`` answers 200 as long as the process can answer at all: it is for "restart me".
``/readyz`` answers 503 with the reason while the service cannot do its work (no broker, no
database): it is for "send me nothing now". Neither asks the database: they tell what the service
found out last. A service may add read-only JSON documents of its own.

It is a WSGI server of the standard library in a thread, because it must answer while the service's
own loop is busy, and must cost a worker process nothing to start.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from socketserver import TCPServer, ThreadingMixIn
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from telemq.endpoint import LOOPBACK
from telemq.errors import BusyError, SettingError, TelemqError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["OpsServer", "host_and_port"]

#: A client that has not sent its request and taken its answer by then is dropped.
_REQUEST_S = 5.0
#: More clients at once than this are dropped: each costs a thread.
_CLIENTS_MAX = 32


def host_and_port(flag: str, address: str, *, insecure: bool = False) -> tuple[str, int]:
    """Split ``host:port``.

    Raises:
        SettingError: it is not of that form, or not loopback and not `insecure`.
    """
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise SettingError(flag, address, "host:port, such as 127.0.0.1:9601; port 0 picks one")
    if host not in LOOPBACK and not insecure:
        raise SettingError(flag, address, "a loopback address, unless --insecure is given")
    return host, int(port)


class OpsServer:
    """Serves a service's health and metrics until closed; a context manager.

    Args:
        address: ``host:port``; port 0 picks a free one, see `address` of the instance.
        ready: called from another thread; gives None when ready, else the reason why not.
        registry: the service's metrics.
        documents: by path, such as ``/status.json``; each is called from another thread and gives
            a JSON document. A `TelemqError` of it is answered with 503 and its text.

    Raises:
        SettingError: the address is malformed, or not loopback.
        BusyError: somebody else listens there.
    """

    def __init__(
        self,
        address: str,
        *,
        ready: Callable[[], str | None],
        registry: CollectorRegistry,
        documents: Mapping[str, Callable[[], bytes]] | None = None,
        insecure: bool = False,
    ) -> None:
        self._ready = ready
        self._documents = dict(documents or {})
        self._metrics = make_wsgi_app(registry)
        host, port = host_and_port("--ops-address", address, insecure=insecure)
        server = _ServerV6 if ":" in host else _Server
        try:
            self._server = make_server(host, port, self._answer, server, _Handler)
        except OSError as error:
            raise BusyError(f"--ops-address {address}: {error.strerror or error}") from error
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            name="ops",
            kwargs={"poll_interval": 0.1},
            daemon=True,
        )

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return cast(Iterable[bytes], self._metrics(environ, start))
        known = ", ".join(("/healthz", "/readyz", "/metrics", *self._documents))
        status, text = "404 Not Found", f"not here; there are {known}"
        if document := self._documents.get(path):
            try:
                body = document()
            except TelemqError as error:
                status, text = "503 Service Unavailable", str(error)
            else:
                start("200 OK", [("Content-Type", "application/json")])
                return [body]
        elif path == "/healthz":
            status, text = "200 OK", "ok"
        elif path == "/readyz":
            reason = self._ready()
            status, text = (
                ("200 OK", "ready") if reason is None else ("503 Service Unavailable", reason)
            )
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [text.encode() + b"\n"]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *args: Any, **keys: Any) -> None:
        # Open connections and when each one's time is up.
        self._clients: dict[socket.socket, float] = {}
        super().__init__(*args, **keys)

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks the name service for the host's name, which can take seconds.
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def verify_request(self, request: Any, _address: Any) -> bool:
        if len(self._clients) >= _CLIENTS_MAX:
            return False
        self._clients[request] = time.monotonic() + _REQUEST_S
        return True

    def service_actions(self) -> None:
        # A read timeout alone does not do: one byte now and then would hold a thread for ever.
        now = time.monotonic()
        for client, until in list(self._clients.items()):
            if until < now:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        self._clients.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away or was dropped is its own affair; anything else is a fault here.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_S

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: probes come every second."""
