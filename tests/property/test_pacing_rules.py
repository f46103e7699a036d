"""Pacing, for every rate and every timing: never ahead, never adrift; stamps never go back."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from telemq.streamer.pacing import (
    BURST_NS,
    Pacer,
    batch_records_at,
    batch_records_within,
    batches_ahead,
    stamps_us,
)

rates = st.one_of(st.floats(0.01, 1e9), st.integers(1, 10**9).map(float))
#: Pauses between looks at the schedule: none, a loop's turn, or an outage.
pauses_ns = st.one_of(st.just(0), st.integers(1, 10**7), st.integers(10**9, 10**13))
steps = st.lists(st.tuples(pauses_ns, st.integers(1, 5000)), min_size=1, max_size=60)


@given(rates, st.integers(0, 2**62), steps)
def test_never_ahead_of_the_rate_in_any_window(
    rate: float, begin_ns: int, looks: list[tuple[int, int]]
) -> None:
    """Whatever the pauses, no window holds more than its share and one burst."""
    pacer, now = Pacer(rate, begin_ns), begin_ns
    sent: list[tuple[int, int]] = []
    for pause_ns, records in looks:
        now += pause_ns
        while len(sent) < 300 and pacer.due_ns(records, now) <= now:
            pacer.sent(records, now)
            sent.append((now, records))
    assert sum(n for _, n in sent) * 10**9 <= Fraction(rate) * (now - begin_ns)
    largest = max((n for _, n in sent), default=0)
    for i, (since_ns, _) in enumerate(sent):
        total = sum(n for _, n in sent[i:])
        burst = max(Fraction(rate) * BURST_NS / 10**9, Fraction(largest))
        # A nanosecond's records are the schedule's grain.
        grain = 1 + Fraction(rate) / 10**9
        assert total <= Fraction(rate) * (now - since_ns) / 10**9 + burst + grain


@given(rates, st.integers(0, 2**62), st.integers(1, 5000), st.integers(1, 10**15))
def test_no_drift_however_long_it_runs(
    rate: float, begin_ns: int, records: int, batches: int
) -> None:
    """After years of batches sent on time, the next is due to the nanosecond."""
    pacer = Pacer(rate, begin_ns)
    already = records * batches
    now = pacer.due_ns(already, begin_ns)
    pacer.sent(already, now)
    exact = Fraction(records * (batches + 1) * 10**9) / Fraction(rate) + begin_ns
    assert 0 <= pacer.due_ns(records, now) - exact < 1


@given(rates, st.integers(0, 2**62), steps)
def test_what_is_due_at_a_moment_may_be_sent_at_that_moment(
    rate: float, begin_ns: int, looks: list[tuple[int, int]]
) -> None:
    """A loop that sleeps until the due time finds the batch due: it never spins or starves."""
    pacer, now = Pacer(rate, begin_ns), begin_ns
    for pause_ns, records in looks:
        now += pause_ns
        due_ns = pacer.due_ns(records, now)
        assert due_ns <= now + 10**9 * records / Fraction(rate) + 1
        now = max(now, due_ns)
        assert pacer.due_ns(records, now) <= now
        pacer.sent(records, now)


@given(
    rates,
    st.integers(1, 65_536),
    st.floats(0, 60_000),
    st.integers(0, 10**9),
    st.integers(1, 10**8),
)
def test_sizes_stay_in_their_limits(
    rate: float, batch_records: int, linger_ms: float, behind: int, window: int
) -> None:
    """Every setting that is accepted gives a batch and a lease."""
    size = batch_records_at(rate, batch_records, linger_ms, behind)
    assert 1 <= size <= batch_records
    assert size == 1 or size * 1000 <= Fraction(rate) * Fraction(linger_ms) or size <= behind / 4
    assert 1 <= batches_ahead(rate, size, window) <= 256


@given(rates, st.integers(0, 2**62), steps)
def test_behind_is_what_may_be_sent_at_once(
    rate: float, begin_ns: int, looks: list[tuple[int, int]]
) -> None:
    """A batch of all that is behind is due, and one of more than a record more is not."""
    pacer, now = Pacer(rate, begin_ns), begin_ns
    for pause_ns, records in looks:
        now += pause_ns
        behind = pacer.behind(now)
        assert behind <= Fraction(rate) * BURST_NS / 10**9
        if behind:
            assert pacer.due_ns(behind, now) <= now
        elif pacer.due_ns(records, now) > now:
            continue
        pacer.sent(behind or records, now)
        assert pacer.behind(now) <= 1 + Fraction(rate) / 10**9


@given(
    st.integers(2**16, 2**23), st.integers(1, 65_536), st.integers(1, 10**6), st.integers(0, 4000)
)
def test_batches_of_even_labels_fit(
    batch_bytes: int, batch_records: int, series: int, chars: int
) -> None:
    """However long they are; one record always goes."""
    size = batch_records_within(batch_bytes, batch_records, series, series * chars)
    assert 1 <= size <= batch_records
    assert size == 1 or min(size, series) * (chars + 32) + size * 48 <= batch_bytes + 48


@given(st.integers(0, 2**53), st.integers(-(10**9), 10**9), st.integers(1, 5000))
def test_stamps_never_go_back_and_never_pass_now(last_us: int, ahead_us: int, count: int) -> None:
    """Readers of one streamer's records in order of time see them in order of the stream."""
    now_us = last_us + ahead_us
    stamps = stamps_us(last_us, now_us, count)
    assert count == len(stamps)
    assert max(now_us, last_us) == stamps[-1]
    assert last_us <= stamps[0]
    steps_us = np.diff(stamps)
    assert ((steps_us >= 0) & (steps_us <= 1)).all()
    if count <= now_us - last_us:
        assert (steps_us == 1).all()
        assert last_us < stamps[0]
