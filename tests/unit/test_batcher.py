"""A commit takes what has piled up: no more than it may, never nothing, always in order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemq.collector.batcher import Backlog
from telemq.errors import RemoteProtocolError


def _backlog(*records: int, commit: int = 10, most: int = 1000) -> Backlog[int]:
    backlog: Backlog[int] = Backlog(commit_records=commit, records_max=most, count=lambda n: n)
    for n in records:
        backlog.put(n)
    return backlog


def test_nothing_is_taken_when_nothing_waits() -> None:
    """The writer is faster than the stream."""
    assert [] == _backlog().take()


def test_all_that_piled_up_is_taken_at_once() -> None:
    """A slow stream is not kept waiting for a full commit."""
    backlog = _backlog(1, 2, 3)
    assert [1, 2, 3] == backlog.take()
    assert (0, 0) == (len(backlog), backlog.records)


def test_commit_is_filled_to_the_last_record() -> None:
    """A fast stream: what does not fit waits for the next commit."""
    backlog = _backlog(4, 6, 1)
    assert [4, 6] == backlog.take()
    assert [1] == backlog.take()


def test_order_is_kept_even_where_a_later_item_would_fit() -> None:
    """First in, first out: no batch waits for ever behind smaller ones."""
    backlog = _backlog(4, 7, 1)
    assert [4] == backlog.take()
    assert [7, 1] == backlog.take()


def test_item_larger_than_a_commit_goes_alone() -> None:
    """``--commit-records`` below the producer's batch size must not stop the queue."""
    backlog = _backlog(25, 1)
    assert [25] == backlog.take()
    assert [1] == backlog.take()


def test_more_than_the_credit_is_refused() -> None:
    """A broker that does not keep to the credit must not fill our memory."""
    backlog = _backlog(6, 4, most=10)
    with pytest.raises(
        RemoteProtocolError, match="over_credit: 11 records delivered, credit is 10"
    ):
        backlog.put(1)
    assert [6, 4] == backlog.take()


def test_single_item_larger_than_the_credit_is_accepted() -> None:
    """The protocol delivers it when nothing else is outstanding."""
    assert [25] == _backlog(25, most=10).take()


def test_dropped_items_leave_the_others_in_order() -> None:
    """The session with one of several brokers ended."""
    backlog = _backlog(4, 7, 3, 8)
    backlog.drop(lambda records: records % 4 == 0)
    assert (2, 10, [7, 3]) == (len(backlog), backlog.records, backlog.take())
    backlog.drop(lambda _: True)
    assert (0, 0, []) == (len(backlog), backlog.records, backlog.take())


@given(st.lists(st.integers(1, 30)), st.integers(1, 20))
def test_any_backlog_is_taken_whole_in_order_and_in_commits_of_the_right_size(
    records: list[int], commit: int
) -> None:
    """Whatever producers send, and whatever the commit size."""
    backlog = _backlog(*records, commit=commit, most=10_000)
    commits = []
    while taken := backlog.take():
        commits.append(taken)
        assert backlog.records == sum(records) - sum(map(sum, commits))
        assert len(taken) == 1 or sum(taken) <= commit
    assert records == [n for taken in commits for n in taken]
    for earlier, later in itertools.pairwise(commits):
        assert sum(earlier) + later[0] > commit
