"""A producer's rules: keep every message until it is confirmed, and spend only what was granted.

A message is *waiting* (for credit or a session), *sent* (for its CONFIRM), or gone. When a session
ends, what was sent waits again, ahead of the rest and in order; the next session publishes it anew
with the same id. How much may be kept is bounded by the window; the owner asks `room_records`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice

import msgspec

from telemq.client.session import Command, Confirmed, Session, Transmit
from telemq.errors import LocalProtocolError
from telemq.frames import join
from telemq.protocol import (
    INTEGER_MAX,
    PACK_BYTES_MAX,
    PACK_CONTROL_BYTES_MAX,
    PACK_MESSAGES_MAX,
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
)

__all__ = ["ProducerCore", "ProducerStats"]

#: Credit that was not used for this long goes back; docs/protocol.md, Producers.
_IDLE_NS = 100_000_000
#: What waits for a flush, from which on it is time for one: large enough to cost a broker little,
#: and with single records small enough that it is at work meanwhile.
_FLUSH_MESSAGES, _FLUSH_BYTES = 256, PACK_BYTES_MAX
#: Most bytes of a message's line in a PACK beside its labels, and of a character that is escaped.
_LINE_BYTES, _ESCAPED = 40, 6
#: Most bytes of the lines of a PACK.
_PACK_LABEL_BYTES_MAX = PACK_CONTROL_BYTES_MAX - 200
#: One for all that have none; never changed.
_NO_METADATA: dict[str, str] = {}
#: As long as any session and number.
_ANY_SESSION = "0" * 64


class _Kept(msgspec.Struct, eq=False, gc=False):
    """A message that is not confirmed; `label_bytes` is what its labels take if unescaped."""

    packed: Packed
    payload: Payload
    label_bytes: int


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
        self._waiting: deque[_Kept] = deque()
        self._sent: dict[int, _Kept] = {}
        self._ids: dict[str, _Kept] = {}
        self._records = self._bytes = 0
        self._credit_records = self._credit_bytes = 0
        self._least_records = self._least_bytes = 0
        self._wishes = False
        #: What the broker takes at most, once it has said so.
        self._largest_records = self._largest_bytes = INTEGER_MAX
        self._join_bytes = 0
        self._used_ns = 0
        self._sessions = 0
        self._fresh = self._fresh_bytes = 0

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
            Whether it is time to flush: what waits is worth a pack.

        Raises:
            LocalProtocolError: that id is kept already, or the message, or its labels, are larger
                than the broker takes; nothing was changed.
        """
        if id in self._ids:
            raise LocalProtocolError(f"{id} is published already and not confirmed")
        size_bytes = len(payload)
        packed = Packed(id, records, size_bytes, key, metadata or _NO_METADATA)
        label_bytes = _LINE_BYTES + len(id) + len(key)
        if metadata:
            label_bytes += sum([len(name) + len(text) + 6 for name, text in metadata.items()])
        if _ESCAPED * label_bytes > PUBLISH_BYTES_MAX:
            _check_labels(packed)
        if records > self._largest_records or size_bytes > self._largest_bytes:
            self._check_size(packed)
        kept = self._ids[id] = _Kept(packed, payload, label_bytes)
        self._waiting.append(kept)
        self._records += records
        self._bytes += size_bytes
        self._fresh_bytes += size_bytes
        self._fresh += 1
        return self._fresh >= _FLUSH_MESSAGES or self._fresh_bytes >= _FLUSH_BYTES

    def forget(self, id: str) -> None:
        """Drop a message: somebody else sees to it now. Unknown ids are ignored."""
        kept = self._ids.get(id)
        if kept is None:
            return
        self._release([kept])
        if kept in self._waiting:
            self._waiting.remove(kept)
        else:
            del self._sent[next(number for number, sent in self._sent.items() if sent is kept)]

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
                self._largest_records = message.message_records_max
                self._largest_bytes = message.message_bytes_max
                self._join_bytes = message.join_bytes
                for kept in self._waiting:
                    self._check_size(kept.packed)
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
        if self._fresh:
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
        self._waiting.extendleft(reversed(self._sent.values()))
        self._sent.clear()
        self._credit_records = self._credit_bytes = 0
        self._least_records = self._least_bytes = 0
        self._wishes = False

    def _confirm(self, numbers: tuple[int, ...]) -> list[str]:
        take = self._sent.pop
        confirmed = [kept for number in numbers if (kept := take(number, None)) is not None]
        self._release(confirmed)
        return [kept.packed.id for kept in confirmed]

    def _release(self, gone: list[_Kept]) -> None:
        for kept in gone:
            packed = kept.packed
            del self._ids[packed.id]
            self._records -= packed.records
            self._bytes -= packed.bytes

    def flush(self, now_ns: int) -> list[Command]:
        """Send what waits, as far as credit goes, together where it fits."""
        commands: list[Command] = []
        self._fresh = self._fresh_bytes = 0
        if not self.session.token:
            return commands
        while self._waiting:
            commands += self._want(self._waiting[0].packed, now_ns)
            batch = self._next_batch()
            if not batch:
                break
            self._used_ns = now_ns
            number = self.session.number(now_ns, len(batch))
            self._sent.update(zip(range(number, number + len(batch)), batch, strict=True))
            commands.append(self._transmit(number, batch))
        return commands

    def _next_batch(self) -> list[_Kept]:
        """Take from what waits what may be sent next in one message, and its credit."""
        batch = self._first_that_fit() if self.session.packs else []
        while _ESCAPED * sum([kept.label_bytes for kept in batch]) > _PACK_LABEL_BYTES_MAX:
            # It may be too much; to write it down tells, and takes less than to count.
            if len(encode([kept.packed for kept in batch])) <= _PACK_LABEL_BYTES_MAX:
                break
            del batch[len(batch) // 2 :]
        if not batch and self._covers(self._waiting[0].packed):
            batch = [self._waiting[0]]
        for _ in batch:
            self._waiting.popleft()
        self._credit_records -= sum([kept.packed.records for kept in batch])
        self._credit_bytes -= sum([kept.packed.bytes for kept in batch])
        return batch

    def _first_that_fit(self) -> list[_Kept]:
        """List the first of what waits that fit into a pack, the credit and the wish."""
        batch: list[_Kept] = []
        records, size_bytes = self._credit_records, min(self._credit_bytes, PACK_BYTES_MAX)
        label_bytes = _PACK_LABEL_BYTES_MAX
        most_records, most_bytes = self._least_records, self._least_bytes
        for kept in islice(self._waiting, PACK_MESSAGES_MAX):
            packed = kept.packed
            records -= packed.records
            size_bytes -= packed.bytes
            label_bytes -= kept.label_bytes
            if records < 0 or size_bytes < 0 or label_bytes < 0:
                break
            if packed.records > most_records or packed.bytes > most_bytes:
                break
            batch.append(kept)
        return batch

    def _covers(self, packed: Packed) -> bool:
        return packed.records <= self._credit_records and packed.bytes <= self._credit_bytes

    def _want(self, head: Packed, now_ns: int) -> list[Command]:
        """Say what is wanted, if that is new: enough for the next message.

        A larger one raises the least; one that needs half or less of it lowers it, since the broker
        serves those first whose credit is below their least. In between it stays, so that messages
        of nearly one size need one WANT.
        """
        shrinks = _is_half(head.records, self._least_records) or _is_half(
            head.bytes, self._least_bytes
        )
        if (
            self._wishes
            and not shrinks
            and (head.records <= self._least_records and head.bytes <= self._least_bytes)
        ):
            return []
        if shrinks:
            self._least_records = self._least_bytes = 0
        self._least_records = max(self._least_records, head.records)
        self._least_bytes = max(self._least_bytes, head.bytes)
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

    def _check_size(self, packed: Packed) -> None:
        most_records, most_bytes = self._largest_records, self._largest_bytes
        remedies = [
            (packed.records > most_records, "--capacity-records"),
            (packed.bytes > most_bytes, "--message-bytes-max"),
        ]
        if flags := " and ".join(flag for is_over, flag in remedies if is_over):
            raise LocalProtocolError(
                f"{packed.id} has {packed.records} records and {packed.bytes} bytes; the broker "
                f"takes {most_records} and {most_bytes}: "
                f"make smaller batches, or raise the broker's {flags}"
            )

    def _transmit(self, number: int, batch: list[_Kept]) -> Transmit:
        token = self.session.token
        if len(batch) == 1:
            head = batch[0].packed
            publish = Publish(token, number, head.id, head.records, head.key, head.metadata)
            return Transmit(publish, (batch[0].payload,))
        pack = PublishPack(token, number, tuple([kept.packed for kept in batch]))
        return Transmit(pack, join([kept.payload for kept in batch], self._join_bytes))


def _is_half(need: int, least: int) -> bool:
    return need < least and 2 * need <= least


def _check_labels(packed: Packed) -> None:
    publish = Publish(
        _ANY_SESSION, INTEGER_MAX, packed.id, INTEGER_MAX, packed.key, packed.metadata
    )
    size_bytes = len(encode(publish))
    if size_bytes > PUBLISH_BYTES_MAX:
        raise LocalProtocolError(
            f"{packed.id[:100]}: id, key and metadata take {size_bytes} bytes of a PUBLISH; "
            f"{PUBLISH_BYTES_MAX} are the limit: put more into the payload"
        )
