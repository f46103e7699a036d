"""A consumer's rules: credit, deliveries, and settling only in their own session."""

from __future__ import annotations

from telemq.client.consumer import ConsumerCore, ConsumerStats
from telemq.client.session import Command, Delivery, Lost, Transmit
from telemq.protocol import (
    Bye,
    Credit,
    Deliver,
    FromBroker,
    Ping,
    Renew,
    Settle,
    Settlement,
    Welcome,
)
from tests.support.peers import delivered

SECOND = 10**9


def consumer() -> ConsumerCore:
    """A consumer with an open session ``s``."""
    core = ConsumerCore("me", credit_records=100, credit_bytes=1000, seed=1)
    core.advance(0)
    assert [Transmit(Credit("s", 1, 100, 1000))] == core.receive(welcome("s"), (), 0)
    return core


def welcome(session: str) -> Welcome:
    return Welcome(session, 1, "1.0", 1000, 50, 500)


def deliver(core: ConsumerCore, number: int, lease: int, payload: bytes | None = b"x") -> Delivery:
    message = Deliver("s", number, lease, 30_000, 1, "a#0", 3, "k", {"a": "b"}, "")
    (delivery,) = delivered(core.receive(message, () if payload is None else (payload,), 0))
    return delivery


def hear(core: ConsumerCore, message: FromBroker) -> list[Command]:
    return core.receive(message, (), 0)


def test_delivery_carries_all_that_the_broker_said() -> None:
    """Every message."""
    core = consumer()
    got = deliver(core, 2, 7)
    assert ("s", 7, 30_000, "a#0", 3, "k", {"a": "b"}, b"x", 1, "") == (
        got.session,
        got.lease,
        got.lease_ms,
        got.id,
        got.records,
        got.key,
        got.metadata,
        got.payload,
        got.attempt,
        got.dead,
    )
    assert ConsumerStats(1, 3, 1) == core.stats()


def test_delivery_without_a_payload_frame_has_an_empty_payload() -> None:
    """A producer may publish nothing but a header."""
    assert b"" == deliver(consumer(), 2, 1, None).payload


def test_deliveries_are_settled_together() -> None:
    """After one commit."""
    core = consumer()
    got = [deliver(core, 2, 7), deliver(core, 3, 8)]
    settle = Settle("s", 2, (Settlement(7, "ok", ""), Settlement(8, "ok", "")))
    assert [Transmit(settle)] == core.settle(got, "ok", "", 0)
    assert ConsumerStats(0, 0, 1) == core.stats()
    assert [] == core.settle(got, "ok", "", 0)


def test_long_reason_is_cut() -> None:
    """A database error with the whole statement in it."""
    core = consumer()
    (command,) = core.settle([deliver(core, 2, 7)], "bury", "x" * 5000, 0)
    assert Transmit(Settle("s", 2, (Settlement(7, "bury", "x" * 1000),))) == command


def test_renewal_names_only_what_is_still_held() -> None:
    """A slow commit, part of which is settled by now."""
    core = consumer()
    first, second = deliver(core, 2, 7), deliver(core, 3, 8)
    core.settle([first], "ok", "", 0)
    assert [Transmit(Renew("s", 3, (8,)))] == core.renew([first, second], 0)
    assert [] == core.renew([first], 0)


def test_delivery_of_an_earlier_session_can_neither_be_settled_nor_renewed() -> None:
    """The link broke while the batch was being stored; lease numbers may even be the same."""
    core = consumer()
    old = deliver(core, 2, 7)
    assert [Lost([old])] == hear(core, Bye("s", 3))
    assert ConsumerStats(0, 0, 1) == core.stats()
    core.advance(core.next_deadline_ns() or 0)
    core.receive(welcome("t"), (), 0)
    message = Deliver("t", 2, 7, 30_000, 2, "a#0", 3, "k", {}, "")
    (new,) = delivered(core.receive(message, (b"x",), 0))
    assert [] == core.settle([old], "ok", "", 0)
    assert [] == core.renew([old], 0)
    assert [Transmit(Settle("t", 2, (Settlement(7, "retry", ""),)))] == core.settle(
        [new], "retry", "", 0
    )


def test_silent_broker_ends_the_session_and_what_it_lent() -> None:
    """The broker's machine stopped."""
    core = consumer()
    lent = deliver(core, 2, 7)
    assert [Lost([lent])] == core.advance(5 * SECOND)
    assert [] == [c for c in core.advance(50 * SECOND) if isinstance(c, Lost)]
    assert ConsumerStats(0, 0, 1) == core.stats()


def test_pause_stops_deliveries_now_and_in_later_sessions() -> None:
    """A collector drains."""
    core = consumer()
    assert [Transmit(Credit("s", 2, 0, 0))] == core.pause(0)
    hear(core, Bye("s", 2))
    assert [] == core.pause(0)
    core.advance(core.next_deadline_ns() or 0)
    assert [Transmit(Credit("t", 1, 0, 0))] == core.receive(welcome("t"), (), 0)


def test_ping_keeps_the_session_and_asks_for_nothing() -> None:
    """A quiet hour."""
    core = consumer()
    assert [] == hear(core, Ping("s", 2))
    assert SECOND == core.next_deadline_ns()
    assert [Transmit(Ping("s", 2))] == core.advance(SECOND)
