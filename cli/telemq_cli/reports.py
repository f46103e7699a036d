"""The commands that print something, or do one thing, and end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from telemq.settings import MigrateSettings, StoreSettings
from telemq_cli.app import app
from telemq_cli.flags import command
from telemq_cli.outcome import FAILED, NOT_USABLE, complain, outcome

__all__ = ["migrate", "openapi", "sample", "settings", "verify"]


@command(app, "verify", StoreSettings, without={"insecure"})
def verify(
    settings: StoreSettings,
    json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> int:
    """Prove from the database alone that nothing is lost and nothing counted twice.

    Exit code 0: complete; 1: incomplete, with what is missing; 2: it cannot be told.
    """
    import psycopg

    from telemq import log
    from telemq.errors import TelemqError
    from telemq.store.embedded import database, default_data_dir
    from telemq.store.verify import verify as verify_store
    from telemq_cli.render import print_json, print_verdict

    log.configure("warning" if settings.log_level == "info" else settings.log_level)
    data_dir = Path(settings.data_dir or default_data_dir()).expanduser()
    if not settings.dsn and not (data_dir / "postgres").is_dir():
        complain(f"there is no database in {data_dir}; see --data-dir and --dsn")
        return NOT_USABLE
    try:
        with (
            database(settings.dsn, settings.data_dir) as dsn,
            psycopg.connect(dsn, autocommit=True) as connection,
        ):
            report = verify_store(connection)
    except (TelemqError, psycopg.Error) as error:
        complain(str(error).strip())
        return NOT_USABLE
    if json:
        print_json(report.to_dict())
    else:
        print_verdict(report)
    return 0 if report.complete else FAILED


@command(app, "migrate", MigrateSettings, without={"insecure"})
def migrate(settings: MigrateSettings) -> int:
    """Bring the database to the schema of this version; every service does so when it starts."""
    from telemq import log
    from telemq.store.embedded import database
    from telemq.store.migrate import migrate as migrate_store
    from telemq.store.wait import connect

    log.configure("warning" if settings.log_level == "info" else settings.log_level)
    with (
        database(settings.dsn, settings.data_dir) as dsn,
        connect(dsn, settings.wait_s) as connection,
    ):
        applied = migrate_store(connection)
    print("\n".join(f"applied {name}" for name in applied) or "nothing to do")
    return 0


@app.command("openapi")
def openapi() -> None:
    """Print the gateway's OpenAPI document."""
    from telemq.gateway.app import openapi_json

    sys.stdout.buffer.write(openapi_json())


@app.command("settings")
def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/settings.md instead.")
    ] = False,
) -> None:
    """Print every setting: flag, variable, what is accepted, default."""
    from telemq_cli.render import print_settings, settings_page

    if markdown:
        print(settings_page(), end="")
    else:
        print_settings()


@app.command("sample")
def sample(
    file: Annotated[Path, typer.Argument(help="CSV file to write.", show_default=False)],
    *,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same bytes.")] = 1,
    hosts: Annotated[int, typer.Option("--hosts", help="Hosts of the fleet.")] = 5,
    gpus_per_host: Annotated[int, typer.Option("--gpus-per-host", help="GPUs of a host.")] = 8,
    minutes: Annotated[float, typer.Option("--minutes", help="Length of the recording.")] = 6,
    interval_s: Annotated[int, typer.Option("--interval-s", help="Between two scrapes.")] = 60,
) -> None:
    """Write a CSV of DCGM metrics of a made-up fleet."""

    def write() -> int:
        from telemq.sources.synthetic import generate

        rows = generate(
            file,
            seed=seed,
            hosts=hosts,
            gpus_per_host=gpus_per_host,
            minutes=minutes,
            interval_s=interval_s,
        )
        print(f"{file}: {rows:,} rows")
        return 0

    raise typer.Exit(outcome(write))
