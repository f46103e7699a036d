"""Samples in columns: what is read from Postgres' bytes, and in which order it stands."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from telemq.store.samples import Sample, Samples, SeriesSamples

_2000 = datetime(2000, 1, 1, tzinfo=UTC)
_any_time = st.datetimes(timezones=st.just(UTC))
#: So few that many are equal.
_few_times = st.integers(-2, 2).map(lambda hours: _2000 + timedelta(hours=hours))
_values = st.floats(allow_nan=False)
_ids = st.integers(1, 2**31 - 1)
_rows = st.lists(st.tuples(_any_time | _few_times, _ids, _values), max_size=30)
#: Several samples of a series at one moment; late ones stand after those that they belong before.
_series = st.dictionaries(
    _ids, st.lists(st.tuples(_few_times, st.sampled_from([-1.0, 0.5, 2.0])), min_size=1), max_size=5
)


def _postgres_us(time: datetime) -> int:
    return (time - _2000) // timedelta(microseconds=1)


@given(_rows)
def test_rows_are_what_postgres_packed(rows: list[Sample]) -> None:
    """Times before 1970 and 2000, the largest ids, infinite values; no rows at all."""
    packed = [struct.pack(">qid", _postgres_us(time), *rest) for time, *rest in rows]
    samples = Samples.packed(packed)
    assert rows == list(samples.rows()) == list(Samples.of(rows).rows())
    assert len(rows) == len(samples)
    assert rows[1:3] == list(samples[1:3].rows())


@given(_series, st.booleans())
def test_series_are_merged_into_the_order_of_rows(
    series: dict[int, list[tuple[datetime, float]]], descending: bool
) -> None:
    """Scraped at once, or not; samples that came late; two values of one moment."""
    found = [
        SeriesSamples(
            number,
            struct.pack(f">{len(samples)}q", *(_postgres_us(time) for time, _ in samples)),
            struct.pack(f">{len(samples)}d", *(value for _, value in samples)),
        )
        for number, samples in series.items()
    ]
    expected = [(time, number, value) for number, of in series.items() for time, value in of]
    merged = Samples.merged(found, descending=descending)
    assert sorted(expected, reverse=descending) == list(merged.rows())
