"""The thread behind the JetStream engine: when it begins, and what becomes of its faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from telemq.engine.jetstream import open_jetstream_consumer, open_jetstream_producer
from telemq.engine.natsloop import NatsLoop, StreamBounds
from telemq.engine.natsurl import NatsUrl
from telemq.settings import CollectorSettings, StreamerSettings
from tests.support.nats import NatsServer

BOUNDS = StreamBounds(replicas=1, messages_max=10, bytes_max=10**6)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A stream on a server of the test's own."""
    with NatsServer(tmp_path / "nats") as server:
        yield f"nats://{server.address}/s"


def test_ends_work_however_slowly_they_are_made(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine: the connection stands before the constructor of its owner is through."""
    make = NatsLoop.__init__

    def slowly(self: NatsLoop, *args: Any, **named: Any) -> None:
        make(self, *args, **named)
        time.sleep(0.5)  # a local server is connected to within a fiftieth of that

    monkeypatch.setattr(NatsLoop, "__init__", slowly)
    producer = open_jetstream_producer(StreamerSettings(engine=url), name="p")
    consumer = open_jetstream_consumer(CollectorSettings(engine=url), name="c")
    try:
        producer.publish("s#0", 1, b"x")
        assert ["s#0"] == producer.poll(20)
        deliveries = consumer.poll(20)
        assert ["s#0"] == [delivery.id for delivery in deliveries]
        consumer.settle(deliveries)
    finally:
        producer.close()
        consumer.close()


def test_connection_that_ends_without_a_word_is_made_anew(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server is killed while something is to be written to it: nats-py fails to close halfway."""
    clients: list[Client] = []

    async def work(client: Client, _stream: JetStreamContext) -> None:
        clients.append(client)
        loop.wake()
        await asyncio.Event().wait()

    async def drained() -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    def cut() -> None:
        """What it looks like to nats-py: an error from reading, and then one from writing."""
        client = clients[0]
        monkeypatch.setattr(client._transport, "drain", drained)
        client._pending_data_size = 1
        broken.append(asyncio.ensure_future(client._process_op_err(OSError("cut"))))

    broken: list[asyncio.Future[None]] = []
    loop = NatsLoop(NatsUrl.parse(url), name="x", bounds=BOUNDS, work=work)
    loop.start()

    def until(connections: int) -> None:
        end = time.monotonic() + 20
        while len(clients) < connections:
            assert time.monotonic() < end, "no connection"
            loop.wait(lambda: False, 1)

    until(1)
    loop.call(cut)
    until(2)
    loop.close()
    assert isinstance(broken[0].exception(), ConnectionResetError)


def test_fault_in_the_loop_reaches_the_owner(url: str) -> None:
    """A fault of ours: the service must end with it and be started again, not wait for ever."""

    async def work(_client: Client, _stream: JetStreamContext) -> None:
        raise KeyError("a fault")

    loop = NatsLoop(NatsUrl.parse(url), name="x", bounds=BOUNDS, work=work)
    loop.start()
    with pytest.raises(KeyError, match="a fault"):
        loop.wait(lambda: False, 20)
    loop.close()
