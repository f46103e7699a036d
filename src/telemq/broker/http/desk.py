"""How a request is let in, read, asked and waited for: the HTTP thread's side of the door.

What is limited: the requests that publish and, apart from them, those that consume and those that
settle; a body and the time it takes; every wait. A client that goes away while it waits is
withdrawn, and a message that was on its way to it goes back to the queue.
"""

from __future__ import annotations

import asyncio
import hmac
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.exceptions import ClientException, InternalServerException
from litestar.handlers import BaseRouteHandler
from litestar.status_codes import HTTP_413_REQUEST_ENTITY_TOO_LARGE
from prometheus_client import CollectorRegistry

from telemq.broker.http.door import Answer, Consume, Consumed, Door, Publish, Settle, Withdraw
from telemq.broker.metrics import BrokerMetrics
from telemq.clock import monotonic_ns
from telemq.errors import RecordError
from telemq.settings import BrokerSettings
from telemq.web.access import is_own_host
from telemq.web.problems import ProblemError

__all__ = ["RETRY", "Desk", "check_client", "guard"]

#: With 503: room and messages come and go within seconds.
RETRY = {"Retry-After": "1"}
#: A body that is not there by then is not waited for.
_BODY_S = 10.0

T = TypeVar("T")
Kind = Literal["publish", "consume", "settle"]


class Desk:
    """What the routes need; owned by the HTTP thread's event loop.

    Args:
        settings: of the broker.
        door: to the broker's thread.
        metrics: of the broker.

    Attributes:
        settings: of the broker.
        metrics: of the broker.
    """

    def __init__(self, settings: BrokerSettings, door: Door, metrics: BrokerMetrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self._door = door
        self._in: Counter[Kind] = Counter()
        self._reading_bytes = 0

    @property
    def registry(self) -> CollectorRegistry:
        """The broker's metrics."""
        return self.metrics.registry

    @contextmanager
    def admit(self, kind: Kind) -> Iterator[None]:
        """Let a request in for as long as it takes.

        Raises:
            ProblemError: 503, as many are in as may be.
        """
        if self._in[kind] >= self.settings.http_requests_max:
            raise ProblemError(
                503,
                f"{self.settings.http_requests_max} requests {kind} already, which is the limit "
                "(--http-requests-max)",
                RETRY,
            )
        self._in[kind] += 1
        try:
            yield
        finally:
            self._in[kind] -= 1

    def until_ns(self, timeout_s: str) -> int:
        """Turn the parameter ``timeout_s`` into a moment.

        Raises:
            ProblemError: 400, it is not a number within the limit.
        """
        most = self.settings.http_wait_s_max
        try:
            wait_s = float(timeout_s) if timeout_s else min(self.settings.http_wait_s, most)
        except ValueError:
            wait_s = math.nan
        if not 0 <= wait_s <= most:
            raise ProblemError(
                400, f"timeout_s {timeout_s[:40]!r} is not accepted; accepted: 0 to {most:g}"
            )
        return monotonic_ns() + int(wait_s * 1e9)

    async def read(self, request: Request[Any, Any, Any], decode: Callable[[bytes], T]) -> T:
        """Read a request's body.

        Args:
            request: whose.
            decode: raises `RecordError` for what is not accepted.

        Raises:
            ProblemError: 400, 408 or 413, by what is wrong with it; 503, too many at once.
        """
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(_BODY_S):
                async for chunk in request.stream():
                    chunks.append(chunk)
                    self._reading_bytes += len(chunk)
                    self._check_reading()
            return decode(b"".join(chunks))
        except TimeoutError as error:
            raise ProblemError(408, f"the body did not come within {_BODY_S:g} s") from error
        except InternalServerException as error:  # Litestar's word for a client that went away
            raise ProblemError(400, "the body did not come whole") from error
        except ClientException as error:
            if error.status_code != HTTP_413_REQUEST_ENTITY_TOO_LARGE:
                raise
            most = self.settings.http_body_bytes_max
            raise ProblemError(
                413, f"a body has at most {most} bytes here (--http-body-bytes-max)"
            ) from error
        except RecordError as error:
            raise ProblemError(400, str(error)) from error
        finally:
            self._reading_bytes -= sum(map(len, chunks))

    def _check_reading(self) -> None:
        # Bytes, not requests: bodies that do not come must not keep out those that do.
        settings = self.settings
        if self._reading_bytes > settings.http_requests_max * settings.http_body_bytes_max:
            raise ProblemError(503, "too many bodies are coming in at once", RETRY)

    async def ask(
        self, request: Request[Any, Any, Any], ask: Publish | Consume | Settle
    ) -> Answer | None:
        """Ask the broker and wait for its answer; None when the client went away first."""
        gone = asyncio.create_task(_client_gone(request), name="http client")
        self._door.ask(ask)
        try:
            first: set[asyncio.Future[Any]] = {ask.answer, gone}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            # The end of the connection may have come in the same moment.
            for _ in range(3):
                await asyncio.sleep(0)
            if not gone.done() and ask.answer.done():
                return ask.answer.result()
        except asyncio.CancelledError:
            self._withdraw(ask)
            raise
        finally:
            gone.cancel()
        self._withdraw(ask)
        return None

    async def sent(self, lease: str) -> None:
        """Settle a message that was sent to its client; nobody waits for the answer."""
        self._door.ask(Settle(lease=lease, outcome="ok"))

    def _withdraw(self, ask: Publish | Consume | Settle) -> None:
        self._door.ask(Withdraw(ask))
        ask.answer.add_done_callback(self._give_back)

    def _give_back(self, answer: asyncio.Future[Answer]) -> None:
        if not answer.cancelled() and isinstance(lent := answer.result(), Consumed):
            self._door.ask(Settle(lease=lent.lease, outcome="retry"))


def check_client(settings: BrokerSettings, request: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Let in whom the settings allow.

    With a token, whoever has it. Without one, programs of this machine: a web page from elsewhere
    can make a browser send requests here, and a name of its own mean this machine.

    Raises:
        ProblemError: 401 or 403.
    """
    if settings.http_token:
        given = request.headers.get("authorization", "")
        scheme, _, token = given.partition(" ")
        known = hmac.compare_digest(token.strip().encode(), settings.http_token.encode())
        if scheme.lower() != "bearer" or not known:
            raise ProblemError(
                401,
                "a bearer token is needed: Authorization: Bearer TOKEN",
                {"WWW-Authenticate": 'Bearer realm="telemq"'},
            )
        return
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        raise ProblemError(403, "requests of web pages from elsewhere are not accepted")
    if not (settings.insecure or is_own_host(host)):
        raise ProblemError(403, "without a token, the Host must be this machine's own address")


def guard(request: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Check the client before anything of its request is read."""
    check_client(request.app.state.settings, request)


async def _client_gone(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
