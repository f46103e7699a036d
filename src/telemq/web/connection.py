"""One connection of a client, bounded: uvicorn's own protocol with the limits that it lacks.

What a client may do before the application hears of it: open a connection, take its time, and send
a head and a body of some size. Each has a limit here, and meeting it is answered with a problem
document, unless an answer is under way already; then the connection ends.

After a refusal the connection lingers: what the client still sends is thrown away for a moment. To
close at once would reset it, and a client that is still sending would never read the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from telemq.web.problems import MEDIA_TYPE, document

__all__ = ["BoundedConnection", "ConnectionLimits"]

#: Header lines of one request; browsers and proxies send some thirty.
_HEADERS_MAX = 128
#: How long a refused client is still listened to.
_LINGER_S = 5.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What clients may do.

    Attributes:
        connections: open at once.
        request_s: from the first byte of a request, or from connecting, to its last.
        head_bytes: of a request's first line and headers.
        body_bytes: of its body; None leaves it to the application.
    """

    connections: int = 1000
    request_s: float = 10.0
    head_bytes: int = 32 * 2**10
    body_bytes: int | None = None


class BoundedConnection(HttpToolsProtocol):
    """A connection within limits.

    Args:
        limits: of it, and of all together.
        refused: told why, in a word, whenever a limit was met.
        given: what uvicorn gives.
    """

    def __init__(
        self, *, limits: ConnectionLimits, refused: Callable[[str], None], **given: Any
    ) -> None:
        super().__init__(**given)
        self._limits = limits
        self._refused = refused
        self._timer: asyncio.TimerHandle | None = None
        # Of the request that is coming in: bytes of its head and body so far, and whether the
        # application has it, so that `cycle` is this request's.
        self._head = self._body = 0
        self._is_begun = False
        self._is_over = False

    # ---- what the transport calls ----------------------------------------------------------

    # uvicorn narrows the transport that asyncio's own method takes.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new client, if there is room."""
        super().connection_made(transport)
        self._arm()
        if len(self.connections) > self._limits.connections:
            self._refuse(503, "connections", "too many connections; try again later")

    def data_received(self, data: bytes) -> None:
        """Read on, unless the client was refused."""
        if self._is_over:
            return
        if self._timer is None:
            self._arm()
        if not self._is_begun:
            self._head += len(data)
        super().data_received(data)
        # The parser keeps a header to itself until it is complete.
        if not self._is_begun and self._head > self._limits.head_bytes:
            self._refuse_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._disarm()
        super().connection_lost(exc)

    # ---- what the parser calls -------------------------------------------------------------

    def on_headers_complete(self) -> None:
        """Hand a request to the application, if its head and what it announces are small enough."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.head_bytes or len(self.headers) > _HEADERS_MAX:
            self._refuse_head()
        elif self._announced() > self._body_max:
            self._refuse_body()
        if not self._is_over:
            super().on_headers_complete()
            self._head, self._is_begun = 0, True

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body += len(body)
        if self._body > self._body_max:
            self._refuse_body()
        if not self._is_over:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request: the next may begin."""
        self._disarm()
        if not self._is_over:
            super().on_message_complete()
        self._head = self._body = 0
        self._is_begun = False

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, "malformed", msg)

    # ---- its end ---------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Let a client that asked for the end take its answer, if it does."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._end_unread()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that is not used any more."""
        self._end_unread()

    def _end_unread(self, before: int | None = None) -> None:
        """Close when the client has read its answer; cut off one that reads no more of it."""
        waiting = self.transport.get_write_buffer_size()
        if before is not None and waiting >= before > 0:
            self.transport.abort()
            return
        self.transport.close()
        if waiting:
            self.loop.call_later(self._limits.request_s, self._end_unread, waiting)

    def _refuse_head(self) -> None:
        limit = f"--head-bytes-max {self._limits.head_bytes}, {_HEADERS_MAX} headers"
        self._refuse(431, "head", f"the head of this request is too large ({limit})")

    def _refuse_body(self) -> None:
        self._refuse(413, "body", f"the body is too large (--body-bytes-max {self._body_max:g})")

    def _refuse(self, status: int, reason: str, detail: str) -> None:
        """Answer in the application's place, if nothing was answered yet, and listen no more."""
        if self._is_over:
            return
        self._is_over = True
        self._disarm()
        self._unset_keepalive_if_required()
        self._refused(reason)
        cycle = self._busy()
        if cycle and (not self._is_begun or self.pipeline or cycle.response_started):
            self.transport.abort()  # another answer is under way, or this one's
            return
        if cycle:
            # As if the client had gone: what the application still says, nobody hears.
            cycle.disconnected = True
            cycle.message_event.set()
        if cycle or not self._is_begun:
            self.transport.write(_answer(status, detail))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(_LINGER_S, self.transport.abort)

    # ---- time ------------------------------------------------------------------------------

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self._limits.request_s, self._time_is_up)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_up(self) -> None:
        self._timer = None
        if not self._is_begun and self._busy():
            self._arm()  # the next request waits unread behind an answer
        elif not self._is_begun and not self._head:
            self.transport.close()  # it said nothing, as browsers do that connect ahead
        else:
            limit = f"--request-s-max {self._limits.request_s:g} s"
            self._refuse(408, "slow", f"the request was not whole in time ({limit})")

    def _busy(self) -> RequestResponseCycle | None:
        """Give the last request that the application has, unless it was answered."""
        cycle: RequestResponseCycle | None = self.cycle  # there is none before the first request
        return cycle if cycle is not None and not cycle.response_complete else None

    @property
    def _body_max(self) -> float:
        limit = self._limits.body_bytes
        return float("inf") if limit is None else limit

    def _announced(self) -> int:
        """Give the length that the head says; the parser has refused what is no number."""
        found = (int(value) for name, value in self.headers if name == b"content-length")
        return max(found, default=0)


def _answer(status: int, detail: str) -> bytes:
    body = document(status, detail)
    head = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(body)}",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "connection: close",
    ]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        head.append("retry-after: 5")
    return "\r\n".join([*head, "", ""]).encode() + body
