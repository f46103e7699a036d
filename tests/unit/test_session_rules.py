"""A peer's session, step by step: greeting, heartbeats, and the ways back after a loss."""

from __future__ import annotations

import pytest

from telemq.client.session import Reconnect, Session, Transmit
from telemq.protocol import Bye, Error, FromBroker, Grant, Hello, Ping, Welcome

MS = 10**6
SECOND = 1000 * MS
HELLO = [Reconnect(), Transmit(Hello("", 0, "1.1", "producer", "me"))]
WELCOME = Welcome("s", 1, "1.0", 1000, 10, 100)


def opened(now_ns: int = 0) -> Session:
    """A session that is open."""
    session = Session("producer", "me", 1)
    session.advance(now_ns)
    assert session.accept(WELCOME, now_ns)
    return session


def test_first_advance_connects_and_says_hello() -> None:
    """Start-up."""
    session = Session("producer", "me", 1)
    assert ("", "not connected yet", 0) == (
        session.token,
        session.fault,
        session.next_deadline_ns(),
    )
    assert HELLO == session.advance(0)
    assert [] == session.advance(1)
    assert session.accept(WELCOME, 2)
    assert ("s", "", WELCOME) == (session.token, session.fault, session.welcome)


def test_name_is_cut_to_what_the_protocol_allows() -> None:
    """A name made from a long host name."""
    hello = Session("producer", "n" * 300, 1).advance(0)[1]
    assert isinstance(hello, Transmit)
    assert isinstance(hello.message, Hello)
    assert "n" * 200 == hello.message.name


def test_ping_is_due_one_heartbeat_after_the_last_word() -> None:
    """A quiet hour."""
    session = opened()
    assert SECOND == session.next_deadline_ns()
    assert [] == session.advance(SECOND - 1)
    assert [Transmit(Ping("s", 1))] == session.advance(SECOND)
    assert 2 == session.number(SECOND + 5)
    assert 2 * SECOND + 5 == session.next_deadline_ns()


def test_broker_silent_for_five_heartbeats_is_lost() -> None:
    """Its machine stopped."""
    session = opened()
    for beat in range(1, 5):
        assert [Transmit(Ping("s", beat))] == session.advance(beat * SECOND)
    assert [] == session.advance(5 * SECOND)
    assert ("", "the broker fell silent") == (session.token, session.fault)


def test_anything_heard_keeps_the_session() -> None:
    """The broker is there, with nothing but PING to say."""
    session = opened()
    assert session.accept(Ping("s", 2), 4 * SECOND)
    session.advance(8 * SECOND)
    assert "s" == session.token


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (Ping("s", 3), "the link lost something before number 3"),
        (Ping("s", 1), "the link lost something before number 1"),
        (Bye("s", 2), "the broker said BYE"),
        (Error("s", 0, "gap", "7 is missing"), "the broker says gap: 7 is missing"),
    ],
)
def test_session_ends_and_begins_anew_over_a_new_connection(
    message: FromBroker, fault: str
) -> None:
    """Each way in which a session ends but for silence."""
    session = opened()
    assert not session.accept(message, 0)
    assert ("", fault, False) == (session.token, session.fault, session.is_final)
    deadline = session.next_deadline_ns()
    assert deadline is not None
    assert 50 * MS <= deadline <= 100 * MS
    assert [] == session.advance(deadline - 1)
    assert HELLO == session.advance(deadline)


@pytest.mark.parametrize("code", ["version", "role"])
def test_final_error_is_the_end(code: str) -> None:
    """It would be refused again for ever."""
    session = Session("producer", "me", 1)
    session.advance(0)
    assert not session.accept(Error("", 0, code, "no"), 0)
    assert session.is_final
    assert f"the broker says {code}: no" == session.fault
    assert session.next_deadline_ns() is None
    assert [] == session.advance(10**15)


def test_pause_doubles_up_to_five_seconds_and_begins_small_after_a_welcome() -> None:
    """A broker that is down for long, then comes back."""
    session, now, pauses = Session("producer", "me", 1), 0, []
    for _ in range(12):
        assert HELLO == session.advance(now)
        assert not session.accept(Error("", 0, "full", ""), now)
        deadline = session.next_deadline_ns()
        assert deadline is not None
        pauses.append(deadline - now)
        now = deadline
    full = [100 * MS << n for n in range(6)] + [5 * SECOND] * 6
    assert all(most // 2 <= pause <= most for pause, most in zip(pauses, full, strict=True))
    session.advance(now)
    session.accept(WELCOME, now)
    session.accept(Bye("s", 2), now)
    assert (session.next_deadline_ns() or 0) - now <= 100 * MS


def test_hello_without_an_answer_is_given_up_after_five_seconds() -> None:
    """The broker died between HELLO and WELCOME."""
    session = Session("producer", "me", 1)
    session.advance(0)
    assert 5 * SECOND == session.next_deadline_ns()
    assert [] == session.advance(5 * SECOND)
    assert "the broker does not answer" == session.fault
    assert HELLO == session.advance(session.next_deadline_ns() or 0)


def test_pause_does_not_grow_while_hello_goes_unanswered() -> None:
    """A broker is stopped for a minute: whoever waits for it is at the door when it goes on."""
    session, now = Session("producer", "me", 1), 0
    for _ in range(12):
        assert HELLO == session.advance(now)
        now += 5 * SECOND
        assert [] == session.advance(now)
        assert 50 * MS <= session.pause_ns <= 100 * MS
        assert now + session.pause_ns == session.next_deadline_ns()
        now += session.pause_ns


@pytest.mark.parametrize(
    "message",
    [
        Grant("other", 2, 1, 1),
        Error("other", 0, "no_session", ""),
        Welcome("t", 2, "1.0", 1, 1, 1),
        Welcome("", 1, "1.0", 1, 1, 1),
    ],
)
def test_what_is_not_of_this_session_is_ignored(message: FromBroker) -> None:
    """It was under way when the session before ended; or the broker has a fault."""
    session = opened()
    assert not session.accept(message, 0)
    assert "s" == session.token


def test_late_welcome_is_ignored() -> None:
    """The answer to a HELLO that was given up comes after all."""
    session = Session("producer", "me", 1)
    session.advance(0)
    session.advance(5 * SECOND)
    assert not session.accept(WELCOME, 5 * SECOND)
    assert "" == session.token


def test_bye_ends_for_good_and_is_sent_only_in_a_session() -> None:
    """The process ends."""
    session = opened()
    assert [Transmit(Bye("s", 1))] == session.bye(0)
    assert (True, "closed", "") == (session.is_final, session.fault, session.token)
    assert [] == Session("producer", "me", 1).bye(0)
