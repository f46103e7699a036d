"""``telemq size``: what a fleet needs."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from telemq.sizing import Fleet, Sizing, size
from telemq_cli.app import app
from telemq_cli.outcome import outcome

__all__ = ["size_command", "sizing_table"]

#: The fleets of docs/sizing.md: GPUs, metrics, seconds between two records.
FLEETS = (
    (8, 10, 1.0),
    (256, 10, 1.0),
    (256, 40, 10.0),
    (1000, 40, 10.0),
    (1000, 40, 1.0),
    (10_000, 40, 10.0),
    (10_000, 100, 10.0),
    (10_000, 40, 1.0),
)


@app.command("size")
def size_command(
    *,
    gpus: Annotated[int, typer.Option("--gpus", help="GPUs of all hosts.")],
    metrics: Annotated[int, typer.Option("--metrics", help="Series of each GPU.")] = 40,
    interval_s: Annotated[
        float, typer.Option("--interval-s", help="Between two records of a series.")
    ] = 10.0,
    days: Annotated[float, typer.Option("--days", help="For how long records are kept.")] = 30.0,
    outage_s: Annotated[
        float, typer.Option("--outage-s", help="How long Postgres may be away unnoticed.")
    ] = 60.0,
    load: Annotated[
        float, typer.Option("--load", help="Share of a core that a process is busy at most.")
    ] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compute what a fleet needs: processes, cores, memory, disk (docs/sizing.md)."""
    from telemq_cli.render import print_json

    def run() -> int:
        needed = size(Fleet(gpus, metrics, interval_s, days, outage_s, load))
        if as_json:
            print_json(needed.to_dict())
        else:
            print(_text(needed), end="")
        return 0

    raise typer.Exit(outcome(run))


def sizing_table() -> str:
    """Give the table of docs/sizing.md."""
    lines = [
        "| GPUs | metrics | interval | records/s | series | brokers | collector workers "
        "| Postgres cores | memory of a broker | disk a day | disk, 30 days |",
        "|" + "---|" * 11,
    ]
    for gpus, metrics, interval_s in FLEETS:
        needed = size(Fleet(gpus, metrics, interval_s))
        lines.append(
            f"| {gpus:,} | {metrics} | {interval_s:g} s | {needed.records_per_s:,.0f} "
            f"| {needed.series:,} | {needed.brokers} | {needed.collectors} "
            f"| {_cores(needed)} | {_bytes(needed.broker_memory_bytes)} "
            f"| {_bytes(needed.disk_bytes_per_day)} | {_bytes(needed.disk_bytes)} |"
        )
    return "\n".join(lines) + "\n"


def _text(needed: Sizing) -> str:
    rows = (
        ("records a second", f"{needed.records_per_s:,.0f}"),
        ("series", f"{needed.series:,}"),
        ("streamers", f"{needed.streamers} (of replays; a host's own has far less to do)"),
        ("brokers", f"{needed.brokers}, each {_bytes(needed.broker_memory_bytes)} of memory"),
        ("broker.queueCapacity", f"{needed.broker_queue_records}"),
        ("broker.queueBytes", f"{needed.broker_queue_bytes}"),
        (
            "collector workers",
            f"{needed.collectors}, each {_bytes(needed.process_memory_bytes)} of memory",
        ),
        ("Postgres cores", f"{_cores(needed)}, for storing alone"),
        ("disk", f"{_bytes(needed.disk_bytes)}; {_bytes(needed.disk_bytes_per_day)} more a day"),
    )
    return "".join(f"{name:<22}{value}\n" for name, value in rows)


def _cores(needed: Sizing) -> str:
    """Round up to a tenth."""
    return f"{math.ceil(needed.postgres_cores * 10) / 10:.1f}"


def _bytes(count: float) -> str:
    """Round up to two digits: what is asked for must do."""
    for unit, at in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= at:
            return f"{-(-count // (at / 10)) / 10:.1f} {unit}"
    return f"{-(-count // 1000):.0f} kB"
