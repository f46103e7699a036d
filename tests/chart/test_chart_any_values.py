"""Any values that are accepted: what must hold of the chart holds."""

from __future__ import annotations

from collections import Counter

import helm_python as helm
import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.chart import Values, counts, render
from tests.support.chart_checks import problems
from tests.support.chart_values import values

#: What a template may refuse, in its own words: values that cannot go together.
_REFUSALS = (
    *("existingSecrets", "is needed", "needs", "autoscaling by keda", "sleepMillis"),
    *("existingClaim", "must be another", "above maxReplicas"),
)
_outcomes: Counter[str] = Counter()


# Half a minute on two cores that are free; they may not be.
@pytest.mark.timeout(600)
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(values())
def test_any_values_give_a_sound_chart_or_a_reason(given_values: Values) -> None:
    """Combinations that nobody thought of."""
    try:
        rendered = render(given_values)
    except (helm.HelmRenderError, helm.HelmValuesError) as error:
        if not any(word in str(error) for word in _REFUSALS):
            raise
        counts.refused += 1
        _outcomes["refused"] += 1
        return
    _outcomes["rendered"] += 1
    assert [] == problems(rendered)


def test_most_values_were_accepted() -> None:
    """The property above would also hold of a chart that refuses everything."""
    assert _outcomes["rendered"] > 2 * _outcomes["refused"]
