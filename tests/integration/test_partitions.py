"""Partitions are there before they are needed, and making one disturbs nobody."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest

from telemq.store.partitions import AHEAD, Partitions, existing, moment, partition_name

Conn = psycopg.Connection[Any]
TODAY = datetime(2026, 2, 27, tzinfo=UTC)
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


def us(at: datetime) -> int:
    """Microseconds since 1970."""
    return int(at.timestamp()) * 1_000_000


NOW_US = us(TODAY) + 13 * HOUR_US


def ensure(partitions: Partitions, *times: datetime, now_us: int = NOW_US) -> None:
    """Ensure partitions for some moments, as a writer does."""
    partitions.ensure([np.array([us(at)], np.int64) for at in times], now_us=now_us)


def name_of(day: datetime) -> str:
    """The name of a day's partition."""
    return partition_name(us(day), us(day) + DAY_US)


def _partitions(conn: Conn) -> list[str]:
    rows = conn.execute(
        """
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'sample'::regclass ORDER BY relname
        """
    )
    return [name for (name,) in rows]


def test_days_from_today_are_made_ahead(conn: Conn) -> None:
    """The first commit of a new database, at the end of a month."""
    ensure(Partitions(conn))
    days = [TODAY + timedelta(days=n) for n in range(AHEAD + 1)]
    assert "sample_20260227" == name_of(days[0])
    assert [name_of(day) for day in days] == _partitions(conn)


def test_days_of_old_records_are_made_on_demand(conn: Conn) -> None:
    """A file of last year is replayed with its own times."""
    ensure(Partitions(conn), datetime(2025, 7, 18, 20, tzinfo=UTC))
    assert "sample_20250718" in _partitions(conn)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_days_are_those_of_utc_whatever_the_session_says(conn: Conn, zone: str) -> None:
    """The database's time zone is set by its administrator."""
    conn.execute("SELECT set_config('timezone', %s, false)", (zone,))
    ensure(Partitions(conn))
    for at, name in [
        (datetime(2026, 2, 27, tzinfo=UTC), "sample_20260227"),
        (datetime(2026, 2, 27, 23, 59, 59, 999_999, tzinfo=UTC), "sample_20260227"),
        (datetime(2026, 2, 28, tzinfo=UTC), "sample_20260228"),
    ]:
        found = conn.execute(
            "INSERT INTO sample VALUES (1, %s, 1) RETURNING tableoid::regclass::text", (at,)
        ).fetchone()
        assert (name,) == found


def test_partition_has_the_index_of_the_table(conn: Conn) -> None:
    """Without it every query of a GPU would read the whole day."""
    ensure(Partitions(conn))
    indexes = conn.execute(
        "SELECT indexdef FROM pg_indexes WHERE tablename = %s", (name_of(TODAY),)
    ).fetchall()
    assert 1 == len(indexes)
    assert "(series_id, ts)" in indexes[0][0]
    assert [(1,)] == conn.execute(
        """
        SELECT count(*) FROM pg_inherits WHERE inhparent = 'sample_series_ts'::regclass
        AND inhrelid = (SELECT indexrelid FROM pg_index WHERE indrelid = %s::regclass)
        """,
        (name_of(TODAY),),
    ).fetchall()


def test_known_days_cost_nothing(conn: Conn) -> None:
    """Every commit but the first of a day; a closed connection proves that nothing is asked."""
    partitions = Partitions(conn)
    ensure(partitions, TODAY)
    conn.close()
    ensure(partitions, TODAY, TODAY + timedelta(days=AHEAD))


def test_next_day_is_made_when_the_date_changes(conn: Conn) -> None:
    """A collector runs over midnight."""
    partitions = Partitions(conn)
    ensure(partitions)
    ensure(partitions, now_us=NOW_US + DAY_US)
    assert name_of(TODAY + timedelta(days=AHEAD + 1)) in _partitions(conn)


def test_dropped_partition_is_made_again_after_forget(conn: Conn) -> None:
    """Somebody drops old days, and a record of that day arrives late."""
    partitions = Partitions(conn)
    ensure(partitions)
    conn.execute("DROP TABLE sample_20260228")
    partitions.forget()
    ensure(partitions)
    assert "sample_20260228" in _partitions(conn)


def test_idle_reader_and_open_writer_are_not_waited_for(dsn: str, conn: Conn) -> None:
    """A notebook has a transaction open since yesterday, and another collector is mid-commit."""
    ensure(Partitions(conn))
    with psycopg.connect(dsn) as reader, psycopg.connect(dsn) as writer:
        reader.execute("SELECT count(*) FROM telemetry")
        writer.execute("INSERT INTO sample VALUES (1, %s, 1)", (datetime(2026, 2, 27, tzinfo=UTC),))
        conn.execute("SET statement_timeout = '5s'")
        ensure(Partitions(conn), datetime(2025, 1, 1, tzinfo=UTC))
    assert "sample_20250101" in _partitions(conn)


def test_makers_at_the_same_time_do_not_fail(dsn: str, conn: Conn) -> None:
    """All collectors start at once on a new database."""
    errors: list[BaseException] = []

    def make() -> None:
        try:
            with psycopg.connect(dsn, autocommit=True) as own:
                ensure(Partitions(own))
        except psycopg.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [] == errors
    assert AHEAD + 1 == len(_partitions(conn))


def _ranges(conn: Conn) -> list[tuple[datetime, int]]:
    with conn.transaction():
        return [(moment(p.start_us), (p.end_us - p.start_us) // HOUR_US) for p in existing(conn)]


def test_narrow_partitions_have_names_that_tell_their_range(conn: Conn) -> None:
    """A fleet with a hundred million samples a day."""
    ensure(Partitions(conn, 6), now_us=us(TODAY) + 7 * HOUR_US)
    begin = TODAY + timedelta(hours=6)
    assert [(begin + n * timedelta(hours=6), 6) for n in range(AHEAD + 1)] == _ranges(conn)
    assert "sample_20260227_060000_to_20260227_120000" == _partitions(conn)[0]


@pytest.mark.parametrize("hours", [1, 5, 7, 36, 168, 744])
def test_width_may_change_and_ranges_never_overlap(conn: Conn, hours: int) -> None:
    """A database with days is given another width, and then its old one again."""
    ensure(Partitions(conn), TODAY - timedelta(days=3))
    other = Partitions(conn, hours)
    ensure(other, *(TODAY - timedelta(hours=n) for n in range(0, 24 * 20, 13)))
    ensure(Partitions(conn), TODAY - timedelta(days=40), TODAY + timedelta(days=40))
    for n in range(-20, 8):
        ensure(other, TODAY + timedelta(days=n))
        conn.execute("INSERT INTO sample VALUES (1, %s, 1)", (TODAY + timedelta(days=n),))
    ranges = _ranges(conn)
    for (start, width), (following, _) in itertools.pairwise(ranges):
        assert start + timedelta(hours=width) <= following


def test_makers_of_different_widths_at_the_same_time_do_not_fail(dsn: str, conn: Conn) -> None:
    """A setting is rolled out collector by collector."""
    errors: list[BaseException] = []

    def make(hours: int) -> None:
        try:
            with psycopg.connect(dsn, autocommit=True) as own:
                ensure(Partitions(own, hours), *(TODAY - timedelta(days=n) for n in range(5)))
        except psycopg.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=make, args=(hours,)) for hours in (24, 6, 168, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [] == errors
    for n in range(5):
        conn.execute("INSERT INTO sample VALUES (1, %s, 1)", (TODAY - timedelta(days=n),))
