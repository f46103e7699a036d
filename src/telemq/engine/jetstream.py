"""NATS JetStream as the queue: a replicated stream on a cluster of somebody else's servers.

A message is confirmed when JetStream has acknowledged it, which is when a majority of the stream's
replicas has it; so a streamer forgets it before it is in Postgres, and JetStream keeps it until a
collector has settled it after its commit. The batch's identity is ``Nats-Msg-Id``, so JetStream
itself leaves out what is published again within two minutes, and the ledger what comes later. The
stream is bounded and discards what is new: then producers wait.

The message's own fields travel in one header::

    Telemq-Message: {"id": ..., "records": ..., "key": ..., "metadata": {...}}
    Telemq-Dead: "reason"          only of a dead letter, on the subject telemq.STREAM.dead
"""

from __future__ import annotations

import asyncio
import heapq
import json
from dataclasses import dataclass
from hashlib import blake2b

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from telemq import log
from telemq.client.producer import ProducerStats
from telemq.engine.jetstream_consumer import JetStreamConsumer
from telemq.engine.natsloop import NatsLoop, StreamBounds
from telemq.engine.natsurl import NatsUrl
from telemq.errors import LocalProtocolError
from telemq.protocol import Payload
from telemq.settings import CollectorSettings, StreamerSettings

__all__ = ["JetStreamProducer", "open_jetstream_consumer", "open_jetstream_producer"]

#: Most messages sent and not acknowledged by JetStream; it buffers them in memory until then.
_FLIGHT = 64
#: The first pause after JetStream took nothing, and the longest.
_PAUSE_S, _PAUSE_S_MAX = 0.05, 1.0
#: Longest wait for an acknowledgement; the election of a leader takes some seconds.
_ANSWER_S = 5.0
#: JetStream's code for a message that is larger than its stream takes.
_TOO_LARGE = 10054


def open_jetstream_producer(settings: StreamerSettings, *, name: str) -> JetStreamProducer:
    """Open the producers' end; see `telemq.engine.select.open_producer`."""
    return JetStreamProducer(
        NatsUrl.parse(settings.engine),
        name=name,
        bounds=_bounds(settings),
        window_records=settings.window_records,
        window_bytes=settings.window_bytes,
    )


def open_jetstream_consumer(settings: CollectorSettings, *, name: str) -> JetStreamConsumer:
    """Open the consumers' end; see `telemq.engine.select.open_consumer`."""
    return JetStreamConsumer(
        NatsUrl.parse(settings.engine),
        name=name,
        bounds=_bounds(settings),
        credit_records=settings.credit_records,
        credit_bytes=settings.credit_bytes,
        lease_s=settings.lease_s,
        attempts_max=settings.attempts_max,
    )


def _bounds(settings: StreamerSettings | CollectorSettings) -> StreamBounds:
    return StreamBounds(settings.replicas, settings.stream_messages_max, settings.stream_bytes_max)


@dataclass(slots=True, order=True)
class _Kept:
    number: int
    id: str
    records: int
    payload: Payload
    headers: dict[str, str]
    is_waiting: bool = False
    is_sent: bool = False


class JetStreamProducer:
    """Publishes to a stream; see `telemq.engine.base.ProducerEngine`.

    Args:
        url: servers and stream.
        name: of this peer, for the servers.
        bounds: of the stream, if it must be made.
        window_records: most unconfirmed records.
        window_bytes: most unconfirmed payload bytes.
    """

    def __init__(
        self,
        url: NatsUrl,
        *,
        name: str,
        bounds: StreamBounds,
        window_records: int,
        window_bytes: int,
    ) -> None:
        self.shown = url.shown
        self._url = url
        self._window_records, self._window_bytes = window_records, window_bytes
        self._log = log.get(engine=url.shown)
        # Under the lock of `NatsLoop.changed`.
        self._kept: dict[str, _Kept] = {}
        self._confirmed: list[str] = []
        self._records = self._bytes = self._numbers = 0
        # Of the loop's thread.
        self._waiting: list[_Kept] = []
        self._some = asyncio.Event()
        self._pause_s = 0.0
        self._nats = NatsLoop(url, name=name, bounds=bounds, work=self._work)
        self._nats.start()

    @property
    def connected(self) -> bool:
        """Whether there is a connection, and the stream is there."""
        return not self._nats.fault

    @property
    def fault(self) -> str:
        """Why there is no connection; empty when there is one."""
        return self._nats.fault

    @property
    def refused(self) -> bool:
        """Whether the servers will never take this peer as it is."""
        return self._nats.refused

    def room_records(self) -> int:
        """Tell how many more records may be published; 0 when the window is full."""
        if self._bytes >= self._window_bytes:
            return 0
        return max(0, self._window_records - self._records)

    def publish(
        self,
        id: str,
        records: int,
        payload: Payload,
        *,
        key: str = "",
        metadata: dict[str, str] | None = None,
    ) -> None:
        """Hand over a message; it is sent when the stream has room and kept until confirmed.

        Raises:
            LocalProtocolError: that id is kept already.
        """
        fields = {"id": id, "records": records, "key": key, "metadata": metadata or {}}
        headers = {"Nats-Msg-Id": _message_id(id), "Telemq-Message": json.dumps(fields)}
        with self._nats.changed:
            if id in self._kept:
                raise LocalProtocolError(f"{id} is published already and not confirmed")
            self._numbers += 1
            kept = self._kept[id] = _Kept(self._numbers, id, records, payload, headers)
            self._records += records
            self._bytes += len(payload)
        self._nats.call(self._enqueue, kept)

    def forget(self, id: str) -> None:
        """Drop a message that somebody else sees to now."""
        with self._nats.changed:
            if not self._release(id):
                # It may have been confirmed since the last poll; that is of no interest any more.
                self._confirmed = [confirmed for confirmed in self._confirmed if confirmed != id]

    def poll(self, timeout_s: float) -> list[str]:
        """Give the ids confirmed since the last call.

        Returns at once when there are some, otherwise after `timeout_s` or a `wake`.

        Raises:
            LocalProtocolError: a kept message is larger than the stream takes.
        """
        self._nats.wait(lambda: bool(self._confirmed), timeout_s)
        with self._nats.changed:
            confirmed, self._confirmed = self._confirmed, []
        return confirmed

    def unconfirmed(self) -> int:
        """Tell how many messages are kept."""
        return len(self._kept) + len(self._confirmed)

    def stats(self) -> ProducerStats:
        """Give a frozen snapshot."""
        with self._nats.changed:
            sent = sum(kept.is_sent for kept in self._kept.values())
            return ProducerStats(
                waiting_messages=len(self._kept) - sent,
                sent_messages=sent,
                unconfirmed_records=self._records,
                unconfirmed_bytes=self._bytes,
                credit_records=0,
                credit_bytes=0,
                sessions=self._nats.connections,
            )

    def wake(self) -> None:
        """Make a `poll` that waits return; callable from any thread."""
        self._nats.wake()

    def close(self) -> None:
        """End the connection; what is not confirmed is forgotten."""
        self._nats.close()

    def _release(self, id: str) -> bool:
        kept = self._kept.pop(id, None)
        if kept is None:
            return False
        self._records -= kept.records
        self._bytes -= len(kept.payload)
        return True

    # The loop's thread.

    def _enqueue(self, kept: _Kept) -> None:
        if not kept.is_waiting and not kept.is_sent:
            kept.is_waiting = True
            heapq.heappush(self._waiting, kept)
            self._some.set()

    async def _work(self, _: Client, stream: JetStreamContext) -> None:
        """Send what waits, in order; after a failure one at a time, until one goes through."""
        with self._nats.changed:
            self._waiting = list(self._kept.values())
            for kept in self._waiting:
                kept.is_waiting, kept.is_sent = True, False
        self._pause_s = 0.0
        flight: set[asyncio.Task[None]] = set()
        try:
            while True:
                while not self._waiting:
                    self._some.clear()
                    await self._some.wait()
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)
                kept = heapq.heappop(self._waiting)
                kept.is_waiting = False
                if self._kept.get(kept.id) is not kept:
                    continue
                kept.is_sent = True
                task = asyncio.create_task(self._send(stream, kept))
                flight.add(task)
                if self._pause_s or len(flight) >= _FLIGHT:
                    await asyncio.wait(flight, return_when=asyncio.FIRST_COMPLETED)
                flight = {task for task in flight if not task.done()}
        finally:
            for task in flight:
                task.cancel()
            await asyncio.gather(*flight, return_exceptions=True)

    async def _send(self, stream: JetStreamContext, kept: _Kept) -> None:
        try:
            await stream.publish(
                self._url.messages,
                bytes(kept.payload),
                timeout=_ANSWER_S,
                stream=self._url.stream,
                headers=dict(kept.headers),
            )
        except nats.errors.MaxPayloadError:
            self._too_large(kept)
        except nats.js.errors.APIError as error:
            if error.err_code == _TOO_LARGE:
                self._too_large(kept)
            self._put_back(kept, error.description or str(error))
        except (TimeoutError, OSError, nats.errors.Error) as error:
            self._put_back(kept, str(error) or type(error).__name__)
        except Exception as error:
            # Whatever it is, it must not end in a task that nobody looks at.
            self._nats.error = error
            self._nats.wake()
            raise
        else:
            self._pause_s = 0.0
            with self._nats.changed:
                if self._kept.get(kept.id) is kept and self._release(kept.id):
                    self._confirmed.append(kept.id)
                    self._nats.changed.notify_all()

    def _put_back(self, kept: _Kept, reason: str) -> None:
        if not self._pause_s:
            self._log.warning("stream takes nothing", reason=reason)
        self._pause_s = min(max(2 * self._pause_s, _PAUSE_S), _PAUSE_S_MAX)
        kept.is_sent = False
        self._enqueue(kept)

    def _too_large(self, kept: _Kept) -> None:
        self._nats.error = LocalProtocolError(
            f"{kept.id} has {len(kept.payload)} bytes, more than the NATS servers or the stream "
            "take: make smaller batches, or raise the servers' max_payload"
        )
        self._nats.wake()


def _message_id(id: str) -> str:
    """Give what JetStream knows a message by: a header holds only printable ASCII."""
    if id.isascii() and id.isprintable() and " " not in id:
        return id
    return "telemq-" + blake2b(id.encode(), digest_size=16).hexdigest()
