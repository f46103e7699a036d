"""Says at a command's start which variables of its environment are mistyped; it runs all the same.

A service logs it, what prints an answer says it on standard error. The processes that a supervisor
starts (`telemq up`, `telemq collect --workers`) leave it to the supervisor, whose environment they
have.
"""

from __future__ import annotations

import os

from telemq_cli.outcome import complain

__all__ = ["log_unknown_variables", "tell_unknown_variables"]


def log_unknown_variables() -> None:
    """Log a warning for each; after the log is set up, and before `stop_on_signals`."""
    from telemq import log

    unknown, more = _unknown()
    for name, nearest in unknown.items():
        log.get().warning("variable not known", variable=name, nearest=nearest)
    if more:
        log.get().warning("more variables not known", count=more)


def tell_unknown_variables() -> None:
    """Say each on standard error."""
    unknown, more = _unknown()
    for name, nearest in unknown.items():
        meant = f"; the nearest: {', '.join(nearest)}" if nearest else ""
        complain(f"{name}: no setting has this variable{meant}")
    if more:
        complain(f"no setting has {more} more variables")


def _unknown() -> tuple[dict[str, list[str]], int]:
    from telemq.process import LIFELINE
    from telemq.variables import unknown_variables

    # `stop_on_signals` takes it away.
    if LIFELINE in os.environ:
        return {}, 0
    return unknown_variables(os.environ)
