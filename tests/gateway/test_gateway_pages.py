"""Telemetry a page at a time, in both orders, of some metrics."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest

from telemq.settings import ApiSettings
from tests.support.gateway import add_samples, add_series, at, serving
from tests.support.maintaining import pass_over

_GPU = "GPU-aaaa"
_PATH = f"/api/v1/gpus/{_GPU}/telemetry"
Row = tuple[str, str, float]


@pytest.fixture
def rows(conn: psycopg.Connection[Any]) -> list[Row]:
    """Three metrics over three hours, many at one moment, some samples twice or with two values."""
    choose = random.Random(1)
    made: list[Row] = []
    for name in ("A", "B", "C"):
        series = add_series(conn, _GPU, metric_name=name)
        samples = [(at(choose.randrange(360) * 30), float(choose.randrange(3))) for _ in range(30)]
        samples += samples[::5]
        samples += [(at(600), 7.0)] * 33
        add_samples(conn, series, samples)
        made += [(moment.isoformat().replace("+00:00", "Z"), name, of) for moment, of in samples]
    return sorted(made)


def _told(response: httpx.Response) -> list[Row]:
    assert 200 == response.status_code, response.text
    return [(r["timestamp"], r["metric_name"], r["value"]) for r in response.json()]


def _pages(api: httpx.Client, **params: Any) -> list[list[Row]]:
    """Follow the links from the first page to the last."""
    response = api.get(_PATH, params=params)
    pages = [_told(response)]
    for _ in range(1000):
        if "next" not in response.links:
            return pages
        response = api.get(response.links["next"]["url"])
        pages.append(_told(response))
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [4, 50, 206, 207, 1_000_000])
def test_pages_together_are_the_whole_answer(
    dsn: str, rows: list[Row], order: str, limit: int
) -> None:
    """A program that reads page after page, from partitions, and from chunks and partitions.

    Samples that are equal in all that orders them are cut by a page's end too.
    """
    expected = sorted(rows, reverse=order == "desc")
    with serving(ApiSettings(dsn=dsn, chunk_rows=50)) as api:
        for compacted in (False, True):
            if compacted:
                assert pass_over(dsn, now=datetime.now(UTC)).moved
            pages = _pages(api, limit=limit, order=order)
            assert expected == list(itertools.chain(*pages))
            assert {limit} >= {len(page) for page in pages[:-1]}
            assert 0 < len(pages[-1]) <= limit


def test_a_page_is_not_moved_by_samples_that_come_between(
    api: httpx.Client, conn: psycopg.Connection[Any]
) -> None:
    """A collector stores older samples while somebody reads; nothing comes twice."""
    series = add_series(conn, _GPU)
    add_samples(conn, series, [(at(n), n) for n in range(10, 20)])
    first = api.get(_PATH, params={"limit": 4})
    add_samples(conn, series, [(at(n), n) for n in range(10)])
    rest = api.get(first.links["next"]["url"])
    assert [10, 11, 12, 13] == [value for *_, value in _told(first)]
    assert [14, 15, 16, 17] == [value for *_, value in _told(rest)]


def test_only_the_metrics_asked_for_are_told(api: httpx.Client, rows: list[Row]) -> None:
    """A dashboard that draws two of three; a name that no metric has; an empty field of a form."""
    for metrics, expected in [
        (["A"], {"A"}),
        (["A", "C"], {"A", "C"}),
        (["A", "A", ""], {"A"}),
        (["nobody"], set()),
        (["\0"], set()),
        (["A' OR '1'='1"], set()),
        ([""], {"A", "B", "C"}),
    ]:
        told = _told(api.get(_PATH, params={"metric": metrics}))
        assert [row for row in rows if row[1] in expected] == told
        told = _told(api.get("/api/v1/gpus/0/telemetry", params={"metric": metrics}))
        assert [row for row in rows if row[1] in expected] == told
    assert 404 == api.get("/api/v1/gpus/nobody/telemetry", params={"metric": "A"}).status_code


def test_a_window_holds_for_every_page(api: httpx.Client, rows: list[Row]) -> None:
    """Both bounds are inclusive on the first page and on the last."""
    start, end = rows[20][0], rows[180][0]
    window = {"start_time": start, "end_time": end}
    expected = [row for row in rows if start <= row[0] <= end]
    for order in ("asc", "desc"):
        pages = _pages(api, limit=7, order=order, **window)
        assert sorted(expected, reverse=order == "desc") == list(itertools.chain(*pages))
    assert {7} == {len(page) for page in pages[:-1]}


def test_the_link_leads_on_with_all_that_was_asked(api: httpx.Client, rows: list[Row]) -> None:
    """What a client asked for in the first request holds in all."""
    asked: dict[str, Any] = {
        "metric": ["A", "B"],
        "limit": 5,
        "order": "desc",
        "format": "json",
        "agg": "",
    }
    first = api.get(_PATH, params=asked)
    url = httpx.URL(first.links["next"]["url"])
    assert _PATH == url.path
    params = url.params
    assert ["A", "B"] == params.get_list("metric")
    assert {"limit": "5", "order": "desc", "format": "json"}.items() <= dict(params).items()
    last = api.get(_PATH, params={**asked, "limit": 10_000})
    assert "link" not in last.headers


@pytest.mark.parametrize(
    "change",
    [
        {"order": "desc"},
        {"metric": "A"},
        {"start_time": "2025-07-18T00:00:00Z"},
        {"step": "1m"},
        {"cursor": "x"},
        {"cursor": "ü" * 43},
        {"cursor": "A" * 43},
        {"cursor": "A" * 10_000},
    ],
)
def test_a_cursor_of_another_question_is_refused(
    api: httpx.Client, rows: list[Row], change: dict[str, str]
) -> None:
    """A client changes its question and keeps the cursor, or makes one up."""
    cursor = httpx.URL(api.get(_PATH, params={"limit": 5}).links["next"]["url"]).params["cursor"]
    assert 200 == api.get(_PATH, params={"limit": 7, "cursor": cursor}).status_code
    response = api.get(_PATH, params={"limit": 5, "cursor": cursor, **change})
    assert 400 == response.status_code
    assert "cursor is none of this question" in response.json()["detail"]


def test_a_cursor_with_any_character_changed_is_refused(api: httpx.Client, rows: list[Row]) -> None:
    """Somebody tries what a cursor is made of."""
    cursor = httpx.URL(api.get(_PATH, params={"limit": 5}).links["next"]["url"]).params["cursor"]
    for place in range(len(cursor)):
        other = "B" if cursor[place] != "B" else "C"
        changed = cursor[:place] + other + cursor[place + 1 :]
        assert 400 == api.get(_PATH, params={"cursor": changed}).status_code, place


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("limit=0", "limit '0' is not accepted; it must be a whole number, 1 to 1,000,000"),
        ("limit=-1", "limit"),
        ("limit=1.5", "limit"),
        ("limit=1e3", "limit"),
        ("limit=1000001", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("limit=٣", "limit"),
        ("limit=5&limit=6", "limit is given more than once"),
        ("order=up", "order 'up' is not accepted; accepted: asc, desc"),
        ("agg=mean", "agg needs a step"),
        ("step=5m&agg=median", "accepted: mean, min, max, last, p95"),
        ("step=0", "step '0' is not accepted"),
        ("step=-5m", "step '-5m' is not accepted"),
        ("step=5w", "such as 30s, 5m, 1h or 1d; 1 s to 366 d"),
        ("step=367d", "step"),
        ("step=999999999d", "step"),
        ("step=5m5s", "step"),
        ("&".join(f"metric=m{n}" for n in range(101)), "metric is given 101 times"),
        ("format=xml", "accepted: json, ndjson, csv, arrow"),
    ],
)
def test_a_question_asked_wrongly_says_what_is_accepted(
    api: httpx.Client, query: str, complaint: str
) -> None:
    """Typing errors, and what fuzzers send."""
    response = api.get(f"{_PATH}?{query}")
    assert 400 == response.status_code
    assert complaint in response.json()["detail"]


def test_fault_31_a_page_deep_in_chunks_reads_no_more_than_the_first(
    api: httpx.Client, conn: psycopg.Connection[Any], dsn: str
) -> None:
    """Somebody pages through a month: page 3,000 must not cost what all before it did."""
    series = add_series(conn, _GPU)
    add_samples(conn, series, [(at(3600 * n), n) for n in range(240)])
    assert 240 == pass_over(dsn, now=datetime.now(UTC)).moved
    # From here on chunks of the last forty hours cannot be read.
    conn.execute(
        f"""
        CREATE FUNCTION read(hour timestamptz) RETURNS timestamptz LANGUAGE plpgsql AS $$
        BEGIN
            IF hour >= '{at(3600 * 200).isoformat()}' THEN RAISE 'too far'; END IF;
            RETURN hour;
        END $$;
        CREATE OR REPLACE VIEW chunk_sample AS
        SELECT series_id, hour, read(hour) AS ts, coalesce(small[1]::double precision, wide[1])
            AS value
        FROM chunk
        """
    )
    assert 500 == api.get(_PATH).status_code
    response = api.get(_PATH, params={"limit": 50})
    assert list(range(50)) == [value for *_, value in _told(response)]
    for first in (50, 100):
        response = api.get(response.links["next"]["url"])
        assert list(range(first, first + 50)) == [value for *_, value in _told(response)]
    assert 500 == api.get(response.links["next"]["url"]).status_code
