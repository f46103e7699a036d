"""``telemq query``: telemetry of GPUs, for a person or a program."""

from __future__ import annotations

import dataclasses
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from telemq.errors import SettingError
from telemq.settings import QuerySettings
from telemq_cli.app import app
from telemq_cli.complete import names
from telemq_cli.database import existing_database
from telemq_cli.flags import command
from telemq_cli.outcome import complain
from telemq_cli.pipes import reader_may_leave
from telemq_cli.when import duration, moment

if TYPE_CHECKING:
    from telemq.store.telemetry_query import Question

__all__ = ["query"]

#: What a person means who gives no window: what goes on now.
_WINDOW = timedelta(hours=1)
_INTERRUPTED = 130


Gpus = Annotated[
    list[str],
    typer.Argument(
        metavar="GPU",
        help="UUID, HOST/INDEX, a pattern of these such as 'rack-7-*', or an index.",
        show_default=False,
        autocompletion=names("gpu"),
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", "-m", help="Only this; may be repeated.", autocompletion=names("metric")
    ),
]
Since = Annotated[
    str | None,
    typer.Option("--since", help="From then until now: 90s, 30m, 2h, 7d, or RFC 3339."),
]
Start = Annotated[str | None, typer.Option("--start", help="Earliest time, inclusive.")]
End = Annotated[str | None, typer.Option("--end", help="Latest time, inclusive.")]
Step = Annotated[
    str | None, typer.Option("--step", help="One row a series and step: 30s, 5m, 1h, 1d.")
]
Aggregate = Annotated[
    str | None,
    typer.Option(
        "--agg",
        help="With --step: mean (the default), min, max, last or p95.",
        autocompletion=lambda: ["mean", "min", "max", "last", "p95"],
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, max=2**31 - 1, help="Most rows.")]


@command(app, "query", QuerySettings, without={"insecure"})
def query(
    settings: QuerySettings,
    gpus: Gpus,
    *,
    metric: Metrics = None,
    since: Since = None,
    start: Start = None,
    end: End = None,
    step: Step = None,
    agg: Aggregate = None,
    limit: Limit = None,
    newest_first: Annotated[
        bool, typer.Option("--newest-first", help="The latest time comes first.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, safe to open.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
    ndjson: Annotated[bool, typer.Option("--ndjson", help="Print a JSON object a line.")] = False,
) -> int:
    """Print telemetry of GPUs, one after the other, of the last hour unless a window is given.

    Needs only Postgres. An answer of any size is streamed; records are those of the REST API.
    """
    import asyncio

    from telemq.look.export import Wish, export, find

    chosen = [name for name, on in (("csv", csv), ("json", json), ("ndjson", ndjson)) if on]
    if len(chosen) > 1:
        given = " and ".join(f"--{name}" for name in chosen)
        raise SettingError("format", given, "one of --csv, --json and --ndjson, or none of them")
    question = dataclasses.replace(
        _question(since, start, end, step, agg),
        metrics=tuple(dict.fromkeys(metric or ())),
        descending=newest_first,
        limit=limit,
    )
    table = "terminal" if sys.stdout.isatty() else "table"
    wish = Wish(gpus=gpus, question=question, format=chosen[0] if chosen else table)
    with reader_may_leave(), existing_database(settings) as dsn:
        settings = dataclasses.replace(settings, dsn=dsn)
        try:
            uuids = find(settings, wish)
            done = asyncio.run(export(settings, wish, uuids, sys.stdout.buffer.write))
        except KeyboardInterrupt:
            complain("cut short")
            return _INTERRUPTED
        if json:
            print()  # a prompt follows on a line of its own
    if not done.rows:
        when = f"; the newest is of {done.newest:%Y-%m-%dT%H:%M:%SZ}" if done.newest else ""
        complain(f"no samples in this window{when}")
    return 0


def _question(
    since: str | None, start: str | None, end: str | None, step: str | None, agg: str | None
) -> Question:
    from telemq.store.telemetry_query import AGGREGATES, STEP_S_MAX, Question

    if since is not None and (start is not None or end is not None):
        raise SettingError("--since", since, "without --start and --end, or these without it")
    first = moment("--since", since) if start is None else moment("--start", start)
    last = moment("--end", end)
    if first is None and last is None:
        first = datetime.now(UTC) - _WINDOW
    if first is not None and last is not None and last < first:
        raise SettingError("--end", end, f"after the start, {first:%Y-%m-%dT%H:%M:%SZ}")
    width = duration("--step", step, timedelta(seconds=STEP_S_MAX))
    if agg is not None and width is None:
        raise SettingError("--agg", agg, "given together with --step, such as --step 5m")
    if agg is not None and agg not in AGGREGATES:
        raise SettingError("--agg", agg, f"one of {', '.join(AGGREGATES)}")
    return Question(
        "",
        first,
        last,
        step_s=int(width.total_seconds()) if width else 0,
        aggregate=agg or "mean",
    )
