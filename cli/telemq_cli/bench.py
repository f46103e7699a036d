"""``telemq bench``: what this machine, this Postgres and these settings can do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from telemq_cli.app import app
from telemq_cli.outcome import outcome

if TYPE_CHECKING:
    from telemq.bench.measure import Run
    from telemq.bench.peers import PeerRun

__all__ = ["bench", "broker", "peers", "pipeline"]

bench = typer.Typer(no_args_is_help=True, help="Measure what this machine can do.")
app.add_typer(bench, name="bench")

Records = Annotated[int, typer.Option(min=1, help="Records a run.")]
Batch = Annotated[int, typer.Option(min=1, max=65_536, help="Records a message.")]
Runs = Annotated[int, typer.Option(min=1, max=1000, help="Runs of each subject, turn by turn.")]
Count = Annotated[int, typer.Option(min=1, max=64, help="Processes.")]
Json = Annotated[bool, typer.Option("--json", help="Print every run as JSON.")]


@bench.command()
def broker(
    *,
    records: Records = 5_000_000,
    batch_records: Batch = 256,
    record_bytes: Annotated[int, typer.Option(min=1, max=65_536, help="Bytes a record.")] = 400,
    producers: Count = 1,
    consumers: Count = 1,
    runs: Runs = 3,
    journal: Annotated[
        bool, typer.Option("--journal", help="Beside a broker with a journal instead.")
    ] = False,
    curve: Annotated[
        bool, typer.Option("--curve", help="With CURVE keys beside without, not the proxy.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Carry records through a broker, beside libzmq's own proxy, which promises nothing."""
    from telemq.bench.broker import BrokerLoad, bench_broker, bench_curve

    load = BrokerLoad(records, batch_records, record_bytes, producers, consumers)

    def measure() -> int:
        measured = bench_curve(load, runs) if curve else bench_broker(load, runs, journal=journal)
        return _report(measured, as_json)

    raise typer.Exit(outcome(measure))


@bench.command()
def pipeline(
    *,
    records: Records = 1_000_000,
    batch_records: Batch = 1000,
    csv: Annotated[Path | None, typer.Option(help="File to replay; default: the sample.")] = None,
    streamers: Count = 1,
    collectors: Count = 1,
    runs: Runs = 3,
    dsn: Annotated[
        str,
        typer.Option(
            envvar="TELEMQ_DSN",
            show_default=False,
            help="Postgres where databases may be made; default: one of its own.",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Carry a CSV's rows into Postgres, beside a bare COPY of the same rows."""
    from telemq.bench.pipeline import PipelineLoad, bench_pipeline
    from telemq.sources.csv_replay import bundled_sample
    from telemq.store.embedded import database

    load = PipelineLoad(csv or bundled_sample(), records, batch_records, streamers, collectors)

    def measure() -> int:
        with (
            TemporaryDirectory(prefix="telemq-bench-") as scratch,
            database(dsn, scratch) as server,
        ):
            return _report(bench_pipeline(load, server, runs), as_json)

    raise typer.Exit(outcome(measure))


@bench.command()
def peers(
    *,
    producers: Annotated[int, typer.Option(min=1, max=20_000, help="Greedy producers.")] = 1000,
    consumers: Annotated[int, typer.Option(min=1, max=20_000, help="Consumers.")] = 100,
    batch_records: Batch = 100,
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, help="Time measured.")] = 20.0,
    as_json: Json = False,
) -> None:
    """Carry records between very many peers, and see how even their shares are."""
    from telemq.bench.peers import PeerLoad, bench_peers

    load = PeerLoad(producers, consumers, batch_records, seconds)
    raise typer.Exit(outcome(lambda: _show_peers(bench_peers(load), as_json)))


def _show_peers(run: PeerRun, as_json: bool) -> int:
    from dataclasses import asdict

    if as_json:
        typer.echo(json.dumps(asdict(run)))
        return 0
    empty, idle, peak = (size / 1e6 for size in run.broker_bytes)
    least, mean, most, deviation = run.shares
    typer.echo(f"all peers had a session after {run.connected_s:.1f} s")
    typer.echo(f"{run.records_per_s:,.0f} records/s confirmed, {run.lost} sessions lost")
    typer.echo(
        f"records of each producer: {least:,} to {most:,}, mean {mean:,.0f}, "
        f"deviation {deviation / mean if mean else 0:.1%}"
    )
    least, mean, most = run.consumed
    typer.echo(f"messages of each consumer: {least:,} to {most:,}, mean {mean:,.0f}")
    typer.echo(
        f"broker: {empty:.0f} MB alone, {idle:.0f} MB with all peers idle, {peak:.0f} MB at most, "
        f"{run.broker_descriptors} descriptors, {run.broker_cpu_share:.0%} of a core"
    )
    return 0


def _report(runs: Iterator[Run], as_json: bool) -> int:
    from telemq import log

    log.configure("warning")
    done = []
    for run in runs:
        # A run takes a while: whoever waits sees that something happens.
        typer.echo(f"{run.subject}: {run.records_per_s:,.0f} records/s", err=True)
        done.append(run)
    _show(done, as_json)
    return 0


def _show(runs: Sequence[Run], as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from telemq.bench.measure import ratio, summarise

    if as_json:
        typer.echo(json.dumps([run.to_dict() for run in runs]))
        return
    table = Table(title=f"{runs[0].records:,} records a run")
    table.add_column("")
    for head in ("records/s", "least", "greatest", "CPU s/million", "peak MB"):
        table.add_column(head, justify="right", no_wrap=True)
    summaries = summarise(runs)
    for summary in summaries:
        low, median, high = summary.records_per_s
        cpu_s = sum(summary.cpu_s_per_million.values())
        table.add_row(
            summary.subject, f"{median:,.0f}", f"{low:,.0f}", f"{high:,.0f}", f"{cpu_s:.2f}"
        )
        for name, part_cpu_s in summary.cpu_s_per_million.items():
            peak = f"{summary.peak_bytes[name] / 1e6:.0f}"
            table.add_row(f"  {name}", "", "", "", f"{part_cpu_s:.2f}", peak)
        table.add_section()
    console = Console()
    console.print(table)
    first, second = (summary.subject for summary in summaries)
    console.print(f"{first} against {second}: {ratio(runs, first, second):.2f}")
