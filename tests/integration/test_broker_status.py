"""``/status.json`` of a real broker, and the board between its thread and the askers."""

from __future__ import annotations

import json
import threading

import msgspec
import pytest

from telemq.broker import status
from telemq.broker.stats import BrokerStatus
from telemq.broker.status import StatusBoard
from telemq.errors import TelemqError
from tests.support.brokers import PlainPeer
from tests.support.ops import BrokerProcess
from tests.support.peers import Scene


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_ns = 10**9

    def __call__(self) -> int:
        return self.now_ns


def decode(document: bytes) -> BrokerStatus:
    """Read the document strictly, as `telemq top` does."""
    return msgspec.json.decode(document, type=BrokerStatus)


def ask(board: StatusBoard) -> BrokerStatus:
    """Ask as the ops thread does, while the broker's thread goes round."""
    got: list[bytes] = []
    asker = threading.Thread(target=lambda: got.append(board.document()))
    asker.start()
    while asker.is_alive():
        board.offer()
        asker.join(0.001)
    return decode(got[0])


def test_document_tells_of_the_broker_and_its_peers() -> None:
    """`telemq top` and scripts read it."""
    with (
        BrokerProcess() as process,
        PlainPeer(process.producers, "producer") as producer,
        PlainPeer(process.consumers, "consumer") as consumer,
    ):
        producer.hello()
        producer.say("WANT", 1, 1, 10, 100)
        producer.hear("GRANT")
        producer.say("PUBLISH", "a", 3, "", {}, payload=b"xyz")
        consumer.hello()
        consumer.say("CREDIT", 10, 100)
        consumer.hear("DELIVER")
        answer = process.get("/status.json")
        assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
        shown = decode(answer.content)
    assert (1, 3, 3) == (
        *(shown.stats.leased_messages, shown.stats.leased_records),
        shown.stats.leased_bytes,
    )
    peers = {peer.role: peer for peer in shown.peers}
    assert 3 == peers["consumer"].held_records
    assert (1, 3) == (peers["producer"].held_messages, peers["producer"].done_records)
    assert 0 == shown.peers_left_out
    assert 0 <= shown.uptime_s < 60


def test_document_has_no_session_token() -> None:
    """A token is what a session is spoken with; it is not for everybody who sees the page."""
    with BrokerProcess() as process, PlainPeer(process.producers, "producer") as producer:
        producer.hello()
        assert producer.session not in process.get("/status.json").text


def test_snapshot_is_made_only_when_asked_for_and_once_a_second() -> None:
    """A page that polls ten times a second must cost the queue nothing."""
    scene, clock = Scene(), Clock()
    board = StatusBoard(scene.core, clock)
    board.offer()
    first = ask(board)
    scene.producer()
    clock.now_ns += 999_999_999
    assert first == decode(board.document())
    clock.now_ns += 1
    assert 1 == len(ask(board).peers)


def test_peers_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker with more peers than a document holds."""
    monkeypatch.setattr(status, "PEERS_SHOWN_MAX", 2)
    scene = Scene()
    for _ in range(5):
        scene.producer()
    shown = ask(StatusBoard(scene.core, Clock()))
    assert (2, 3) == (len(shown.peers), shown.peers_left_out)


def test_broker_that_hangs_is_told_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker's thread is stuck: the asker gets an answer all the same."""
    monkeypatch.setattr(status, "_WAIT_S", 0.05)
    with pytest.raises(TelemqError, match="did not come round"):
        StatusBoard(Scene().core, Clock()).document()


def test_status_is_named_where_a_path_is_not_found() -> None:
    """Somebody opens the ops address in a browser, and finds it."""
    with BrokerProcess() as process:
        assert "/status.json" in process.get("/").text
        assert json.loads(process.get("/status.json").text)["peers"] == []
