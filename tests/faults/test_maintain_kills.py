"""Faults 2 and 4 for maintenance: `telemq maintain` is killed again and again, under load."""

from __future__ import annotations

import random
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from telemq.store.embedded import EmbeddedPostgres
from telemq.store.migrate import migrate
from telemq.store.verify import verify
from telemq.store.writer import Writer
from tests.support.maintaining import DAY, batch_at
from tests.support.running import eventually
from tests.support.services import running_service

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

KILLS, SERIES, BATCH = 25, 20, 4000
#: Between two batches, so that what there is to rewrite, and to verify, has a limit.
PAUSE_S = 0.02


def _write(dsn: str, stop: threading.Event, written: list[int]) -> None:
    """Store batches that are late already; each sample has a value of its own."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        writer = Writer(conn)
        while not stop.is_set():
            first = BATCH * len(written)
            samples = [
                (n % SERIES, DAY + timedelta(seconds=n % 80_000), float(n))
                for n in range(first, first + BATCH)
            ]
            stored = writer.store([batch_at(samples)])
            assert stored.records == BATCH, stored
            written.append(BATCH)
            stop.wait(PAUSE_S)


_MAINTAINERS: LiteralString = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'telemq maintain'"
)


@pytest.mark.parametrize("seed", [1, 2])
def test_fault_2_4_maintenance_is_killed_under_load(seed: int, tmp_path: Path) -> None:
    """Memory runs out on the machine of the CronJob; it is started again at once, every time."""
    choose = random.Random(seed)
    stop, written = threading.Event(), list[int]()
    with EmbeddedPostgres(tmp_path / "data") as dsn:
        with psycopg.connect(dsn, autocommit=True) as conn:
            migrate(conn)
        load = threading.Thread(target=_write, args=(dsn, stop, written))
        load.start()
        try:
            for _ in range(KILLS):
                # Most of a life is the start of Python; the rest falls into any statement.
                with running_service(
                    *("maintain", "--every-s=0.001", "--close-after-s=0"), TELEMQ_DSN=dsn
                ) as service:
                    if choose.random() < 0.5:
                        service.event("maintained")
                    time.sleep(choose.uniform(0, 1.2))
                    service.kill()
        finally:
            stop.set()
            load.join(30)
        with psycopg.connect(dsn, autocommit=True) as conn:
            assert verify(conn).complete
            # Postgres finishes the statement of whoever was killed last, with its lock.
            eventually(lambda: conn.execute(_MAINTAINERS).fetchone() == (0,), "they are gone")
            with running_service("maintain", "--close-after-s=0", TELEMQ_DSN=dsn) as service:
                assert 0 == service.process.wait(60)
                assert "" == service.event("maintained")["held_up"]
            report = verify(conn)
            assert report.complete, report.problems
            assert sum(written) == report.samples == report.chunked
            odd = conn.execute(
                "SELECT count(*), count(DISTINCT value), min(value), max(value) FROM telemetry"
            ).fetchone()
        assert (sum(written), sum(written), 0, sum(written) - 1) == odd
    print(f"seed {seed}: {KILLS} kills, {sum(written)} samples")
