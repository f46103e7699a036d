"""Answers that end when their client does, and telemetry of any size with the memory of one chunk.

The first chunk is there before the response starts, so what fails until then is a proper problem
document. What fails later cuts the answer short without its last bytes, which every HTTP client
reports: an answer that looks whole is whole.

A client that goes away or stops reading ends the query: its transaction is closed and its
connection given back.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from litestar.types import Receive, Scope, Send

from telemq import log
from telemq.errors import StoreError
from telemq.gateway.cancelling import cancelled
from telemq.gateway.formats import Format
from telemq.gateway.metrics import GatewayMetrics
from telemq.store.reader import Reader
from telemq.store.telemetry import telemetry
from telemq.store.telemetry_query import Place, Question
from telemq.web.problems import ProblemError

__all__ = ["Answer", "TelemetryAnswer", "Whole", "WholeAnswer"]

#: A client that takes nothing for this long is cut off: it would hold a transaction open.
_STALL_S = 60.0


@dataclass(eq=False)
class Answer(ABC):
    """An ASGI response that is given up when the client goes away.

    Attributes:
        metrics: where cuts are counted.
        about: what is asked for, for the log.
    """

    metrics: GatewayMetrics
    about: str
    _started: bool = field(default=False, init=False)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless the client goes away first.

        Raises:
            ProblemError: the question cannot be answered; nothing was sent.
            StoreError: the database cannot be used; nothing was sent.
        """
        answer = asyncio.create_task(self._answer(send), name="answer")
        gone = asyncio.create_task(_client_gone(receive), name="client")
        stopped = False
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the gateway stops, and waited long enough
            stopped = True
        finally:
            given_up = not answer.done()
            # Until the query has ended and its connection is back.
            await cancelled(answer, gone)
        if stopped and not self._started:
            raise StoreError("the gateway is stopping")
        error = None if answer.cancelled() else answer.exception()
        if answer.cancelled() or (given_up and error):
            # A query that was cancelled while it ended has an error of its own.
            self._cut("stopped" if stopped else "gone", error)
        elif error:
            if not self._started:
                raise error
            self._cut("stalled" if isinstance(error, TimeoutError) else "failed", error)

    @abstractmethod
    async def _answer(self, send: Send) -> None:
        """Find the answer and send it, with `_start` first."""

    async def _start(self, send: Send, headers: dict[str, str]) -> None:
        self._started = True
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": pairs})

    async def _send(self, send: Send, body: bytes, *, more: bool) -> None:
        async with asyncio.timeout(_STALL_S):
            await send({"type": "http.response.body", "body": body, "more_body": more})

    def _cut(self, reason: str, error: BaseException | None) -> None:
        self.metrics.cut(reason)
        log.get().warning(
            "answer cut short", reason=reason, about=self.about[:80], error=str(error or "")
        )


@dataclass(frozen=True, slots=True)
class Whole:
    """A small answer: JSON, and what its headers say."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class WholeAnswer(Answer):
    """A small answer that takes long to find.

    Attributes:
        find: gives it.
    """

    find: Callable[[], Coroutine[Any, Any, Whole]]

    async def _answer(self, send: Send) -> None:
        found = await self.find()
        length = str(len(found.body))
        headers = {"content-type": "application/json", "content-length": length}
        await self._start(send, {**headers, **found.headers})
        await self._send(send, found.body, more=False)


@dataclass(eq=False)
class TelemetryAnswer(Answer):
    """The telemetry of one GPU id, as `records.Record` in some format.

    Attributes:
        reader: where the samples come from.
        question: what is asked for.
        format: how it is told.
        link: gives the URL of the page that begins at a place.
        chunk_rows: rows read, encoded and sent at a time.
    """

    reader: Reader
    question: Question
    format: Format
    link: Callable[[Place], str]
    chunk_rows: int

    async def _answer(self, send: Send) -> None:
        async with telemetry(self.reader, self.question) as found:
            if found is None:
                raise ProblemError(
                    404,
                    f"no GPU has the UUID or gpu_id {self.about[:80]!r}; "
                    "/api/v1/gpus lists the UUIDs, /api/v1/gpus?by=gpu_id the other",
                )
            samples = await found.fetch(self.chunk_rows)
            writer = self.format.writer(found.labels)
            await self._start(send, self._headers(found.next))
            while samples:
                await self._send(send, writer.chunk(samples), more=True)
                self.metrics.rows_sent(len(samples))
                samples = await found.fetch(self.chunk_rows)
        await self._send(send, writer.end(), more=False)

    def _headers(self, next: Place | None) -> dict[str, str]:
        charset = "; charset=utf-8" if self.format.media_type.startswith("text/") else ""
        headers = {"content-type": self.format.media_type + charset, "vary": "accept"}
        if self.format.file:
            headers["content-disposition"] = f'attachment; filename="{self.format.file}"'
        if next is not None:
            headers["link"] = f'<{self.link(next)}>; rel="next"'
        return headers


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
