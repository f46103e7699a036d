"""How payloads are put into frames, and found again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemq.frames import join, split
from telemq.protocol import Packed

_SIZES = st.integers(0, 5)


def messages(*sizes: int) -> tuple[Packed, ...]:
    return tuple(Packed(f"{n}", 1, size, "", {}) for n, size in enumerate(sizes))


@given(st.lists(_SIZES, min_size=1, max_size=12), _SIZES)
def test_what_was_joined_is_found_again(sizes: list[int], join_bytes: int) -> None:
    """Any mixture of single records and batches."""
    payloads = [bytes([n]) * size for n, size in enumerate(sizes)]
    joined = join(payloads, sum(sizes), join_bytes)
    assert b"".join(payloads) == b"".join(joined)
    assert all(joined) or len(joined) == 1
    parts = split(messages(*sizes), sum(sizes), joined)
    assert messages(*sizes) == tuple(one for part, _ in parts for one in part)
    for part, frame in parts:
        assert len(frame) == sum(one.bytes for one in part)
        lent = b"".join(payloads[int(one.id)] for one in part)
        assert frame == lent


def test_large_payload_is_its_own_frame_and_small_ones_share() -> None:
    """To copy a batch costs more than a frame; a record's frame costs more than its copy."""
    large = bytes(9)
    joined = join([b"a", b"b", large, b"", large, b"12345678"], 28, 8)
    assert (b"ab", large, large, b"12345678") == joined
    assert joined[1] is large
    assert (large,) == join([large], 9, 8)
    assert (large + large,) == join([large, large], 18, 9)
    assert (b"",) == join([b"", b""], 0, 8)


def test_empty_messages_go_with_the_one_before_them() -> None:
    """A message may have labels only."""
    parts = split(messages(2, 0, 1, 0), 3, (b"ab", b"c"))
    assert [(2, b"ab"), (2, b"c")] == [(len(part), frame) for part, frame in parts]
    assert [(messages(0), b"")] == split(messages(0), 0, ())


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        (b"abc",),
        (b"abcde",),
        (b"ab", b""),
        (b"", b"ab", b"cd"),
        (b"a", b"bcd"),
        (b"abc", b"d"),
        (b"ab", b"cd", b"e"),
        (b"ab", b"cde"),
        (b"ab", b"c"),
        (b"ab",) * 100,
    ],
)
def test_frames_that_do_not_fit_are_an_error_that_says_so(wrong: tuple[bytes, ...]) -> None:
    """A client in another language, while it is being written."""
    with pytest.raises(ValueError, match="have 4 bytes, its payload") as error:
        split(messages(2, 2), 4, wrong)
    assert "each ends where a message does" in str(error.value)
    assert len(str(error.value)) < 300
