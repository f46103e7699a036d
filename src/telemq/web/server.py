"""Serves an application over HTTP until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial

import uvicorn
from litestar.types import ASGIApp

from telemq import log
from telemq.errors import BusyError
from telemq.web.connection import BoundedConnection, ConnectionLimits

__all__ = ["listen", "serve"]

# Connections that wait to be accepted.
_BACKLOG = 512
# For cancelled answers to end their queries; psycopg itself gives up after five seconds.
_CANCELLED_S = 6.0


def listen(host: str, port: int, flag: str = "--address") -> socket.socket:
    """Give a listening socket; port 0 picks a free one.

    Raises:
        BusyError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise BusyError(f"{flag} {host}:{port}: {error.strerror or error}") from error
    # Connections inherit it. asyncio sets it only where a socket names its protocol, and without
    # it each answer waits 40 ms for the client's delayed acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def serve(
    app: ASGIApp,
    sock: socket.socket,
    stop: threading.Event,
    *,
    drain_s: float,
    on_stop: Callable[[], None] = lambda: None,
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - it is frozen
    refused: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve `app` on `sock`, which is closed at the end.

    On `stop` it takes no more requests, waits up to `drain_s` for the answers that are being sent,
    and returns.

    Args:
        app: answers.
        sock: listens.
        stop: set to end it.
        drain_s: longest wait for answers.
        on_stop: called in the loop when it stops, to end answers that have no end of their own.
        limits: of what clients may do.
        refused: told why, in a word, whenever one met a limit.
    """
    config = uvicorn.Config(
        app,
        # uvicorn only ever calls it, as it would the class.
        http=partial(BoundedConnection, limits=limits, refused=refused),  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(drain_s),
    )
    server = _Server(config, stop, on_stop)
    with (
        sock,
        _logged("uvicorn", "psycopg.pool"),
        asyncio.Runner(loop_factory=config.get_loop_factory()) as runner,
    ):
        runner.run(server.serve(sockets=[sock]))


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, stop: threading.Event, on_stop: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._stop = stop
        self._on_stop = on_stop

    async def on_tick(self, counter: int) -> bool:
        return self._stop.is_set() or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what uvicorn only cancels and leaves: an answer has a transaction to close."""
        self._on_stop()
        await super().shutdown(sockets)
        if tasks := set(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=_CANCELLED_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # in which the aborted transports close their sockets

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: whoever started the service has them."""
        yield


class _ToTelemq(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        keys = {"logger": record.name, "says": record.getMessage().strip()}
        if record.exc_info:
            log.get().error("server error", exc_info=record.exc_info, **keys)
        else:
            log.get().warning("server warning", **keys)


@contextlib.contextmanager
def _logged(*names: str) -> Iterator[None]:
    """Lead the warnings of these loggers into ours."""
    handler = _ToTelemq(logging.WARNING)
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
