"""The query string's rules: what a moment is, and what is refused."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemq.gateway.query import choice, moment, names, number, only, step_s, window
from telemq.web.problems import ProblemError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-07-18T20:42:34Z", datetime(2025, 7, 18, 20, 42, 34, tzinfo=UTC)),
        ("2025-07-18t20:42:34z", datetime(2025, 7, 18, 20, 42, 34, tzinfo=UTC)),
        ("2025-07-18T20:42:34.5Z", datetime(2025, 7, 18, 20, 42, 34, 500_000, tzinfo=UTC)),
        ("2025-07-18T22:42:34+02:00", datetime(2025, 7, 18, 20, 42, 34, tzinfo=UTC)),
        ("2025-07-18T22:42:34 02:00", datetime(2025, 7, 18, 20, 42, 34, tzinfo=UTC)),
        ("2025-07-18T15:12:34-05:30", datetime(2025, 7, 18, 20, 42, 34, tzinfo=UTC)),
        ("2024-02-29T00:00:00-00:00", datetime(2024, 2, 29, tzinfo=UTC)),
    ],
)
def test_rfc_3339_is_read_as_utc(text: str, expected: datetime) -> None:
    """A caller in another zone, or one whose plus sign became a space on the way."""
    assert expected == moment("start_time", text)


@pytest.mark.parametrize(
    "text",
    [
        "not-a-time",
        "2024-99-99T00:00:00Z",
        "2025-02-29T00:00:00Z",
        "2024/01/01 00:00:00",
        "2024-01-01 00:00:00Z",
        "2024-01-01",
        "2024-01-01T00:00:00",
        "2024-01-01T00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:00:60Z",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00+0200",
        "2024-01-01T00:00:00+24:00",
        "2024-01-01T00:00:00Z ",
        "2024-01-01T00:00:00Z\n",
        "٢٠٢٤-01-01T00:00:00Z",
        "1704067200",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "now",
        "2024-01-01T00:00:00Z' OR 1=1 --",
    ],
)
def test_anything_else_is_refused_with_the_form_that_is_accepted(text: str) -> None:
    """A date typed by hand, a Unix time, an attack."""
    with pytest.raises(ProblemError, match="RFC 3339") as caught:
        moment("end_time", text)
    assert 400 == caught.value.status
    assert caught.value.detail.startswith("end_time ")


def test_bounds_finer_than_a_microsecond_lose_and_add_no_sample() -> None:
    """A client that has nanoseconds asks from .0000009 s: the sample at .000000 is before it."""
    text = "2025-07-18T00:00:00.0000009Z"
    midnight = datetime(2025, 7, 18, tzinfo=UTC)
    assert (midnight + timedelta(microseconds=1), midnight) == (
        moment("start_time", text, up=True),
        moment("end_time", text),
    )
    assert midnight == moment("start_time", "2025-07-18T00:00:00.000000000Z", up=True)
    assert (midnight + timedelta(microseconds=1), None) == window(text, "")
    assert (None, midnight) == window("", text)


@given(st.datetimes(timezones=st.just(UTC)))
def test_what_the_api_prints_can_be_asked_for(time: datetime) -> None:
    """A client takes a record's timestamp for its next start_time."""
    text = time.isoformat().replace("+00:00", "Z")
    assert (time, time) == (moment("t", text), moment("t", text, up=True))


@given(st.text())
def test_no_text_is_a_fault_of_ours(text: str) -> None:
    """Fuzzers send anything."""
    with contextlib.suppress(ProblemError):
        assert moment("start_time", text).tzinfo is UTC


def test_an_empty_bound_is_absent() -> None:
    """A form sends its empty fields too."""
    assert (None, None) == window("", "")


def test_an_end_before_the_start_is_refused_and_an_equal_one_is_not() -> None:
    """Bounds given in the wrong order, and a window of one moment."""
    with pytest.raises(ProblemError, match="is before start_time"):
        window("2025-07-18T00:00:01Z", "2025-07-18T00:00:00Z")
    start, end = window("2025-07-18T00:00:00Z", "2025-07-18T02:00:00+02:00")
    assert start == end


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([("start", "x")], "parameter 'start' is unknown; accepted: start_time, end_time"),
        ([("end_time", "x"), ("end_time", "x")], "end_time is given more than once"),
    ],
)
def test_misspelt_and_repeated_parameters_are_refused(
    given: list[tuple[str, str]], complaint: str
) -> None:
    """`?start=` would otherwise answer the whole history."""
    with pytest.raises(ProblemError, match=complaint):
        only(given, "start_time", "end_time")


def test_numbers_are_read_within_their_range() -> None:
    """As people and programs write them; empty is absent."""
    for text, expected in [("0", 0), ("5", 5), ("2.5", 2.5), ("1e1", 10), ("5e-3", 0.005)]:
        assert expected == number("n", text, 0, 10)
    assert None is number("n", "", 0, 10)
    assert 7 == number("n", "7", 1, 10, whole=True)


@given(st.text())
def test_no_number_step_or_choice_is_a_fault_of_ours(text: str) -> None:
    """Fuzzers send anything: it is refused, or within the range."""
    with contextlib.suppress(ProblemError):
        assert 1 <= (number("n", text, 1, 10) or 1) <= 10
    with contextlib.suppress(ProblemError):
        assert 0 <= step_s(text, 86_400) <= 86_400
    with contextlib.suppress(ProblemError):
        assert choice("c", text, ("a", "b")) in {"a", "b"}


def test_a_repeated_name_counts_once_and_too_many_are_refused() -> None:
    """A script adds a metric for each line of a file."""
    assert ("b", "a") == names("metric", ["b", "", "a", "b"])
    assert 100 == len(names("metric", map(str, range(100))))
    with pytest.raises(ProblemError, match="101 times"):
        names("metric", map(str, range(101)))
