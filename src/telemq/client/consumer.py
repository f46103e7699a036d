"""A consumer's rules: say how much it can hold, and settle what it was lent, in its session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from telemq.client.numbered import Numbered
from telemq.client.session import Command, Delivered, Delivery, Lost, Session, Transmit
from telemq.frames import split
from telemq.protocol import (
    LEASES_MAX,
    Credit,
    Deliver,
    DeliverPack,
    Frames,
    FromBroker,
    Payload,
    Renew,
    Settle,
    Settlement,
    Welcome,
)

__all__ = ["ConsumerCore", "ConsumerStats"]

#: Ranges of leases in one SETTLE or RENEW: they stay below the limit of a control frame.
_RANGES_MAX = 1000
_REASON_CHARACTERS_MAX = 1000
#: Mean size up to which messages in a frame are copied twice.
_SMALL_BYTES = 4096
#: How many times its own length of memory a message may keep, to be given without a copy: those of
#: 100 KB took a tenth of all CPU time less (0.54 to 0.47 s a million records of 400 bytes).
_KEPT_TIMES = 16


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """A consumer at one moment.

    Attributes:
        held_messages: delivered in this session and not settled.
        held_records: records in them.
        sessions: begun so far.
    """

    held_messages: int
    held_records: int
    sessions: int


class ConsumerCore:
    """All state of one consumer at one broker.

    Args:
        name: for the broker's log.
        credit_records: most records delivered and not settled.
        credit_bytes: most payload bytes delivered and not settled.
        seed: for the jitter of reconnects.
    """

    def __init__(self, name: str, *, credit_records: int, credit_bytes: int, seed: int) -> None:
        self.session = Session("consumer", name, seed)
        self._credit_records = credit_records
        self._credit_bytes = credit_bytes
        self._held = Numbered[Delivery]()
        self._sessions = 0

    def receive(self, message: FromBroker, frames: Frames, now_ns: int) -> list[Command]:
        """Take in one message of the broker."""
        had = self.session.token
        acts = self.session.accept(message, now_ns)
        lost = self._lose(had)
        if not acts:
            return lost
        match message:
            case Welcome():
                self._sessions += 1
                return [*lost, *self._credit(now_ns)]
            case Deliver():
                delivery = Delivery(
                    message.session,
                    message.lease,
                    message.lease_ms,
                    message.id,
                    message.records,
                    message.key,
                    message.metadata,
                    frames[0] if frames else b"",
                    message.attempt,
                    message.dead,
                )
                self._held.add(message.lease, [delivery])
                return [Delivered([delivery])]
            case DeliverPack():
                return self._unpack(message, frames, now_ns)
            case _:
                return []

    def _unpack(self, pack: DeliverPack, frames: Frames, now_ns: int) -> list[Command]:
        try:
            payloads = _payloads(pack, frames)
        except ValueError as error:
            had = self.session.token
            self.session.turned_away(f"the broker sent a PACK that is not whole: {error}", now_ns)
            return self._lose(had)
        session, lease_ms = pack.session, pack.lease_ms
        messages, carried, deliveries = iter(pack.messages), iter(payloads), list[Delivery]()
        for lent in pack.lent:
            leases, attempt = range(lent.lease, lent.lease + lent.count), lent.attempt
            made = [
                Delivery(
                    session,
                    lease,
                    lease_ms,
                    message.id,
                    message.records,
                    message.key,
                    message.metadata,
                    payload,
                    attempt,
                    "",
                )
                for lease, message, payload in zip(leases, messages, carried, strict=False)
            ]
            self._held.add(lent.lease, made)
            deliveries += made
        return [Delivered(deliveries)]

    def settle(
        self,
        deliveries: Iterable[Delivery],
        outcome: Literal["ok", "retry", "bury"],
        reason: str,
        now_ns: int,
    ) -> list[Command]:
        """Be done with deliveries; those of an earlier session are ignored."""
        runs = [run for ours in _in_a_row(self._ours(deliveries)) for run in self._let_go(*ours)]
        reason = reason[:_REASON_CHARACTERS_MAX]
        # A SETTLE with long reasons must still fit into a control frame.
        most = 10 if reason else _RANGES_MAX
        return [
            Transmit(
                Settle(
                    self.session.token,
                    self.session.number(now_ns),
                    tuple([Settlement(first, outcome, reason, count) for first, count in ranges]),
                )
            )
            for ranges in self._parts(runs, most)
        ]

    def renew(self, deliveries: Iterable[Delivery], now_ns: int) -> list[Command]:
        """Let the leases of these deliveries begin anew; those of an earlier session are gone."""
        held = [lease for lease in self._ours(deliveries) if lease in self._held]
        return [
            Transmit(
                Renew(
                    self.session.token,
                    self.session.number(now_ns),
                    tuple([first for first, _ in ranges]),
                    tuple([count for _, count in ranges]) if self.session.packs else (),
                )
            )
            for ranges in self._parts(_in_a_row(held), _RANGES_MAX)
        ]

    def pause(self, now_ns: int) -> list[Command]:
        """Take no more deliveries, in this session and later ones."""
        return self.allow(0, 0, now_ns)

    def allow(self, records: int, size_bytes: int, now_ns: int) -> list[Command]:
        """Hold at most this much delivered and not settled, in this session and later ones."""
        self._credit_records, self._credit_bytes = records, size_bytes
        return self._credit(now_ns) if self.session.token else []

    def advance(self, now_ns: int) -> list[Command]:
        """Let time pass: heartbeats and reconnects."""
        had = self.session.token
        commands = self.session.advance(now_ns)
        return [*self._lose(had), *commands]

    def next_deadline_ns(self) -> int | None:
        """Give when `advance` has something to do next; None when it never will."""
        return self.session.next_deadline_ns()

    def stats(self) -> ConsumerStats:
        """Give a frozen snapshot."""
        held = self._held.all()
        records = sum([delivery.records for _, delivery in held])
        return ConsumerStats(len(held), records, self._sessions)

    def _lose(self, had: str) -> list[Command]:
        """Forget what session `had` lent, if that is over."""
        if self.session.token == had:
            return []
        held = [delivery for _, delivery in self._held.all()]
        self._held.clear()
        return [Lost(held)] if held else []

    def _ours(self, deliveries: Iterable[Delivery]) -> list[int]:
        """Give the leases of those that belong to this session."""
        token = self.session.token
        return [d.lease for d in deliveries if d.session == token]

    def _let_go(self, first: int, count: int) -> list[tuple[int, int]]:
        """Hold these no more; gives those that were held."""
        gone = self._held.take(first, count)
        if len(gone) == count:
            return [(first, count)]
        return _in_a_row([delivery.lease for delivery in gone])

    def _parts(self, runs: list[tuple[int, int]], most: int) -> Iterator[list[tuple[int, int]]]:
        """Give runs of leases, each at most so many, for one message after another."""
        if not self.session.packs:
            runs = [(lease, 1) for first, count in runs for lease in range(first, first + count)]
        part, room = list[tuple[int, int]](), LEASES_MAX
        for first, count in runs:
            at, end = first, first + count
            while at < end:
                now = min(end - at, room)
                part.append((at, now))
                at, room = at + now, room - now
                if not room or len(part) == most:
                    yield part
                    part, room = [], LEASES_MAX
        if part:
            yield part

    def _credit(self, now_ns: int) -> list[Command]:
        number = self.session.number(now_ns)
        credit = Credit(self.session.token, number, self._credit_records, self._credit_bytes)
        return [Transmit(credit)]


def _payloads(pack: DeliverPack, frames: Frames) -> list[Payload]:
    """Give the payload of each message of a pack.

    Raises:
        ValueError: it has not all its messages, or a byte more, or not a lease for each.
    """
    leases = sum([lent.count for lent in pack.lent])
    if leases != len(pack.messages):
        raise ValueError(f"{leases} leases for {len(pack.messages)} messages")
    payloads: list[Payload] = []
    size_bytes = sum([message.bytes for message in pack.messages])
    for messages, frame in split(pack.messages, size_bytes, frames):
        if len(messages) == 1:
            payloads.append(frame)
            continue
        # A view keeps the whole frame in memory for as long as one is held, so most get a copy. To
        # cut small ones out of bytes is quicker; larger ones are not to be copied twice.
        at, keep = 0, payloads.append
        if len(frame) < _SMALL_BYTES * len(messages):
            joined = bytes(frame)
            for message in messages:
                end = at + message.bytes
                keep(joined[at:end])
                at = end
            continue
        whole = memoryview(frame)
        for message in messages:
            part = whole[at : at + message.bytes]
            keep(part if _KEPT_TIMES * message.bytes >= len(frame) else bytes(part))
            at += message.bytes
    return payloads


def _in_a_row(leases: list[int]) -> list[tuple[int, int]]:
    """Fold numbers that follow each other into the first and how many."""
    ranges: list[tuple[int, int]] = []
    first = after = 0
    for lease in leases:
        if lease != after:
            if after:
                ranges.append((first, after - first))
            first = lease
        after = lease + 1
    return [*ranges, (first, after - first)] if after else ranges
