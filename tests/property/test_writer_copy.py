"""The bytes of COPY BINARY, read back by the letter of Postgres' manual."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from telemq.store.writer import _copy_data

Sample = tuple[int, int, float]
EPOCH_US = 946_684_800_000_000

samples = st.lists(
    st.tuples(
        st.integers(1, 2**31 - 1),
        st.integers(-(2**50), 2**55),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    max_size=40,
)


def _read(data: bytes) -> list[Sample]:
    assert b"PGCOPY\n\xff\r\n\0" == data[:11]
    assert (0, 0) == struct.unpack_from("!ii", data, 11)
    at, rows = 19, []
    while (fields := struct.unpack_from("!h", data, at)[0]) != -1:
        id_bytes, series_id, ts_bytes, ts, value_bytes, value = struct.unpack_from(
            "!iiiqid", data, at + 2
        )
        assert (3, 4, 8, 8) == (fields, id_bytes, ts_bytes, value_bytes)
        rows.append((series_id, ts + EPOCH_US, value))
        at += 34
    assert at + 2 == len(data)
    return rows


@given(samples)
def test_rows_come_back_sorted_by_series_and_time(rows: list[Sample]) -> None:
    """Every commit, whatever piled up in it."""
    ids, times, values = zip(*rows, strict=True) if rows else ((), (), ())
    data = _copy_data(
        np.array(ids, np.int32), np.array(times, np.int64), np.array(values, np.float64)
    )
    read = _read(data)
    assert sorted(rows) == sorted(read)
    assert [row[:2] for row in read] == sorted(row[:2] for row in rows)
