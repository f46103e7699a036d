"""Times and durations, as people write them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from telemq.errors import SettingError

__all__ = ["duration", "moment"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")


def moment(flag: str, text: str | None) -> datetime | None:
    """Read a moment, or how long ago it was; None when nothing was given.

    Raises:
        SettingError: with what is accepted.
    """
    if text is None:
        return None
    try:
        if (ago := _duration(text)) is not None:
            return datetime.now(UTC) - ago
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise ValueError
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        accepted = "such as 90s, 30m, 2h or 7d, or a time with its offset: 2026-01-31T00:00:00Z"
        raise SettingError(flag, text, accepted) from None


def duration(flag: str, text: str | None, longest: timedelta) -> timedelta | None:
    """Read a duration such as ``30s``, ``5m``, ``1h`` or ``1d``; None when nothing was given.

    Raises:
        SettingError: with what is accepted.
    """
    if text is None:
        return None
    try:
        found = _duration(text)
    except OverflowError:
        found = None
    if found is None or not timedelta(0) < found <= longest:
        raise SettingError(flag, text, f"such as 30s, 5m, 1h or 1d; at most {longest.days}d")
    return found


def _duration(text: str) -> timedelta | None:
    found = _DURATION.fullmatch(text)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None
