"""A telemetry answer of any size, sent with the memory of one chunk.

The first chunk is there before the response starts, so what fails until then is a proper problem
document. What fails later cuts the answer short without its last bytes, which every HTTP client
reports: an answer that looks whole is whole.

A client that goes away or stops reading ends the query: its transaction is closed and its
connection given back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

from litestar.types import Receive, Scope, Send

from telemq import log
from telemq.errors import StoreError
from telemq.gateway.metrics import GatewayMetrics
from telemq.gateway.views import RecordWriter
from telemq.store.reader import Reader
from telemq.web.problems import ProblemError

__all__ = ["TelemetryAnswer"]

#: A client that takes nothing for this long is cut off: it would hold a transaction open.
_STALL_S = 60.0


@dataclass(eq=False)
class TelemetryAnswer:
    """An ASGI response: the telemetry of one GPU id as a JSON array of `views.Record`.

    Attributes:
        reader: where the samples come from.
        metrics: where rows and cuts are counted.
        gpu: a UUID or ``gpu_id``.
        start: earliest time, inclusive.
        end: latest time, inclusive.
        chunk_rows: rows read, encoded and sent at a time.
    """

    reader: Reader
    metrics: GatewayMetrics
    gpu: str
    start: datetime | None
    end: datetime | None
    chunk_rows: int
    _started: bool = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless the client goes away first.

        Raises:
            ProblemError: 404, there is no such GPU; nothing was sent.
            StoreError: the database cannot be used; nothing was sent.
        """
        answer = asyncio.create_task(self._answer(send), name="telemetry answer")
        gone = asyncio.create_task(_client_gone(receive), name="telemetry client")
        stopped = False
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the gateway stops, and waited long enough
            stopped = True
        finally:
            answer.cancel()
            gone.cancel()
            # Until the query has ended and its connection is back.
            await asyncio.gather(answer, gone, return_exceptions=True)
        if stopped and not self._started:
            raise StoreError("the gateway is stopping")
        if answer.cancelled():
            self._cut("stopped" if stopped else "gone", None)
        elif error := answer.exception():
            if not self._started:
                raise error
            self._cut("stalled" if isinstance(error, TimeoutError) else "failed", error)

    async def _answer(self, send: Send) -> None:
        async with self.reader.telemetry(self.gpu, self.start, self.end) as telemetry:
            if telemetry is None:
                raise ProblemError(
                    404,
                    f"no GPU has the UUID or gpu_id {self.gpu[:80]!r}; "
                    "/api/v1/gpus lists the UUIDs, /api/v1/gpus?by=gpu_id the other",
                )
            samples = await telemetry.fetch(self.chunk_rows)
            writer = RecordWriter(telemetry.labels)
            self._started = True
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-type", b"application/json")],
                }
            )
            while samples:
                await self._send(send, writer.chunk(samples), more=True)
                self.metrics.rows_sent(len(samples))
                samples = await telemetry.fetch(self.chunk_rows)
        await self._send(send, writer.end(), more=False)

    async def _send(self, send: Send, body: bytes, *, more: bool) -> None:
        async with asyncio.timeout(_STALL_S):
            await send({"type": "http.response.body", "body": body, "more_body": more})

    def _cut(self, reason: str, error: BaseException | None) -> None:
        self.metrics.cut(reason)
        log.get().warning(
            "answer cut short", reason=reason, gpu=self.gpu[:80], error=str(error or "")
        )


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
