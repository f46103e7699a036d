"""The record writer writes what the OpenAPI document promises, whatever the chunks."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from telemq.record import SeriesLabels
from telemq.store.records import CsvWriter, JsonWriter, Record
from telemq.store.samples import Sample, Samples

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_samples = st.lists(
    st.tuples(
        st.datetimes(timezones=st.just(UTC)),
        st.integers(0, 2),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    max_size=12,
)


def _written(writer: JsonWriter | CsvWriter, chunks: list[list[Sample]]) -> bytes:
    return b"".join(writer.chunk(Samples.of(chunk)) for chunk in chunks) + writer.end()


@given(st.lists(st.tuples(*[_text] * 10), min_size=3, max_size=3), _samples, st.integers(1, 5))
def test_chunks_make_one_array_of_exact_records(
    labels: list[tuple[str, ...]], samples: list[Sample], size: int
) -> None:
    """Labels hold quotes, commas and braces; an answer is cut anywhere."""
    series = {index: SeriesLabels(*of) for index, of in enumerate(labels)}
    chunks = [samples[at : at + size] for at in range(0, len(samples), size)]
    expected = [
        Record(timestamp=time, value=value, **series[index]._asdict())
        for time, index, value in samples
    ]
    assert expected == msgspec.json.decode(
        _written(JsonWriter(series), chunks), type=list[Record], strict=True
    )


def test_fields_stand_in_the_order_of_the_documentation() -> None:
    """People read the JSON too."""
    labels = SeriesLabels("UTIL", "0", "nvidia0", "GPU-1", "H100", "h", "c", "p", "n", "raw")
    text = _written(JsonWriter({7: labels}), [[(datetime(2025, 7, 18, tzinfo=UTC), 7, 97.5)]])
    assert (
        b'[{"timestamp":"2025-07-18T00:00:00Z","metric_name":"UTIL","gpu_id":"0",'
        b'"device":"nvidia0","uuid":"GPU-1","model_name":"H100","hostname":"h","container":"c",'
        b'"pod":"p","namespace":"n","value":97.5,"labels_raw":"raw"}]'
    ) == text


def test_times_are_spelt_to_the_microsecond_up_to_the_last_of_the_calendar() -> None:
    """A host whose clock is wrong; in an array, orjson takes none of the last two days."""
    labels = SeriesLabels("UTIL", *[""] * 9)
    usual = (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), 1, 1.0)
    last = (datetime.max.replace(tzinfo=UTC), 1, 2.0)
    for samples in ([usual], [usual, last]):
        expected = [time.isoformat().replace("+00:00", "Z") for time, *_ in samples]
        told = msgspec.json.decode(_written(JsonWriter({1: labels}), [samples]))
        assert expected == [record["timestamp"] for record in told]
        lines = _written(CsvWriter({1: labels}), [samples]).decode().splitlines()
        assert expected == [line.partition(",")[0] for line in lines[1:]]


def test_no_samples_are_an_empty_array() -> None:
    """A known GPU and an empty window."""
    assert b"[]" == JsonWriter({}).end()
