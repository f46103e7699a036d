"""A producer's rules: keep every message until it is confirmed, and spend only what was granted.

A message is *waiting* (for credit or a session), *sent* (for its CONFIRM), or gone. When a session
ends, what was sent waits again, ahead of the rest and in order; the next session publishes it anew
with the same id. How much may be kept is bounded by the window; the owner asks `room_records`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from telemq.client.session import Command, Confirmed, Session, Transmit
from telemq.errors import LocalProtocolError
from telemq.protocol import (
    INTEGER_MAX,
    PUBLISH_BYTES_MAX,
    Confirm,
    FromBroker,
    Grant,
    Payload,
    Publish,
    Return,
    Want,
    Welcome,
    encode,
)

__all__ = ["ProducerCore", "ProducerStats"]

#: Credit that was not used for this long goes back; docs/protocol.md, Producers.
_IDLE_NS = 100_000_000
#: Characters of id, key and metadata up to which a PUBLISH is not too long, however many bytes
#: each takes (six at most); looking closer costs as much as sending it.
_LABEL_CHARACTERS = 1000
#: As long as any session and number.
_ANY_SESSION = "0" * 64


@dataclass(slots=True, eq=False)
class _Outbound:
    id: str
    records: int
    key: str
    metadata: dict[str, str]
    payload: Payload
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
            LocalProtocolError: that id is kept already, or the message, or its labels, are larger
                than the broker takes; nothing was changed.
        """
        if id in self._ids:
            raise LocalProtocolError(f"{id} is published already and not confirmed")
        outbound = _Outbound(id, records, key, metadata, payload)
        _check_labels(outbound)
        self._check_size(outbound)
        self._ids[id] = outbound
        self._waiting.append(outbound)
        self._records += records
        self._bytes += len(payload)
        return self._flush(now_ns)

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
                return [Confirmed(self._confirm(message.numbers)), *self._flush(now_ns)]
            case _:
                return []
        return self._flush(now_ns)

    def advance(self, now_ns: int) -> list[Command]:
        """Let time pass: heartbeats, reconnects, and credit that was not used goes back."""
        had = self.session.token
        commands = self.session.advance(now_ns)
        if had and not self.session.token:
            self._unsend()
        if self._idle_end_ns() is not None and now_ns >= self._used_ns + _IDLE_NS:
            commands += self._give_back(now_ns)
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

    def _flush(self, now_ns: int) -> list[Command]:
        commands: list[Command] = []
        if not self.session.token:
            return commands
        while self._waiting:
            head = self._waiting[0]
            commands += self._want(head, now_ns)
            size_bytes = len(head.payload)
            if head.records > self._credit_records or size_bytes > self._credit_bytes:
                break
            self._waiting.popleft()
            self._credit_records -= head.records
            self._credit_bytes -= size_bytes
            self._used_ns = now_ns
            number = head.number = self.session.number(now_ns)
            self._sent[number] = head
            publish = Publish(
                self.session.token, number, head.id, head.records, head.key, head.metadata
            )
            commands.append(Transmit(publish, head.payload))
        return commands

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


def _is_half(need: int, least: int) -> bool:
    return need < least and 2 * need <= least


def _check_labels(outbound: _Outbound) -> None:
    labels = [outbound.id, outbound.key, *outbound.metadata, *outbound.metadata.values()]
    if sum(map(len, labels)) + len(labels) <= _LABEL_CHARACTERS:
        return
    publish = Publish(
        _ANY_SESSION, INTEGER_MAX, outbound.id, INTEGER_MAX, outbound.key, outbound.metadata
    )
    size_bytes = len(encode(publish))
    if size_bytes > PUBLISH_BYTES_MAX:
        raise LocalProtocolError(
            f"{outbound.id[:100]}: id, key and metadata take {size_bytes} bytes of a PUBLISH; "
            f"{PUBLISH_BYTES_MAX} are the limit: put more into the payload"
        )
