"""`telemq query` on a real database: every format, every refusal, and readers that leave."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import sys
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.support.commands import telemq
from tests.support.fleets import store_fleet
from tests.support.maintaining import DAY, pass_over, put
from tests.support.postgres import Databases
from tests.support.terminals import Terminal

Conn = psycopg.Connection[Any]
UTIL = "DCGM_FI_DEV_GPU_UTIL"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def fleet(dsn: str, conn: Conn) -> str:
    """The DSN of a database with two hosts of four GPUs, of the last six minutes."""
    store_fleet(conn)
    return dsn


def records(dsn: str, *words: str) -> list[dict[str, Any]]:
    """What the command prints as JSON, a row at a time or all at once."""
    got = telemq("query", f"--dsn={dsn}", "--chunk-rows=7", "--json", *words)
    assert (0, "") == (got.returncode, got.stderr)
    found: list[dict[str, Any]] = json.loads(got.stdout)
    return found


def test_every_format_tells_the_same_records(fleet: str) -> None:
    """Over many chunks and several GPUs: one array, one header, no line too many."""
    words = ("query", f"--dsn={fleet}", "--chunk-rows=7", "hopper-001/*")
    whole = records(fleet, "hopper-001/*")
    assert 4 * 10 * 12 == len(whole)
    assert [str(n) for n in range(4)] == list(dict.fromkeys(r["gpu_id"] for r in whole))
    times = [r["timestamp"] for r in whole if r["gpu_id"] == "0"]
    assert sorted(times) == times
    lines = telemq(*words, "--ndjson").stdout.splitlines()
    assert whole == [json.loads(line) for line in lines]
    rows = list(csv.DictReader(io.StringIO(telemq(*words, "--csv").stdout)))
    assert whole == [row | {"value": float(row["value"])} for row in rows]
    table = telemq(*words).stdout.splitlines()
    assert 1 + len(whole) == len(table)
    assert [f"{r['value']:.10g}" for r in whole] == [line.split()[-1] for line in table[1:]]
    assert "\x1b" not in "".join(table)


def test_window_is_inclusive_at_both_ends(dsn: str, conn: Conn) -> None:
    """Samples at :10, :20 and :30, asked for from :10 to :20."""
    put(conn, [(0, DAY + n * MINUTE, float(n)) for n in (30, 10, 20)])
    found = records(
        dsn, "GPU-00000000", "--start=2026-03-01T00:10:00Z", "--end=2026-03-01T00:20:00Z"
    )
    assert [10.0, 20.0] == [r["value"] for r in found]
    assert [30.0] == [
        r["value"] for r in records(dsn, "host-000/0", "--start", "2026-03-01T01:30:00+01:00")
    ]


def test_step_gives_a_row_a_series_and_step_from_chunks_too(dsn: str, conn: Conn) -> None:
    """A month by the hour, of what was compacted long ago."""
    put(conn, [(0, DAY + n * MINUTE, float(n)) for n in range(120)])
    assert pass_over(dsn).chunks
    words = ("0", "--start=2026-03-01T00:00:00Z", "--end=2026-03-01T02:00:00Z", "--step=1h")
    assert [29.5, 89.5] == [r["value"] for r in records(dsn, *words)]
    for agg, values in (
        ("min", [0, 60]),
        ("max", [59, 119]),
        ("last", [59, 119]),
        ("p95", [56, 116]),
    ):
        assert values == [r["value"] for r in records(dsn, *words, f"--agg={agg}")]


def test_metrics_limit_and_order_narrow_the_answer(fleet: str) -> None:
    """The last three values of one metric."""
    words = ("hopper-001/0", "-m", UTIL, "--since=1h")
    all = records(fleet, *words)
    assert {UTIL} == {r["metric_name"] for r in all}
    assert all[:-4:-1] == records(fleet, *words, "--newest-first", "--limit=3")
    two = records(fleet, "hopper-001/*", "-m", UTIL, "--limit=15")
    assert ["0"] * 12 + ["1"] * 3 == [r["gpu_id"] for r in two]
    both = records(fleet, "hopper-001/0", "-m", UTIL, "-m", "DCGM_FI_DEV_GPU_TEMP")
    assert 2 * len(all) == len(both)


def test_csv_is_safe_to_open_in_a_spreadsheet(dsn: str, conn: Conn) -> None:
    """A pod was named by somebody who waits for the monthly report."""
    put(conn, [(0, DAY, -5.0)])
    conn.execute("UPDATE series SET pod = '=cmd|x', namespace = '@a,b'")
    got = telemq("query", f"--dsn={dsn}", "0", "--csv", "--start=2026-03-01T00:00:00Z")
    (row,) = csv.DictReader(io.StringIO(got.stdout))
    assert ("'=cmd|x", "'@a,b", "-5.0") == (row["pod"], row["namespace"], row["value"])


def test_nothing_in_the_window_says_when_there_was_something(dsn: str, conn: Conn) -> None:
    """The recording is of last winter, and the last hour is asked for."""
    put(conn, [(0, DAY, 1.0)])
    for flag, told in (("--csv", "timestamp,"), ("--json", "[]"), ("--ndjson", ""), ("", "")):
        got = telemq("query", f"--dsn={dsn}", "0", *filter(None, [flag]))
        assert 0 == got.returncode
        assert "no samples in this window; the newest is of 2026-03-01T00:00:00Z" in got.stderr
        assert got.stdout.startswith(told)
        assert len(got.stdout.splitlines()) <= 1


def test_table_on_a_terminal_has_a_head_that_stands_out(fleet: str) -> None:
    """A person looks."""
    with Terminal("query", f"--dsn={fleet}", "hopper-001/0", "-m", UTIL) as terminal:
        assert b"\x1b[1mtime (UTC)" in terminal.until(b"hopper-001  0")


def test_reader_that_has_enough_ends_the_query_without_a_word(fleet: str) -> None:
    """`telemq query … | head`."""
    command = [sys.executable, "-P", "-m", "telemq_cli", "query", f"--dsn={fleet}", "*"]
    process = subprocess.Popen(
        [*command, "--ndjson", "--chunk-rows=10"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    json.loads(process.stdout.readline())
    process.stdout.close()
    assert 141 == process.wait(30)
    with process.stderr:
        assert b"" == process.stderr.read()


#: Of its own session: another's wait would let the signal come while it still starts.
_ITS_WAIT = """
SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE NOT granted AND application_name = 'telemq gateway' AND datname = current_database()
"""


def test_ctrl_c_ends_a_query_that_takes_long(dsn: str, conn: Conn) -> None:
    """A month of everything was not meant; what is cut short does not look whole."""
    put(conn, [(0, DAY, 1.0)])
    with conn.transaction():
        conn.execute("LOCK TABLE sample IN ACCESS EXCLUSIVE MODE")
        command = [sys.executable, "-P", "-m", "telemq_cli", "query", f"--dsn={dsn}", "0", "--json"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            while not conn.execute(_ITS_WAIT).fetchone():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        except BaseException:
            process.kill()
            process.communicate()
            raise
    assert (130, "", "telemq: cut short\n") == (process.returncode, out, err)


def test_answer_that_the_database_fails_to_complete_does_not_look_whole(
    fleet: str, conn: Conn
) -> None:
    """A failover, while somebody pipes a month into a file."""
    command = [sys.executable, "-P", "-m", "telemq_cli", "query", f"--dsn={fleet}", "*"]
    with subprocess.Popen(
        [*command, "--since=30d", "--json", "--chunk-rows=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=0,
    ) as process:
        assert process.stdout is not None
        # Its pipe is full now, and it waits with the transaction open.
        begun = process.stdout.read(1)
        # Connections of an earlier test may be ending still; they have no transaction.
        ended = conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ="
            " 'telemq gateway' AND datname = current_database() AND xact_start IS NOT NULL"
        )
        assert [(True,)] == ended.fetchall()
        rest, err = process.communicate(timeout=30)
    assert 1 == process.returncode
    assert "the connection to Postgres was lost" in err
    with pytest.raises(json.JSONDecodeError):
        json.loads(begun + rest)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hoper-001/0"], "GPU: 'hoper-001/0' is not accepted; it must be a UUID, HOST/INDEX"),
        (["hopper-001/0", "-m", "GPU_UTIL"], "--metric: 'GPU_UTIL' .* DCGM_FI_DEV_GPU_UTIL"),
        (["0", "--since=yesterday"], "--since: 'yesterday'"),
        (["0", "--since=1h", "--end=1m"], "--since: '1h' .* without --start and --end"),
        (["0", "--start=1h", "--end=2h"], "--end: '2h' is not accepted; it must be after"),
        (["0", "--start=2024-99-99T00:00:00Z"], "--start: '2024-99-99T00:00:00Z'"),
        (["0", "--step=0s"], "--step: '0s' .* such as 30s"),
        (["0", "--agg=max"], "--agg: 'max' .* together with --step"),
        (["0", "--step=5m", "--agg=median"], "--agg: 'median' .* min, max, mean, last, p95"),
        (["0", "--csv", "--json"], "format: '--csv and --json'"),
        (["0", "--chunk-rows=0"], "--chunk-rows: 0"),
    ],
)
def test_what_is_not_usable_is_one_line_and_exit_2(fleet: str, words: list[str], told: str) -> None:
    """A typing error."""
    got = telemq("query", f"--dsn={fleet}", *words)
    assert (2, 1, "") == (got.returncode, got.stderr.count("\n"), got.stdout)
    assert re.search(told, got.stderr)


def test_database_that_cannot_be_used_is_one_line_and_exit_1(postgres: Databases) -> None:
    """It is down, or another program's."""
    with postgres.fresh(migrated=False) as empty:
        got = telemq("query", f"--dsn={empty}", "0")
    assert (1, "") == (got.returncode, got.stdout)
    assert "no telemq schema" in got.stderr
    got = telemq("query", "--dsn=host=/nonexistent", "0")
    assert (1, "") == (got.returncode, got.stdout)
    assert "the database cannot be used" in got.stderr
