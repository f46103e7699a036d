"""Faults 1 to 4: the whole pipeline, as processes, while parts or all of it are killed.

The stream carries a file whose every row has a time of its own, with ``--clock recorded``. So each
sample can be traced to its row, and after N times the file each must be there exactly N times: a
row that is lost and one that is doubled do not cancel out.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from telemq.sources.synthetic import generate
from telemq.store.embedded import EmbeddedPostgres
from tests.support.up import Up, processes_of, running_up, wait_until_gone

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

#: How often the file is gone through.
LOOPS = 100
VICTIMS = ("streamer-1", "streamer-2", "collector-1", "collector-2", "broker", "maintain")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where a pipeline keeps everything."""
    return tmp_path / "data"


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """A fleet of two hosts, 15 GPUs, three scrapes."""
    path = tmp_path / "fleet.csv"
    generate(path, seed=4, hosts=2, minutes=3)
    return path


def rows_of(csv: Path) -> int:
    """Count a file's rows; the generator's have no line breaks inside."""
    return len(csv.read_text().splitlines()) - 1


def assert_each_row_is_stored(csv: Path, data_dir: Path) -> None:
    """Assert that each row of the file is there `LOOPS` times, and that ``verify`` says so."""
    rows = rows_of(csv)
    with EmbeddedPostgres(data_dir) as dsn, psycopg.connect(dsn) as connection:
        times = connection.execute(
            "SELECT n, count(*) FROM"
            " (SELECT count(*) AS n FROM every_sample GROUP BY series_id, ts) AS each GROUP BY n"
        ).fetchall()
    assert [(LOOPS, rows)] == times
    verdict = subprocess.run(
        [sys.executable, "-P", "-m", "telemq_cli", "verify", f"--data-dir={data_dir}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == verdict.returncode, verdict.stdout + verdict.stderr


def kill_at_random(up: Up, seed: int, most: int) -> int:
    """Kill one of `VICTIMS` every second while the run lasts; gives how many were killed."""
    choose = random.Random(seed)
    killed = 0
    while killed < most:
        with contextlib.suppress(subprocess.TimeoutExpired):
            up.process.wait(1)
        if up.process.poll() is not None:
            break
        victim = choose.choice(VICTIMS)
        # It may be between two lives, or have done its work.
        with contextlib.suppress(ProcessLookupError, KeyError):
            os.kill(up.pids()[victim], signal.SIGKILL)
            killed += 1
    return killed


def words(csv: Path, rate: int) -> tuple[str, ...]:
    """Flags of a run with two of each that ends by itself."""
    return (
        f"--csv={csv}",
        f"--rows={LOOPS * rows_of(csv)}",
        f"--rate={rate}",
        "--clock=recorded",
        # The file is of a day long ago, so every pass of maintenance finds samples to move.
        "--close-after-s=0",
        "--streamers=2",
        "--collectors=2",
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_fault_1_2_3_a_part_is_killed_every_second(seed: int, csv: Path, data_dir: Path) -> None:
    """Streamers, collectors and the broker die again and again, in the middle of anything."""
    with running_up(data_dir, *words(csv, 4000)) as up:
        killed = kill_at_random(up, seed, most=60)
        assert 0 == up.wait()
    print(f"seed {seed}: {killed} killed")
    assert killed >= 5
    assert_each_row_is_stored(csv, data_dir)


def test_fault_4_everything_is_killed_at_once_and_started_again(csv: Path, data_dir: Path) -> None:
    """The power fails: supervisor, all its parts and Postgres are gone in the same moment."""
    with running_up(data_dir, *words(csv, 8000)) as up:
        up.event("starting")
        time.sleep(3)  # any moment will do, as long as work is under way
        assert up.process.poll() is None, "it was done before it could be killed"
        for pid in processes_of(data_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        up.process.wait()
    wait_until_gone(data_dir)
    with running_up(data_dir, *words(csv, 0)) as up:
        assert 0 == up.wait()
    assert_each_row_is_stored(csv, data_dir)


def test_the_check_would_notice_one_row_doubled_and_one_lost(csv: Path, data_dir: Path) -> None:
    """A test of the test: the totals are right, and yet the check fails."""
    with running_up(data_dir, *words(csv, 0), "--keep-raw") as up:
        assert 0 == up.wait()
    assert_each_row_is_stored(csv, data_dir)
    with EmbeddedPostgres(data_dir) as dsn, psycopg.connect(dsn) as connection:
        connection.execute(
            "UPDATE sample SET ts = (SELECT max(ts) FROM sample) WHERE (tableoid, ctid) ="
            " (SELECT tableoid, ctid FROM sample ORDER BY ts LIMIT 1)"
        )
    with pytest.raises(AssertionError):
        assert_each_row_is_stored(csv, data_dir)
