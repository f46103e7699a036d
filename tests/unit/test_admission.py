"""The allow-list's rules, and what revoking does to sessions."""

from __future__ import annotations

from telemq.broker.admission import Admission
from telemq.broker.peers import PeerId
from telemq.keys import AllowedKey
from telemq.protocol import Deliver, Error, Hello
from tests.support.peers import Scene

PRODUCER = AllowedKey("p", "producer", b"P" * 40)
CONSUMER = AllowedKey("c", "consumer", b"C" * 40)
ADMIN = AllowedKey("a", "admin", b"A" * 40)


def test_key_is_let_in_where_its_role_allows() -> None:
    """Handshakes of all kinds of keys on both endpoints."""
    admission = Admission([PRODUCER, CONSUMER, ADMIN])
    assert (PRODUCER.user_id, "") == admission.user_of("producer", PRODUCER.public)
    assert ("", "wrong_role") == admission.user_of("consumer", PRODUCER.public)
    assert ("", "wrong_role") == admission.user_of("producer", CONSUMER.public)
    assert (ADMIN.user_id, "") == admission.user_of("consumer", ADMIN.public)
    assert ("", "unknown_key") == admission.user_of("producer", b"X" * 40)
    assert ("", "wrong_role") == admission.user_of("", ADMIN.public)


def test_message_without_a_key_is_not_heard() -> None:
    """Whatever came past the handshake without a user id: closed."""
    admission = Admission([PRODUCER])
    assert admission.admits(PeerId("producer", b"", PRODUCER.user_id))
    assert not admission.admits(PeerId("consumer", b"", PRODUCER.user_id))
    assert not admission.admits(PeerId("producer", b""))
    assert not Admission([]).admits(PeerId("producer", b""))


def test_change_tells_what_is_not_admitted_any_more() -> None:
    """One key is revoked, one loses an endpoint, one name gets another key."""
    admission = Admission([PRODUCER, CONSUMER, ADMIN])
    renewed = AllowedKey("c", "consumer", b"N" * 40)
    gone = admission.replace([renewed, AllowedKey("a", "producer", ADMIN.public)])
    assert [
        ("consumer", ADMIN.user_id),
        ("consumer", CONSUMER.user_id),
        ("producer", PRODUCER.user_id),
    ] == gone
    assert [] == admission.replace([renewed, AllowedKey("a", "producer", ADMIN.public)])


def test_revoking_ends_that_keys_sessions_and_no_others() -> None:
    """Two consumers hold messages; the key of one is revoked on one endpoint."""
    scene = Scene()
    producer, victim, other = scene.producer(), scene.peer("consumer"), scene.peer("consumer")
    victim.id = PeerId("consumer", b"v", "victim")
    other.id = PeerId("consumer", b"o", "other")
    victim.hello()
    victim.credit(1)
    producer.publish("a")
    other.hello()
    other.credit()
    assert [] == scene.core.revoke("producer", "victim", scene.now)
    out = scene.core.revoke("consumer", "victim", scene.now)
    scene.core.check()
    error, deliver = out[0].message, out[1].message
    assert isinstance(error, Error)
    assert (victim.id, victim.session, "denied") == (out[0].peer, error.session, error.code)
    assert isinstance(deliver, Deliver)
    assert (other.id, "a", 2) == (out[1].peer, deliver.id, deliver.attempt)
    assert 2 == len(out)


def test_session_is_not_found_with_another_key() -> None:
    """A routing id changes hands: HELLO with another key leaves the session alone."""
    scene = Scene()
    victim = scene.consumer()
    thief = victim.id._replace(key="thief")
    scene.receive(thief, Hello("", 0, "1.0", "consumer", "thief"))
    assert 2 == scene.core.stats().consumers
