"""The command line in a process of its own, as a person or a script runs it."""

from __future__ import annotations

import os
import subprocess
import sys

__all__ = ["telemq"]

_WIDE = {"COLUMNS": "400", "TERM": "dumb", "NO_COLOR": "1"}


def telemq(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, on a wide terminal without colours."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "telemq_cli", *words],
        env={**os.environ, **_WIDE, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
