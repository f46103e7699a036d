"""``telemq gpus``: what every GPU does now."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from telemq.settings import GpusSettings
from telemq_cli.app import app
from telemq_cli.complete import names
from telemq_cli.database import existing_database
from telemq_cli.flags import command
from telemq_cli.pipes import reader_may_leave

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemq.look.screen import View

__all__ = ["gpus"]

#: A pipe has no width: names are not cut.
_PIPE_COLUMNS = 1000


@command(app, "gpus", GpusSettings, without={"insecure"})
def gpus(
    settings: GpusSettings,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Read and draw again until Ctrl-C.")
    ] = False,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Only of such a host: 'rack-7-*'.", autocompletion=names("host")
        ),
    ] = "",
    namespace: Annotated[
        str,
        typer.Option(
            "--namespace",
            help="Only those with a pod of such a namespace.",
            autocompletion=names("namespace"),
        ),
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            "--model", help="Only of such a model: '*H100*'.", autocompletion=names("model")
        ),
    ] = "",
    json: Annotated[
        bool, typer.Option("--json", help="Print it as JSON; with --watch, a line each time.")
    ] = False,
) -> int:
    """Show what every GPU does now, and did in the last minutes; needs only Postgres."""
    from rich.console import Console

    from telemq.look.board import Wanted
    from telemq.look.watch import once
    from telemq.look.watch import watch as watch_gpus
    from telemq.process import stop_on_signals
    from telemq_cli.render import print_json

    wanted = Wanted(host, model, namespace)
    with reader_may_leave(), existing_database(settings) as dsn:
        settings = dataclasses.replace(settings, dsn=dsn)
        if not watch:
            view = once(settings, wanted)
            if json:
                print_json([row.to_dict() for row in view.rows])
            else:
                _print(view)
            return 0
        views = watch_gpus(settings, wanted, stop_on_signals())
        if json:
            for view in views:
                _print_line(view)
        elif Console().is_terminal:
            _draw(views, settings.interval_s)
        else:
            for view in views:
                _print(view)
    return 0


def _draw(views: Iterator[View], interval_s: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from telemq.look.screen import render

    console = Console()
    with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        for view in views:
            drawn = render(
                view,
                width=console.width,
                height=console.height,
                ends=f"  every {interval_s:g} s; Ctrl-C ends",
            )
            live.update(drawn, refresh=True)


def _print(view: View) -> None:
    from rich.console import Console

    from telemq.look.screen import render

    console = Console()
    piped = not console.is_terminal
    # Without a width, Rich takes 80 columns.
    if piped and not os.environ.get("COLUMNS"):
        console = Console(width=_PIPE_COLUMNS)
    # Rich would end the process its own way when the reader of a pipe is gone.
    with console.capture() as drawn:
        console.print(render(view, width=console.width, height=None))
    sys.stdout.write(drawn.get())
    sys.stdout.flush()


def _print_line(view: View) -> None:
    import orjson

    line = {"at": view.at, "fault": view.fault, "gpus": [row.to_dict() for row in view.rows]}
    print(orjson.dumps(line, option=orjson.OPT_UTC_Z).decode(), flush=True)
