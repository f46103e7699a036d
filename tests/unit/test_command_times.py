"""Times and durations, as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from telemq.errors import SettingError
from telemq_cli.when import duration, moment


def test_moment_is_a_time_with_its_offset_or_an_age() -> None:
    """Copied from a log; or "since an hour ago"."""
    at = datetime(2026, 1, 31, 10, 0, 0, 500_000, tzinfo=UTC)
    assert at == moment("--start", "2026-01-31T12:00:00.5+02:00")
    assert at.replace(microsecond=0) == moment("--start", "2026-01-31T10:00:00Z")
    assert moment("--start", None) is None
    ago = moment("--since", "2h")
    assert ago is not None
    assert timedelta(0) <= datetime.now(UTC) - ago - timedelta(hours=2) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "text",
    ["", "not-a-time", "2024-99-99T00:00:00Z", "2024-01-01T00:00:00", "1w", "-1h", "999999999d"],
)
def test_moment_of_another_form_is_refused_with_what_is_accepted(text: str) -> None:
    """Without an offset it would be another moment on every machine."""
    with pytest.raises(SettingError, match=r"--since: .* such as 90s, 30m"):
        moment("--since", text)


def test_duration_is_a_number_and_a_unit_within_its_limit() -> None:
    """`--step 5m`."""
    day = timedelta(days=1)
    assert timedelta(minutes=5) == duration("--step", "5m", day)
    assert duration("--step", None, day) is None
    assert day == duration("--step", "1d", day)
    for text in ("0s", "25h", "5", "5 m", "1.5h", "999999999d"):
        with pytest.raises(SettingError, match=r"--step: .* at most 1d"):
            duration("--step", text, day)
