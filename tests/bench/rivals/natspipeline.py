"""The same streamers and collectors over JetStream's file store, in place of telemq's broker."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from telemq.bench.measure import Part
from telemq.bench.pipeline import Queue
from telemq.errors import TelemqError
from tests.bench.rivals.jetstream import nats_server

__all__ = ["JETSTREAM"]

_STREAM = "bench"
_START_S = 60.0


def _serve(pipe: Connection, collectors: int) -> Part:
    with TemporaryDirectory(prefix="telemq-bench-") as folder, nats_server(Path(folder)) as server:
        flags = {"engine": f"nats://127.0.0.1:{server.port}/{_STREAM}"}
        pipe.send((flags, flags))
        asyncio.run(asyncio.wait_for(_wait_for(server.port, collectors), _START_S))
        pipe.send("all collectors are here")
        pipe.recv()
        return server.usage("broker")


async def _wait_for(port: int, collectors: int) -> None:
    """Return when as many pull requests wait as there are collectors."""
    import nats
    from nats.js.errors import NotFoundError

    client = await nats.connect(f"nats://127.0.0.1:{port}")
    try:
        while True:
            try:
                consumers = await client.jetstream().consumers_info(_STREAM)
            except NotFoundError:  # the first collector makes it
                consumers = []
            if sum(consumer.num_waiting or 0 for consumer in consumers) >= collectors:
                return
            await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise TelemqError("the collectors do not ask JetStream for messages") from error
    finally:
        await client.close()


JETSTREAM = Queue("pipeline over JetStream, file", _serve)
