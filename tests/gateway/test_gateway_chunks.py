"""The gateway answers the same from partitions, from chunks, and from both."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import httpx
import psycopg
import pytest

from telemq.settings import ApiSettings
from tests.support.gateway import DAY, add_samples, add_series, at, serving
from tests.support.maintaining import pass_over


@pytest.fixture
def series(conn: psycopg.Connection[Any]) -> list[int]:
    """Two days of two series of one GPU, a sample every half minute or so, some twice."""
    choose = random.Random(5)
    ids = [add_series(conn, "GPU-1", metric_name=name) for name in ("A", "B")]
    for number in ids:
        times = [at(30 * n + choose.random()) for n in range(0, 2 * 2880, 7)]
        add_samples(conn, number, [(time, n / 4) for n, time in enumerate([*times, *times[::9]])])
    return ids


def _windows() -> list[dict[str, str]]:
    choose = random.Random(6)
    moments = [at(choose.randrange(2 * 86_400)) for _ in range(20)]
    edges = [DAY, at(3600), at(3600) - timedelta(microseconds=1), at(86_400), at(2 * 86_400)]
    windows: list[dict[str, str]] = [{}]
    for start in [*moments, *edges]:
        windows.append({"start_time": start.isoformat()})
        windows.append({"end_time": start.isoformat()})
        end = start + timedelta(seconds=choose.randrange(7200))
        windows.append({"start_time": start.isoformat(), "end_time": end.isoformat()})
    return windows


def _answers(client: httpx.Client) -> list[Any]:
    answers = []
    for window in _windows():
        answer = client.get("/api/v1/gpus/GPU-1/telemetry", params=window)
        assert 200 == answer.status_code, answer.text
        records = answer.json()
        times = [datetime.fromisoformat(record["timestamp"]) for record in records]
        assert sorted(times) == times
        # Of samples of one moment no order is promised.
        answers.append(sorted(records, key=itemgetter("timestamp", "metric_name", "value")))
    return answers


@pytest.mark.usefixtures("series")
def test_answers_do_not_change_when_partitions_are_compacted(
    dsn: str, conn: psycopg.Connection[Any]
) -> None:
    """Before, when one day is closed, and when both are; late samples and windows of all kinds."""
    with serving(ApiSettings(dsn=dsn, chunk_rows=100)) as client:
        before = _answers(client)
        assert 2 * (823 + 92) == len(before[0])
        assert 0 < pass_over(dsn, now=DAY + timedelta(days=1, hours=2)).moved < len(before[0])
        assert before == _answers(client)
        pass_over(dsn, now=datetime.now(UTC))
        assert (0,) == conn.execute("SELECT count(*) FROM sample").fetchone()
        assert before == _answers(client)
        conn.execute(
            "INSERT INTO gpu (uuid, gpu_id, device, model_name, hostname)"
            " VALUES ('GPU-2', '1', '', '', '')"
        )
        assert ["GPU-1", "GPU-2"] == client.get("/api/v1/gpus").json()
