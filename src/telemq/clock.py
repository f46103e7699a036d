"""The two clocks: one that never goes back, for deadlines, and the wall's, for records."""

import time
from typing import NewType

__all__ = ["Nanoseconds", "monotonic_ns", "utc_us"]

#: A moment on the monotonic clock. Only differences mean anything.
Nanoseconds = NewType("Nanoseconds", int)


def monotonic_ns() -> Nanoseconds:
    """Give the moment on this machine's monotonic clock, for deadlines."""
    return Nanoseconds(time.monotonic_ns())


def utc_us() -> int:
    """Give microseconds since 1970 UTC, for records; may jump when the clock is set."""
    return time.time_ns() // 1000
