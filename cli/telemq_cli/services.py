"""The commands that run until they are done or stopped: one for each service, and ``up``."""

from __future__ import annotations

import dataclasses
import sys
import threading
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from telemq.settings import (
    ApiSettings,
    BrokerSettings,
    CollectorSettings,
    Common,
    MaintainSettings,
    StoreSettings,
    StreamerSettings,
    UpSettings,
)
from telemq_cli.app import app, stream
from telemq_cli.flags import command, environment
from telemq_cli.unknown import log_unknown_variables

__all__ = ["COMMAND", "api", "broker", "collect", "maintain", "stream_csv", "up"]

S = TypeVar("S", bound=StoreSettings)

#: How one of telemq's processes starts another. Without -P, a folder "telemq" in the current
#: directory would be imported instead.
COMMAND = (sys.executable, "-P", "-m", "telemq_cli")


@command(app, "up", UpSettings, without={"insecure"}, logs=True)
def up(settings: UpSettings) -> int:
    """Run the whole pipeline on this machine, its own Postgres included."""
    from rich.console import Console

    from telemq.up.service import run

    console = Console()
    level = settings.log_level
    # The panel shows all the time what a line at level info tells once.
    stop = _begin(settings, "warning" if console.is_terminal and level == "info" else level)
    return run(settings, stop, command=COMMAND, console=console)


@command(app, "broker", BrokerSettings, logs=True)
def broker(settings: BrokerSettings) -> int:
    """Run the queue between streamers and collectors."""
    from telemq.broker.server import run

    return run(settings, _begin(settings))


app.add_typer(stream, name="stream", help="Publish what a source yields.")


@command(stream, "csv", StreamerSettings, logs=True)
def stream_csv(
    settings: StreamerSettings,
    file: Annotated[Path, typer.Argument(help="DCGM metrics as CSV.", show_default=False)],
) -> int:
    """Publish the rows of a CSV file over and over, until --rows or for ever."""
    from telemq.store.embedded import database
    from telemq.streamer.service import run
    from telemq_cli.render import progress

    stop = _begin(settings)
    with database(settings.dsn, settings.data_dir) as dsn, progress(settings.rows) as on_progress:
        return run(_resolved(settings, dsn), file, stop, on_progress)


@command(app, "collect", CollectorSettings, logs=True)
def collect(settings: CollectorSettings) -> int:
    """Store in Postgres what the broker holds."""
    from telemq.collector.service import run
    from telemq.store.embedded import database
    from telemq.up.workers import run_workers

    stop = _begin(settings)
    with database(settings.dsn, settings.data_dir) as dsn:
        settings = _resolved(settings, dsn)
        if settings.workers == 1:
            return run(settings, stop)
        return run_workers(settings, stop, command=(*COMMAND, "collect"), environment=environment)


@command(app, "api", ApiSettings, logs=True)
def api(settings: ApiSettings) -> int:
    """Serve what is stored over REST, with Swagger and Redoc."""
    from telemq.gateway.app import run
    from telemq.store.embedded import database

    stop = _begin(settings)
    with database(settings.dsn, settings.data_dir) as dsn:
        return run(_resolved(settings, dsn), stop)


@command(app, "maintain", MaintainSettings, without={"insecure"}, logs=True)
def maintain(settings: MaintainSettings) -> int:
    """Make partitions ahead, rewrite closed ones as chunks, drop what is too old: one pass.

    With --every-s again and again. Any number may run, at any time, and be killed at any moment.
    """
    from telemq.store.embedded import database
    from telemq.store.maintain import run

    stop = _begin(settings)
    with database(settings.dsn, settings.data_dir) as dsn:
        return run(_resolved(settings, dsn), stop)


def _begin(settings: Common, level: str = "") -> threading.Event:
    """Set up memory, logs and signals of a service; gives the event that stops it."""
    from telemq import log
    from telemq.memory import prepare_memory
    from telemq.process import stop_on_signals

    prepare_memory()
    log.configure(level or settings.log_level, settings.log_format, component=settings.component)
    log_unknown_variables()
    return stop_on_signals()


def _resolved(settings: S, dsn: str) -> S:
    return dataclasses.replace(settings, dsn=dsn)
