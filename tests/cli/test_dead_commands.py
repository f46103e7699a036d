"""`telemq dead` as an operator and a script meet it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from telemq.record import BatchId
from telemq.store.dead import Selection, find
from telemq.store.verify import verify
from telemq.store.writer import StoredBatch, Writer
from tests.support.batches import stored_batch
from tests.support.commands import telemq
from tests.support.postgres import Databases

Conn = psycopg.Connection[Any]


@pytest.fixture
def ids(conn: Conn) -> list[int]:
    """A good batch and somebody's bytes, kept whole, and a bad row; their ids."""
    good = stored_batch(0)
    Writer(conn).store([StoredBatch(good.id, 10, good.payload, None, "not stored: it hung")])
    Writer(conn).store([StoredBatch(BatchId("t\x1b[2J", 0), 4, b"\xff\x00", None, "what?")])
    Writer(conn).store([stored_batch(10, bad=(3,))])
    return [letter.id for letter in find(conn, Selection(), limit=10)]


def test_list_shows_the_newest_first_and_how_many_there_are(dsn: str, ids: list[int]) -> None:
    """Something was rejected: what, where and why?"""
    got = telemq("dead", "list", TELEMQ_DSN=dsn)
    assert 0 == got.returncode
    lines = got.stdout.splitlines()
    firsts = [line.split()[0] for line in lines[:-1] if line.strip()]
    assert [str(id) for id in reversed(ids)] == [word for word in firsts if word.isdigit()]
    assert "0 to 9" in got.stdout
    assert "not stored: it hung" in got.stdout
    assert "3 dead letters of 15 rows" == lines[-1]


def test_list_never_prints_a_control_character_of_a_peer(dsn: str, ids: list[int]) -> None:
    """A producer named its stream so that it clears the operator's screen."""
    for words in (["list"], ["show", str(ids[1])]):
        got = telemq("dead", *words, TELEMQ_DSN=dsn)
        assert "\x1b" not in got.stdout
        assert r"t\x1b[2J" in got.stdout


def test_list_is_narrowed_and_limited(dsn: str, ids: list[int]) -> None:
    """A script asks for one stream, with a limit."""
    got = telemq("dead", "list", "--stream=s", "--limit=1", "--json", TELEMQ_DSN=dsn)
    found = json.loads(got.stdout)
    assert (2, 11) == (found["count"], found["rows"])
    assert [ids[2]] == [letter["id"] for letter in found["letters"]]
    for flag in ("--reason=HUNG", "--since=1h", "--since=2020-01-01T00:00:00Z"):
        found = json.loads(telemq("dead", "list", flag, "--json", TELEMQ_DSN=dsn).stdout)
        assert ids[0] in [letter["id"] for letter in found["letters"]]


def test_show_tells_what_a_payload_holds(dsn: str, ids: list[int]) -> None:
    """Is it worth a retry?"""
    good = telemq("dead", "show", str(ids[0]), TELEMQ_DSN=dsn).stdout
    assert "10 records of 3 series, from " in good
    assert '{"series":[' in good
    bad = telemq("dead", "show", str(ids[1]), TELEMQ_DSN=dsn).stdout
    assert "neither a telemq.batch nor a telemq.record" in bad
    assert bad.endswith("\nff 00\n")
    as_json = json.loads(telemq("dead", "show", str(ids[1]), "--json", TELEMQ_DSN=dsn).stdout)
    assert ("ff00", 4) == (as_json["payload_hex"], as_json["row_count"])


def test_retry_stores_and_says_what_is_left(dsn: str, conn: Conn, ids: list[int]) -> None:
    """The cause is mended: all that can be read is stored now, the rest named with its reason."""
    got = telemq("dead", "retry", "--all", TELEMQ_DSN=dsn)
    assert "3 letters tried: 10 records stored, 5 rows left" == got.stdout.splitlines()[-1]
    assert f"{ids[1]}: 0 records stored, 4 rows left: its payload is neither" in got.stdout
    assert 1 == got.returncode
    report = verify(conn)
    assert (True, 19) == (report.complete, report.samples)


def test_retry_of_one_letter_as_json(dsn: str, conn: Conn, ids: list[int]) -> None:
    """A script retries by number, twice: the second time there is nothing to do."""
    for stored, unknown, code in ((10, [], 0), (0, [ids[0]], 1)):
        got = telemq("dead", "retry", str(ids[0]), "--json", TELEMQ_DSN=dsn)
        result = json.loads(got.stdout)
        assert stored == sum(outcome["stored"] for outcome in result["outcomes"])
        assert (unknown, code) == (result["unknown"], got.returncode)
    assert verify(conn).complete


def test_drop_of_more_than_named_letters_asks_first(dsn: str, conn: Conn, ids: list[int]) -> None:
    """Gone is gone."""
    got = telemq("dead", "drop", "--stream=s", TELEMQ_DSN=dsn)
    assert "this would drop 2 letters of 11 rows; add --yes" in got.stderr
    assert 2 == got.returncode
    assert "dropped 2" in telemq("dead", "drop", "--stream=s", "--yes", TELEMQ_DSN=dsn).stdout
    got = telemq("dead", "drop", str(ids[1]), str(ids[0]), TELEMQ_DSN=dsn)
    assert "dropped 1 dead letters\n" == got.stdout
    assert f"there is no dead letter {ids[0]}" in got.stderr
    assert 1 == got.returncode
    assert verify(conn).complete
    assert "0 dead letters" in telemq("dead", "list", TELEMQ_DSN=dsn).stdout
    assert "(dropped)" in telemq("dead", "list", "--dropped", TELEMQ_DSN=dsn).stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "999999"], "there is no dead letter 999999"),
        (["list", "--since=yesterday"], "--since: 'yesterday' is not accepted"),
        (["list", "--since=2026-01-01T00:00:00"], "--since"),
        (["list", "--since=999999999d"], "--since"),
        (["retry"], "which letters: 'nothing' is not accepted"),
        (["retry", "1", "--all"], "which letters"),
        (["drop", "--all", "--stream=s", "--yes"], "which letters"),
        (["retry", "--all", "--record-age-days-max=0"], "--record-age-days-max: 0"),
    ],
)
def test_what_is_not_usable_is_one_line_and_exit_2(dsn: str, words: list[str], told: str) -> None:
    """A typing error."""
    got = telemq("dead", *words, TELEMQ_DSN=dsn)
    assert told in got.stderr
    assert 1 == got.stderr.count("\n")
    assert 2 == got.returncode


def test_database_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    """--data-dir has a typing error."""
    got = telemq("dead", "list", "--data-dir", str(tmp_path / "data"))
    assert "a directory with a database" in got.stderr
    assert 2 == got.returncode
    assert not (tmp_path / "data").exists()


def test_database_of_somebody_else_is_not_changed(postgres: Databases) -> None:
    """The DSN leads elsewhere, or to a database of the version before."""
    with postgres.fresh(migrated=False) as dsn:
        got = telemq("dead", "list", TELEMQ_DSN=dsn)
        assert "telemq migrate" in got.stderr
        assert 1 == got.returncode
        with psycopg.connect(dsn) as conn:
            assert (None,) == conn.execute("SELECT to_regclass('dead_letter')").fetchone()
