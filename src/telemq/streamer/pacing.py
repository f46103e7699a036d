"""How many records are due, how large a batch is, and what time its records get: pure rules.

Pacing is a schedule and not a bucket. The n-th record since the schedule began is due n / rate
after its beginning, computed exactly, so nothing drifts however long it runs. A batch goes when its
last record is due: a streamer is never ahead of its rate. One that was held up catches up, but by
no more than `BURST_NS` of records; beyond that the schedule begins anew, later.

A batch has what comes within the linger, so that no record waits longer for those after it. Without
a rate there is always more, and batches are full. In between, a streamer that is behind, because
the queue gives it no room for so many small messages, makes larger ones until it has caught up.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

__all__ = [
    "BURST_NS",
    "Pacer",
    "batch_records_at",
    "batch_records_within",
    "batches_ahead",
    "stamps_us",
]

#: The most that is caught up after a pause: one second's records, or one batch if it has more.
BURST_NS = 1_000_000_000
#: In how many batches a streamer catches up with what it is behind.
_BEHIND_BATCHES = 4
#: JSON of a record beside its labels, and of a series beside its labels; a few bytes too many.
_RECORD_BYTES, _SERIES_BYTES = 48, 32
#: Leases are reserved for this many seconds ahead: the rest is for the other streamers.
_AHEAD_S = 2
#: Most leases reserved ahead; each is a row in Postgres.
_AHEAD_BATCHES_MAX = 256


class Pacer:
    """The schedule of one streamer.

    Args:
        rate: records a second; 0 is no limit.
        now_ns: monotonic, the beginning of the schedule.
    """

    def __init__(self, rate: float, now_ns: int) -> None:
        self._rate = Fraction(rate)
        self._begin_ns = now_ns
        self._sent = 0

    def due_ns(self, records: int, now_ns: int) -> int:
        """Give the moment from which the next `records` may be sent; not after `now_ns` is now."""
        if not self._rate:
            return now_ns
        due_ns = self._begin_ns + self._takes_ns(self._sent + records)
        longest_ns = max(BURST_NS, self._takes_ns(records))
        return max(due_ns, now_ns - longest_ns + self._takes_ns(records))

    def sent(self, records: int, now_ns: int) -> None:
        """Note that `records` were sent; they must have been due at `now_ns`."""
        if not self._rate:
            return
        behind_ns = now_ns - self._begin_ns - self._takes_ns(self._sent)
        longest_ns = max(BURST_NS, self._takes_ns(records))
        if behind_ns > longest_ns:
            self._begin_ns, self._sent = now_ns - longest_ns, 0
        self._sent += records

    def behind(self, now_ns: int) -> int:
        """Give how many records are due and not sent, of those that are to be caught up."""
        if not self._rate:
            return 0
        late_ns = now_ns - self._begin_ns - self._takes_ns(self._sent)
        return max(0, int(min(late_ns, BURST_NS) * self._rate / 10**9))

    def _takes_ns(self, records: int) -> int:
        return -(-records * 10**9 * self._rate.denominator // self._rate.numerator)


def batch_records_at(rate: float, batch_records: int, linger_ms: float, behind: int = 0) -> int:
    """Give the size of the next batches.

    Args:
        rate: records a second; 0 is no limit.
        batch_records: the most, and the size without a rate.
        linger_ms: longest wait of a record for the last one of its batch.
        behind: records that should have been sent by now.
    """
    if not rate:
        return batch_records
    within_linger = int(Fraction(rate) * Fraction(linger_ms) / 1000)
    return min(batch_records, max(1, within_linger, behind // _BEHIND_BATCHES))


def batch_records_within(
    batch_bytes: int, batch_records: int, series: int, label_chars: int
) -> int:
    """Give `batch_records`, or how many records make up `batch_bytes` if that is less.

    Args:
        batch_bytes: longest payload that the queue is sure to take.
        batch_records: the setting.
        series: of the source; a batch holds the labels of each at most once.
        label_chars: of all of them together.
    """
    of_series = label_chars / series + _SERIES_BYTES
    records = batch_bytes / (of_series + _RECORD_BYTES)
    if records > series:
        records = (batch_bytes - series * of_series) / _RECORD_BYTES
    return max(1, min(batch_records, int(records)))


def batches_ahead(rate: float, batch_records: int, window_records: int) -> int:
    """Give how many batches to hold leased and not yet published.

    Args:
        rate: records a second; 0 is no limit.
        batch_records: the size of a batch, as `batch_records_at` gives it.
        window_records: most records published and not confirmed.
    """
    if rate:
        batches = int(rate * _AHEAD_S) // batch_records
    else:
        batches = window_records // (4 * batch_records)
    return min(max(batches, 1), _AHEAD_BATCHES_MAX)


def stamps_us(last_us: int, now_us: int, count: int) -> npt.NDArray[np.int64]:
    """Give the times (count,) of records that are processed now, for the clock ``processed``.

    They do not decrease, begin after `last_us` and end at `now_us`, at most a microsecond apart, so
    that the records of a batch are distinct in time unless they come faster than a million a
    second. A clock that was set back stands still at `last_us` until it has caught up.

    Args:
        last_us: the last stamp given before; any small number if there was none.
        now_us: the wall's clock.
        count: at least 1.
    """
    now_us = max(now_us, last_us)
    start_us = max(last_us, now_us - count)
    return start_us + (now_us - start_us) * np.arange(1, count + 1) // count
