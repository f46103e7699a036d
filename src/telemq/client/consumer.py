"""A consumer's rules: say how much it can hold, and settle what it was lent, in its session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from telemq.client.session import Command, Delivery, Lost, Session, Transmit
from telemq.protocol import (
    Credit,
    Deliver,
    DeliverPack,
    FromBroker,
    Payload,
    Renew,
    Settle,
    Settlement,
    Welcome,
)

__all__ = ["ConsumerCore", "ConsumerStats"]

#: Leases in one SETTLE or RENEW: with reasons they stay below the limit of a control frame.
_LEASES_MAX = 1000
_REASON_CHARACTERS_MAX = 1000


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
        self._held: dict[int, Delivery] = {}
        self._sessions = 0

    def receive(self, message: FromBroker, payload: Payload | None, now_ns: int) -> list[Command]:
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
                    b"" if payload is None else payload,
                    message.attempt,
                    message.dead,
                )
                self._held[message.lease] = delivery
                return [delivery]
            case DeliverPack():
                return self._unpack(message, b"" if payload is None else payload, now_ns)
            case _:
                return []

    def _unpack(self, pack: DeliverPack, payload: Payload, now_ns: int) -> list[Command]:
        session, lease_ms, held, at = pack.session, pack.lease_ms, self._held, 0
        if sum([lent.bytes for lent in pack.messages]) != len(payload):
            had = self.session.token
            self.session.turned_away("the broker sent a PACK whose payload is not whole", now_ns)
            return self._lose(had)
        deliveries: list[Command] = []
        for lent in pack.messages:
            # A copy: a view would keep the whole pack in memory for as long as one is held.
            part = bytes(payload[at : at + lent.bytes])
            at += lent.bytes
            delivery = held[lent.lease] = Delivery(
                session,
                lent.lease,
                lease_ms,
                lent.id,
                lent.records,
                lent.key,
                lent.metadata,
                part,
                lent.attempt,
                "",
            )
            deliveries.append(delivery)
        return deliveries

    def settle(
        self,
        deliveries: Iterable[Delivery],
        outcome: Literal["ok", "retry", "bury"],
        reason: str,
        now_ns: int,
    ) -> list[Command]:
        """Be done with deliveries; those of an earlier session are ignored."""
        done = []
        for delivery in self._live(deliveries):
            del self._held[delivery.lease]
            done.append(Settlement(delivery.lease, outcome, reason[:_REASON_CHARACTERS_MAX]))
        # A SETTLE with long reasons must still fit into a control frame.
        most = _LEASES_MAX if not reason else 10
        return [
            Transmit(
                Settle(self.session.token, self.session.number(now_ns), tuple(done[at : at + most]))
            )
            for at in range(0, len(done), most)
        ]

    def renew(self, deliveries: Iterable[Delivery], now_ns: int) -> list[Command]:
        """Let the leases of these deliveries begin anew; those of an earlier session are gone."""
        leases = [delivery.lease for delivery in self._live(deliveries)]
        return [
            Transmit(
                Renew(
                    self.session.token,
                    self.session.number(now_ns),
                    tuple(leases[at : at + _LEASES_MAX]),
                )
            )
            for at in range(0, len(leases), _LEASES_MAX)
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
        records = sum(delivery.records for delivery in self._held.values())
        return ConsumerStats(len(self._held), records, self._sessions)

    def _lose(self, had: str) -> list[Command]:
        """Forget what session `had` lent, if that is over."""
        if self.session.token == had or not self._held:
            return []
        lost = Lost(list(self._held.values()))
        self._held.clear()
        return [lost]

    def _live(self, deliveries: Iterable[Delivery]) -> Sequence[Delivery]:
        return [d for d in deliveries if self._held.get(d.lease) is d]

    def _credit(self, now_ns: int) -> list[Command]:
        number = self.session.number(now_ns)
        credit = Credit(self.session.token, number, self._credit_records, self._credit_bytes)
        return [Transmit(credit)]
