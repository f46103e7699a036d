"""The broker's HTTP application, its document, and the thread that serves it."""

from __future__ import annotations

import threading
from collections import Counter
from functools import cache
from types import TracebackType
from typing import Any, Self

import orjson
from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import License, Tag
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from telemq import __version__
from telemq.broker.http import bodies, routes
from telemq.broker.http.desk import Desk
from telemq.broker.http.door import Door
from telemq.broker.metrics import BrokerMetrics
from telemq.endpoint import LOOPBACK
from telemq.errors import SettingError
from telemq.health import host_and_port
from telemq.settings import BrokerSettings
from telemq.web import pages
from telemq.web.problems import HANDLERS
from telemq.web.server import listen, serve

__all__ = ["HttpServer", "create_app", "openapi_json"]

#: For answers that are being sent when the broker ends; whoever waits was refused before that.
_DRAIN_S = 1.0
_KNOWN = frozenset({"/publish", "/consume", "/settle"})


class HttpServer:
    """Serves HTTP in a thread of its own until closed; a context manager.

    Args:
        settings: of the broker.
        door: to the broker's thread.
        metrics: of the broker.

    Raises:
        SettingError: the address is malformed, or not loopback without a token or ``--insecure``.
        BusyError: somebody else listens there.

    Attributes:
        url: where it is.
        requests: answers so far, by path and status.
    """

    def __init__(self, settings: BrokerSettings, door: Door, metrics: BrokerMetrics) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        host, port = _address(settings)
        self._socket = listen(host, port, "--http")
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._stop = threading.Event()
        app = create_app(Desk(settings, door, metrics))
        app.asgi_handler = _counted(app.asgi_handler, self.requests)
        self._thread = threading.Thread(
            target=serve,
            name="http",
            args=(app, self._socket, self._stop),
            kwargs={"drain_s": _DRAIN_S},
            daemon=True,
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()


def create_app(desk: Desk) -> Litestar:
    """Give the application; it answers only while a broker serves the desk's door."""
    return Litestar(
        route_handlers=_routes(),
        dependencies={"desk": _given(desk), "document": _given(openapi_json())},
        state=State({"settings": desk.settings}),
        exception_handlers=HANDLERS,
        request_max_body_size=desk.settings.http_body_bytes_max,
        openapi_config=None,  # openapi_json makes it; Litestar's own pages load from a CDN
        logging_config=None,
    )


@cache
def openapi_json() -> bytes:
    """Give the OpenAPI 3.1 document, the same bytes each time, as ``/openapi.json`` serves it."""
    config = OpenAPIConfig(
        title="telemq broker",
        version=__version__,
        description="A broker's queue over HTTP. Every error is a problem document (RFC 9457).",
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        tags=[
            Tag("messages", "In and out of the queue."),
            Tag("operation", "For those who run the broker."),
        ],
        path="/schema",
    )
    # What the handlers would be given does not matter to the document.
    nothing = {name: _given(None) for name in ("desk", "document")}
    app = Litestar(
        route_handlers=_routes(),
        dependencies=nothing,
        openapi_config=config,
        logging_config=None,  # the default would set up the root logger of this process
    )
    schema = app.openapi_schema.to_schema()
    components = schema["components"]
    components["schemas"].update(bodies.schemas())
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, name in (("/publish", "PublishBody"), ("/settle", "SettleBody")):
        # The bodies are read by hand, after the request was let in.
        schema["paths"][path]["post"]["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}},
        }
    for path in _KNOWN:
        schema["paths"][path]["post"]["security"] = [{}, {"token": []}]
    for operations in schema["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["schema"].get("default") == "":  # empty is absent
                    del parameter["schema"]["default"]
    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(schema, option=options)


def _address(settings: BrokerSettings) -> tuple[str, int]:
    host, port = host_and_port("--http", settings.http, insecure=True)
    if host not in LOOPBACK and not settings.http_token and not settings.insecure:
        raise SettingError(
            "--http",
            settings.http,
            "a loopback address, unless TELEMQ_BROKER_HTTP_TOKEN is set or --insecure is given",
        )
    return host, port


def _routes() -> list[HTTPRouteHandler]:
    return [*routes.ROUTES, *pages.ROUTES]


def _given(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)


def _counted(app: ASGIApp, requests: Counter[tuple[str, int]]) -> ASGIApp:
    """Count every answer by path and status; of other paths only that there were some."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in _KNOWN else "other"
                requests[path, message["status"]] += 1
            await send(message)

        await app(scope, receive, noted)

    return counted
