"""The token bucket by which each client of the gateway is measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemq.gateway.rate import RateLimit


def _limit(per_s: float = 2.0, burst: int = 3, clients_max: int = 100) -> RateLimit:
    return RateLimit(per_s=per_s, burst=burst, clients_max=clients_max)


def test_a_rested_client_may_make_a_burst_and_then_waits_for_each() -> None:
    """A page that asks six questions when it opens, where three at once are allowed."""
    limit = _limit()
    assert [0, 0, 0, 0.5, 0.5] == [limit.take("a", 10.0) for _ in range(5)]
    assert 0 == limit.take("a", 10.5)
    assert 0.5 == limit.take("a", 10.5)


def test_a_refusal_costs_nothing() -> None:
    """A client that tries again too soon, again and again, is not kept out for ever."""
    limit = _limit()
    for _ in range(3):
        limit.take("a", 0.0)
    for n in range(50):
        assert limit.take("a", n / 1000) > 0
    assert 0 == limit.take("a", 0.5)


def test_clients_are_measured_apart() -> None:
    """One that floods takes nothing from another."""
    limit = _limit()
    for _ in range(20):
        limit.take("flood", 0.0)
    assert 0 == limit.take("other", 0.0)


def test_no_rate_is_no_limit_and_remembers_nobody() -> None:
    """A benchmark, or a gateway behind something that limits."""
    limit = _limit(per_s=0)
    assert {0.0} == {limit.take("a", 0.0) for _ in range(1000)}
    assert 0 == len(limit)


def test_memory_is_bounded_and_the_longest_silent_are_forgotten() -> None:
    """Somebody asks from more addresses than a machine could remember."""
    limit = _limit(burst=1, clients_max=10)
    for n in range(1000):
        limit.take(f"client {n}", n / 1000)
        assert len(limit) <= 10
    assert limit.take("client 999", 1.0) > 0
    assert 0 == limit.take("client 0", 1.0)


@given(
    per_s=st.sampled_from((0.5, 2.0, 7.0, 100.0, 33.3)),
    burst=st.integers(1, 20),
    steps_s=st.lists(st.floats(0, 3), min_size=1, max_size=80),
)
def test_never_more_than_the_burst_and_the_rate_allow(
    per_s: float, burst: int, steps_s: list[float]
) -> None:
    """However the requests are spread: in any span, what was let in is burst + rate * span."""
    limit = _limit(per_s, burst)
    now_s = 1000.0
    let_in: list[float] = []
    for step_s in steps_s:
        now_s += step_s
        if not limit.take("a", now_s):
            let_in.append(now_s)
    for first, since_s in enumerate(let_in):
        for last in range(first, len(let_in)):
            allowed = burst + per_s * (let_in[last] - since_s)
            assert last - first + 1 <= allowed + 1e-6


@given(
    per_s=st.sampled_from((0.5, 3.0, 7.0, 100.0, 33.3)),
    burst=st.integers(1, 20),
    count=st.integers(1, 60),
)
def test_whoever_waits_as_told_is_let_in(per_s: float, burst: int, count: int) -> None:
    """A client that obeys Retry-After loses no request."""
    limit = _limit(per_s, burst)
    now_s = 12345.678
    for _ in range(count):
        if wait_s := limit.take("a", now_s):
            now_s += wait_s
            assert limit.take("a", now_s) == pytest.approx(0, abs=1e-9)


@given(burst=st.integers(1, 5), count=st.integers(1, 200))
def test_a_client_slower_than_the_rate_is_never_refused(burst: int, count: int) -> None:
    """Prometheus, every half minute, for a year."""
    limit = _limit(2.0, burst)
    assert {0.0} == {limit.take("a", n * 0.5) for n in range(count)}
