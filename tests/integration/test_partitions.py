"""Partitions are there before they are needed, and making one disturbs nobody."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from telemq.store.partitions import DAYS_AHEAD, Partitions, partition_name

Conn = psycopg.Connection[Any]
TODAY = date(2026, 2, 27)


def _partitions(conn: Conn) -> list[str]:
    rows = conn.execute(
        """
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'sample'::regclass ORDER BY relname
        """
    )
    return [name for (name,) in rows]


def test_days_around_today_are_made_ahead(conn: Conn) -> None:
    """The first commit of a new database, at the end of a month."""
    Partitions(conn).ensure([], today=TODAY)
    days = [TODAY + timedelta(days=n) for n in range(-1, DAYS_AHEAD + 1)]
    assert "sample_20260226" == partition_name(days[0])
    assert [partition_name(day) for day in days] == _partitions(conn)


def test_days_of_old_records_are_made_on_demand(conn: Conn) -> None:
    """A file of last year is replayed with its own times."""
    Partitions(conn).ensure([date(2025, 7, 18)], today=TODAY)
    assert "sample_20250718" in _partitions(conn)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_days_are_those_of_utc_whatever_the_session_says(conn: Conn, zone: str) -> None:
    """The database's time zone is set by its administrator."""
    conn.execute("SELECT set_config('timezone', %s, false)", (zone,))
    Partitions(conn).ensure([], today=TODAY)
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
    Partitions(conn).ensure([], today=TODAY)
    indexes = conn.execute(
        "SELECT indexdef FROM pg_indexes WHERE tablename = %s", (partition_name(TODAY),)
    ).fetchall()
    assert 1 == len(indexes)
    assert "(series_id, ts)" in indexes[0][0]
    assert [(1,)] == conn.execute(
        """
        SELECT count(*) FROM pg_inherits WHERE inhparent = 'sample_series_ts'::regclass
        AND inhrelid = (SELECT indexrelid FROM pg_index WHERE indrelid = %s::regclass)
        """,
        (partition_name(TODAY),),
    ).fetchall()


def test_known_days_cost_nothing(conn: Conn) -> None:
    """Every commit but the first of a day; a closed connection proves that nothing is asked."""
    partitions = Partitions(conn)
    partitions.ensure([TODAY], today=TODAY)
    conn.close()
    partitions.ensure([TODAY, TODAY + timedelta(days=DAYS_AHEAD)], today=TODAY)


def test_next_day_is_made_when_the_date_changes(conn: Conn) -> None:
    """A collector runs over midnight."""
    partitions = Partitions(conn)
    partitions.ensure([], today=TODAY)
    partitions.ensure([], today=TODAY + timedelta(days=1))
    assert partition_name(TODAY + timedelta(days=DAYS_AHEAD + 1)) in _partitions(conn)


def test_dropped_partition_is_made_again_after_forget(conn: Conn) -> None:
    """Somebody drops old days, and a record of that day arrives late."""
    partitions = Partitions(conn)
    partitions.ensure([], today=TODAY)
    conn.execute("DROP TABLE sample_20260226")
    partitions.forget()
    partitions.ensure([], today=TODAY)
    assert "sample_20260226" in _partitions(conn)


def test_idle_reader_and_open_writer_are_not_waited_for(dsn: str, conn: Conn) -> None:
    """A notebook has a transaction open since yesterday, and another collector is mid-commit."""
    Partitions(conn).ensure([], today=TODAY)
    with psycopg.connect(dsn) as reader, psycopg.connect(dsn) as writer:
        reader.execute("SELECT count(*) FROM telemetry")
        writer.execute("INSERT INTO sample VALUES (1, %s, 1)", (datetime(2026, 2, 27, tzinfo=UTC),))
        conn.execute("SET statement_timeout = '5s'")
        Partitions(conn).ensure([date(2025, 1, 1)], today=TODAY)
    assert "sample_20250101" in _partitions(conn)


def test_makers_at_the_same_time_do_not_fail(dsn: str, conn: Conn) -> None:
    """All collectors start at once on a new database."""
    errors: list[BaseException] = []

    def make() -> None:
        try:
            with psycopg.connect(dsn, autocommit=True) as own:
                Partitions(own).ensure([], today=TODAY)
        except psycopg.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [] == errors
    assert DAYS_AHEAD + 2 == len(_partitions(conn))
