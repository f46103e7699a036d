"""The tests of the broker's promises, tested: they catch planted faults, and nothing else."""

from __future__ import annotations

from collections import Counter

import pytest

from telemq.broker.limits import BrokerLimits
from tests.support.busy import Step, limits, play, steps
from tests.support.planted import FAULTS
from tests.support.searching import first_broken

SEEDS = (1, 2, 3)
#: Enough for the shyest fault; most are caught within ten.
EXAMPLES = 800


def _search(number: int) -> str:
    return first_broken(number, EXAMPLES, play, limits, steps)


@pytest.mark.parametrize("number", SEEDS)
@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_caught(name: str, number: int) -> None:
    """A mistake like this one slips into a change of the core."""
    with FAULTS[name].plant():
        caught = _search(number)
    # Which promise breaks first depends on the draws, and these on what else is imported.
    assert caught, f"not caught; it breaks {sorted(FAULTS[name].breaks)}"


@pytest.mark.parametrize("number", SEEDS)
def test_nothing_is_caught_where_nothing_is_planted(number: int) -> None:
    """The control: the same search, the same seeds, the core as it is."""
    assert "" == _search(number)


def test_each_promise_has_a_fault_that_breaks_it() -> None:
    """A promise that no planted fault can break may not be tested at all."""
    breaks = frozenset().union(*(fault.breaks for fault in FAULTS.values()))
    assert {f"P{n}" for n in range(1, 13)} <= breaks


def test_runs_reach_every_scene() -> None:
    """A search that never meets a lease's end or a dead letter would prove nothing about them."""
    seen: Counter[str] = Counter()

    def look(bounds: BrokerLimits, plan: list[Step]) -> None:
        counters = play(bounds, plan).core.stats().counters
        for name in counters.__slots__:
            if name != "refused":
                seen[name] += getattr(counters, name) > 0
        seen.update(counters.refused)

    assert "" == first_broken(SEEDS[0], EXAMPLES, look, limits, steps)
    scenes = {
        *("accepted", "settled", "buried", "duplicates", "redelivered", "leases_expired"),
        *("stale_settles", "stale_messages", "sessions", "peers_silent"),
        *("bad_message", "version", "role", "no_session", "gap", "over_credit", "too_large"),
        *("full", "closing"),
    }
    assert {name: 5 for name in scenes} == {name: min(5, seen[name]) for name in scenes}
