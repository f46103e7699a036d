"""What a request's query string asks for; pure.

Strict on purpose: a parameter that is misspelt, given twice or cannot be read is refused, because
to ignore it would answer another question than the one that was asked. An empty one is absent.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone

from telemq.web.problems import ProblemError

__all__ = ["choice", "moment", "names", "number", "only", "step_s", "window"]

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
#: Values of one repeatable parameter.
_NAMES_MAX = 100
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def only(
    parameters: Iterable[tuple[str, str]], *accepted: str, repeatable: Collection[str] = ()
) -> None:
    """Refuse parameters that are not `accepted`, or come more than once and are not `repeatable`.

    Raises:
        ProblemError: 400, naming the parameter and what is accepted.
    """
    seen: set[str] = set()
    for name, _ in parameters:
        if name not in accepted:
            raise ProblemError(
                400, f"parameter {_shown(name)} is unknown; accepted: {', '.join(accepted)}"
            )
        if name in seen and name not in repeatable:
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


def choice(name: str, text: str, accepted: Sequence[str]) -> str:
    """Read one of some words; the first of them when empty.

    Raises:
        ProblemError: 400, naming the parameter and what is accepted.
    """
    if text and text not in accepted:
        raise ProblemError(
            400, f"{name} {_shown(text)} is not accepted; accepted: {', '.join(accepted)}"
        )
    return text or accepted[0]


def names(name: str, texts: Iterable[str]) -> tuple[str, ...]:
    """Read a repeatable parameter: what is not empty, once each, in the order given.

    Raises:
        ProblemError: 400, there are too many.
    """
    found = tuple(dict.fromkeys(filter(None, texts)))
    if len(found) > _NAMES_MAX:
        raise ProblemError(400, f"{name} is given {len(found)} times; accepted: {_NAMES_MAX}")
    return found


def number(name: str, text: str, low: float, high: float, *, whole: bool = False) -> float | None:
    """Read a number from `low` to `high`; None when empty.

    Raises:
        ProblemError: 400, naming the parameter, the value and what is accepted.
    """
    if not text:
        return None
    form = r"\d{1,18}" if whole else r"\d{1,18}(\.\d{1,18})?"
    if not re.fullmatch(form, text, re.ASCII) or not low <= float(text) <= high:
        kind = "a whole number" if whole else "a number"
        raise ProblemError(
            400, f"{name} {_shown(text)} is not accepted; it must be {kind}, {low:,} to {high:,}"
        )
    return float(text)


def step_s(text: str, high: int) -> int:
    """Read a step in seconds, such as ``90``, ``30s``, ``5m``, ``1h`` or ``1d``; 0 when empty.

    Raises:
        ProblemError: 400, naming the value and what is accepted.
    """
    if not text:
        return 0
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text, re.ASCII)
    seconds = int(found[1]) * _UNIT_S[found[2]] if found else 0
    if not 1 <= seconds <= high:
        raise ProblemError(
            400,
            f"step {_shown(text)} is not accepted; it must be seconds, or a whole number and "
            f"s, m, h or d, such as 30s, 5m, 1h or 1d; 1 s to {high // 86_400} d",
        )
    return seconds


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
