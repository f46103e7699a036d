"""Streamers share the rows of a stream through Postgres and nothing else."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import psycopg
import pytest

from telemq.errors import StreamError
from telemq.store.leases import (
    Lease,
    StreamState,
    open_stream,
    release,
    renew,
    reserve,
    state,
    take_over,
)

Conn = psycopg.Connection[Any]


@pytest.fixture
def stream(conn: Conn) -> str:
    open_stream(conn, "s", "source-1")
    return "s"


def _reserve(conn: Conn, owner: str = "a", **changed: Any) -> list[Lease]:
    arguments = {"batch_records": 10, "batches": 2, "rows_max": 0, "lease_s": 60.0} | changed
    return reserve(conn, "s", owner, **arguments)


def _let_run_out(conn: Conn, *first_rows: int) -> None:
    conn.execute(
        "UPDATE stream_lease SET leased_until = now() - interval '1 s' WHERE first_row = ANY(%s)",
        (list(first_rows),),
    )


def test_stream_is_joined_from_the_same_source(conn: Conn, stream: str) -> None:
    """The second streamer of a stream starts, or the first one again."""
    _reserve(conn)
    open_stream(conn, stream, "source-1")
    assert StreamState(20, 2, 20) == state(conn, stream)


def test_stream_from_another_source_is_refused(conn: Conn, stream: str) -> None:
    """A changed file under an old stream id: its rows would not be those of the ledger."""
    with pytest.raises(
        StreamError, match=r"'s' was begun from another source .*source-1.*source-2"
    ):
        open_stream(conn, stream, "source-2")


def test_state_of_a_stream_that_nobody_began_is_empty(conn: Conn) -> None:
    """`telemq up` looks before the first streamer is there."""
    assert StreamState(0, 0, 0) == state(conn, "nobody's")


def test_reserved_batches_follow_each_other(conn: Conn, stream: str) -> None:
    """The everyday case, of a stream without an end."""
    assert [Lease(0, 10), Lease(10, 10)] == _reserve(conn)
    assert [Lease(20, 7), Lease(27, 7)] == _reserve(conn, "b", batch_records=7)
    assert StreamState(34, 4, 34) == state(conn, stream)


def test_last_batch_is_cut_at_the_end_of_the_stream(conn: Conn, stream: str) -> None:
    """``--rows 25`` with batches of 10."""
    assert [Lease(0, 10), Lease(10, 10), Lease(20, 5)] == _reserve(conn, batches=9, rows_max=25)
    assert [] == _reserve(conn, rows_max=25)
    assert 25 == state(conn, stream).next_row


def test_smaller_end_than_what_is_reserved_gives_nothing(conn: Conn, stream: str) -> None:
    """Started again with fewer ``--rows``: the cursor must not go back."""
    _reserve(conn)
    assert [] == _reserve(conn, rows_max=5)
    assert 20 == state(conn, stream).next_row


def test_streamers_at_the_same_time_share_without_gap_or_overlap(
    dsn: str, conn: Conn, stream: str
) -> None:
    """Eight streamers race for a stream of 10,007 rows."""
    taken: list[list[Lease]] = [[] for _ in range(8)]

    def stream_all(mine: list[Lease], batch_records: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            while leases := _reserve(own, batch_records=batch_records, rows_max=10_007):
                mine += leases

    threads = [threading.Thread(target=stream_all, args=(t, 31 + i)) for i, t in enumerate(taken)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    leases = itertools.chain.from_iterable(taken)
    rows = [row for x in leases for row in range(x.first_row, x.first_row + x.row_count)]
    assert list(range(10_007)) == sorted(rows)
    assert 10_007 == state(conn, stream).open_rows


def test_expired_leases_go_to_another_streamer(conn: Conn, stream: str) -> None:
    """A streamer was killed; its batches keep their identity and their row count."""
    _reserve(conn, batches=3, rows_max=25)
    _let_run_out(conn, 10, 20)
    assert [Lease(10, 10), Lease(20, 5)] == take_over(conn, stream, "b", batches=9, lease_s=60)
    assert [] == take_over(conn, stream, "c", batches=9, lease_s=60)
    assert {0} == renew(conn, stream, "a", lease_s=60)
    assert {10, 20} == renew(conn, stream, "b", lease_s=60)


def test_take_over_takes_the_oldest_rows_first(conn: Conn, stream: str) -> None:
    """More has expired than one streamer has room for."""
    _reserve(conn, batches=4)
    _let_run_out(conn, 0, 10, 20, 30)
    assert [Lease(0, 10), Lease(10, 10)] == take_over(conn, stream, "b", batches=2, lease_s=60)


def test_take_over_does_not_wait_for_another_that_takes_over(
    dsn: str, conn: Conn, stream: str
) -> None:
    """Two streamers find the same expired leases at the same moment."""
    _reserve(conn)
    _let_run_out(conn, 0, 10)
    with psycopg.connect(dsn) as other:
        assert [Lease(0, 10)] == take_over(other, stream, "b", batches=1, lease_s=60)
        conn.execute("SET statement_timeout = '5s'")
        assert [Lease(10, 10)] == take_over(conn, stream, "c", batches=2, lease_s=60)


def test_renewed_lease_is_not_taken_over(conn: Conn, stream: str) -> None:
    """A slow broker: the streamer waits longer than a lease for its confirms."""
    _reserve(conn)
    _let_run_out(conn, 0, 10)
    assert {0, 10} == renew(conn, stream, "a", lease_s=60)
    assert [] == take_over(conn, stream, "b", batches=9, lease_s=60)


def test_renew_does_not_wait_for_a_commit_that_closes_the_lease(
    dsn: str, conn: Conn, stream: str
) -> None:
    """A commit takes longer than a lease; until it is through, the lease still counts."""
    _reserve(conn)
    conn.execute("SET statement_timeout = '5s'")
    with psycopg.connect(dsn) as writer:
        writer.execute("DELETE FROM stream_lease WHERE first_row = 0")
        assert {0, 10} == renew(conn, stream, "a", lease_s=60)
        release(conn, stream, "a")
        writer.commit()
        assert {10} == renew(conn, stream, "a", lease_s=60)


def test_released_leases_can_be_taken_over_at_once(conn: Conn, stream: str) -> None:
    """A streamer was stopped before all was confirmed."""
    _reserve(conn, "a")
    _reserve(conn, "b")
    release(conn, stream, "a")
    assert [Lease(0, 10), Lease(10, 10)] == take_over(conn, stream, "c", batches=9, lease_s=60)
    assert {20, 30} == renew(conn, stream, "b", lease_s=60)
