"""Looks for a promise that a rule breaks, as the tests of planted faults do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

__all__ = ["first_broken"]


def first_broken(
    number: int, examples: int, play: Callable[..., object], *drawn: st.SearchStrategy[Any]
) -> str:
    """Play what is drawn until a promise breaks.

    Args:
        number: the seed of the draws.
        examples: most plays.
        play: raises when a promise is broken; gets one value of each strategy.
        drawn: the strategies.

    Returns:
        The promise's name, or what the rules fell over; empty when all are kept.
    """
    broken: list[str] = []

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*drawn))
    def every_promise_is_kept(values: tuple[Any, ...]) -> None:
        try:
            play(*values)
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
