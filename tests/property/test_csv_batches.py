"""A batch of a replayed file is exactly the rows that its range names, whatever the range."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemq.codec import BATCH, Decoder, Encoder
from telemq.record import Rejection, SeriesLabels
from telemq.sources.csv_replay import COLUMNS, BadRow, CsvReplay, read_csv


@st.composite
def replays(draw: st.DrawFn) -> CsvReplay:
    """Small files with repeated series and some bad rows."""
    index = np.array(draw(st.lists(st.integers(-1, 3), min_size=1, max_size=12)), np.int32)
    return CsvReplay(
        Path("made.csv"),
        "0" * 64,
        tuple(SeriesLabels("M", str(i), "", f"GPU-{i}", *[""] * 6) for i in range(4)),
        index,
        np.arange(len(index)) * 10,
        np.arange(len(index), dtype=np.float64) + 0.5,
        {i: BadRow(i + 2, "", "bad", "", f"row {i}") for i in np.flatnonzero(index < 0).tolist()},
    )


@given(replays(), st.integers(0, 2**53), st.integers(1, 40))
def test_batch_is_the_rows_of_its_range(replay: CsvReplay, first_row: int, count: int) -> None:
    """Any streamer may cut any range, long after the file has looped."""
    batch = replay.batch(first_row, count)
    rows = [(first_row + i) % replay.rows for i in range(count)]
    good = [row for row in rows if row not in replay.bad]
    assert count == batch.row_count
    assert [replay.value[row] for row in good] == batch.value.tolist()
    assert [replay.time_us[row] for row in good] == batch.time_us.tolist()
    labels = [replay.series[replay.series_index[row]] for row in good]
    assert labels == [batch.series[i] for i in batch.series_index]
    assert len(set(labels)) == len(batch.series)
    assert (
        tuple(
            Rejection(i, replay.bad[row].reason, replay.bad[row].text)
            for i, row in enumerate(rows)
            if row in replay.bad
        )
        == batch.rejected
    )


@given(replays(), st.integers(0, 1000), st.integers(1, 40))
def test_two_halves_are_the_whole(replay: CsvReplay, first_row: int, count: int) -> None:
    """How a range is cut into batches must not change what is stored."""
    half = count // 2
    whole = replay.batch(first_row, count)
    parts = [replay.batch(first_row, half)] if half else []
    parts.append(replay.batch(first_row + half, count - half))
    assert whole.value.tolist() == [v for part in parts for v in part.value.tolist()]
    assert [r.payload for r in whole.rejected] == [r.payload for p in parts for r in p.rejected]


@given(replays(), st.integers(0, 1000), st.integers(1, 40))
def test_batch_survives_the_wire(replay: CsvReplay, first_row: int, count: int) -> None:
    """What a collector decodes is what the streamer cut."""
    batch = replay.batch(first_row, count)
    got = Decoder().decode(Encoder().encode(batch), BATCH, count)
    assert batch.series == got.series
    assert batch.value.tolist() == got.value.tolist()
    assert batch.rejected == got.rejected


@given(st.lists(st.binary(max_size=80), max_size=8))
def test_no_bytes_break_the_reader(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    """A damaged file: every line below the header is a row, good or bad, and none is lost."""
    good = b'2025-07-18T20:42:34Z,M,0,d,GPU-1,m,h,,,,1,"raw"'
    path = tmp_path_factory.mktemp("damaged") / "file.csv"
    path.write_bytes(b"\n".join([",".join(COLUMNS).encode(), good, *lines]))
    replay = read_csv(path)
    expected = [text for text in b"\n".join(lines).split(b"\n") if text.strip()]
    assert 1 + len(expected) == replay.rows
    assert [-1] * len(expected) == replay.series_index[1:].tolist()
