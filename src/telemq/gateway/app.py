"""The gateway as an application, as a document and as a service."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any

import orjson
import psycopg
from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import License, Tag

from telemq import __version__, log
from telemq.dashboard import pages as dashboard
from telemq.errors import StoreError
from telemq.gateway import fleet, gpus, integrity, latest, ops, scrape, status, telemetry
from telemq.gateway.access import Gate, tokens_needed
from telemq.gateway.document import guarded
from telemq.gateway.follower import Follower
from telemq.gateway.integrity import Verifier
from telemq.gateway.memo import Memo
from telemq.gateway.metrics import GatewayMetrics, metered
from telemq.gateway.status import Watch
from telemq.health import OpsServer, host_and_port
from telemq.settings import ApiSettings
from telemq.store.migrate import migrate
from telemq.store.reader import Reader
from telemq.store.tokens import find_token
from telemq.web import pages
from telemq.web.connection import ConnectionLimits
from telemq.web.problems import HANDLERS
from telemq.web.server import listen, serve

__all__ = ["create_app", "openapi_json", "run", "serve_app"]

#: The reader's own limit is a second; the rest is for a loop that is busy.
_READY_S = 3.0


def create_app(settings: ApiSettings) -> Litestar:
    """Give the gateway as an ASGI application; its start needs no database.

    Args:
        settings: with `dsn` resolved.

    Raises:
        SettingError: the address needs tokens, and they are off; or a broker's is malformed.
    """
    reader = Reader(
        settings.dsn,
        connections=settings.pool_connections,
        wait_s=settings.pool_wait_s,
        statement_s_max=settings.statement_s_max,
    )
    follower = Follower(settings)
    metrics = GatewayMetrics(reader, follower)
    verifier = Verifier(
        settings.dsn, wait_s=settings.pool_wait_s, statement_s_max=settings.statement_s_max
    )
    gate = Gate(settings, partial(find_token, reader.side), metrics)

    @asynccontextmanager
    async def connected(app: Litestar) -> AsyncIterator[None]:
        async with reader, asyncio.TaskGroup() as tasks:
            app.state.loop = asyncio.get_running_loop()
            following = tasks.create_task(follower.run(), name="follower")
            yield
            following.cancel()
            await verifier.close()

    app = Litestar(
        route_handlers=_routes(),
        lifespan=[connected],
        dependencies={
            "reader": _given(reader),
            "metrics": _given(metrics),
            "settings": _given(settings),
            "follower": _given(follower),
            "verifier": _given(verifier),
            "watch": _given(Watch(settings)),
            "desk": _given(fleet.FleetDesk(reader, metrics, settings, Memo(settings.fleet_keep_s))),
            "document": _given(openapi_json()),
        },
        state=State({"settings": settings, "metrics": metrics, "reader": reader, "loop": None}),
        exception_handlers=HANDLERS,
        guards=[gate.check],
        openapi_config=None,  # openapi_json makes it; Litestar's own pages load from a CDN
        logging_config=None,
    )
    app.asgi_handler = metered(app.asgi_handler, metrics)
    app.state.on_stop = follower.fanout.close
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
            Tag("now", "How it stands now."),
            Tag("fleet", "What all GPUs together are at."),
            Tag("operation", "For those who run the gateway."),
        ],
        path="/schema",
    )
    # What the handlers would be given does not matter to the document.
    names = ("reader", "metrics", "settings", "document", "follower", "verifier", "watch", "desk")
    nothing = {name: _given(None) for name in names}
    app = Litestar(
        route_handlers=_routes(),
        dependencies=nothing,
        openapi_config=config,
        logging_config=None,  # the default would set up the root logger of this process
    )
    schema = guarded(app.openapi_schema.to_schema(), app.routes)
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
        SettingError: the address is malformed, or needs tokens, and they are off.
        BusyError: an address cannot be listened on.
    """
    host, port = host_and_port("--address", settings.address, insecure=True)
    app = create_app(settings)
    with (
        listen(host, port) as sock,
        OpsServer(
            settings.ops_address,
            ready=partial(_ready, app),
            registry=app.state.metrics.registry,
            insecure=settings.insecure,
        ) as ops_server,
    ):
        threading.Thread(target=_prepare, args=(settings.dsn,), name="schema", daemon=True).start()
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{sock.getsockname()[1]}"
        log.get().info(
            "gateway listens",
            url=url,
            tokens="needed" if tokens_needed(settings) else "none",
            ops=ops_server.address,
            swagger=f"{url}/swagger",
            redoc=f"{url}/redoc",
        )
        serve_app(app, sock, stop)
    log.get().info("gateway stopped")
    return 0


def serve_app(app: Litestar, sock: socket.socket, stop: threading.Event) -> None:
    """Serve what `create_app` made on `sock`, within its limits, until `stop` is set."""
    settings: ApiSettings = app.state.settings
    limits = ConnectionLimits(
        connections=settings.connections_max,
        request_s=settings.request_s_max,
        head_bytes=settings.head_bytes_max,
        body_bytes=settings.body_bytes_max,
    )
    refused = app.state.metrics.refused
    serve(
        app,
        sock,
        stop,
        drain_s=settings.drain_s,
        on_stop=app.state.on_stop,
        limits=limits,
        refused=refused,
    )


def _ready(app: Litestar) -> str | None:
    """Say why the gateway cannot answer questions now, or None; for another thread."""
    if app.state.loop is None:
        return "the gateway is starting"
    reader: Reader = app.state.reader
    asked = asyncio.run_coroutine_threadsafe(reader.ready(), app.state.loop)
    try:
        return asked.result(_READY_S)
    except TimeoutError:
        asked.cancel()
        return f"the gateway did not answer within {_READY_S:g} s"


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
    now = [*latest.ROUTES, *scrape.ROUTES, *integrity.ROUTES, *status.ROUTES]
    then = [*gpus.ROUTES, *telemetry.ROUTES, *fleet.ROUTES]
    return [*then, *now, *ops.ROUTES, *pages.ROUTES, *dashboard.ROUTES]


def _given(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)
