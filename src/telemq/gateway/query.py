"""What a request's query string asks for; pure.

Strict on purpose: a parameter that is misspelt, given twice or cannot be read is refused, because
to ignore it would answer another question than the one that was asked. An empty one is absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone

from telemq.web.problems import ProblemError

__all__ = ["moment", "only", "window"]

# RFC 3339, section 5.6; its letters are case-insensitive. An unescaped "+" in a query string
# arrives as a space, which can be nothing else in that place.
_RFC_3339 = re.compile(
    r"(?P<seconds>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d+))?"
    r"(?:Z|(?P<sign>[-+ ])(?P<hours>[01]\d|2[0-3]):(?P<minutes>[0-5]\d))",
    re.ASCII | re.IGNORECASE,
)
_ACCEPTED = (
    "RFC 3339 with an offset, such as 2025-07-18T20:42:34Z or 2025-07-18T22:42:34.5%2B02:00 "
    "(a + must be written %2B in a URL)"
)
#: Of a refused value, shown in the error.
_SHOWN_CHARACTERS = 80


def only(parameters: Iterable[tuple[str, str]], *accepted: str) -> None:
    """Refuse parameters that are not `accepted` or come more than once.

    Raises:
        ProblemError: 400, naming the parameter and what is accepted.
    """
    seen: set[str] = set()
    for name, _ in parameters:
        if name not in accepted:
            raise ProblemError(
                400, f"parameter {_shown(name)} is unknown; accepted: {', '.join(accepted)}"
            )
        if name in seen:
            raise ProblemError(400, f"{name} is given more than once; give it once")
        seen.add(name)


def window(start_time: str, end_time: str) -> tuple[datetime | None, datetime | None]:
    """Read both bounds of a time window; each is inclusive, and None when empty.

    Raises:
        ProblemError: 400, a bound is not RFC 3339, or the end is before the start.
    """
    start = moment("start_time", start_time, up=True) if start_time else None
    end = moment("end_time", end_time) if end_time else None
    if start is not None and end is not None and end < start:
        raise ProblemError(
            400, f"end_time {_shown(end_time)} is before start_time {_shown(start_time)}"
        )
    return start, end


def moment(name: str, text: str, *, up: bool = False) -> datetime:
    """Read a moment in UTC.

    Args:
        name: the parameter, for the error.
        text: what was given.
        up: round what is finer than a microsecond up instead of down. Samples have microseconds,
            so a start that is rounded up and an end that is rounded down lose and add none.

    Raises:
        ProblemError: 400, naming the parameter, the value and what is accepted.
    """
    found = _RFC_3339.fullmatch(text)
    if not found:
        raise ProblemError(400, f"{name} {_shown(text)} is not accepted; it must be {_ACCEPTED}")
    fraction = found["fraction"] or ""
    offset = timedelta(hours=int(found["hours"] or 0), minutes=int(found["minutes"] or 0))
    try:
        local = datetime.fromisoformat(found["seconds"].upper())
        local = local.replace(
            microsecond=int(fraction[:6].ljust(6, "0")),
            tzinfo=timezone(-offset if found["sign"] == "-" else offset),
        )
        finer = up and fraction[6:].strip("0") != ""
        return local.astimezone(UTC) + timedelta(microseconds=finer)
    except (ValueError, OverflowError) as error:
        raise ProblemError(
            400,
            f"{name} {_shown(text)} is no moment ({error}); "
            f"it must be {_ACCEPTED}, of the years 1 to 9999",
        ) from error


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
