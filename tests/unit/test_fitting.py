"""Which of the messages that wait go into the next pack."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from telemq.client.fitting import Most, first_that_fit
from telemq.protocol import Packed

#: Records and payload bytes of messages.
_SIZES = st.tuples(st.integers(1, 9), st.integers(0, 9))
_MOST = st.builds(
    Most,
    st.integers(0, 9),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 9),
    st.integers(0, 9),
    st.just(100),
)


def _waiting(sizes: list[tuple[int, int]]) -> deque[Packed]:
    return deque(Packed(str(n), *size, "", {}) for n, size in enumerate(sizes))


def _fits(batch: list[Packed], most: Most) -> bool:
    return (
        len(batch) <= most.messages
        and sum([packed.records for packed in batch]) <= most.records
        and sum([packed.bytes for packed in batch]) <= most.bytes
        and all(packed.records <= most.each_records for packed in batch)
        and all(packed.bytes <= most.each_bytes for packed in batch)
    )


@given(st.lists(_SIZES, min_size=1, max_size=20), _MOST)
def test_what_fits_is_taken_in_order_and_counted(sizes: list[tuple[int, int]], most: Most) -> None:
    """Whatever waits, and whatever the broker granted."""
    waiting = _waiting(sizes)
    batch, records, size_bytes = first_that_fit(waiting, most)
    assert list(waiting)[: len(batch)] == batch
    assert _fits(batch, most)
    assert (records, size_bytes) == tuple(map(sum, zip((0, 0), *sizes[: len(batch)], strict=True)))
    if _fits([waiting[0]], most):
        assert batch


@given(_SIZES, st.integers(1, 20), _MOST)
def test_of_equal_ones_all_that_fit_are_taken(
    size: tuple[int, int], count: int, most: Most
) -> None:
    """Single records, as long as credit lasts."""
    waiting = _waiting([size] * count)
    batch, _, _ = first_that_fit(waiting, most)
    assert len(batch) == count or not _fits(list(waiting)[: len(batch) + 1], most)
