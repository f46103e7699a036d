"""Settlements are said together: by size, by number, and at the latest after a moment."""

from __future__ import annotations

import pytest

from telemq.client.session import Delivery
from telemq.client.settling import Settling

_MS = 1_000_000


def delivery(lease: int, records: int = 10, size_bytes: int = 100) -> Delivery:
    return Delivery("s", lease, 1000, f"s#{lease}", records, "", {}, bytes(size_bytes), 1, "")


def test_nothing_is_due_when_nothing_waits() -> None:
    """An idle collector sends nothing."""
    settling = Settling(1000, 10_000)
    assert (False, None, []) == (settling.is_due(10**12), settling.deadline_ns(), settling.take())


def test_settlements_wait_for_others_but_not_for_long() -> None:
    """A collector is faster than its streamers."""
    settling = Settling(1000, 10_000)
    first, second = delivery(1), delivery(2)
    settling.add([first], 5 * _MS)
    settling.add([second], 6 * _MS)
    assert (False, 7 * _MS) == (settling.is_due(7 * _MS - 1), settling.deadline_ns())
    assert settling.is_due(7 * _MS)
    assert [first, second] == settling.take()
    settling.add([delivery(3)], 20 * _MS)
    assert 22 * _MS == settling.deadline_ns()


@pytest.mark.parametrize(
    ("credit_records", "credit_bytes", "is_due"),
    [(1000, 10_000, False), (40, 10_000, True), (1000, 400, True), (0, 0, True)],
)
def test_a_quarter_of_the_credit_is_said_at_once(
    credit_records: int, credit_bytes: int, is_due: bool
) -> None:
    """More would leave the broker nothing to lend meanwhile."""
    settling = Settling(1000, 10_000)
    settling.allow(credit_records, credit_bytes)
    settling.add([delivery(1)], 0)
    assert is_due == settling.is_due(0)


def test_after_a_wait_in_vain_the_next_are_said_at_once() -> None:
    """The broker has room for one message, and its producer waits for the confirm."""
    settling, waited = Settling(1000, 10_000), []
    for n in range(66):
        settling.add([delivery(n)], n * _MS)
        waited.append(not settling.is_due(n * _MS))
        settling.take()
    assert [True, *[False] * 64, True] == waited


def test_a_wait_that_brought_more_is_followed_by_another() -> None:
    """Messages flow."""
    settling = Settling(1000, 10_000)
    for n in range(5):
        settling.add([delivery(2 * n)], 10 * n * _MS)
        assert not settling.is_due(10 * n * _MS)
        settling.add([delivery(2 * n + 1)], (10 * n + 1) * _MS)
        settling.take()


def test_what_was_taken_does_not_count_any_more() -> None:
    """The next quarter begins at nothing."""
    settling = Settling(200, 10_000)
    settling.add([delivery(1), delivery(2)], 0)
    settling.add([delivery(3)], 0)
    settling.take()
    settling.add([delivery(4), delivery(5)], 0)
    settling.add([delivery(6)], 0)
    assert not settling.is_due(0)


def test_very_many_are_said_at_once() -> None:
    """Small messages: a SETTLE holds a thousand."""
    settling = Settling(10**9, 10**9)
    settling.add([delivery(n) for n in range(999)], 0)
    assert not settling.is_due(0)
    settling.add([delivery(999)], 0)
    assert settling.is_due(0)
