"""Closed partitions become chunks, old samples go, and no query sees any of it."""

from __future__ import annotations

import math
import struct
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from telemq.settings import KeepSettings
from telemq.store import emptied
from telemq.store.compact import Moved, compact, only_one
from telemq.store.maintain import connect, maintain
from telemq.store.verify import verify
from telemq.store.writer import Writer
from tests.support.maintaining import DAY, NOW, batch_at, fail_at, pass_over, put, seen

Conn = psycopg.Connection[Any]
DAY_NAME = f"sample_{DAY:%Y%m%d}"

#: What a value may be; some of it is lost by a conversion that is not careful.
VALUES = [
    *(0.0, -0.0, 1.0, -1.0, 32767.0, -32767.0, -32768.0, 32768.0, 0.1, 1 / 3, 1e300, 5e-324),
    *(2.0**53 + 2, 16777217.0, 123.456, math.inf, -math.inf, math.nan),
    struct.unpack(">d", bytes.fromhex("7ff8000000abcdef"))[0],  # a NaN with something in it
]


def _one(conn: Conn, query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


def _minutes(series: int, count: int, value: float = 5.0) -> list[tuple[int, datetime, float]]:
    return [(series, DAY + timedelta(minutes=n), value + n % 3) for n in range(count)]


@pytest.mark.parametrize("together", [True, False])
def test_values_and_times_come_back_to_the_last_bit(dsn: str, conn: Conn, together: bool) -> None:
    """Every kind of value, in one chunk with others or alone; times at both ends of an hour."""
    times = [timedelta(0), timedelta(microseconds=1), timedelta(minutes=30, microseconds=7)]
    times += [timedelta(hours=1, microseconds=-1), timedelta(hours=23, minutes=59, seconds=59.9)]
    put(
        conn,
        [
            (0 if together else n, DAY + time, value)
            for n, value in enumerate(VALUES)
            for time in times
        ],
    )
    before = seen(conn)
    done = pass_over(dsn)
    assert len(VALUES) * len(times) == done.moved
    assert before == seen(conn)
    assert 0 == _one(conn, "SELECT count(*) FROM sample")
    assert (0 if together else 5) == _one(
        conn, "SELECT count(DISTINCT series_id) FROM chunk WHERE small IS NOT NULL"
    )


def test_only_closed_partitions_are_compacted(dsn: str, conn: Conn) -> None:
    """Today's partition, and yesterday's until an hour after midnight."""
    put(conn, [(0, DAY, 1.0), (0, DAY + timedelta(days=1), 2.0)])
    assert 1 == pass_over(dsn, now=DAY + timedelta(days=2, minutes=59)).moved
    assert [(2.0,)] == conn.execute("SELECT value FROM sample").fetchall()
    assert 1 == pass_over(dsn, now=DAY + timedelta(days=2, minutes=61)).moved


def test_keep_raw_leaves_partitions_as_they_are(dsn: str, conn: Conn) -> None:
    """A site whose own programs read the table `sample`."""
    put(conn, _minutes(0, 100))
    assert 0 == pass_over(dsn, keep_raw=True).moved
    assert 100 == _one(conn, "SELECT count(*) FROM sample")


def test_late_samples_and_duplicates_join_their_chunk(dsn: str, conn: Conn) -> None:
    """An outage ends two days later; a file is replayed with its own times."""
    put(conn, _minutes(0, 60))
    pass_over(dsn)
    put(conn, [*_minutes(0, 30), (0, DAY + timedelta(minutes=90), 0.5), (1, DAY, 1.0)])
    before = seen(conn)
    assert 92 == before.total()
    done = pass_over(dsn)
    assert (32, 60, 3) == (done.moved, done.merged, done.chunks)
    assert before == seen(conn)
    assert [(0, 90), (1, 1)] == conn.execute(
        "SELECT extract(hour FROM hour)::int, samples FROM chunk WHERE series_id ="
        " (SELECT min(series_id) FROM chunk) ORDER BY hour"
    ).fetchall()


def test_small_chunk_that_gets_a_fraction_is_written_anew(dsn: str, conn: Conn) -> None:
    """Whole numbers all day, then one late 0.5."""
    put(conn, _minutes(0, 10))
    pass_over(dsn)
    assert 0 == _one(conn, "SELECT count(*) FROM chunk WHERE wide IS NOT NULL")
    put(conn, [(0, DAY + timedelta(minutes=5, seconds=1), 0.5)])
    before = seen(conn)
    pass_over(dsn)
    assert before == seen(conn)
    assert 1 == _one(conn, "SELECT count(*) FROM chunk WHERE wide IS NOT NULL")


def test_hour_with_very_many_samples_has_parts_that_are_left_alone(dsn: str, conn: Conn) -> None:
    """A thousand samples a second of one series; late ones do not rewrite the whole hour."""
    put(conn, [(0, DAY + timedelta(seconds=n), float(n)) for n in range(100)])
    before = seen(conn)
    with connect(dsn) as own:
        assert Moved(100, 0, 4, 1) == compact(own, DAY_NAME, chunk_samples=30)
        assert before == seen(conn)
        put(conn, [(0, DAY + timedelta(seconds=n), -1.0) for n in range(25)])
        before = seen(conn)
        assert Moved(25, 10, 2, 1) == compact(own, DAY_NAME, chunk_samples=30)
    assert before == seen(conn)
    assert [(0, 30), (1, 30), (2, 30), (3, 30), (4, 5)] == conn.execute(
        "SELECT part, samples FROM chunk ORDER BY part"
    ).fetchall()


@pytest.mark.parametrize("piece", [1, 7, 60, 61, 1000])
def test_pieces_cut_anywhere_make_the_same_chunks(dsn: str, conn: Conn, piece: int) -> None:
    """A day of a large fleet is moved in many transactions, which end within an hour."""
    put(conn, [s for series in range(3) for s in _minutes(series, 100)])
    before = seen(conn)
    with connect(dsn) as own:
        moved = compact(own, DAY_NAME, piece_samples=piece)
    assert moved is not None
    assert (300, -(-300 // piece)) == (moved.samples, moved.pieces - (300 % piece == 0))
    assert before == seen(conn)
    assert [(40, 3), (60, 3)] == conn.execute(
        "SELECT samples, count(*) FROM chunk GROUP BY samples ORDER BY 1"
    ).fetchall()


def test_disk_is_given_back_in_the_same_pass_and_the_partition_goes_later(
    dsn: str, conn: Conn
) -> None:
    """Nobody looks: the files are emptied at once; the partition stays for what is late."""
    put(conn, _minutes(0, 1000))
    done = pass_over(dsn)
    assert 16384 < done.freed_bytes
    assert 0 == _one(conn, f"SELECT pg_relation_size('{DAY_NAME}')")
    # Its note has the database's time.
    later = datetime.now(UTC) + timedelta(hours=2)
    assert 1 <= pass_over(dsn, now=later).partitions
    assert None is _one(conn, f"SELECT to_regclass('{DAY_NAME}')")
    assert 0 == _one(conn, "SELECT count(*) FROM partition_emptied")
    put(conn, _minutes(0, 3))
    assert 1003 == seen(conn).total()


def test_writer_that_knows_a_dropped_partition_stores_all_the_same(dsn: str, conn: Conn) -> None:
    """A collector runs for days; its partition of long ago was dropped behind its back."""
    writer = Writer(conn)
    writer.store([batch_at(_minutes(0, 5))])
    pass_over(dsn)
    pass_over(dsn, now=datetime.now(UTC) + timedelta(hours=2))
    assert None is _one(conn, f"SELECT to_regclass('{DAY_NAME}')")
    stored = writer.store([batch_at(_minutes(0, 7))])
    assert (7, ()) == (stored.records, stored.refused)
    assert 12 == seen(conn).total()


def test_writer_in_the_middle_of_a_commit_is_neither_held_up_nor_missed(
    dsn: str, conn: Conn
) -> None:
    """A late batch is being stored while its partition is compacted."""
    put(conn, _minutes(0, 50))
    with psycopg.connect(dsn) as late:
        late.execute("INSERT INTO sample SELECT * FROM sample LIMIT 3")
        with connect(dsn) as own:
            own.execute("SET statement_timeout = '5s'")
            done = pass_over(dsn, conn=own)
        assert (50, 0) == (done.moved, done.freed_bytes)
        late.execute("INSERT INTO sample SELECT series_id, ts, value FROM chunk_sample LIMIT 4")
    assert 57 == seen(conn).total()
    assert 7 == pass_over(dsn).moved
    assert 57 == seen(conn).total()


def test_snapshot_from_before_sees_every_sample_until_it_ends(dsn: str, conn: Conn) -> None:
    """pg_dump, or a long answer of the gateway, has begun before the pass."""
    put(conn, _minutes(0, 200))
    before = seen(conn)
    with psycopg.connect(dsn) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("SELECT FROM gpu")  # it has a snapshot, and no lock on any sample
        done = pass_over(dsn)
        assert (200, 0, 0) == (done.moved, done.freed_bytes, done.partitions)
        later = datetime.now(UTC) + timedelta(days=9)
        assert 0 == pass_over(dsn, now=later).partitions
        assert before == seen(old)
        assert before == seen(conn)
    assert 0 < pass_over(dsn, now=later).partitions
    assert before == seen(conn)


def test_reader_who_stays_is_waited_for_briefly_and_holds_up_only_the_disk(
    dsn: str, conn: Conn
) -> None:
    """A notebook has read everything in an open transaction, and its owner is at lunch."""
    put(conn, _minutes(0, 200))
    with psycopg.connect(dsn) as notebook:
        assert 200 == seen(notebook).total()  # read committed: locks stay, the snapshot does not
        done = pass_over(dsn)
        assert (200, 0, 1) == (done.moved, done.freed_bytes, done.waiting)
        done = pass_over(dsn, now=datetime.now(UTC) + timedelta(days=9))
        assert (0, 1) == (done.partitions, done.waiting)
        assert 200 == seen(notebook).total()
    assert 0 < pass_over(dsn).freed_bytes


def test_partition_that_somebody_repairs_is_left_for_the_next_pass(dsn: str, conn: Conn) -> None:
    """An administrator runs a long VACUUM or REINDEX on one day; the others go on."""
    put(conn, [*_minutes(0, 20), (0, DAY + timedelta(days=1), 1.0)])
    with psycopg.connect(dsn) as repair, connect(dsn) as own:
        repair.execute(f"LOCK TABLE {DAY_NAME} IN SHARE UPDATE EXCLUSIVE MODE".encode())
        own.execute("SET lock_timeout = '200ms'")
        done = pass_over(dsn, conn=own)
        assert (1, 1) == (done.moved, done.waiting)
    assert 20 == pass_over(dsn).moved


def test_session_without_rights_sees_the_snapshots_of_others(dsn: str, conn: Conn) -> None:
    """Maintenance runs as an ordinary role; the old snapshot is a superuser's."""
    put(conn, _minutes(0, 10))
    pass_over(dsn, keep_raw=True)
    conn.execute("DELETE FROM sample")
    with psycopg.connect(dsn) as old, connect(dsn) as own:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("SELECT FROM gpu")
        emptied.note_empty(own, [DAY_NAME])
        own.execute("CREATE ROLE ordinary")
        own.execute("GRANT SELECT ON partition_emptied TO ordinary")
        try:
            own.execute("SET ROLE ordinary")
            assert {} == emptied.unseen(own, [DAY_NAME])
            old.rollback()
            assert [DAY_NAME] == list(emptied.unseen(own, [DAY_NAME]))
        finally:
            own.execute("RESET ROLE")
            own.execute("DROP OWNED BY ordinary")
            own.execute("DROP ROLE ordinary")


def test_two_passes_exclude_each_other(dsn: str, conn: Conn) -> None:
    """A CronJob starts while the pass before it still runs."""
    put(conn, _minutes(0, 50))
    with psycopg.connect(dsn) as other:
        assert only_one(other)
        done = pass_over(dsn)
        assert (0, "another telemq maintain is at work") == (done.moved, done.held_up)
    assert 50 == pass_over(dsn).moved


def test_passes_at_the_same_time_move_each_sample_once(dsn: str, conn: Conn) -> None:
    """Two machines run maintenance in a loop against one database, beside a writer."""
    errors: list[BaseException] = []
    stop = threading.Event()

    def loop() -> None:
        try:
            while not stop.is_set():
                pass_over(dsn, close_after_s=0)
        except (psycopg.Error, AssertionError) as error:
            errors.append(error)

    threads = [threading.Thread(target=loop) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(20):
        put(conn, [(s, at + timedelta(seconds=n), v) for s, at, v in _minutes(n % 4, 90)])
        assert verify(conn).complete
    stop.set()
    for thread in threads:
        thread.join(30)
    assert [] == errors
    assert 20 * 90 == seen(conn).total()
    assert verify(conn).complete


def test_gateway_of_an_older_version_is_waited_for(dsn: str, conn: Conn) -> None:
    """A rolling upgrade: it reads only the table `sample`, and must not miss anything."""
    put(conn, _minutes(0, 50))
    with psycopg.connect(dsn, application_name="telemq api"):
        done = pass_over(dsn)
        assert 0 == done.moved
        assert "older version" in done.held_up
        assert 50 == _one(conn, "SELECT count(*) FROM sample")
    assert 50 == pass_over(dsn).moved


def test_old_samples_are_dropped_and_accounted_for(dsn: str, conn: Conn) -> None:
    """--keep-days: three days in chunks, then a raw one, go as they get too old."""
    for day in range(3):
        put(conn, [(s, at + timedelta(days=day), v) for s, at, v in _minutes(0, 120)])
    pass_over(dsn)
    put(conn, _minutes(1, 10))  # late, and raw
    done = pass_over(dsn, now=DAY + timedelta(days=11, hours=1), keep_days=10, keep_raw=True)
    assert 120 + 10 + 60 == done.dropped
    assert 360 + 10 - done.dropped == seen(conn).total()
    report = verify(conn)
    assert report.complete
    assert (370, 180, 190) == (report.stored, report.samples, report.dropped)
    assert DAY + timedelta(days=1, hours=1) == _one(conn, "SELECT min(ts) FROM every_sample")


def test_late_writer_of_an_expired_day_is_not_held_up(dsn: str, conn: Conn) -> None:
    """A collector is in the middle of a commit to a day that is to be dropped."""
    put(conn, _minutes(0, 50))
    with psycopg.connect(dsn) as late:
        late.execute("INSERT INTO sample SELECT * FROM sample LIMIT 3")
        late.execute("INSERT INTO ledger VALUES ('late', 0, 3, 3, 0)")
        done = pass_over(dsn, keep_days=1)
        assert 0 == done.dropped
        assert 1 <= done.waiting
    assert 53 == pass_over(dsn, keep_days=1).dropped
    assert verify(conn).complete


def test_ledger_that_does_not_agree_with_what_was_dropped_is_named(dsn: str, conn: Conn) -> None:
    """Somebody drops a partition by hand, without accounting for it."""
    put(conn, [*_minutes(0, 50), (0, DAY + timedelta(days=1), 1.0)])
    pass_over(dsn, keep_days=3, keep_raw=True, now=DAY + timedelta(days=4, hours=1))
    assert verify(conn).complete
    conn.execute(f"DROP TABLE sample_{DAY + timedelta(days=1):%Y%m%d}")
    (problem,) = verify(conn).problems
    assert problem.endswith("the table holds 0 and 50 were dropped: 1 too few")


@pytest.mark.parametrize("moment", range(1, 12))
@pytest.mark.parametrize("keep_days", [0, 1.5])
def test_verify_balances_at_every_moment_of_a_pass(
    dsn: str, conn: Conn, moment: int, keep_days: float
) -> None:
    """An operator runs it just then."""
    put(conn, _minutes(0, 300))
    put(conn, [(1, DAY + timedelta(days=2, minutes=n), 0.5) for n in range(300)])
    reports = []
    pass_over(
        dsn,
        keep_days=keep_days,
        fail_point=fail_at(moment, lambda: reports.append(_patient(dsn))),
    )
    reports.append(verify(conn))
    for report in reports:
        assert report.complete, report.problems
        assert 600 == report.samples + report.dropped


def _patient(dsn: str) -> Any:
    """Verify; where the pass holds its lock on all samples, after it."""
    with psycopg.connect(dsn, autocommit=True) as own:
        own.execute("SET lock_timeout = '300ms'")
        try:
            return verify(own)
        except Exception as error:
            if "lock timeout" in str(error):
                return _Waited()
            raise


class _Waited:
    complete, samples, dropped, problems = True, 600, 0, ()


@pytest.mark.parametrize(
    ("fault", "said", "damaged"),
    [
        ("INSERT INTO chunk SELECT hour, series_id, 7, samples, times, small, wide FROM chunk"
         " WHERE hour = (SELECT min(hour) FROM chunk)", "60 too many", 0),
        ("DELETE FROM chunk WHERE hour = (SELECT min(hour) FROM chunk)", "60 too few", 0),
        ("UPDATE chunk SET small = small[2:] WHERE hour = (SELECT min(hour) FROM chunk)",
         "1 too few", 1),
        ("UPDATE chunk SET times = times[2:] WHERE hour = (SELECT min(hour) FROM chunk)",
         "1 too few", 1),
        ("UPDATE chunk SET times[5] = 2000000000 WHERE hour = (SELECT min(hour) FROM chunk)",
         "1 too few", 1),
        ("UPDATE chunk SET small[5] = NULL WHERE hour = (SELECT min(hour) FROM chunk)",
         "1 too few", 1),
        ("UPDATE chunk SET small = small[2:], times = times[2:], samples = samples - 1"
         " WHERE hour = (SELECT min(hour) FROM chunk)", "1 too few", 0),
    ],
)  # fmt: skip
def test_verify_notices_a_damaged_chunk(
    dsn: str, conn: Conn, fault: str, said: str, damaged: int
) -> None:
    """Planted: a chunk doubled, one lost, samples taken out of arrays or moved out of the hour."""
    put(conn, _minutes(0, 150))
    pass_over(dsn)
    assert verify(conn).complete
    for name in ("chunk_check", "chunk_check1", "chunk_check2"):
        conn.execute(f"ALTER TABLE chunk DROP CONSTRAINT {name}")
    conn.execute(fault.encode())
    report = verify(conn)
    assert not report.complete
    assert report.problems[0].endswith(said)
    assert damaged == report.chunks_damaged


def test_chunk_that_contradicts_itself_is_refused(dsn: str, conn: Conn) -> None:
    """The same faults, by a hand that leaves the constraints in place."""
    put(conn, _minutes(0, 150))
    pass_over(dsn)
    for fault in (b"small = small[2:]", b"times = times[2:]", b"wide = small::float8[]"):
        with pytest.raises(psycopg.errors.CheckViolation):
            conn.execute(b"UPDATE chunk SET " + fault)


def test_damaged_count_stops_the_move(dsn: str, conn: Conn) -> None:
    """A trigger of somebody's own swallows chunks: the samples stay where they are."""
    put(conn, _minutes(0, 150))
    conn.execute(
        """
        CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER swallow BEFORE INSERT ON chunk FOR EACH ROW EXECUTE FUNCTION swallow();
        """
    )
    before = seen(conn)
    with pytest.raises(Exception, match=r"150 \+ 0 samples would become 0 in chunks"):
        pass_over(dsn)
    assert before == seen(conn)


def test_window_of_time_reads_only_its_partitions_and_chunks(dsn: str, conn: Conn) -> None:
    """`telemetry_between` in SQL, and the gateway's query: the planner leaves out the rest."""
    for day in range(3):
        put(conn, [(s, at + timedelta(days=day), v) for s, at, v in _minutes(0, 1440)])
    pass_over(dsn, now=DAY + timedelta(days=2, hours=3))
    window = (DAY + timedelta(hours=23, minutes=30), DAY + timedelta(days=2, minutes=5))
    both = "timestamp BETWEEN %s AND %s"
    expected = conn.execute(f"SELECT * FROM telemetry WHERE {both} ORDER BY 1".encode(), window)
    got = conn.execute("SELECT * FROM telemetry_between(%s, %s) ORDER BY 1", window).fetchall()
    assert 30 + 1440 + 6 == len(got)
    assert expected.fetchall() == got
    hour = (DAY + timedelta(hours=5), DAY + timedelta(hours=5, minutes=59))
    plan = "\n".join(
        row[0]
        for row in conn.execute(
            "EXPLAIN SELECT ts, series_id, value FROM samples_between(%s, %s)"
            " WHERE series_id = ANY(%s) ORDER BY ts, series_id",
            [*hour, [1]],
        )
    )
    assert "chunk_pkey" in plan
    assert "sample_20260303" not in plan


def test_pass_that_is_stopped_ends_between_pieces(dsn: str, conn: Conn) -> None:
    """SIGTERM in the middle of a large day."""
    put(conn, _minutes(0, 100))
    asked = iter([True, True, False])
    with connect(dsn) as own:
        done = compact(own, DAY_NAME, piece_samples=10, go_on=lambda: next(asked))
        assert done is not None
        assert 2 == done.pieces
    assert 100 == seen(conn).total()


def test_unset_clock_is_the_database_s(dsn: str, conn: Conn) -> None:
    """As `telemq maintain` runs: what is of today is open."""
    put(conn, [(0, datetime.now(UTC), 1.0), (0, DAY, 2.0)])
    with connect(dsn) as own:
        assert 1 == maintain(own, KeepSettings()).moved
    assert Counter([1.0]) == Counter(v for (v,) in conn.execute("SELECT value FROM sample"))
    assert NOW < datetime.now(UTC)
