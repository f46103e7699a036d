"""Pacing, by example: when a batch is due, how large it is, how far ahead leases reach."""

import pytest

from telemq.streamer.pacing import (
    Pacer,
    batch_records_at,
    batch_records_within,
    batches_ahead,
    stamps_us,
)

SECOND = 10**9


def test_batch_is_due_when_its_last_record_is() -> None:
    """`--rate 100`, batches of 50: one every half second."""
    pacer = Pacer(100, 0)
    assert SECOND // 2 == pacer.due_ns(50, 0)
    pacer.sent(50, SECOND // 2)
    assert SECOND == pacer.due_ns(50, SECOND // 2)


def test_late_batch_does_not_delay_those_after_it() -> None:
    """The loop was held up for some milliseconds."""
    pacer = Pacer(100, 0)
    pacer.sent(50, SECOND // 2 + 7_000_000)
    assert SECOND == pacer.due_ns(50, SECOND // 2 + 7_000_000)


def test_one_second_is_caught_up_after_a_long_pause() -> None:
    """The broker was away for an hour; it must not be flooded when it is back."""
    pacer, now = Pacer(100, 0), 3600 * SECOND
    sent = 0
    while pacer.due_ns(10, now) <= now:
        pacer.sent(10, now)
        sent += 10
    assert 100 == sent


def test_batch_larger_than_a_second_is_due_all_the_same() -> None:
    """A batch taken over from a faster streamer."""
    pacer = Pacer(10, 0)
    assert 100 * SECOND == pacer.due_ns(1000, 50 * SECOND)
    assert pacer.due_ns(1000, 1000 * SECOND) <= 1000 * SECOND


def test_rate_zero_is_always_due() -> None:
    """As fast as the broker grants."""
    pacer = Pacer(0, 0)
    pacer.sent(10**9, 5)
    assert 5 == pacer.due_ns(1000, 5)


@pytest.mark.parametrize(
    ("rate", "linger_ms", "expected"),
    [(0, 5, 1000), (1e6, 5, 1000), (100_000, 5, 500), (1000, 5, 5), (100, 5, 1), (0.1, 5, 1),
     (1000, 0, 1), (1000, 0.5, 1), (1000, 500, 500), (1000, 60_000, 1000)],
)  # fmt: skip
def test_batch_has_what_comes_within_the_linger(
    rate: float, linger_ms: float, expected: int
) -> None:
    """A slow stream in small batches at once, a fast one in full batches."""
    assert expected == batch_records_at(rate, 1000, linger_ms)


def test_streamer_that_is_behind_makes_larger_batches_until_it_has_caught_up() -> None:
    """The queue takes no more than so many messages a second; then each must carry more."""
    pacer, now = Pacer(1000, 0), SECOND // 2
    assert 500 == pacer.behind(now)
    assert 125 == batch_records_at(1000, 8192, 5, pacer.behind(now))
    assert 100 == batch_records_at(1000, 100, 5, pacer.behind(now))
    pacer.sent(480, now)
    assert 20 == pacer.behind(now)
    assert 5 == batch_records_at(1000, 8192, 5, pacer.behind(now))
    assert 1000 == pacer.behind(3600 * SECOND)
    assert 0 == Pacer(0, 0).behind(3600 * SECOND)


@pytest.mark.parametrize(
    ("series", "label_chars", "expected"),
    [
        (2480, 2480 * 500, 1000),
        (10**6, 10**6 * 500, 7231),
        (10, 10 * 10**6, 4),
        (1, 10**7, 1),
        (1, 10, 65_536),
    ],
)
def test_batch_is_no_longer_than_the_queue_takes(
    series: int, label_chars: int, expected: int
) -> None:
    """A source with long labels, and every row of another series; the setting is for usual ones."""
    batch_records = 1000 if series == 2480 else 65_536
    assert expected == batch_records_within(2**22, batch_records, series, label_chars)


@pytest.mark.parametrize(
    ("rate", "batch_records", "window_records", "expected"),
    [(10, 5, 200_000, 4), (0.1, 1, 200_000, 1), (1e6, 1000, 200_000, 256),
     (0, 1000, 200_000, 50), (0, 1000, 1, 1), (0, 1, 200_000, 256)],
)  # fmt: skip
def test_leases_reach_two_seconds_or_a_quarter_window_ahead(
    rate: float, batch_records: int, window_records: int, expected: int
) -> None:
    """What one streamer holds ahead, the others cannot have."""
    assert expected == batches_ahead(rate, batch_records, window_records)


def test_stamps_end_now_a_microsecond_apart() -> None:
    """A batch at a moderate rate: its records are told apart by time."""
    assert [97, 98, 99, 100] == stamps_us(0, 100, 4).tolist()


def test_stamps_share_microseconds_when_records_come_faster() -> None:
    """Four records in two microseconds."""
    assert [98, 99, 99, 100] == stamps_us(98, 100, 4).tolist()


def test_stamps_stand_still_when_the_clock_was_set_back() -> None:
    """NTP corrects the clock by an hour."""
    assert [500, 500] == stamps_us(500, 100, 2).tolist()
