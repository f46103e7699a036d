"""The gateway as an application, as a document and as a service."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import orjson
import psycopg
from litestar import Litestar
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import License, Tag

from telemq import __version__, log
from telemq.errors import StoreError
from telemq.gateway import fleet, gpus, ops, telemetry
from telemq.gateway.memo import Memo
from telemq.gateway.metrics import GatewayMetrics, metered
from telemq.health import host_and_port
from telemq.settings import ApiSettings
from telemq.store.migrate import migrate
from telemq.store.reader import Reader
from telemq.web import pages
from telemq.web.problems import HANDLERS
from telemq.web.server import listen, serve

__all__ = ["create_app", "openapi_json", "run"]


def create_app(settings: ApiSettings) -> Litestar:
    """Give the gateway as an ASGI application; its start needs no database.

    Args:
        settings: with `dsn` resolved.
    """
    reader = Reader(
        settings.dsn,
        connections=settings.pool_connections,
        wait_s=settings.pool_wait_s,
        statement_s_max=settings.statement_s_max,
    )
    metrics = GatewayMetrics(reader)

    @asynccontextmanager
    async def connected(_app: Litestar) -> AsyncIterator[None]:
        async with reader:
            yield

    app = Litestar(
        route_handlers=_routes(),
        lifespan=[connected],
        dependencies={
            "reader": _given(reader),
            "metrics": _given(metrics),
            "settings": _given(settings),
            "desk": _given(fleet.FleetDesk(reader, metrics, settings, Memo(settings.fleet_keep_s))),
            "document": _given(openapi_json()),
        },
        exception_handlers=HANDLERS,
        openapi_config=None,  # openapi_json makes it; Litestar's own pages load from a CDN
        logging_config=None,
    )
    app.asgi_handler = metered(app.asgi_handler, metrics)
    return app


@cache
def openapi_json() -> bytes:
    """Give the OpenAPI 3.1 document, the same bytes each time, as ``/openapi.json`` serves it."""
    config = OpenAPIConfig(
        title="telemq",
        version=__version__,
        description="GPU telemetry, stored exactly once. "
        "Every error is a problem document (RFC 9457).",
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        tags=[
            Tag("telemetry", "What the GPUs measured."),
            Tag("fleet", "What all GPUs together are at."),
            Tag("operation", "For those who run the gateway."),
        ],
        path="/schema",
    )
    # What the handlers would be given does not matter to the document.
    nothing = {name: _given(None) for name in ("reader", "metrics", "settings", "desk", "document")}
    app = Litestar(
        route_handlers=_routes(),
        dependencies=nothing,
        openapi_config=config,
        logging_config=None,  # the default would set up the root logger of this process
    )
    schema = app.openapi_schema.to_schema()
    for path in schema["paths"].values():
        for parameter in path["get"].get("parameters", []):
            if parameter["schema"].get("default") == "":  # empty is absent: no value to be told
                del parameter["schema"]["default"]
    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(schema, option=options)


def run(settings: ApiSettings, stop: threading.Event) -> int:
    """Serve the gateway until `stop` is set; gives 0.

    Args:
        settings: with `dsn` resolved.
        stop: set to end it; answers that are being sent are finished first, within `drain_s`.

    Raises:
        SettingError: the address is malformed, or not loopback without `insecure`.
        BusyError: the address cannot be listened on.
    """
    host, port = host_and_port("--address", settings.address, insecure=settings.insecure)
    app = create_app(settings)
    sock = listen(host, port)
    threading.Thread(target=_prepare, args=(settings.dsn,), name="schema", daemon=True).start()
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{sock.getsockname()[1]}"
    log.get().info("gateway listens", url=url, swagger=f"{url}/swagger", redoc=f"{url}/redoc")
    serve(app, sock, stop, drain_s=settings.drain_s)
    log.get().info("gateway stopped")
    return 0


def _prepare(dsn: str) -> None:
    """Make the schema, if this is the first part of telemq that the database sees.

    Once, beside serving: when it cannot be done, ``/readyz`` says why, and a collector will do it.
    """
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            migrate(connection)
    except (psycopg.Error, StoreError) as error:
        log.get().warning("schema not prepared", reason=str(error).strip())


def _routes() -> list[HTTPRouteHandler]:
    return [*gpus.ROUTES, *telemetry.ROUTES, *fleet.ROUTES, *ops.ROUTES, *pages.ROUTES]


def _given(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)
