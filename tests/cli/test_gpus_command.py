"""`telemq gpus` on a real database: on a terminal, in a pipe, as JSON."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.commands import telemq
from tests.support.fleets import store_fleet
from tests.support.postgres import Databases
from tests.support.terminals import Terminal

Conn = psycopg.Connection[Any]
_TO_ALTERNATE, _TO_NORMAL, _SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


@pytest.fixture
def fleet(dsn: str, conn: Conn) -> str:
    """The DSN of a database with two hosts of four GPUs, the last scrape seconds ago."""
    assert store_fleet(conn) == 12 * 7 * 10
    return dsn


def test_table_in_a_pipe_is_plain_text_with_all_columns(fleet: str) -> None:
    """`telemq gpus | grep hopper-002`."""
    got = telemq("gpus", f"--dsn={fleet}")
    assert (0, "") == (got.returncode, got.stderr)
    title, head, *rows = got.stdout.splitlines()
    assert "7 GPUs on 2 hosts" in title
    names = "host gpu model namespace/pod util 10 min memory temp power seen"
    assert names == " ".join(head.split())
    assert ["0", "1", "2", "3"] == [r.split()[1] for r in rows if r.startswith("hopper-001")]
    assert "research/llm-pretrain-0" in rows[0]
    assert "\x1b" not in got.stdout
    assert any(bar in rows[0] for bar in "▆▇█")


def test_names_are_not_cut_in_a_pipe(fleet: str, conn: Conn) -> None:
    """`telemq gpus | grep` for a pod whose name a controller made."""
    name = "llm-pretrain-" + "x" * 200
    conn.execute("UPDATE series SET pod = %s WHERE pod = 'llm-pretrain-0'", [name])
    got = telemq("gpus", f"--dsn={fleet}", COLUMNS="")
    assert 4 == sum(f"research/{name} " in line for line in got.stdout.splitlines())


def test_json_has_every_gpu_in_the_order_asked_for(fleet: str) -> None:
    """A script looks for idle GPUs."""
    got = telemq("gpus", f"--dsn={fleet}", "--json", "--sort=idle", "--minutes=5")
    assert (0, "") == (got.returncode, got.stderr)
    gpus = json.loads(got.stdout)
    shares = [gpu["utilization_percent"] for gpu in gpus]
    assert sorted(shares) == shares
    assert 7 == len(gpus)
    busiest = gpus[-1]
    assert 81_007.0 == busiest["memory_total_mib"]
    assert "research" == busiest["pods"][0]["namespace"]
    assert busiest["last_seen"].endswith("Z")
    assert 20 == len(busiest["utilization_recent_percent"])
    # Ten scrapes, half a minute apart, in parts of a quarter.
    assert 8 <= sum(v is not None for v in busiest["utilization_recent_percent"]) <= 12


def test_filters_narrow_what_is_shown(fleet: str) -> None:
    """One team on one host."""
    words = ("gpus", f"--dsn={fleet}", "--json")
    of_host = json.loads(telemq(*words, "--host=*-002").stdout)
    assert {"hopper-002"} == {gpu["hostname"] for gpu in of_host}
    of_team = json.loads(telemq(*words, "--namespace=research").stdout)
    assert {"hopper-001"} == {gpu["hostname"] for gpu in of_team}
    assert [] == json.loads(telemq(*words, "--namespace=nobody").stdout)


def test_watch_is_drawn_over_itself_in_a_narrow_window_and_ends_with_ctrl_c(fleet: str) -> None:
    """An operator watches beside an editor, in eight lines, and has seen enough."""
    words = ("gpus", f"--dsn={fleet}", "--watch", "--interval-s=1")
    with Terminal(*words, columns=50, lines=8) as terminal:
        first = terminal.until(_TO_ALTERNATE, b"and 4 more")
        assert b"hopper-001" in first
        terminal.until(b"hopper-001", b"and 4 more")
        assert 0 == terminal.end(signal.SIGINT)
        assert _TO_NORMAL in terminal.text
        assert terminal.text.rindex(_SHOW_CURSOR) > terminal.text.index(_TO_ALTERNATE)
        assert b"Traceback" not in terminal.text


def test_ctrl_c_ends_a_question_that_takes_long(fleet: str, conn: Conn) -> None:
    """The table is locked by a migration, and whoever watches does not want to wait for it."""
    words = ("gpus", f"--dsn={fleet}", "--watch", "--interval-s=1")
    with Terminal(*words) as terminal:
        terminal.until(b"hopper-001")
        with conn.transaction():
            conn.execute("LOCK TABLE gpu IN ACCESS EXCLUSIVE MODE")
            _until_blocked(conn)
            assert 0 == terminal.end(signal.SIGINT)
        assert _TO_NORMAL in terminal.text


def test_database_that_goes_away_is_told_and_comes_back(postgres: Databases, fleet: str) -> None:
    """A failover: the last table stays on the screen, and says so."""
    name = str(conninfo_to_dict(fleet)["dbname"])
    admin = make_conninfo(fleet, dbname="postgres")
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    words = ("gpus", f"--dsn={fleet}", "--watch", "--interval-s=1")
    with psycopg.connect(admin, autocommit=True) as conn, Terminal(*words) as terminal:
        terminal.until(b"hopper-001")
        conn.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND application_name = 'telemq gpus'",
            [name],
        )
        assert b"hopper-001" in terminal.until(b"not read since then", b"hopper-002")
        conn.execute(allow.format(sql.Identifier(name), sql.SQL("true")))
        terminal.until(b"busy", b"hopper-002")
        assert 0 == terminal.end(signal.SIGTERM)


def test_watch_in_a_pipe_is_plain_text_and_ends_with_its_reader(fleet: str) -> None:
    """`telemq gpus --watch | head`, or into a log."""
    command = [sys.executable, "-P", "-m", "telemq_cli", "gpus", f"--dsn={fleet}"]
    process = subprocess.Popen(
        [*command, "--watch", "--interval-s=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines = [process.stdout.readline() for _ in range(20)]
    process.stdout.close()
    code = process.wait(30)
    with process.stderr:
        assert "" == process.stderr.read()
    assert 141 == code
    assert 3 == sum(line.startswith("telemq gpus") for line in lines)
    assert "\x1b" not in "".join(lines)


def test_watch_as_json_is_a_line_each_time(fleet: str) -> None:
    """Into a program that reads on."""
    command = [sys.executable, "-P", "-m", "telemq_cli", "gpus", f"--dsn={fleet}"]
    with subprocess.Popen(
        [*command, "--watch", "--json", "--interval-s=1"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(30)
    assert lines[0]["at"] < lines[1]["at"]
    assert [7, 7] == [len(line["gpus"]) for line in lines]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host=hopper-01"], "--host: 'hopper-01' is not accepted; it must be one of hopper-001"),
        (["--sort=name"], "--sort: 'name'"),
        (["--minutes=0"], "--minutes: 0.0"),
        (["--watch", "--model=A100"], "--model: 'A100'"),
    ],
)
def test_what_is_not_usable_is_one_line_and_exit_2(fleet: str, words: list[str], told: str) -> None:
    """A typing error."""
    got = telemq("gpus", f"--dsn={fleet}", *words)
    assert told in got.stderr
    assert (2, 1, "") == (got.returncode, got.stderr.count("\n"), got.stdout)


def test_database_without_gpus_or_without_telemq_says_so(dsn: str, postgres: Databases) -> None:
    """Before the first record, and before the first start."""
    got = telemq("gpus", f"--dsn={dsn}")
    assert (0, "no GPUs") == (got.returncode, got.stdout.splitlines()[-1].strip())
    with postgres.fresh(migrated=False) as empty:
        got = telemq("gpus", f"--dsn={empty}")
    assert (1, "") == (got.returncode, got.stdout)
    assert "no telemq schema" in got.stderr
    got = telemq("gpus", "--data-dir=/nonexistent")
    assert (2, 1) == (got.returncode, got.stderr.count("\n"))


def _until_blocked(conn: Conn) -> None:
    for _ in range(6000):
        if conn.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            return
        conn.execute("SELECT pg_sleep(0.005)")
    raise AssertionError("nobody waits for the lock")
