"""The Typer application, for the modules that add their commands to it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

__all__ = ["app", "stream"]

# numpy's OpenBLAS starts a thread for each core but one when it is imported, and they spin before
# they sleep. No command multiplies matrices, and a GPU's host has a hundred cores or more.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

app = typer.Typer(
    help="GPU telemetry from many hosts into Postgres, every record exactly once.",
    no_args_is_help=True,
    # A traceback is for debugging, and never shows local variables: a DSN may be among them.
    pretty_exceptions_enable=False,
)
stream = typer.Typer(no_args_is_help=True)


def _version(wanted: bool) -> None:
    if wanted:
        from telemq import __version__

        print(f"telemq {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass
