"""`telemq verify` must find every kind of damage, and name it: each is planted here."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from telemq.errors import StoreError
from telemq.store.leases import open_stream, reserve
from telemq.store.verify import DAMAGES_MAX, Damage, Report, StreamReport, verify
from telemq.store.writer import Writer
from tests.support.batches import stored_batch

Conn = psycopg.Connection[Any]


@pytest.fixture
def whole(conn: Conn) -> Conn:
    """A stream of 50 rows: 30 stored in batches of 10, one of which was rejected; 20 in flight."""
    open_stream(conn, "s", "source")
    reserve(conn, "s", "a", batch_records=10, batches=5, rows_max=0, lease_s=60)
    Writer(conn).store([stored_batch(0), stored_batch(10, bad=(4,)), stored_batch(20)])
    return conn


def _stream(report: Report, stream_id: str = "s") -> StreamReport:
    (stream,) = [s for s in report.streams if s.stream_id == stream_id]
    return stream


def test_empty_database_is_complete(conn: Conn) -> None:
    """Before the first record."""
    assert Report((), 0, 0, 0, 0, 0, 0) == verify(conn)
    assert verify(conn).complete


def test_whole_database_is_complete_with_rows_in_flight(whole: Conn) -> None:
    """The everyday case, while all is running."""
    report = verify(whole)
    assert report.complete
    assert StreamReport("s", 50, 3, 30, 29, 1, 1, 2, 20, (), 0) == _stream(report)
    assert (1, 0, 29, 29, 20) == (
        report.stream_count,
        report.damaged_count,
        report.stored,
        report.samples,
        report.lease_rows,
    )


def test_missing_ledger_entry_is_a_gap(whole: Conn) -> None:
    """The ledger lost a line: its rows are nowhere, and its samples too many."""
    whole.execute("DELETE FROM ledger WHERE first_row = 20")
    report = verify(whole)
    assert not report.complete
    assert (Damage("gap", 20, 30),) == _stream(report).damages
    assert ("rows 20 to 29 are in no batch, neither stored nor leased",) == _stream(report).problems
    assert "19 records were stored, the table holds 29: 10 too many" in report.problems[0]


@pytest.mark.parametrize(("first_row", "end_row"), [(30, 40), (40, 50)])
def test_missing_lease_is_a_gap(whole: Conn, first_row: int, end_row: int) -> None:
    """Rows were reserved and then forgotten: in the middle of the stream, or at its end."""
    whole.execute("DELETE FROM stream_lease WHERE first_row = %s", (first_row,))
    report = verify(whole)
    assert not report.complete
    assert (Damage("gap", first_row, end_row),) == _stream(report).damages


def test_everything_missing_is_one_gap(conn: Conn) -> None:
    """A cursor without any batch behind it."""
    open_stream(conn, "s", "source")
    conn.execute("UPDATE stream_progress SET next_row = 70")
    assert (Damage("gap", 0, 70),) == _stream(verify(conn)).damages


def test_deleted_sample_is_counted(whole: Conn) -> None:
    """Somebody cleaned up by hand."""
    whole.execute("DELETE FROM sample WHERE value = 7")
    report = verify(whole)
    assert not report.complete
    assert report.problems[0].endswith("the table holds 28: 1 too few")
    assert () == _stream(report).problems


def test_doubled_sample_is_counted(whole: Conn) -> None:
    """A batch was stored a second time past the ledger."""
    whole.execute("INSERT INTO sample SELECT * FROM sample WHERE value = 7")
    report = verify(whole)
    assert not report.complete
    assert report.problems[0].endswith("the table holds 30: 1 too many")


def test_sample_without_series_is_counted(whole: Conn) -> None:
    """A series was deleted: its samples are there, but no query shows them."""
    whole.execute("DELETE FROM series WHERE gpu = (SELECT id FROM gpu WHERE uuid = 'GPU-00000000')")
    report = verify(whole)
    assert not report.complete
    found = whole.execute("SELECT count(*) FROM telemetry").fetchone()
    assert found is not None
    assert (29 - found[0],) == (report.samples_without_series,)
    assert (f"{29 - found[0]} samples belong to no series",) == report.problems


def test_missing_dead_letter_is_named(whole: Conn) -> None:
    """A rejected row was not kept."""
    whole.execute("DELETE FROM dead_letter")
    report = verify(whole)
    assert not report.complete
    assert ("the ledger says 1 rows were rejected, the dead letters hold 0",) == _stream(
        report
    ).problems


def test_dead_letter_of_nobody_is_named(whole: Conn) -> None:
    """A dead letter of a stream that the ledger does not know."""
    whole.execute(
        "INSERT INTO dead_letter (stream_id, first_row, reason, payload) VALUES ('x', 3, '', '')"
    )
    report = verify(whole)
    assert not report.complete
    assert "the dead letters hold 1" in _stream(report, "x").problems[0]


def test_overlap_in_the_ledger_is_named(whole: Conn) -> None:
    """Two batches share rows: somebody cut the stream anew."""
    whole.execute(
        "INSERT INTO ledger (stream_id, first_row, row_count, stored, rejected) "
        "VALUES ('s', 5, 10, 10, 0)"
    )
    report = verify(whole)
    assert not report.complete
    assert (Damage("overlap", 5, 10), Damage("overlap", 10, 15)) == _stream(report).damages
    assert "rows 5 to 9 are in more than one batch" in _stream(report).problems


def test_overlap_inside_a_batch_does_not_look_like_a_gap_after_it(whole: Conn) -> None:
    """A small batch within a large one ends before it."""
    whole.execute(
        "INSERT INTO ledger (stream_id, first_row, row_count, stored, rejected) "
        "VALUES ('s', 12, 2, 2, 0)"
    )
    assert (Damage("overlap", 12, 14),) == _stream(verify(whole)).damages


def test_lease_of_a_stored_batch_is_an_overlap(whole: Conn) -> None:
    """A commit did not close its lease."""
    whole.execute("INSERT INTO stream_lease VALUES ('s', 10, 10, 'a', now())")
    assert (Damage("overlap", 10, 20),) == _stream(verify(whole)).damages


def test_batch_beyond_the_cursor_is_named(whole: Conn) -> None:
    """The cursor was set back by hand: the rows would be reserved a second time."""
    whole.execute("UPDATE stream_progress SET next_row = 35")
    report = verify(whole)
    assert not report.complete
    assert (Damage("beyond", 35, 40), Damage("beyond", 40, 50)) == _stream(report).damages


def test_ledger_that_contradicts_itself_is_named(whole: Conn) -> None:
    """Somebody dropped the constraint and edited a line."""
    whole.execute("ALTER TABLE ledger DROP CONSTRAINT ledger_check")
    whole.execute("UPDATE ledger SET row_count = 10, stored = 9 WHERE first_row = 0")
    report = verify(whole)
    assert not report.complete
    assert ("the ledger accounts for 30 rows, of which 28 stored and 1 rejected",) == _stream(
        report
    ).problems


def test_foreign_stream_has_no_known_end_but_overlaps_show(whole: Conn) -> None:
    """A producer of its own sends only some of its rows, and two batches of the same ones."""
    Writer(whole).store([stored_batch(100, stream="f"), stored_batch(500, stream="f")])
    report = verify(whole)
    assert report.complete
    assert _stream(report, "f").next_row is None
    Writer(whole).store([stored_batch(105, stream="f")])
    assert (Damage("overlap", 105, 110),) == _stream(verify(whole), "f").damages


def test_list_of_ranges_is_bounded_and_says_so(conn: Conn) -> None:
    """Half of a million batches is missing."""
    open_stream(conn, "s", "source")
    conn.execute("UPDATE stream_progress SET next_row = 400")
    conn.execute(
        "INSERT INTO ledger (stream_id, first_row, row_count, stored, rejected) "
        "SELECT 's', n, 1, 1, 0 FROM generate_series(0, 398, 2) AS n"
    )
    stream = _stream(verify(conn))
    assert (200, DAMAGES_MAX) == (stream.damage_count, len(stream.damages))
    assert Damage("gap", 1, 2) == stream.damages[0]
    assert f"{200 - DAMAGES_MAX} more such ranges" == stream.problems[-1]


def test_damaged_streams_come_first_and_totals_count_all(
    conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand streams of foreign producers, and one of them is damaged."""
    monkeypatch.setattr("telemq.store.verify.STREAMS_MAX", 3)
    Writer(conn).store([stored_batch(0, stream=f"s{n}") for n in range(9)])
    conn.execute(
        "INSERT INTO dead_letter (stream_id, first_row, reason, payload) VALUES ('s7', 3, '', '')"
    )
    report = verify(conn)
    assert ["s7", "s0", "s1"] == [s.stream_id for s in report.streams]
    assert (9, 1, 90) == (report.stream_count, report.damaged_count, report.stored)


def test_report_is_plain_values_for_json(whole: Conn) -> None:
    """``telemq verify --json``."""
    whole.execute("DELETE FROM ledger WHERE first_row = 0")
    found = json.loads(json.dumps(verify(whole).to_dict()))
    assert found["complete"] is False
    assert [{"kind": "gap", "first_row": 0, "end_row": 10}] == found["streams"][0]["damages"]
    assert "rows 0 to 9" in found["streams"][0]["problems"][0]
    assert "too many" in found["problems"][0]


def test_database_without_tables_cannot_be_told(conn: Conn) -> None:
    """Another database than the one that was meant: exit 2."""
    conn.execute("ALTER TABLE ledger RENAME TO elsewhere")
    with pytest.raises(StoreError, match='cannot verify: relation "ledger" does not exist'):
        verify(conn)


def test_verify_changes_nothing_and_leaves_the_connection_usable(whole: Conn) -> None:
    """It runs beside everything else."""
    verify(whole)
    whole.execute("DELETE FROM dead_letter")
