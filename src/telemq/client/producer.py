"""A producer's rules: keep every message until it is confirmed, and spend only what was granted.

A message is *waiting* (for credit or a session), *sent* (for its CONFIRM), or gone. When a session
ends, what was sent waits again, ahead of the rest and in order; the next session publishes it anew
with the same id. How much may be kept is bounded by the window; the owner asks `room_records`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import zip_longest

from telemq.client.fitting import Most, first_that_fit
from telemq.client.labels import label_bytes
from telemq.client.numbered import Numbered
from telemq.client.session import Command, Confirmed, Session, Transmit
from telemq.errors import LocalProtocolError
from telemq.frames import join
from telemq.protocol import (
    INTEGER_MAX,
    PACK_BYTES_MAX,
    PACK_MESSAGES_MAX,
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
)

__all__ = ["ProducerCore", "ProducerStats"]

#: Credit that was not used for this long goes back; docs/protocol.md, Producers.
_IDLE_NS = 100_000_000
#: What waits for a flush, from which on it is time for one: large enough to cost a broker little,
#: and with single records small enough that it is at work meanwhile.
_FLUSH_MESSAGES, _FLUSH_BYTES = 256, PACK_BYTES_MAX
#: One for all that have none; never changed.
_NO_METADATA: dict[str, str] = {}


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
        #: Of all that is kept, by id; what is to be said of it is waiting or sent.
        self._payloads: dict[str, Payload] = {}
        self._waiting: deque[Packed] = deque()
        self._sent = Numbered[Packed]()
        self._records = self._bytes = 0
        self._credit_records = self._credit_bytes = 0
        self._least_records = self._least_bytes = 0
        self._wishes = False
        #: What the broker takes at most, once it has said so.
        self._largest_records = self._largest_bytes = INTEGER_MAX
        self._join_bytes = 0
        #: Of what was kept so far: the longest id and key together, and the most `label_bytes`.
        self._characters = self._label_bytes = 0
        self._used_ns = 0
        self._sessions = 0
        #: When so much is kept, what came since the last flush is worth another one.
        self._due_messages, self._due_bytes = _FLUSH_MESSAGES, _FLUSH_BYTES

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
        metadata: dict[str, str] | None,
        now_ns: int,
    ) -> list[Command]:
        """Take over a message until it is confirmed; it is sent as soon as there is credit.

        Raises:
            LocalProtocolError: see `keep`.
        """
        self.keep(id, records, payload, key, metadata)
        return self.flush(now_ns)

    def keep(
        self, id: str, records: int, payload: Payload, key: str, metadata: dict[str, str] | None
    ) -> bool:
        """Take over a message until it is confirmed; it is sent at the next `flush` or `advance`.

        Returns:
            Whether it is time to flush: what waits is worth a pack.

        Raises:
            LocalProtocolError: that id is kept already, or the message, or its labels, are larger
                than the broker takes; nothing was changed.
        """
        payloads = self._payloads
        if id in payloads:
            raise LocalProtocolError(f"{id} is published already and not confirmed")
        size_bytes = len(payload)
        packed = Packed(id, records, size_bytes, key, metadata or _NO_METADATA)
        characters = len(id) + len(key)
        if metadata or characters > self._characters:
            self._label_bytes = max(self._label_bytes, label_bytes(packed))
            self._characters = max(self._characters, characters)
        if records > self._largest_records or size_bytes > self._largest_bytes:
            self._check_size(packed)
        payloads[id] = payload
        self._waiting.append(packed)
        self._records += records
        self._bytes += size_bytes
        return self._bytes >= self._due_bytes or len(payloads) >= self._due_messages

    def forget(self, id: str) -> None:
        """Drop a message: somebody else sees to it now. Unknown ids are ignored."""
        if id not in self._payloads:
            return
        for packed in self._waiting:
            if packed.id == id:
                self._waiting.remove(packed)
                break
        else:
            number = next(number for number, sent in self._sent.all() if sent.id == id)
            (packed,) = self._sent.take(number, 1)
        self._release([packed])

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
                for packed in self._waiting:
                    self._check_size(packed)
            case Grant():
                self._credit_records += message.records
                self._credit_bytes += message.bytes
                self._used_ns = now_ns
            case Confirm():
                return [Confirmed(self._confirm(message)), *self.flush(now_ns)]
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
        if len(self._payloads) > self._due_messages - _FLUSH_MESSAGES:
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
            len(self._payloads) - len(self._waiting),
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
        self._waiting.extendleft(reversed([packed for _, packed in self._sent.all()]))
        self._sent.clear()
        self._credit_records = self._credit_bytes = 0
        self._least_records = self._least_bytes = 0
        self._wishes = False

    def _confirm(self, confirm: Confirm) -> list[str]:
        # A broker that gives fewer counts than numbers says 1 of the others.
        runs = zip_longest(confirm.numbers, confirm.counts[: len(confirm.numbers)], fillvalue=1)
        return self._release([packed for run in runs for packed in self._sent.take(*run)])

    def _release(self, gone: list[Packed]) -> list[str]:
        """Keep these no more; gives their ids."""
        ids = [packed.id for packed in gone]
        for id in ids:
            del self._payloads[id]
        self._records -= sum([packed.records for packed in gone])
        size_bytes = sum([packed.bytes for packed in gone])
        self._bytes -= size_bytes
        self._due_messages -= len(ids)
        self._due_bytes -= size_bytes
        return ids

    def flush(self, now_ns: int) -> list[Command]:
        """Send what waits, as far as credit goes, together where it fits."""
        commands: list[Command] = []
        self._due_messages = len(self._payloads) + _FLUSH_MESSAGES
        self._due_bytes = self._bytes + _FLUSH_BYTES
        if not self.session.token:
            return commands
        while self._waiting:
            commands += self._want(self._waiting[0], now_ns)
            batch, size_bytes = self._next_batch()
            if not batch:
                break
            self._used_ns = now_ns
            number = self.session.number(now_ns, len(batch))
            self._sent.add(number, batch)
            commands.append(self._transmit(number, batch, size_bytes))
        return commands

    def _next_batch(self) -> tuple[list[Packed], int]:
        """Take from what waits what may be sent next in one message, and its credit.

        Returns:
            That, and its payload bytes.
        """
        most = Most(
            PACK_MESSAGES_MAX if self.session.packs else 0,
            self._credit_records,
            min(self._credit_bytes, PACK_BYTES_MAX),
            self._least_records,
            self._least_bytes,
            self._label_bytes,
        )
        batch, records, size_bytes = first_that_fit(self._waiting, most)
        if not batch and self._covers(self._waiting[0]):
            head = self._waiting[0]
            batch, records, size_bytes = [head], head.records, head.bytes
        if len(batch) == len(self._waiting):
            self._waiting.clear()
        else:
            for _ in batch:
                self._waiting.popleft()
        self._credit_records -= records
        self._credit_bytes -= size_bytes
        return batch, size_bytes

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

    def _transmit(self, number: int, batch: list[Packed], size_bytes: int) -> Transmit:
        token = self.session.token
        payloads = [self._payloads[packed.id] for packed in batch]
        if len(batch) == 1:
            (head,) = batch
            publish = Publish(token, number, head.id, head.records, head.key, head.metadata)
            return Transmit(publish, (payloads[0],))
        frames = join(payloads, size_bytes, self._join_bytes)
        return Transmit(PublishPack(token, number, tuple(batch)), frames)


def _is_half(need: int, least: int) -> bool:
    return need < least and 2 * need <= least
