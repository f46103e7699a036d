"""What a shell completes besides commands and flags: names from the database, if it answers soon.

While somebody waits for a TAB nothing is started, nothing is printed, and what fails is silent.
Labels come from whoever runs a pod, and a shell evaluates what it is given: a name with anything
but letters, digits, spaces and a few marks is not offered.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from telemq.store.suggest import Kind

__all__ = ["names"]

#: A person waits so long for a TAB, and then types on.
_WAIT_S = 1.5
_HARMLESS = re.compile(r"[\w .:/@%+,-]+")


def names(kind: Kind) -> Callable[[typer.Context, str], list[str]]:
    """Give what completes names of a kind.

    It asks the database of ``--dsn`` or ``TELEMQ_DSN``, else the embedded one if it runs.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        found: list[str] = []

        def ask() -> None:
            import psycopg

            from telemq.errors import TelemqError
            from telemq.store.suggest import suggest

            with contextlib.suppress(psycopg.Error, TelemqError, OSError):
                dsn = ctx.params.get("dsn") or _running(ctx.params.get("data_dir") or "")
                if dsn:
                    found.extend(suggest(dsn, kind, incomplete))

        # In a thread, because looking a host's name up cannot be given a limit.
        thread = Thread(target=ask, daemon=True)
        thread.start()
        thread.join(_WAIT_S)
        # Other shells quote by themselves what they insert.
        space = r"\ " if os.environ.get("_TELEMQ_COMPLETE") == "complete_bash" else " "
        return [name.replace(" ", space) for name in found if _HARMLESS.fullmatch(name)]

    return complete


def _running(data_dir: str) -> str | None:
    from telemq.store.embedded import EmbeddedPostgres, default_data_dir

    directory = Path(data_dir).expanduser() if data_dir else default_data_dir()
    return EmbeddedPostgres(directory).running() if (directory / "postgres").is_dir() else None
