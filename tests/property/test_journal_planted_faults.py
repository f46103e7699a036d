"""The tests of the journal's promises, tested: they catch planted faults, and nothing else."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from tests.support.busy import journaled_steps, limits, play
from tests.support.diary import Entry, journal_steps, play_journal
from tests.support.planted_journal import JOURNAL_FAULTS, JOURNALED_FAULTS
from tests.support.searching import first_broken

SEEDS = (1, 2, 3)
EXAMPLES = 400


def _search(number: int, seen: Counter[str] | None = None) -> str:
    def look(plan: list[Entry]) -> None:
        met = play_journal(plan)
        if seen is not None:
            seen.update(met)

    return first_broken(number, EXAMPLES, look, journal_steps)


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
    return first_broken(number, EXAMPLES, partial(play, journaled=True), limits, journaled_steps)


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
