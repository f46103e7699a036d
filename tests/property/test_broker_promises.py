"""P1 to P12 of the broker's core, for every run that Hypothesis can think of."""

from hypothesis import given, settings

from telemq.broker.limits import BrokerLimits
from tests.support.busy import Step, limits, play, steps


@given(limits, steps)
@settings(deadline=None)  # a busy machine is no broken promise
def test_every_promise_is_kept(bounds: BrokerLimits, plan: list[Step]) -> None:
    """Whatever peers do; a failure names the promise (see `telemq.broker.core`)."""
    play(bounds, plan)
