"""``telemq top``: what brokers and their peers are doing now."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import typer

from telemq.errors import SettingError
from telemq.settings import TopSettings
from telemq_cli.app import app
from telemq_cli.flags import command
from telemq_cli.outcome import FAILED, complain

__all__ = ["top"]

_PIPE_COLUMNS = 160


@command(app, "top", TopSettings, without={"dsn", "insecure"})
def top(
    settings: TopSettings,
    *,
    once: Annotated[bool, typer.Option("--once", help="Print one view, and end.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="With --once: print all of it as JSON.")
    ] = False,
) -> int:
    """Watch brokers: queue, room, rates, and every peer.

    Exit code of --once: 0; 1 if a broker could not be read. The others are shown all the same.
    """
    from rich.console import Console

    from telemq.process import stop_on_signals
    from telemq.store.embedded import default_data_dir
    from telemq.top import service
    from telemq.top.screen import render
    from telemq.watch.numbers import totals
    from telemq_cli.render import print_json

    console = Console()
    if json and not once:
        raise SettingError("--json", "without --once", "given together with --once")
    if not once and not console.is_terminal:
        raise SettingError("--once", "not given", "given when the output is not a terminal")
    data_dir = Path(settings.data_dir or default_data_dir()).expanduser()
    urls = service.brokers(settings, data_dir)
    stop = stop_on_signals()
    if not once:
        service.watch(settings, urls, stop, console)
        return 0
    views = service.once(settings, urls, stop)
    if json:
        all = dataclasses.asdict(totals(views))
        print_json({"totals": all, "brokers": [view.to_dict() for view in views]})
    else:
        # A pipe has no width; without one, Rich takes 80 columns.
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console = Console(width=_PIPE_COLUMNS)
        shown = render(
            views,
            title="telemq top",
            sort=settings.sort,
            width=console.width,
            height=console.height if console.is_terminal else None,
        )
        console.print(shown)
    for view in views:
        if view.fault:
            complain(f"{view.url}: {view.fault}")
    return FAILED if any(view.fault for view in views) else 0
