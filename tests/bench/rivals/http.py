"""A plain HTTP broker, one message a request, as such brokers are usually written.

An ASGI application of three routes on uvicorn, with httptools and uvloop: POST keeps a message,
POST to ``/take`` gives the oldest and leases it, DELETE settles it. Its clients are as quick as
Python allows: eight connections each, kept alive, and requests written by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from multiprocessing.connection import Connection
from typing import Any

import uvicorn

from telemq.bench.carrier import Carrier, Load
from telemq.errors import TelemqError

__all__ = ["HTTP"]

_CONNECTIONS = 8
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Broker:
    """Keeps messages in memory until they are settled."""

    def __init__(self) -> None:
        self._ready: deque[bytes] = deque()
        self._leased: dict[str, bytes] = {}
        self._some = asyncio.Condition()
        self._number = 0

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = bytearray()
        while (part := await receive()).get("more_body"):
            body += part["body"]
        body += part.get("body", b"")
        status, headers, answer = 204, [], b""
        if scope["method"] == "DELETE":
            del self._leased[scope["path"].rpartition("/")[2]]
        elif scope["path"] == "/take":
            async with self._some:
                await self._some.wait_for(lambda: self._ready)
                answer = self._ready.popleft()
            self._number += 1
            self._leased[str(self._number)] = answer
            status, headers = 200, [(b"id", b"%d" % self._number)]
        else:
            async with self._some:
                self._ready.append(bytes(body))
                self._some.notify()
            status = 201
        headers.append((b"content-length", b"%d" % len(answer)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def _serve(pipe: Connection, _load: Load) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            _Broker(), log_level="critical", access_log=False, lifespan="off", http="httptools",
            loop="uvloop",
        )  # fmt: skip
        server = uvicorn.Server(config)

        def wait() -> None:
            pipe.recv()
            server.should_exit = server.force_exit = True

        threading.Thread(target=wait, daemon=True).start()
        # The socket listens already, so whoever connects now is served in a moment.
        pipe.send(port)
        server.run([listener])


class _End:
    """Connections, each with one request under way, and the loop that they live in."""

    def __init__(self, port: int) -> None:
        import uvloop

        self._loop = uvloop.new_event_loop()
        self._some = asyncio.Event()
        self._port = port
        self._tasks = [self._loop.create_task(self._work()) for _ in range(_CONNECTIONS)]

    async def _work(self) -> None:
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def _connected(self) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            yield _Asker(reader, writer)
        finally:
            writer.close()

    async def _wait(self, timeout_s: float) -> None:
        self._some.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._some.wait(), timeout_s or 0.0001)
        for task in self._tasks:
            if task.done():
                task.result()

    def close(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.close()


class _Asker:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, method: bytes, path: bytes, body: bytes = b"") -> tuple[bytes, bytes]:
        """Give the value of the header ``id``, and the body."""
        head = b"%b %b HTTP/1.1\r\nhost: bench\r\ncontent-length: %d\r\n\r\n"
        self._writer.write(head % (method, path, len(body)) + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        if not lines[0].startswith(b"HTTP/1.1 20"):
            raise TelemqError(f"the HTTP broker answered {lines[0]!r}")
        fields = dict(line.lower().split(b": ", 1) for line in lines[1:] if line)
        return fields.get(b"id", b""), await self._reader.readexactly(
            int(fields[b"content-length"])
        )


class _Producer(_End):
    def __init__(self, port: int, load: Load) -> None:
        self._window, self._under_way, self._confirmed = 64, 0, 0
        super().__init__(port)
        self._out: asyncio.Queue[bytes] = asyncio.Queue()

    async def _work(self) -> None:
        async with self._connected() as link:
            while True:
                await link.ask(b"POST", b"/messages", await self._out.get())
                self._confirmed += 1
                self._some.set()

    def room(self) -> int:
        return self._window - self._under_way

    def send(self, payload: bytes) -> None:
        self._out.put_nowait(payload)
        self._under_way += 1

    def poll(self, timeout_s: float) -> int:
        if not self._confirmed:
            self._loop.run_until_complete(self._wait(timeout_s))
        confirmed, self._confirmed = self._confirmed, 0
        self._under_way -= confirmed
        return confirmed


class _Consumer(_End):
    def __init__(self, port: int, load: Load) -> None:
        self._came: list[bytes] = []
        super().__init__(port)
        self._loop.run_until_complete(self._wait(0.1))

    async def _work(self) -> None:
        async with self._connected() as link:
            while True:
                id, body = await link.ask(b"POST", b"/take")
                self._came.append(body)
                self._some.set()
                await link.ask(b"DELETE", b"/messages/" + id)

    def take(self, timeout_s: float) -> list[bytes]:
        if not self._came:
            self._loop.run_until_complete(self._wait(timeout_s))
        came, self._came = self._came, []
        return came

    def settle(self) -> None:
        """Do nothing: each connection settles what it took before it takes more."""


HTTP = Carrier("HTTP broker", _serve, _Producer, _Consumer)
