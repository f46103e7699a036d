"""When a child process that ended is started again: the rule, without any process.

::

    exit 0                     done, if it has an end of its own (a streamer with --rows);
                               else somebody sent it a SIGTERM: again
    exit 2, three times        refused: its settings are wrong or its port is busy, so that
            in a row           starting it again cannot help
    anything else              again, after a pause of 0.1 s that doubles up to 5 s

A child that lived for 5 s was well: what it did before is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAUSE_S_MAX", "REFUSALS_MAX", "WELL_AFTER_S", "Again", "Done", "Refused", "RestartRule"]

PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 5.0
WELL_AFTER_S = 5.0
#: Three and not one: a port may be held for a moment by the predecessor that was just killed.
REFUSALS_MAX = 3
#: What the command line exits with when settings, source or address are not usable.
REFUSED_CODE = 2


@dataclass(frozen=True, slots=True)
class Again:
    """Start it again, `pause_s` from now."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class Done:
    """It ended by itself and well."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It will not run, however often it is started."""


class RestartRule:
    """Remembers how one child's last starts went.

    Args:
        ends: exit 0 is an end that is meant.
    """

    def __init__(self, *, ends: bool = False) -> None:
        self._ends = ends
        self._pause_s = PAUSE_S_MIN
        self._refusals = 0

    def ended(self, code: int, lived_s: float) -> Again | Done | Refused:
        """Decide what follows when the child has ended.

        Args:
            code: its exit code; negative is the signal that ended it.
            lived_s: seconds from its start to its end.
        """
        if code == 0 and self._ends:
            return Done()
        if lived_s >= WELL_AFTER_S:
            self._pause_s = PAUSE_S_MIN
            self._refusals = 0
        self._refusals = self._refusals + 1 if code == REFUSED_CODE else 0
        if self._refusals >= REFUSALS_MAX:
            return Refused()
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, PAUSE_S_MAX)
        return Again(pause_s)
