"""What a command ends with: its exit code, and one clear line when it failed.

::

    0   done
    1   failed; trying again may help
    2   not usable as given: a setting, a source, a stream, a busy address or directory
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from telemq.errors import (
    BusyError,
    ChildError,
    SettingError,
    SourceError,
    StreamError,
    TelemqError,
)

__all__ = ["FAILED", "NOT_USABLE", "complain", "outcome"]

FAILED = 1
NOT_USABLE = 2
_NOT_USABLE = (SettingError, SourceError, StreamError, BusyError, ChildError)


def outcome(run: Callable[[], int], *, debug: bool = False) -> int:
    """Run a command; give its exit code, or tell on standard error why it failed.

    Args:
        run: gives the exit code.
        debug: show where an error came from, too.
    """
    try:
        return run()
    except TelemqError as error:
        if debug:
            traceback.print_exc()
        complain(str(error))
        return NOT_USABLE if isinstance(error, _NOT_USABLE) else FAILED
    except Exception as error:
        # Not imported here: most commands end without ever needing it, and it is slow to import.
        psycopg = sys.modules.get("psycopg")
        if psycopg is None or not isinstance(error, psycopg.OperationalError):
            raise
        if debug:
            traceback.print_exc()
        complain(f"the database cannot be used: {str(error).strip()}")
        return FAILED


def complain(text: str) -> None:
    """Say on standard error what is wrong."""
    print(f"telemq: {text}", file=sys.stderr)
