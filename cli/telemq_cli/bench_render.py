"""How measurements are shown: a line while it is measured, then a table or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from telemq.bench.backlog import BacklogRun
    from telemq.bench.measure import Quantiles, Run, Summary
    from telemq.bench.peers import PeerRun
    from telemq.bench.query import StoreSize

__all__ = ["report", "report_api", "report_backlog", "report_latency", "report_query", "show_peers"]


def report(runs: Iterable[Run], as_json: bool) -> int:
    """Show rates: each run at once, then medians, spread, and what was the limit."""
    from telemq.bench.measure import ratio, summarise

    done = _measured(runs)
    if as_json:
        return _json([run.to_dict() for run in done])
    summaries = summarise(done)
    heads = ("records/s", "least", "greatest", "CPU s/M", "peak MB")
    table = _table(f"{done[0].records:,} records a run", *heads)
    for summary in summaries:
        low, median, high = summary.records_per_s
        cpu_s = sum(summary.cpu_s_per_million.values())
        table.add_row(
            summary.subject, f"{median:,.0f}", f"{low:,.0f}", f"{high:,.0f}", f"{cpu_s:.2f}"
        )  # fmt: skip
        for name, part_cpu_s in summary.cpu_s_per_million.items():
            peak = f"{summary.peak_bytes[name] / 1e6:.0f}" if summary.peak_bytes[name] else ""
            table.add_row(f"  {name}", "", "", "", f"{part_cpu_s:.2f}", peak)
        table.add_section()
    subjects = [summary.subject for summary in summaries]
    # What is compared with comes last.
    lines = _limits(summaries) + [
        f"{subject} against {subjects[-1]}: {ratio(done, subject, subjects[-1]):.2f}"
        for subject in subjects[:-1]
    ]
    return _print(table, *lines)


def report_latency(runs: Iterable[Run], rate: float, as_json: bool) -> int:
    """Show how long messages took at a given rate."""
    from telemq.bench.measure import summarise

    done = _measured(runs)
    if as_json:
        return _json([run.to_dict() for run in done])
    heads = ("records/s", "p50 ms", "p99 ms", "most", "p50 ms", "p99 ms")
    table = _table(f"{rate:,.0f} records/s: until delivery, until confirm", *heads)
    summaries = summarise(done)
    for summary in summaries:
        table.add_row(
            summary.subject, f"{summary.records_per_s[1]:,.0f}", *_times(summary.delivered_ms),
            *_times(summary.confirmed_ms)[:2],
        )  # fmt: skip
    return _print(table, *_spreads(done), *_limits(summaries))


def report_backlog(runs: Iterable[BacklogRun], as_json: bool) -> int:
    """Show memory, and how fast it was filled and drained."""
    _only_warnings()
    done = []
    for run in runs:
        typer.echo(f"{run.records:,} records waited: {run.overhead:.1%} above payload", err=True)
        done.append(run)
    if as_json:
        return _json([asdict(run) | {"overhead": run.overhead} for run in done])
    heads = ("payload MB", "before", "full", "drained", "above payload", "in/s", "out/s")
    table = _table(f"{done[0].records:,} records wait, {done[0].batch_records} a message", *heads)
    for number, run in enumerate(done, start=1):
        sizes = (run.payload_bytes, run.empty_bytes, run.full_bytes, run.drained_bytes)
        table.add_row(
            f"run {number}",
            *(f"{size / 1e6:,.0f}" for size in sizes),
            f"{run.overhead:.1%}",
            *(f"{run.records / s:,.0f}" if s else "" for s in (run.filling_s, run.draining_s)),
        )
    over = sorted(run.overhead for run in done)
    return _print(
        table,
        "before, full and drained: MB of the broker; in/s and out/s: records.",
        f"above payload: {over[0]:.1%} to {over[-1]:.1%} in {len(done)} runs",
        "limited by: memory; a broker takes at most --capacity-bytes and --capacity-records",
    )


def report_query(seen: Iterable[Run | StoreSize], as_json: bool) -> int:
    """Show how long questions took, and what the samples take on disk."""
    from telemq.bench.measure import Run, summarise

    _only_warnings()
    runs: list[Run] = []
    sizes: list[StoreSize] = []
    for one in seen:
        if isinstance(one, Run):
            runs.append(one)
        else:
            typer.echo(f"{one.layout}: {one.sample_bytes:.1f} bytes a sample", err=True)
            sizes.append(one)
    if as_json:
        shown = [asdict(size) | {"sample_bytes": size.sample_bytes} for size in sizes]
        return _json({"sizes": shown, "runs": [run.to_dict() for run in runs]})
    table = _table(f"{sizes[0].samples:,} samples", "p50 ms", "p99 ms", "most", "rows/s")
    summaries = summarise(runs)
    for summary in summaries:
        rate = f"{summary.records_per_s[1]:,.0f}"
        table.add_row(summary.subject, *_times(summary.delivered_ms), rate)
    return _print(
        table,
        *_spreads(runs),
        *_limits(summaries),
        *(f"{s.layout}: {s.sample_bytes:.1f} bytes a sample" for s in sizes),
    )


def report_api(runs: Iterable[Run], as_json: bool) -> int:
    """Show how long answers took: telemetry to its first byte, the others to their end."""
    from telemq.bench.measure import summarise

    done = _measured(runs)
    if as_json:
        return _json([run.to_dict() for run in done])
    table = _table("answers", "p50 ms", "p99 ms", "most", "a second", "gateway CPU s", "peak MB")
    for summary in summarise(done):
        gateway = next(r.parts[0] for r in reversed(done) if r.subject == summary.subject)
        rate = f"{summary.records_per_s[1]:,.1f}"
        used = (f"{gateway.cpu_s:.2f}", f"{gateway.peak_bytes / 1e6:.0f}")
        table.add_row(summary.subject, *_times(summary.delivered_ms), rate, *used)
    return _print(table)


def show_peers(run: PeerRun, as_json: bool) -> int:
    """Show rates, shares and memory of very many peers."""
    if as_json:
        return _json(asdict(run))
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
    busy = f"{run.broker_cpu_share:.0%} of a core"
    is_limit = run.broker_cpu_share >= 0.8
    typer.echo(
        f"limited by: the broker, at {busy}"
        if is_limit
        else f"limited by: not the broker, which is at {busy}; the peers share the other cores"
    )
    return 0


def _limits(summaries: Sequence[Summary]) -> list[str]:
    return [f"{summary.subject} was limited by: {summary.limit}" for summary in summaries]


def _spreads(runs: Sequence[Run]) -> list[str]:
    """Say how far the medians of the runs lie apart."""
    lines = []
    for subject in dict.fromkeys(run.subject for run in runs):
        medians = [q.p50 for r in runs if r.subject == subject and (q := r.delivered_ms)]
        if medians:
            lines.append(
                f"{subject}: p50 {min(medians):.2f} to {max(medians):.2f} ms in {len(medians)} runs"
            )
    return lines


def _only_warnings() -> None:
    """Log no more: on standard output it would stand before the JSON."""
    from telemq import log

    log.configure("warning")


def _measured(runs: Iterable[Run]) -> list[Run]:
    _only_warnings()
    done = []
    for run in runs:
        # A run takes a while: whoever waits sees that something happens.
        typer.echo(f"{run.subject}: {run.records_per_s:,.0f} records/s", err=True)
        done.append(run)
    return done


def _times(quantiles: Quantiles | None) -> tuple[str, str, str]:
    if quantiles is None:
        return "", "", ""
    return f"{quantiles.p50:.2f}", f"{quantiles.p99:.2f}", f"{quantiles.most:.1f}"


def _json(document: object) -> int:
    typer.echo(json.dumps(document))
    return 0


def _table(title: str, *heads: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _print(table: Any, *lines: str) -> int:
    from rich.console import Console

    console = Console()
    for column in table.columns:
        # In a narrow terminal what is said may wrap between words, and no number anywhere.
        words = [word for cell in (column.header, *column.cells) for word in cell.split()]
        column.min_width = max(map(len, words), default=0)
    console.print(table)
    for line in lines:
        console.print(line, highlight=False)
    return 0
