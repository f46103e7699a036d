"""A producer's rules: keep every message until it is confirmed, and spend only what was granted.

A message is *waiting* (for credit or a session), *sent* (for its CONFIRM), or gone. When a session
ends, what was sent waits again, ahead of the rest and in order; the next session publishes it anew
with the same id. How much may be kept is bounded by the window; the owner asks `room_records`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import msgspec

from telemq.client.session import Command, Confirmed, Session, Transmit
from telemq.errors import LocalProtocolError
from telemq.protocol import (
    CONTROL_BYTES_MAX,
    INTEGER_MAX,
    PACK_BYTES_MAX,
    PACK_MESSAGES_MAX,
    PACKED_BYTES_MAX,
    PUBLISH_BYTES_MAX,
    Confirm,
    FromBroker,
    Grant,
    Packed,
    Payload,
    Publish,
    PublishPack,
    Return,
    Want,
    Welcome,
    encode,
    label_bytes,
)

__all__ = ["ProducerCore", "ProducerStats"]

#: Credit that was not used for this long goes back; docs/protocol.md, Producers.
_IDLE_NS = 100_000_000
#: Bytes that wait for a flush from which on it is time for one: as many as make a broker's thread
#: idle while the kernel copies.
_FLUSH_BYTES = 131_072
#: As long as any session and number.
_ANY_SESSION = "0" * 64


class _Outbound(msgspec.Struct, eq=False, gc=False):
    id: str
    records: int
    key: str
    metadata: dict[str, str]
    payload: Payload
    label_bytes: int  # at most, of its line in a PACK
    number: int = 0  # of its PUBLISH in this session; 0 while it waits


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """A producer at one moment.

    Attributes:
        waiting_messages: for credit or a session.
        sent_messages: for their confirm.
        unconfirmed_records: in both.
        unconfirmed_bytes: in both.
        credit_records: granted and not spent.
        credit_bytes: granted and not spent.
        sessions: begun so far.
    """

    waiting_messages: int
    sent_messages: int
    unconfirmed_records: int
    unconfirmed_bytes: int
    credit_records: int
    credit_bytes: int
    sessions: int


class ProducerCore:
    """All state of one producer at one broker.

    Args:
        name: for the broker's log.
        window_records: most unconfirmed records kept.
        window_bytes: most unconfirmed payload bytes kept.
        seed: for the jitter of reconnects.
    """

    def __init__(self, name: str, *, window_records: int, window_bytes: int, seed: int) -> None:
        self.session = Session("producer", name, seed)
        self._window_records = window_records
        self._window_bytes = window_bytes
        self._waiting: deque[_Outbound] = deque()
        self._sent: dict[int, _Outbound] = {}
        self._ids: dict[str, _Outbound] = {}
        self._records = self._bytes = 0
        self._credit_records = self._credit_bytes = 0
        self._least_records = self._least_bytes = 0
        self._wishes = False
        self._used_ns = 0
        self._sessions = 0
        self._fresh_bytes = 0

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
        key: str,
        metadata: dict[str, str],
        now_ns: int,
    ) -> list[Command]:
        """Take over a message until it is confirmed; it is sent as soon as there is credit.

        Raises:
            LocalProtocolError: see `keep`.
        """
        self.keep(id, records, payload, key=key, metadata=metadata)
        return self.flush(now_ns)

    def keep(
        self, id: str, records: int, payload: Payload, *, key: str, metadata: dict[str, str]
    ) -> bool:
        """Take over a message until it is confirmed; it is sent at the next `flush` or `advance`.

        Returns:
            Whether it is time to flush: what waits fills a pack, or this message is a large one.

        Raises:
            LocalProtocolError: that id is kept already, or the message, or its labels, are larger
                than the broker takes; nothing was changed.
        """
        if id in self._ids:
            raise LocalProtocolError(f"{id} is published already and not confirmed")
        size_bytes = len(payload)
        outbound = _Outbound(id, records, key, metadata, payload, label_bytes(id, key, metadata))
        if outbound.label_bytes > PUBLISH_BYTES_MAX // 2:
            _check_labels(outbound)
        self._check_size(outbound)
        self._ids[id] = outbound
        self._waiting.append(outbound)
        self._records += records
        self._bytes += size_bytes
        self._fresh_bytes += size_bytes + outbound.label_bytes
        return self._fresh_bytes >= _FLUSH_BYTES or size_bytes > PACKED_BYTES_MAX

    def forget(self, id: str) -> None:
        """Drop a message: somebody else sees to it now. Unknown ids are ignored."""
        if outbound := self._ids.get(id):
            self._release(outbound)
            if self._sent.pop(outbound.number, None) is None:
                self._waiting.remove(outbound)

    def receive(self, message: FromBroker, now_ns: int) -> list[Command]:
        """Take in one message of the broker.

        Raises:
            LocalProtocolError: a kept message is larger than this broker takes.
        """
        had = self.session.token
        acts = self.session.accept(message, now_ns)
        if had and self.session.token != had:
            self._unsend()
        if not acts:
            return []
        match message:
            case Welcome():
                self._sessions += 1
                self._unsend()
                for outbound in self._waiting:
                    self._check_size(outbound)
            case Grant():
                self._credit_records += message.records
                self._credit_bytes += message.bytes
                self._used_ns = now_ns
            case Confirm():
                return [Confirmed(self._confirm(message.numbers)), *self.flush(now_ns)]
            case _:
                return []
        return self.flush(now_ns)

    def advance(self, now_ns: int) -> list[Command]:
        """Let time pass: heartbeats, reconnects, and credit that was not used goes back."""
        had = self.session.token
        commands = self.session.advance(now_ns)
        if had and not self.session.token:
            self._unsend()
        if self._idle_end_ns() is not None and now_ns >= self._used_ns + _IDLE_NS:
            commands += self._give_back(now_ns)
        if self._fresh_bytes:
            commands += self.flush(now_ns)
        return commands

    def next_deadline_ns(self) -> int | None:
        """Give when `advance` has something to do next; None when it never will."""
        deadlines = (self.session.next_deadline_ns(), self._idle_end_ns())
        return min((d for d in deadlines if d is not None), default=None)

    def stats(self) -> ProducerStats:
        """Give a frozen snapshot."""
        return ProducerStats(
            len(self._waiting),
            len(self._ids) - len(self._waiting),
            self._records,
            self._bytes,
            self._credit_records,
            self._credit_bytes,
            self._sessions,
        )

    def _idle_end_ns(self) -> int | None:
        has_credit = self._credit_records or self._credit_bytes
        return self._used_ns + _IDLE_NS if self.session.token and has_credit else None

    def _unsend(self) -> None:
        """Let all that was sent in a session that is over wait again, first and in order."""
        for outbound in reversed(self._sent.values()):
            outbound.number = 0
            self._waiting.appendleft(outbound)
        self._sent.clear()
        self._credit_records = self._credit_bytes = 0
        self._least_records = self._least_bytes = 0
        self._wishes = False

    def _confirm(self, numbers: tuple[int, ...]) -> list[str]:
        ids = []
        for number in numbers:
            outbound = self._sent.pop(number, None)
            if outbound is not None:
                self._release(outbound)
                ids.append(outbound.id)
        return ids

    def _release(self, outbound: _Outbound) -> None:
        del self._ids[outbound.id]
        self._records -= outbound.records
        self._bytes -= len(outbound.payload)

    def flush(self, now_ns: int) -> list[Command]:
        """Send what waits, as far as credit goes; small messages together."""
        commands: list[Command] = []
        self._fresh_bytes = 0
        if not self.session.token:
            return commands
        while self._waiting:
            commands += self._want(self._waiting[0], now_ns)
            batch = self._next_batch()
            if not batch:
                break
            self._used_ns = now_ns
            number = self.session.number(now_ns, len(batch))
            for at, outbound in enumerate(batch, number):
                outbound.number = at
                self._sent[at] = outbound
            commands.append(_transmit(self.session.token, number, batch))
        return commands

    def _next_batch(self) -> list[_Outbound]:
        """Take from what waits what may be sent next in one message, and its credit.

        What the wish does not cover, or is too large to be copied, is sent alone.
        """
        waiting, batch = self._waiting, list[_Outbound]()
        most = PACK_MESSAGES_MAX if self.session.packs else 1
        size_bytes, labels = 0, 100
        while waiting and len(batch) < most:
            head = waiting[0]
            head_bytes = len(head.payload)
            if head.records > self._credit_records or head_bytes > self._credit_bytes:
                break
            size_bytes += head_bytes
            labels += head.label_bytes
            if (
                head_bytes > PACKED_BYTES_MAX
                or size_bytes > PACK_BYTES_MAX
                or labels > CONTROL_BYTES_MAX
                or head.records > self._least_records
                or head_bytes > self._least_bytes
            ):
                if batch:
                    break
                most = 1
            batch.append(waiting.popleft())
            self._credit_records -= head.records
            self._credit_bytes -= head_bytes
        return batch

    def _want(self, head: _Outbound, now_ns: int) -> list[Command]:
        """Say what is wanted, if that is new: enough for the next message.

        A larger one raises the least; one that needs half or less of it lowers it, since the broker
        serves those first whose credit is below their least. In between it stays, so that messages
        of nearly one size need one WANT.
        """
        size_bytes = len(head.payload)
        shrinks = _is_half(head.records, self._least_records) or _is_half(
            size_bytes, self._least_bytes
        )
        if (
            self._wishes
            and not shrinks
            and (head.records <= self._least_records and size_bytes <= self._least_bytes)
        ):
            return []
        if shrinks:
            self._least_records = self._least_bytes = 0
        self._least_records = max(self._least_records, head.records)
        self._least_bytes = max(self._least_bytes, size_bytes)
        self._wishes = True
        want = Want(
            self.session.token,
            self.session.number(now_ns),
            self._least_records,
            self._least_bytes,
            max(self._least_records, self._window_records),
            max(self._least_bytes, self._window_bytes),
        )
        return [Transmit(want)]

    def _give_back(self, now_ns: int) -> list[Command]:
        """Return unused credit; the wish stands only while a message waits for it."""
        token, commands = self.session.token, list[Command]()
        if not self._waiting:
            self._wishes = False
            self._least_records = self._least_bytes = 0
            commands.append(Transmit(Want(token, self.session.number(now_ns), 0, 0, 0, 0)))
        records, size_bytes = self._credit_records, self._credit_bytes
        self._credit_records = self._credit_bytes = 0
        number = self.session.number(now_ns)
        commands.append(Transmit(Return(token, number, records, size_bytes)))
        return commands

    def _check_size(self, outbound: _Outbound) -> None:
        welcome = self.session.welcome
        if welcome is None:
            return
        size_bytes = len(outbound.payload)
        if outbound.records > welcome.message_records_max or size_bytes > welcome.message_bytes_max:
            remedies = [
                (outbound.records > welcome.message_records_max, "--capacity-records"),
                (size_bytes > welcome.message_bytes_max, "--message-bytes-max"),
            ]
            flags = " and ".join(flag for is_over, flag in remedies if is_over)
            raise LocalProtocolError(
                f"{outbound.id} has {outbound.records} records and {size_bytes} bytes; the broker "
                f"takes {welcome.message_records_max} and {welcome.message_bytes_max}: "
                f"make smaller batches, or raise the broker's {flags}"
            )


def _transmit(token: str, number: int, batch: list[_Outbound]) -> Transmit:
    head = batch[0]
    if len(batch) == 1:
        publish = Publish(token, number, head.id, head.records, head.key, head.metadata)
        return Transmit(publish, head.payload)
    packed = tuple([Packed(o.id, o.records, len(o.payload), o.key, o.metadata) for o in batch])
    return Transmit(PublishPack(token, number, packed), b"".join([o.payload for o in batch]))


def _is_half(need: int, least: int) -> bool:
    return need < least and 2 * need <= least


def _check_labels(outbound: _Outbound) -> None:
    publish = Publish(
        _ANY_SESSION, INTEGER_MAX, outbound.id, INTEGER_MAX, outbound.key, outbound.metadata
    )
    size_bytes = len(encode(publish))
    if size_bytes > PUBLISH_BYTES_MAX:
        raise LocalProtocolError(
            f"{outbound.id[:100]}: id, key and metadata take {size_bytes} bytes of a PUBLISH; "
            f"{PUBLISH_BYTES_MAX} are the limit: put more into the payload"
        )
