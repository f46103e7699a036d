"""Payloads of both content types: round trips, and every way in which one can be wrong."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from telemq.codec import BATCH, RECORD, Decoder, Encoder
from telemq.errors import RecordError
from telemq.record import RecordBatch, Rejection, SeriesGroup, SeriesLabels

LABELS = ["m", "0", "nvidia0", "GPU-1", "H100", "host", "c", "p", "n", "raw"]
NESTED = b"[" * 30_000 + b"]" * 30_000

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
needed = words.filter(bool)
series = st.builds(
    SeriesLabels, needed, words, words, needed, words, words, words, words, words, words
)
finite = st.floats(allow_nan=False, allow_infinity=False)
times = st.integers(-(2**62), 2**62)


@st.composite
def batches(draw: st.DrawFn) -> RecordBatch:
    labels = draw(st.lists(series, min_size=1, max_size=4, unique=True))
    entry = st.tuples(st.integers(0, len(labels) - 1), times, finite)
    rows = draw(st.lists(st.none() | entry, max_size=12))
    kept = [row for row in rows if row]
    return RecordBatch(
        tuple(labels),
        np.array([row[0] for row in kept], np.int32),
        np.array([row[1] for row in kept], np.int64),
        np.array([row[2] for row in kept], np.float64),
        tuple(Rejection(i, "bad", "x") for i, row in enumerate(rows) if not row),
    )


def same(a: RecordBatch, b: RecordBatch) -> bool:
    return (
        (a.series, a.rejected) == (b.series, b.rejected)
        and a.series_index.tolist() == b.series_index.tolist()
        and a.time_us.tolist() == b.time_us.tolist()
        and a.value.tobytes() == b.value.tobytes()
    )


@given(st.lists(batches(), max_size=5), st.integers(1, 3))
def test_batches_are_read_as_they_were_written(some: list[RecordBatch], memory: int) -> None:
    """Every batch, whether its series are remembered or were forgotten meanwhile."""
    encoder, decoder = Encoder(memory), Decoder(memory)
    for batch in some:
        payload = encoder.encode(batch)
        for form in (payload, memoryview(payload)):
            assert same(batch, decoder.decode(form, BATCH, batch.row_count))
    assert len(encoder._speller._spelt) <= memory
    assert len(decoder._reader._read) <= memory
    kept = [len(line.group.labels) for line in decoder._reader._lines.values()]
    assert decoder._reader._line_series == sum(kept) <= memory


def grouped(batch: RecordBatch, *sizes: int) -> RecordBatch:
    """The same batch with its series in groups of these sizes, and a last one of the rest."""
    ends = [*np.cumsum(sizes).tolist(), len(batch.series)]
    cuts = [batch.series[start:end] for start, end in pairwise([0, *ends])]
    return replace(batch, groups=tuple(SeriesGroup(some) for some in cuts if some))


@given(st.lists(st.tuples(batches(), st.integers(1, 4)), max_size=5), st.integers(1, 9))
def test_groups_make_no_difference_to_what_is_read(
    some: list[tuple[RecordBatch, int]], memory: int
) -> None:
    """The same series now in one group, now in two, with more or less memory than they need."""
    encoder, decoder = Encoder(memory), Decoder(memory)
    for batch, size in some:
        payload = encoder.encode(grouped(batch, size))
        assert same(batch, decoder.decode(payload, BATCH, batch.row_count))
        assert json.loads(payload)["series"] == [list(labels) for labels in batch.series]


def outcome(decoder: Decoder, payload: bytes, *, in_lines: bool) -> tuple[object, ...]:
    """What a payload is read as, or that it is refused."""
    try:
        batch = decoder._decode_lines(payload) if in_lines else None
        batch = batch or decoder._decode_columns(payload)
    except RecordError:
        return ("refused",)
    columns_read = (batch.series_index.tolist(), batch.time_us.tolist(), batch.value.tolist())
    return (batch.series, batch.rejected, *columns_read)


LINES = (
    b'{"series":[\n["m","","","u","","","","","","a"],["m","","","u","","","","","",""],\n'
    b'["m","","","v","","","","","","b"]\n],"s":[0,1,2],"t":[1,2,3],"v":[1,2.5,3]}'
)


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(LINES)),
            st.integers(0, 3),
            st.sampled_from([b"", b"\n", b",", b"]", b"[", b'"', b"0", b"\\", b"],[", b"\n],\n"]),
        ),
        min_size=1,
        max_size=4,
    )
)
@example([(len(LINES) - 1, 0, b',"series":[]')])
@example([(LINES.index(b"]\n],"), 0, b"],")])
@example([(LINES.index(b'],"s"') + 1, 1, b"]")])
@example([(LINES.index(b'["m"'), 0, b",\n")])
@example([(LINES.index(b"],\n") + 2, 0, b"\n")])
@example([(LINES.index(b"2.5"), 0, b"1e999,")])
@example([(LINES.index(b"[0,"), 3, b"[0.0,")])
@example([(LINES.index(b"[0,"), 3, b"[true,")])
def test_lines_are_read_as_any_json_is(changes: list[tuple[int, int, bytes]]) -> None:
    """Somebody else's batch that looks like ours up to a few bytes, to a warm and a cold memory.

    What is recognised by its bytes must be what a reader of any JSON sees there, or refused.
    """
    payload = LINES
    for place, length, text in changes:
        payload = payload[:place] + text + payload[place + length :]
    warm = Decoder()
    assert warm._decode_lines(LINES)
    expected = outcome(Decoder(), payload, in_lines=False)
    for decoder in (warm, Decoder()):
        assert expected == outcome(decoder, payload, in_lines=True)


def test_group_that_came_before_is_the_same_object() -> None:
    """A source's series, batch after batch; they are not parsed again, nor looked up."""
    batch = RecordBatch(
        tuple(SeriesLabels("m", "", "", f"GPU-{i}", *[""] * 6) for i in range(5)),
        np.arange(5, dtype=np.int32),
        np.arange(5),
        np.arange(5.0),
    )
    encoder, decoder = Encoder(), Decoder()
    first = decoder.decode(encoder.encode(grouped(batch, 2)), BATCH, 5)
    second = decoder.decode(encoder.encode(grouped(batch, 2, 2)), BATCH, 5)
    assert [2, 3] == [len(group.labels) for group in first.groups]
    assert [2, 2, 1] == [len(group.labels) for group in second.groups]
    assert first.groups[0] is second.groups[0]
    assert first.groups[1] is not second.groups[1]


def test_two_lines_that_begin_alike_are_kept_apart() -> None:
    """Long labels that differ at their end; bytes are compared, not only looked up."""
    decoder = Decoder()
    for _ in range(2):
        for end in ("x", "y"):
            labels = SeriesLabels(*LABELS)._replace(labels_raw="raw" * 100 + end)
            batch = RecordBatch(
                (labels,), np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(1)
            )
            assert (labels,) == decoder.decode(Encoder().encode(batch), BATCH, 1).series


@given(st.binary(max_size=100) | st.text('[]{}",:0123456789eE.-stvxri\\', max_size=60))
def test_whatever_comes_is_a_batch_or_a_record_error(payload: bytes | str) -> None:
    """A foreign producer sends something else; no payload may end a collector."""
    data = payload.encode() if isinstance(payload, str) else payload
    for content_type in (BATCH, RECORD):
        with contextlib.suppress(RecordError):
            Decoder().decode(data, content_type, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_value_that_is_no_number_is_not_encoded(value: float) -> None:
    """DCGM's blank values; they must never turn into null or 0."""
    batch = RecordBatch(
        (SeriesLabels(*LABELS),),
        np.zeros(2, np.int32),
        np.zeros(2, np.int64),
        np.array([1.0, value]),
    )
    with pytest.raises(RecordError, match="a value is NaN or infinite"):
        Encoder().encode(batch)


# ---- columns -----------------------------------------------------------------------------------


def columns(**changed: object) -> bytes:
    """A payload of two records of one series, with some columns changed; bytes stay as they are."""
    good: dict[str, object] = {"series": [LABELS], "s": [0, 0], "t": [1, 2], "v": [1, 2.5]}
    parts = [
        b'"%s":%s' % (name.encode(), column if isinstance(column, bytes) else orjson.dumps(column))
        for name, column in {**good, **changed}.items()
        if column is not None
    ]
    return b"{" + b",".join(parts) + b"}"


def test_columns_of_the_document_are_read() -> None:
    """What a client in another language sends, unknown columns included."""
    batch = Decoder().decode(columns(x=[[1, "empty", "row"]], later="ignored"), BATCH, 3)
    assert (SeriesLabels(*LABELS),) == batch.series
    assert [1.0, 2.5] == batch.value.tolist()
    assert [0, 2] == batch.offsets().tolist()
    columns_read = (batch.series_index, batch.time_us, batch.value)
    assert ["int32", "int64", "float64"] == [column.dtype.name for column in columns_read]


def test_batch_of_rejected_rows_only_is_a_batch() -> None:
    """A file whose rows are all bad."""
    payload = columns(series=[], s=[], t=[], v=[], x=[[0, "bad", ""]])
    assert 1 == Decoder().decode(payload, BATCH, 1).row_count


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", "payload is not an object with series, s, t and v: Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b"\xff", "payload is not an object with series, s, t and v"),
        (columns() + b"!", "trailing characters"),
        (columns(series=NESTED), "maximum recursion depth"),
        (columns(later=NESTED), "maximum recursion depth"),
        (columns(v=NESTED), "maximum recursion depth"),
        (columns(series=None), "payload has no 'series'"),
        (columns(s=None), "payload has no 's'"),
        (columns(t=None), "payload has no 't'"),
        (columns(v=None), "payload has no 'v'"),
        (columns(series=[LABELS[:9]]), "Expected `array` of length 10"),
        (columns(series=[[*LABELS[:9], 1]]), "Expected `str`, got `int`"),
        (columns(series=b'[["\xff","","","u","","","","","",""]]'), "can't decode byte 0xff"),
        (columns(series=7), "Expected `array`, got `int`"),
        (columns(s=[0]), "s, t and v differ in length: 1, 2, 2"),
        (columns(t=[1, 2, 3]), "s, t and v differ in length: 2, 3, 2"),
        (columns(s=[0, 1]), "s holds an index outside the 1 series"),
        (columns(s=[0, -1]), "s holds an index outside the 1 series"),
        (columns(s=[0, 2**33]), "s holds an index outside the 1 series"),
        (columns(s=[0, 0.5]), "s holds something other than integers of 64 bits"),
        (columns(s=["a", "b"]), "s holds something other than integers of 64 bits"),
        (columns(s={"a": 1}), "s is not an array"),
        (columns(t=[1, 2**63]), "t holds something other than integers of 64 bits"),
        (columns(t=[[1], [2]]), "t holds something other than integers of 64 bits"),
        (columns(t=[1, [2]]), "t is not an array of numbers"),
        (columns(v=[1, None]), "v holds something other than numbers"),
        (columns(v=[True, False]), "v holds something other than numbers"),
        (columns(v=["1", "2"]), "v holds something other than numbers"),
        (columns(v=[[1], [2]]), "v holds something other than numbers"),
        (columns(v=b"[1,NaN]"), "JSON is malformed"),
        (columns(v=b"[1,1e999]"), "v is not JSON"),
        (columns(v=b'["\xff",1]'), "v is not JSON"),
        (columns(x=[[3, "", ""]]), "offsets in x are not ascending places of the batch"),
        (columns(x=[[-1, "", ""]]), "offsets in x are not ascending places of the batch"),
        (columns(x=[[1, "", ""], [0, "", ""]]), "offsets in x are not ascending places"),
        (columns(x=[[1, "", ""], [1, "", ""]]), "offsets in x are not ascending places"),
        (columns(x=[[0, 1, ""]]), "Expected `str`, got `int`"),
    ],
)
def test_payload_that_is_no_batch_is_refused_with_what_is_wrong(payload: bytes, text: str) -> None:
    """Each mistake that a foreign encoder can make."""
    with pytest.raises(RecordError, match=re.escape(text)):
        Decoder().decode(payload, BATCH, 2)


def test_count_of_the_header_must_be_that_of_the_payload() -> None:
    """Rows would be missing from the ledger, or be in it without being stored."""
    with pytest.raises(RecordError, match="the header counts 3 rows, the payload holds 2"):
        Decoder().decode(columns(), BATCH, 3)


def test_unknown_content_type_is_refused_with_those_that_are_known() -> None:
    """A message for somebody else."""
    text = "content type 'text/plain' is unknown; accepted: telemq.batch, telemq.record"
    with pytest.raises(RecordError, match=text):
        Decoder().decode(b"", "text/plain", 1)


def test_records_of_a_bad_series_are_rejected_one_by_one() -> None:
    """An exporter without a UUID for one GPU; the others are stored."""
    decoder, bad = Decoder(), [*LABELS[:3], "", *LABELS[4:]]
    in_lines = b"[\n%b,\n%b\n]" % (orjson.dumps(LABELS), orjson.dumps(bad))
    for form in ([LABELS, bad], in_lines) * 2:  # learnt, then remembered
        batch = decoder.decode(columns(series=form, s=[0, 1]), BATCH, 2)
        assert [1.0] == batch.value.tolist()
        assert [(1, "uuid is empty")] == [r[:2] for r in batch.rejected]


# ---- plain records -----------------------------------------------------------------------------

RECORD_OF_API = {
    "timestamp": "2025-07-18T20:42:34.000001+02:00",
    "metric_name": "DCGM_FI_DEV_GPU_UTIL",
    "uuid": "GPU-1",
    "value": 97,
}


def records(*some: object) -> bytes:
    return json.dumps(some).encode()


@pytest.mark.parametrize("memory", [1, 2, 100])
def test_bad_series_is_rejected_each_time_however_little_is_remembered(memory: int) -> None:
    """More series come than a collector remembers, and some of them cannot be stored."""
    decoder = Decoder(memory)
    bad, good = ["", *LABELS[1:]], LABELS
    for _ in range(3):
        for order in ([bad, good], [good, bad]):
            payload = columns(series=order, s=[0, 1], t=[1, 2], v=[3, 4])
            batch = decoder.decode(payload, BATCH, 2)
            assert [order.index(bad)] == [rejection.offset for rejection in batch.rejected]
            assert [4.0 if order[0] is bad else 3.0] == batch.value.tolist()


def test_plain_record_is_read_alone_or_in_an_array() -> None:
    """A shell script that publishes what it knows."""
    alone = Decoder().decode(json.dumps(RECORD_OF_API).encode(), RECORD, 1)
    array = Decoder().decode(b" \n" + records(RECORD_OF_API), RECORD, 1)
    assert same(alone, array)
    # 18:42:34 UTC
    assert [1_752_864_154_000_001] == alone.time_us.tolist()
    assert [97.0] == alone.value.tolist()
    expected = SeriesLabels("DCGM_FI_DEV_GPU_UTIL", "", "", "GPU-1", *[""] * 6)
    assert (expected,) == alone.series


def test_records_of_one_series_share_it() -> None:
    """The same labels again and again."""
    other = {**RECORD_OF_API, "uuid": "GPU-2"}
    batch = Decoder().decode(records(RECORD_OF_API, other, RECORD_OF_API), RECORD, 3)
    assert 2 == len(batch.series)
    assert [0, 1, 0] == batch.series_index.tolist()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"timestamp": "2025-07-18T20:42:34"}, "timestamp has no offset; RFC 3339 needs Z"),
        ({"timestamp": "yesterday"}, "Invalid RFC3339 encoded datetime"),
        ({"timestamp": 1752864154}, "Expected `datetime`, got `int`"),
        ({"value": None}, "Expected `float`, got `null`"),
        ({"value": True}, "Expected `float`, got `bool`"),
        ({"value": "97"}, "Expected `float`, got `str`"),
        ({"metric_name": ""}, "metric_name is empty"),
        ({"uuid": ""}, "uuid is empty"),
        ({"pod": "a\0"}, "pod holds U+0000"),
        ({"uuid": 5}, "Expected `str`, got `int`"),
    ],
)
def test_one_bad_record_is_rejected_and_the_rest_kept(
    changed: dict[str, object], reason: str
) -> None:
    """One poison record must not hold up its batch."""
    bad = {**RECORD_OF_API, **changed}
    batch = Decoder().decode(records(RECORD_OF_API, bad, RECORD_OF_API), RECORD, 3)
    assert [0, 2] == batch.offsets().tolist()
    assert 1 == batch.rejected[0].offset
    assert batch.rejected[0].reason.startswith(reason)
    assert bad == json.loads(batch.rejected[0].payload)


@pytest.mark.parametrize("field", ["timestamp", "metric_name", "uuid", "value"])
def test_record_without_a_needed_field_is_rejected(field: str) -> None:
    """The document says which are needed."""
    bad = {k: v for k, v in RECORD_OF_API.items() if k != field}
    (rejection,) = Decoder().decode(records(bad), RECORD, 1).rejected
    assert f"Object missing required field `{field}`" == rejection.reason


@pytest.mark.parametrize(
    "raw", [b'{"uuid":"\xff"}', b'{"value":1e999}', b"7", b"", b'{"later":' + NESTED + b"}"]
)
def test_single_record_that_cannot_be_read_is_rejected(raw: bytes) -> None:
    """Not even text, out of range, no object at all, or nested without end."""
    assert 1 == len(Decoder().decode(raw, RECORD, 1).rejected)


def test_bad_text_in_one_record_of_an_array_does_not_spoil_the_others() -> None:
    """A label in another encoding."""
    payload = records(RECORD_OF_API, {**RECORD_OF_API, "pod": "?"}).replace(b'"?"', b'"\xff"')
    batch = Decoder().decode(payload, RECORD, 2)
    assert [1] == [r.offset for r in batch.rejected]
    assert "\ufffd" in batch.rejected[0].payload


@pytest.mark.parametrize("payload", [b"[", b"[1,", b'[{"a":1}', NESTED])
def test_array_that_cannot_be_read_is_refused(payload: bytes) -> None:
    """Cut off on its way, or made to harm."""
    with pytest.raises(RecordError, match="payload is not JSON"):
        Decoder().decode(payload, RECORD, 1)
