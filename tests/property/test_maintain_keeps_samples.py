"""Whatever is written, compacted, dropped and killed, in any order: the samples are the same."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from telemq.errors import StoreError
from telemq.settings import KeepSettings
from telemq.store import compact as compact_module
from telemq.store.compact import compact
from telemq.store.maintain import connect, maintain
from telemq.store.verify import verify
from telemq.store.writer import Writer
from tests.support.maintaining import DAY, Seen, batch_at, fail_at, seen

#: Few series, times and values, so that the same come again; hours at both sides of a midnight.
samples = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.builds(
            lambda hours, offset: DAY + timedelta(hours=hours, microseconds=offset),
            st.sampled_from([0, 1, 22, 23, 24, 25, 47, 48]),
            st.sampled_from([0, 1, 1_800_000_000, 3_599_999_999]),
        ),
        st.sampled_from([0.0, -0.0, 5.0, 0.5, 32768.0, 1e-320, float("nan"), float("inf")]),
    ),
    min_size=1,
    max_size=12,
)
hours = st.integers(0, 96)
#: A pass at so many hours after `DAY`, for how many days samples are kept, partitions' hours,
#: and the moment at which it dies, and how.
passes = st.tuples(
    hours,
    st.sampled_from([0, 0, 0, 1, 2]),
    st.sampled_from([24, 24, 6, 1]),
    st.one_of(st.just(0), st.integers(1, 14)),
    st.sampled_from(["raise", "terminate"]),
)
steps = st.lists(st.one_of(samples, passes), max_size=9)


class _DiedError(Exception):
    pass


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps, st.sampled_from([2, 5, 1000]), st.sampled_from([2, 3, 1000]))
def test_samples_are_kept_by_any_interleaving(
    dsn: str, conn: psycopg.Connection[Any], story: list[Any], piece: int, chunk: int
) -> None:
    """Writes on time and late, passes that are killed anywhere, and retention, in any order."""
    _empty(conn)
    expected: Seen = Counter()
    for step in story:
        if isinstance(step, list):
            Writer(conn).store([batch_at(step)])
            expected = _with(conn, expected, step)
            assert expected == seen(conn)
        else:
            expected = _pass(dsn, conn, expected, step, piece, chunk)
        report = verify(conn)
        assert report.complete, report.problems


def _with(conn: psycopg.Connection[Any], before: Seen, step: list[Any]) -> Seen:
    """Give what must be there after a write: what was, and the write's own."""
    ids: dict[str, int] = dict(
        conn.execute("SELECT gpu.uuid, s.id FROM gpu JOIN series AS s ON s.gpu = gpu.id").fetchall()
    )
    added = Counter(
        (ids[f"GPU-{series:08d}"], at, _bits(conn, value)) for series, at, value in step
    )
    return before + added


def _bits(conn: psycopg.Connection[Any], value: float) -> bytes:
    row = conn.execute("SELECT float8send(%b)", [value]).fetchone()
    assert row is not None
    return bytes(row[0])


def _pass(
    dsn: str,
    conn: psycopg.Connection[Any],
    before: Seen,
    step: tuple[int, int, int, int, str],
    piece: int,
    chunk: int,
) -> Seen:
    hours, keep_days, partition_hours, death, how = step
    now = DAY + timedelta(hours=hours)
    keep = KeepSettings(close_after_s=0, keep_days=keep_days, partition_hours=partition_hours)
    died = False
    with connect(dsn) as own, _small(piece, chunk):

        def die() -> None:
            nonlocal died
            died = True
            if how == "raise":
                raise _DiedError
            conn.execute("SELECT pg_terminate_backend(%s)", (own.info.backend_pid,))

        with contextlib.suppress(_DiedError, psycopg.OperationalError, StoreError):
            done = maintain(own, keep, now=now, fail_point=fail_at(death, die))
            assert died or not (done.held_up or done.waiting)
    after = seen(conn)
    if not keep_days:
        assert before == after
        return before
    oldest = now - timedelta(days=keep_days)
    assert not after - before
    # What is gone was too old, to the hour of its chunk or the day of its partition.
    assert all(_hour_end(at) <= oldest for _, at, _ in before - after)
    if not died:
        assert all(at + timedelta(days=1) > oldest for _, at, _ in after)
    return after


def _hour_end(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)


def _small(piece: int, chunk: int) -> Any:
    """Make pieces and chunks so small that there are many of them."""
    small = functools.partial(compact, piece_samples=piece, chunk_samples=chunk)
    return mock.patch("telemq.store.maintain.compact", small)


def _empty(conn: psycopg.Connection[Any]) -> None:
    for table in ("ledger", "dead_letter", "chunk", "sample_dropped", "partition_emptied"):
        conn.execute(f"DELETE FROM {table}".encode())
    partitions = conn.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'sample'::regclass"
    ).fetchall()
    for (partition,) in partitions:
        conn.execute(f"DROP TABLE {partition}".encode())


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("AND (value <> 0 OR atan2(value, -1) > 0)", ""),
        ("value = trunc(value)", "true"),
        ("date_part('epoch', ts - hour)", "floor(date_part('epoch', ts - hour))"),
        ("array_agg(value ORDER BY time)", "array_agg(value ORDER BY value)"),
        ("abs(value) <= 32767", "value IS NOT NULL"),
        ("", ""),
    ],
)
def test_property_notices_a_planted_fault(
    dsn: str, conn: psycopg.Connection[Any], right: str, wrong: str, monkeypatch: Any
) -> None:
    """Each line that keeps a bit of a sample is broken once; without a fault the story is well."""
    text = compact_module._MOVE.as_string(conn)
    assert right in text
    if right:
        monkeypatch.setattr(compact_module, "_MOVE", sql.SQL(text.replace(right, wrong)))
    first, later = DAY + timedelta(microseconds=1), DAY + timedelta(minutes=30)
    story = [
        [(0, first, -0.0), (0, later, 5.0), (1, first, 0.5), (1, later, 0.25), (2, later, 1e9)],
        (48, 0, 24, 0, "raise"),
        [(0, later, 5.0), (0, first, 7.0)],
        (48, 0, 24, 0, "raise"),
    ]
    inner = test_samples_are_kept_by_any_interleaving.hypothesis.inner_test  # type: ignore[attr-defined] # Hypothesis'
    if not right:
        inner(dsn, conn, story, 1000, 1000)
        return
    with pytest.raises((AssertionError, psycopg.Error)):
        inner(dsn, conn, story, 1000, 1000)
