"""What a fleet measured in the last minutes, read from a real Postgres."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from telemq.errors import SettingError, SlowQueryError, StoreError
from telemq.store import recent
from telemq.store.recent import connect
from tests.support.maintaining import DAY, pass_over, put
from tests.support.postgres import Databases

UTIL = "DCGM_FI_DEV_GPU_UTIL"
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
Conn = psycopg.Connection[Any]


def ids(conn: Conn) -> dict[str, int]:
    """The number of each GPU in this database."""
    return {gpu.uuid: gpu.id for gpu in recent.gpus(conn)}


@pytest.mark.parametrize("compacted", [False, True])
def test_newest_value_means_and_last_seen_wherever_the_samples_lie(
    dsn: str, conn: Conn, compacted: bool
) -> None:
    """In a partition as they came, or in chunks since last night."""
    put(conn, [(0, DAY + n * MINUTE, float(n)) for n in range(60)])
    put(conn, [(1, DAY - HOUR, 7.0)])
    if compacted:
        assert pass_over(dsn).chunks
    since, until = DAY + 20 * MINUTE, DAY + 40 * MINUTE
    known = ids(conn)
    first, second = known["GPU-00000000"], known["GPU-00000001"]
    (newest,) = recent.newest(conn, [first, second], [UTIL, "another"], since, until)
    assert (first, UTIL, until, 40.0) == (newest.gpu, newest.metric_name, newest.ts, newest.value)
    slots = recent.slots(conn, [first, second], UTIL, since, until, count=4)
    # The window's end belongs to no part of it.
    assert [(first, n, 22 + 5 * n) for n in range(4)] == sorted(slots)
    assert {first: until} == recent.seen(conn, [first, second], since, until)
    assert {first: DAY + 59 * MINUTE, second: DAY - HOUR} == recent.last_seen(conn, [first, second])
    assert [] == recent.newest(conn, [first], ["another"], since, until)


def test_only_the_gpus_that_are_asked_for_are_read(conn: Conn) -> None:
    """One host of a thousand."""
    put(conn, [(n, DAY, float(n)) for n in range(5)])
    third = ids(conn)["GPU-00000003"]
    assert [3.0] == [s.value for s in recent.newest(conn, [third], [UTIL], DAY, DAY)]
    assert [] == recent.newest(conn, [], [UTIL], DAY, DAY)
    assert {} == recent.last_seen(conn, [])


def test_window_is_read_by_index(conn: Conn) -> None:
    """A partition holds a day of a whole fleet: to read all of it would take minutes."""
    put(conn, [(s, DAY + n * timedelta(seconds=10), 1.0) for s in range(8) for n in range(2000)])
    conn.execute("ANALYZE")
    asked = {"gpus": list(ids(conn).values()), "metrics": [UTIL]}
    rows = conn.execute(
        "EXPLAIN " + recent._NEWEST, {**asked, "since": DAY, "until": DAY + MINUTE}
    ).fetchall()
    plan = "\n".join(line for (line,) in rows)
    assert "sample_20260301_series_id_ts_idx" in plan
    assert "Seq Scan on sample" not in plan
    assert "sample_20260302" not in plan


def test_connection_reads_only_and_is_named(dsn: str) -> None:
    """An operator looks at pg_stat_activity, and is at ease."""
    with connect(dsn, name="telemq gpus", statement_s_max=5) as conn:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            conn.execute("CREATE TABLE x ()")
        assert ("telemq gpus",) == conn.execute("SHOW application_name").fetchone()
        assert datetime.now(UTC) - recent.now(conn) < HOUR


def test_what_goes_wrong_is_told_in_our_words(dsn: str, postgres: Databases) -> None:
    """Another database, a slow one, a DSN that is none."""
    with (
        postgres.fresh(migrated=False) as empty,
        pytest.raises(StoreError, match="no telemq schema"),
        connect(empty, name="x", statement_s_max=5) as conn,
    ):
        recent.gpus(conn)
    with (
        pytest.raises(SlowQueryError, match=r"limit of 0\.1 s"),
        connect(dsn, name="x", statement_s_max=0.1) as conn,
    ):
        conn.execute("SELECT pg_sleep(60)")
    with pytest.raises(SettingError, match="--dsn"), connect("x", name="x", statement_s_max=1):
        pass
