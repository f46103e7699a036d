"""A short answer is read at once, a longer one by a cursor, and both are what the view shows."""

from __future__ import annotations

import asyncio
import random
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import TupleRow

from telemq.record import SeriesLabels
from telemq.store.reader import Reader
from telemq.store.samples import Sample
from telemq.store.telemetry import telemetry
from telemq.store.telemetry_query import AT_ONCE_EACH, AT_ONCE_SERIES, Question
from tests.support.gateway import DAY, add_partition, add_samples, add_series, at
from tests.support.maintaining import pass_over

Conn = psycopg.Connection[Any]
GPU = "GPU-aaaa"
HOUR = timedelta(hours=1)
_SHOWN = """
SELECT ts, series_id, value FROM every_sample
JOIN series ON series.id = series_id JOIN gpu ON gpu.id = series.gpu
WHERE (gpu.uuid = %(gpu)s OR series.gpu_id = %(gpu)s) AND ts >= %(start)s AND ts <= %(end)s
  AND (%(metrics)s::text[] = '{}' OR metric_name = ANY(%(metrics)s::text[]))
ORDER BY ts, series_id, value
"""
Answer = tuple[dict[int, SeriesLabels], list[Sample]]


def shown(conn: Conn, question: Question) -> list[Sample]:
    """What the view shows of the question's window."""
    conn.execute("SET timezone = 'UTC'")
    asked = {
        "gpu": question.gpu,
        "start": question.start,
        "end": question.end or datetime(9999, 1, 1, tzinfo=UTC),
        "metrics": list(question.metrics),
    }
    rows: list[Sample] = conn.execute(_SHOWN, asked).fetchall()
    return rows[::-1] if question.descending else rows


@pytest.fixture
def cursors(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows when an answer is not read at once: it takes a transaction."""
    taken: list[None] = []
    snapshot = Reader.snapshot

    def counted(self: Reader) -> AbstractAsyncContextManager[psycopg.AsyncConnection[TupleRow]]:
        taken.append(None)
        return snapshot(self)

    monkeypatch.setattr(Reader, "snapshot", counted)
    return taken


def asked(dsn: str, question: Question, rows: int = 7) -> Answer | None:
    """The answer, read so many rows at a time."""

    async def ask() -> Answer | None:
        reader = Reader(dsn, connections=1, wait_s=10, statement_s_max=60)
        async with reader, telemetry(reader, question) as found:
            if found is None:
                return None
            told: list[Sample] = []
            while samples := await found.fetch(rows):
                assert len(samples) <= rows
                told += samples.rows()
            assert not await found.fetch(rows)
            return dict(found.labels), told

    return asyncio.run(ask())


@pytest.fixture
def series(conn: Conn) -> list[int]:
    """Three series of one GPU and one of another, over four hours.

    They are scraped at once, some twice, some with two values; every fifth sample came late.
    """
    choose = random.Random(3)
    ids = [add_series(conn, GPU, metric_name=name) for name in "CAB"]
    ids.append(add_series(conn, "GPU-bbbb", metric_name="A", gpu_id="1"))
    for number in ids:
        samples = [(at(60 * n), float(choose.randrange(3))) for n in range(240)]
        samples += [*samples[::7], *((time, 0.25) for time, _ in samples[::11])]
        add_samples(conn, number, [*(s for n, s in enumerate(samples) if n % 5), *samples[::5]])
    return ids


def test_an_hour_is_what_the_view_shows_wherever_its_samples_lie(
    dsn: str, conn: Conn, series: list[int], cursors: list[None]
) -> None:
    """In a partition, in chunks, and in chunks with samples that came after they were made."""
    windows = [(at(s), at(s) + HOUR) for s in (0, 1800, 3600, 7201.5)]
    windows += [(at(3600), at(3600)), (at(13_000), at(20_000))]
    questions = [
        Question(GPU, start, end, metrics, descending=descending)
        for start, end in windows
        for metrics in ((), ("A",), ("B", "C", "none"))
        for descending in (False, True)
    ]
    for stage in ("partition", "chunks", "both"):
        if stage == "chunks":
            assert pass_over(dsn, now=datetime.now(UTC)).moved
        if stage == "both":
            add_partition(conn)
            add_samples(conn, series[1], [(at(3600), -1.0), (at(3630), -2.0)])
        for question in questions:
            answer = asked(dsn, question)
            assert answer is not None
            labels, told = answer
            assert shown(conn, question) == told
            assert told
            assert {number for _, number, _ in told} == set(labels)
            assert {GPU} == {of.uuid for of in labels.values()}
    assert [] == cursors


def test_labels_are_those_of_each_series(dsn: str, conn: Conn, cursors: list[None]) -> None:
    """A job starts: its series are others, of the same GPU."""
    first, second = add_series(conn, GPU, pod="old"), add_series(conn, GPU, pod="new")
    add_samples(conn, first, [(at(0), 1.0)])
    add_samples(conn, second, [(at(1), 2.0)])
    add_series(conn, GPU, pod="silent")
    answer = asked(dsn, Question(GPU, at(0), at(9)))
    assert answer is not None
    assert {first: "old", second: "new"} == {number: of.pod for number, of in answer[0].items()}
    assert [] == cursors


@pytest.mark.parametrize("samples", [AT_ONCE_EACH, AT_ONCE_EACH + 1])
def test_a_series_with_very_many_samples_is_not_cut(
    dsn: str, conn: Conn, samples: int, cursors: list[None]
) -> None:
    """Somebody scrapes ten times a second."""
    number = add_series(conn, GPU)
    add_samples(conn, number, [(at(n / 10), float(n)) for n in range(samples)])
    answer = asked(dsn, Question(GPU, at(0), at(3600)), rows=5000)
    assert answer is not None
    assert list(range(samples)) == [value for *_, value in answer[1]]
    assert (samples > AT_ONCE_EACH) == len(cursors)


@pytest.mark.parametrize("count", [AT_ONCE_SERIES, AT_ONCE_SERIES + 1])
def test_no_series_of_very_many_is_left_out(
    dsn: str, conn: Conn, count: int, cursors: list[None]
) -> None:
    """A GPU runs one short job after the other, each with labels of its own."""
    for n in range(count):
        add_samples(conn, add_series(conn, GPU, pod=f"job-{n}"), [(at(n), float(n))])
    answer = asked(dsn, Question(GPU, at(0), at(3600)))
    assert answer is not None
    assert list(range(count)) == [value for *_, value in answer[1]]
    assert (count > AT_ONCE_SERIES) == len(cursors)


@pytest.mark.usefixtures("series")
@pytest.mark.parametrize(
    "question",
    [
        Question(GPU),
        Question(GPU, end=at(3600)),
        Question(GPU, at(0), at(86_400)),
        Question(GPU, at(0)),
        Question("0", at(0), at(3600)),
        Question("0", at(0), at(3600), ("A",), descending=True),
        Question(GPU, at(-7200), at(-3600)),
        Question(GPU, at(0), at(3600), ("none",)),
        Question(GPU, at(0), at(3600), ("\0",)),
    ],
)
def test_what_cannot_be_read_at_once_is_read_by_a_cursor(
    dsn: str, conn: Conn, question: Question, cursors: list[None]
) -> None:
    """No start, a long window, a GPU's index, and answers with nothing in them."""
    answer = asked(dsn, question)
    assert answer is not None
    given = Question(question.gpu, question.start or DAY, question.end, question.metrics)
    expected = [] if question.metrics == ("\0",) else shown(conn, given)
    assert (expected[::-1] if question.descending else expected) == answer[1]
    assert 1 == len(cursors)


def test_the_last_hour_needs_no_end(dsn: str, conn: Conn, cursors: list[None]) -> None:
    """A dashboard asks for all since an hour ago; a clock that is ahead is no reason to cut."""
    now = datetime.now(UTC).replace(microsecond=0)
    for day in range(-1, 2):
        add_partition(conn, now.replace(hour=0, minute=0, second=0) + timedelta(days=day))
    samples = [(now - HOUR, 1.0), (now, 2.0), (now + HOUR, 3.0)]
    add_samples(conn, add_series(conn, GPU), samples)
    answer = asked(dsn, Question(GPU, now - HOUR))
    assert answer is not None
    assert samples == [(time, value) for time, _, value in answer[1]]
    assert [] == cursors


@pytest.mark.parametrize("gpu", ["GPU-none", "GPU\0"])
def test_there_is_no_such_gpu(dsn: str, gpu: str) -> None:
    """A UUID that was mistyped."""
    assert asked(dsn, Question(gpu, at(0), at(3600))) is None
