"""What the journal promises, for every run, failure and crash that Hypothesis can think of."""

from hypothesis import given, settings

from telemq.broker.limits import BrokerLimits
from tests.support.busy import Step, journaled_steps, limits, play
from tests.support.diary import Entry, journal_steps, play_journal


@given(journal_steps)
@settings(deadline=None)  # a busy machine is no broken promise
def test_every_confirmed_message_is_there_after_a_crash_and_no_settled_one(
    plan: list[Entry],
) -> None:
    """The power fails at any byte, calls fail, the disk fills up; see `play_journal`."""
    play_journal(plan)


@given(limits, journaled_steps)
@settings(deadline=None)
def test_every_promise_of_the_broker_is_kept_with_a_journal(
    bounds: BrokerLimits, plan: list[Step]
) -> None:
    """P1 to P12, and: confirmed once synced or settled, once, to whoever published last."""
    play(bounds, plan, journaled=True)
