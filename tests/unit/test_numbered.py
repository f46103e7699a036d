"""What is kept under numbers in a row: the same as a dictionary, whatever is taken out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemq.client.numbered import Numbered
from telemq.protocol import INTEGER_MAX

#: Batches, with numbers between that went to something else, and what is taken out meanwhile.
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 2), st.integers(1, 6)),
        st.tuples(st.just("take"), st.integers(0, 40), st.integers(1, 12)),
        st.tuples(st.just("take"), st.integers(0, 40), st.just(INTEGER_MAX)),
        st.tuples(st.just("late"), st.integers(1, 5), st.just(1)),
    ),
    max_size=40,
)


@given(_steps)
def test_it_keeps_and_gives_what_a_dictionary_does(steps: list[tuple[str, int, int]]) -> None:
    """Ranges that fit a batch, cut it, span several, or name what is gone or never was."""
    numbered, known, before, after = Numbered[str](), dict[int, str](), 0, 1
    for what, number, count in steps:
        if what == "take":
            gone = [n for n in sorted(known) if number <= n < number + count]
            assert [known.pop(n) for n in gone] == numbered.take(number, count)
        else:
            if what == "add":
                first = after + number
                after = first + count
            else:  # those of a broker that is not ours, below all that were
                first = before = before - number
            batch = [f"of {n}" for n in range(first, first + count)]
            known.update(zip(range(first, first + count), batch, strict=True))
            numbered.add(first, batch)
        assert sorted(known) == [n for n in range(before - 1, after + 1) if n in numbered]
    assert sorted(known.items()) == numbered.all()
    numbered.clear()
    assert [] == numbered.all()


@pytest.mark.parametrize("together", [1, 2])
def test_what_is_gone_takes_no_memory(together: int) -> None:
    """A streamer that publishes one at a time for years."""
    numbered = Numbered[None]()
    for number in range(1, 10_001):
        numbered.add(number, [None])
        if number % together == 0:
            assert together == len(numbered.take(number + 1 - together, together))
    assert len(numbered._firsts) < 1010
