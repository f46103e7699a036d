"""When a child that ended is started again: the rule, with exit codes and times as arguments."""

from __future__ import annotations

from telemq.up.restart import PAUSE_S_MAX, WELL_AFTER_S, Again, Done, Refused, RestartRule


def _pause_s(rule: RestartRule, code: int = 1, lived_s: float = 0.0) -> float:
    verdict = rule.ended(code, lived_s)
    assert isinstance(verdict, Again)
    return verdict.pause_s


def test_pause_doubles_up_to_its_limit() -> None:
    """A collector dies at every start, because Postgres is down."""
    rule = RestartRule()
    assert [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0] == [_pause_s(rule) for _ in range(8)]
    assert PAUSE_S_MAX == _pause_s(rule)


def test_pause_begins_anew_after_a_child_was_well() -> None:
    """A broker that ran for a day is killed."""
    rule = RestartRule()
    for _ in range(5):
        rule.ended(-9, 0.0)
    assert 3.2 == _pause_s(rule, -9, WELL_AFTER_S - 0.001)
    assert 0.1 == _pause_s(rule, -9, WELL_AFTER_S)
    assert 0.2 == _pause_s(rule, -9)


def test_exit_0_is_done_only_for_what_has_an_end() -> None:
    """A streamer has published its rows; somebody ends a broker with SIGTERM."""
    assert Done() == RestartRule(ends=True).ended(0, 1.0)
    assert Again(0.1) == RestartRule().ended(0, 1.0)


def test_refused_after_three_times_in_a_row() -> None:
    """The gateway's port is taken: starting it again cannot help."""
    rule = RestartRule()
    assert [Again(0.1), Again(0.2), Refused()] == [rule.ended(2, 0.1) for _ in range(3)]


def test_other_end_between_refusals_begins_the_count_anew() -> None:
    """A port was held for a moment by the predecessor that was just killed."""
    rule = RestartRule()
    for code in (2, 2, 1, 2, 2):
        assert isinstance(rule.ended(code, 0.1), Again)
    assert Refused() == rule.ended(2, 0.1)


def test_refusal_after_being_well_is_the_first() -> None:
    """A broker ran for a day, was killed, and its port was taken meanwhile."""
    rule = RestartRule()
    rule.ended(2, 0.1)
    rule.ended(2, 0.1)
    assert Again(0.1) == rule.ended(2, WELL_AFTER_S)
