"""The tests of the journal's promises, tested: they catch planted faults, and nothing else."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from telemq.broker.limits import BrokerLimits
from tests.support.busy import Step, journaled_steps, limits, play
from tests.support.diary import Entry, journal_steps, play_journal
from tests.support.planted_journal import JOURNAL_FAULTS, JOURNALED_FAULTS

SEEDS = (1, 2, 3)
_no_shrinking = settings(
    max_examples=400,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def _search(number: int, seen: Counter[str] | None = None) -> str:
    """Look for a broken promise; gives its name, or nothing."""
    broken: list[str] = []

    @seed(number)
    @_no_shrinking
    @given(journal_steps)
    def every_promise_is_kept(plan: list[Entry]) -> None:
        try:
            met = play_journal(plan)
        except Exception as error:
            broken.append(str(error) or type(error).__name__)
            raise
        if seen is not None:
            seen.update(met)

    try:
        every_promise_is_kept()
    except Exception:
        if not broken:  # Hypothesis has something to say
            raise
        return broken[0].partition(":")[0]
    return ""


@pytest.mark.parametrize("number", SEEDS)
@pytest.mark.parametrize("name", JOURNAL_FAULTS)
def test_planted_fault_is_caught(name: str, number: int) -> None:
    """A mistake like this one slips into a change of the journal."""
    with JOURNAL_FAULTS[name].plant():
        caught = _search(number)
    # Which promise breaks first depends on the draws, and these on what else is imported.
    assert caught, f"not caught; it breaks {sorted(JOURNAL_FAULTS[name].breaks)}"


@pytest.mark.parametrize("number", SEEDS)
def test_nothing_is_caught_where_nothing_is_planted(number: int) -> None:
    """The control; and the runs meet what they are there for."""
    seen: Counter[str] = Counter()
    assert "" == _search(number, seen)
    assert all(seen[scene] >= 20 for scene in ("crash", "synced", "stalled", "limit")), seen


def _search_rules(number: int) -> str:
    broken: list[str] = []

    @seed(number)
    @_no_shrinking
    @given(limits, journaled_steps)
    def every_promise_is_kept(bounds: BrokerLimits, plan: list[Step]) -> None:
        try:
            play(bounds, plan, journaled=True)
        except Exception as error:
            broken.append(str(error) or type(error).__name__)
            raise

    try:
        every_promise_is_kept()
    except Exception:
        if not broken:  # Hypothesis has something to say
            raise
        return broken[0].partition(":")[0]
    return ""


@pytest.mark.parametrize("number", SEEDS)
@pytest.mark.parametrize("name", JOURNALED_FAULTS)
def test_fault_in_the_rules_is_caught(name: str, number: int) -> None:
    """A mistake like this one slips into a change of the rules beside the journal."""
    with JOURNALED_FAULTS[name].plant():
        caught = _search_rules(number)
    assert caught, f"not caught; it breaks {sorted(JOURNALED_FAULTS[name].breaks)}"


@pytest.mark.parametrize("number", SEEDS)
def test_nothing_is_caught_in_rules_as_they_are(number: int) -> None:
    """The control."""
    assert "" == _search_rules(number)
