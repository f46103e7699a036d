"""Telemetry in steps: what Postgres makes of the samples, against what a few lines of Python do."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.gateway import DAY, add_samples, add_series, at
from tests.support.maintaining import pass_over

_GPU = "GPU-aaaa"
_PATH = f"/api/v1/gpus/{_GPU}/telemetry"
Samples = list[tuple[str, datetime, float]]
Row = tuple[datetime, str, float]
#: A Monday.
_ORIGIN = datetime(2001, 1, 1, tzinfo=UTC)

#: Of samples (time, value) in order.
_AGGREGATES: dict[str, Callable[[list[tuple[datetime, float]]], float]] = {
    "min": lambda found: min(value for _, value in found),
    "max": lambda found: max(value for _, value in found),
    "mean": lambda found: sum(value for _, value in found) / len(found),
    "last": lambda found: found[-1][1],
    # The smallest value that 95 % of them do not exceed.
    "p95": lambda found: sorted(value for _, value in found)[-(-95 * len(found) // 100) - 1],
}


@pytest.fixture(params=["partitions", "chunks"])
def samples(request: Any, dsn: str, conn: psycopg.Connection[Any]) -> Samples:
    """Two metrics over six hours, at uneven times."""
    choose = random.Random(2)
    made: Samples = []
    for name in ("A", "B"):
        found = [(at(choose.random() * 21_600), choose.random() * 100 - 20) for _ in range(700)]
        add_samples(conn, add_series(conn, _GPU, metric_name=name), found)
        made += [(name, *sample) for sample in found]
    if request.param == "chunks":
        assert 1400 == pass_over(dsn, now=datetime.now(UTC)).moved
    return made


def _expected(samples: Samples, step: timedelta, aggregate: str) -> list[Row]:
    steps: dict[tuple[datetime, str], list[tuple[datetime, float]]] = defaultdict(list)
    for name, moment, value in samples:
        steps[_ORIGIN + (moment - _ORIGIN) // step * step, name].append((moment, value))
    return [(*key, _AGGREGATES[aggregate](sorted(steps[key]))) for key in sorted(steps)]


def _told(response: httpx.Response) -> list[Any]:
    assert 200 == response.status_code, response.text
    return [
        (datetime.fromisoformat(r["timestamp"]), r["metric_name"], pytest.approx(r["value"]))
        for r in response.json()
    ]


@pytest.mark.parametrize("aggregate", _AGGREGATES)
def test_each_step_of_each_series_is_one_record(
    api: httpx.Client, samples: Samples, aggregate: str
) -> None:
    """A chart of a day has some hundred points, whatever was measured."""
    for text, seconds in [("90", 90), ("30s", 30), ("7m", 420), ("1h", 3600), ("1d", 86_400)]:
        told = _told(api.get(_PATH, params={"step": text, "agg": aggregate}))
        assert _expected(samples, timedelta(seconds=seconds), aggregate) == told


def test_the_mean_is_what_is_told_unless_something_else_is_asked_for(
    api: httpx.Client, samples: Samples
) -> None:
    """Most charts."""
    expected = _expected(samples, timedelta(minutes=5), "mean")
    for query in ({}, {"agg": ""}, {"agg": "mean"}):
        assert expected == _told(api.get(_PATH, params={"step": "5m", **query}))


@pytest.mark.parametrize("aggregate", ["mean", "last"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_steps_come_in_pages_too(
    api: httpx.Client, samples: Samples, order: str, aggregate: str
) -> None:
    """Both metrics of a step fall on different pages; a window cuts the first and the last step."""
    start, end = at(1000), at(20_000)
    inside = [sample for sample in samples if start <= sample[1] <= end]
    expected = _expected(inside, timedelta(minutes=10), aggregate)
    params = {"start_time": start.isoformat(), "end_time": end.isoformat(), "order": order}
    response = api.get(_PATH, params={**params, "step": "10m", "agg": aggregate, "limit": 5})
    pages = [_told(response)]
    while "next" in response.links:
        response = api.get(response.links["next"]["url"])
        pages.append(_told(response))
    assert expected[:: -1 if order == "desc" else 1] == list(itertools.chain(*pages))
    assert {5} == {len(page) for page in pages[:-1]}


def test_steps_of_a_week_begin_on_mondays(api: httpx.Client, conn: psycopg.Connection[Any]) -> None:
    """The 18th of July 2025 is a Friday."""
    add_samples(conn, add_series(conn, _GPU), [(at(0), 1), (at(3 * 86_400), 2)])
    told = _told(api.get(_PATH, params={"step": "7d"}))
    assert [DAY - timedelta(days=4), DAY + timedelta(days=3)] == [row[0] for row in told]


def test_values_without_a_sum_are_told_as_a_problem_and_not_as_a_fault(
    api: httpx.Client, conn: psycopg.Connection[Any]
) -> None:
    """A broken exporter writes the largest number that there is."""
    add_samples(conn, add_series(conn, _GPU), [(at(0), 1.7e308), (at(1), 1.7e308)])
    response = api.get(_PATH, params={"step": "1m"})
    assert 400 == response.status_code
    assert "agg=min, max, last or p95" in response.json()["detail"]
    for aggregate in ("min", "max", "last", "p95"):
        told = _told(api.get(_PATH, params={"step": "1m", "agg": aggregate}))
        assert [1.7e308] == [value for *_, value in told]
    assert 2 == len(api.get(_PATH).json())
