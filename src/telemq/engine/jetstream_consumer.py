"""Takes messages from a JetStream stream: pulls within the credit, settles after the commit.

All collectors share one durable consumer of the stream. A pull names a count of messages, not of
records: it is as large as the credit allows if all are as large as the largest so far; what is
beyond the credit all the same waits here, and is renewed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext, api

from telemq import log
from telemq.client.session import Delivery
from telemq.engine.natsloop import NatsLoop, StreamBounds
from telemq.engine.natsurl import NatsUrl

__all__ = ["JetStreamConsumer"]

#: Name of the durable consumer.
_DURABLE = "collectors"
#: Most messages of one pull, and how long it stays open when there are none.
_PULL_MAX, _PULL_S = 256, 5.0
#: Pause after a pull was refused: its leader is being elected, or too many wait.
_REFUSED_S = 0.25
#: Longest wait for the answer to a settlement, and the pause before the next try.
_ANSWER_S, _AGAIN_S = 3.0, 0.2
#: Most deliveries of all collectors together that are not settled.
_PENDING_MAX = 100_000


@dataclass(frozen=True, slots=True)
class _Lent:
    delivery: Delivery
    subject: str  # where settlements go
    sequence: int  # in the stream


class JetStreamConsumer:
    """Receives messages of a stream; see `telemq.engine.base.ConsumerEngine`.

    Args:
        url: servers and stream.
        name: of this peer, for the servers.
        bounds: of the stream, if it must be made.
        credit_records: most records handed out and not settled.
        credit_bytes: most payload bytes handed out and not settled.
        lease_s: how long a delivery may go without being settled or renewed.
        attempts_max: deliveries before a message is handed out as a dead letter.
    """

    def __init__(
        self,
        url: NatsUrl,
        *,
        name: str,
        bounds: StreamBounds,
        credit_records: int,
        credit_bytes: int,
        lease_s: float,
        attempts_max: int,
    ) -> None:
        self.shown = url.shown
        self._url = url
        self._credit_records, self._credit_bytes = credit_records, credit_bytes
        self._lease_s, self._attempts_max = lease_s, attempts_max
        self._log = log.get(engine=url.shown)
        # Under the lock of `NatsLoop.changed`.
        self._ready: deque[_Lent] = deque()
        self._held: dict[Delivery, _Lent] = {}
        self._records = self._bytes = self._leases = self._settling = 0
        self._largest_records = self._largest_bytes = 0
        self._paused = False
        # Of the loop's thread.
        self._client: Client | None = None
        self._inbox: Subscription | None = None
        self._stream: JetStreamContext | None = None
        self._room = asyncio.Event()
        self._pulled, self._pull_over = 0, asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
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

    def poll(self, timeout_s: float) -> list[Delivery]:
        """Give the messages delivered since the last call, as far as the credit goes.

        Returns at once when there are some, otherwise after `timeout_s` or a `wake`.
        """
        self._nats.wait(self._may_hand_out, timeout_s)
        deliveries = []
        with self._nats.changed:
            while self._may_hand_out():
                lent = self._ready.popleft()
                self._held[lent.delivery] = lent
                self._records += lent.delivery.records
                self._bytes += len(lent.delivery.payload)
                deliveries.append(lent.delivery)
        if deliveries:
            self._nats.call(self._room.set)
        return deliveries

    def lost(self) -> Sequence[Delivery]:
        """Give nothing: a lease outlives its connection, and a late settlement is still heard."""
        return ()

    def settle(
        self,
        deliveries: Iterable[Delivery],
        outcome: str = "ok",
        reason: str = "",
    ) -> None:
        """Be done with deliveries; JetStream is told until it answers, or the lease is over."""
        with self._nats.changed:
            lent = [self._held.pop(d) for d in deliveries if d in self._held]
            self._settling += len(lent)
        for one in lent:
            self._nats.call(self._start, self._settle, one, outcome, reason)

    def renew(self, deliveries: Iterable[Delivery]) -> None:
        """Let the leases of these deliveries begin anew, and of those that wait here."""
        with self._nats.changed:
            subjects = [self._held[d].subject for d in deliveries if d in self._held]
            subjects += [lent.subject for lent in self._ready]
        if subjects:
            self._nats.call(self._start, self._tell, subjects, b"+WPI")

    def pause(self) -> None:
        """Take no more deliveries; what was handed out may still be settled."""
        with self._nats.changed:
            self._paused = True
            back = [lent.subject for lent in self._ready]
            self._ready.clear()
        self._nats.call(self._start, self._give_back, back)

    def wake(self) -> None:
        """Make a `poll` that waits return; callable from any thread."""
        self._nats.wake()

    def close(self) -> None:
        """Give back what is not settled, finish what is being settled, and end the connection."""
        self.pause()
        self.settle(list(self._held), "retry")
        self._nats.finish(lambda: not self._settling)
        self._nats.close()

    def _may_hand_out(self) -> bool:
        if not self._ready or self._paused:
            return False
        first = self._ready[0].delivery
        return not self._records or (
            self._records + first.records <= self._credit_records
            and self._bytes + len(first.payload) <= self._credit_bytes
        )

    # The loop's thread.

    def _start(self, work: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        task = asyncio.ensure_future(work(*args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, client: Client, stream: JetStreamContext) -> None:
        """Keep one pull open as long as there is room for what it may bring."""
        await stream.add_consumer(
            self._url.stream,
            api.ConsumerConfig(
                durable_name=_DURABLE,
                ack_policy=api.AckPolicy.EXPLICIT,
                ack_wait=self._lease_s,
                max_deliver=-1,
                max_ack_pending=_PENDING_MAX,
            ),
        )
        inbox = client.new_inbox()
        self._inbox = await client.subscribe(inbox, cb=self._arrive)
        self._client, self._stream = client, stream
        try:
            while True:
                await self._pull(client, inbox)
        finally:
            self._client = self._stream = self._inbox = None

    async def _pull(self, client: Client, inbox: str) -> None:
        self._room.clear()
        wanted = self._wanted()
        if not wanted:
            await self._room.wait()
            return
        self._pulled, self._pull_over = wanted, asyncio.Event()
        pull = {"batch": wanted, "expires": int(_PULL_S * 1e9)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._url.stream}.{_DURABLE}"
        await client.publish(subject, json.dumps(pull).encode(), reply=inbox)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._pull_over.wait(), _PULL_S + 1)

    def _wanted(self) -> int:
        """Give how many messages fit into the credit, if they are like the largest so far."""
        with self._nats.changed:
            if self._paused or self._ready:
                return 0
            if not self._largest_records:
                return 0 if self._records else 1
            wanted = min(
                _PULL_MAX,
                (self._credit_records - self._records) // self._largest_records,
                (self._credit_bytes - self._bytes) // max(1, self._largest_bytes),
            )
            return max(wanted, 0 if self._records else 1)

    async def _arrive(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status")
        if status is not None:
            if status == "100":  # a heartbeat
                return
            if status not in {"404", "408"}:
                await asyncio.sleep(_REFUSED_S)
            self._pull_over.set()
            return
        lent = self._lend(message)
        with self._nats.changed:
            paused = self._paused
            if not paused:
                self._ready.append(lent)
                self._nats.changed.notify_all()
            self._largest_records = max(self._largest_records, lent.delivery.records)
            self._largest_bytes = max(self._largest_bytes, len(lent.delivery.payload))
        self._pulled -= 1
        if self._pulled <= 0:
            self._pull_over.set()
        if paused:
            await self._tell([lent.subject], b"-NAK")

    def _lend(self, message: Msg) -> _Lent:
        """Make a delivery of a message; one of a foreign producer gets an identity here."""
        about = message.metadata
        headers = message.headers or {}
        fields = _fields(headers.get("Telemq-Message", ""))
        attempt = about.num_delivered
        dead = json.loads(headers["Telemq-Dead"]) if "Telemq-Dead" in headers else ""
        if not dead and attempt > self._attempts_max:
            dead = f"delivered {attempt - 1} times and never settled"
        foreign = f"nats/{self._url.stream}/{about.timestamp.isoformat()}/{about.sequence.stream}"
        self._leases += 1
        delivery = Delivery(
            session=self.shown,
            lease=self._leases,
            lease_ms=int(self._lease_s * 1000),
            id=fields.get("id") or headers.get("Nats-Msg-Id") or foreign,
            records=fields.get("records", 1),
            key=fields.get("key", ""),
            metadata=fields.get("metadata") or {"content-type": headers.get("Content-Type", "")},
            payload=message.data,
            attempt=attempt,
            dead=dead,
        )
        return _Lent(delivery, message.reply, about.sequence.stream)

    async def _settle(self, lent: _Lent, outcome: str, reason: str) -> None:
        """Tell JetStream what became of a delivery, again until it answers."""
        try:
            if outcome == "bury" and not lent.delivery.dead:
                # First kept as a dead letter, then ended: never neither, at worst both.
                await self._insist(lambda _: self._bury(lent, reason))
                answer = b"+TERM " + " ".join(reason.split())[:200].encode()
            else:
                answer = b"+ACK" if outcome == "ok" else b"-NAK"
            await self._insist(
                lambda client: client.request(lent.subject, answer, timeout=_ANSWER_S)
            )
        finally:
            with self._nats.changed:
                self._settling -= 1
                self._records -= lent.delivery.records
                self._bytes -= len(lent.delivery.payload)
                self._nats.changed.notify_all()
            self._room.set()

    async def _insist(self, act: Callable[[Client], Coroutine[Any, Any, object]]) -> None:
        """Do it until it succeeds, for as long as a lease may last; then it comes again."""
        reason = "no connection"
        end = asyncio.get_running_loop().time() + self._lease_s
        while asyncio.get_running_loop().time() < end:
            if self._client is not None:
                try:
                    await act(self._client)
                except (TimeoutError, OSError, nats.errors.Error) as error:
                    reason = str(error) or type(error).__name__
                else:
                    return
            await asyncio.sleep(_AGAIN_S)
        self._log.warning("settlement not acknowledged, the message comes again", reason=reason)

    async def _bury(self, lent: _Lent, reason: str) -> None:
        delivery = lent.delivery
        fields = {
            "id": delivery.id,
            "records": delivery.records,
            "key": delivery.key,
            "metadata": delivery.metadata,
        }
        if self._stream is None:
            raise nats.errors.ConnectionClosedError
        await self._stream.publish(
            self._url.dead,
            bytes(delivery.payload),
            timeout=_ANSWER_S,
            headers={
                "Nats-Msg-Id": f"dead/{lent.sequence}",
                "Telemq-Message": json.dumps(fields),
                "Telemq-Dead": json.dumps(reason or "buried without a reason"),
            },
        )

    async def _give_back(self, subjects: Iterable[str]) -> None:
        """End the open pull, or what is given back would come straight here again; then do so."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            with contextlib.suppress(OSError, nats.errors.Error):
                await inbox.unsubscribe()
        await self._tell(subjects, b"-NAK")

    async def _tell(self, subjects: Iterable[str], what: bytes) -> None:
        for subject in subjects:
            if self._client is not None:
                with contextlib.suppress(OSError, nats.errors.Error):
                    await self._client.publish(subject, what)


def _fields(header: str) -> dict[str, Any]:
    """Read the header that telemq's producers send; anything else is a foreign producer's."""
    try:
        fields = json.loads(header)
    except ValueError:
        return {}
    kinds = {"id": str, "records": int, "key": str, "metadata": dict}
    if not isinstance(fields, dict) or not all(
        isinstance(fields.get(name), kind) for name, kind in kinds.items()
    ):
        return {}
    return fields if 1 <= fields["records"] < 2**31 else {}
