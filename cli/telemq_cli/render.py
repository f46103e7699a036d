"""How results look on the terminal and as a page of the documentation."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from telemq.setting import SettingInfo
from telemq.settings import table

if TYPE_CHECKING:
    from telemq.store.verify import Report  # with psycopg, which help does not need

__all__ = ["print_json", "print_settings", "print_verdict", "progress", "settings_page"]

_HEAD = """\
# Settings

Every setting has a flag and an environment variable; the flag wins.
In Kubernetes, a value of the Helm chart sets the variable.
A setting without one is set by the chart itself, or is of what does not run in a cluster.
A value that is not accepted stops the start, with its name, the value and what is accepted.
A variable `TELEMQ_…` that no setting has is a warning at the start, with the nearest there are.
Services log `variable not known`, other commands say so on standard error; never with its value.
This page is printed by `telemq settings --markdown`.
"""


@contextlib.contextmanager
def progress(rows: int) -> Iterator[Callable[[int, int], None] | None]:
    """Yield what draws a progress bar when called with rows done and all rows.

    Yields None when there is nothing to draw: no end, or no terminal.
    """
    console = Console()
    if not rows or not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("rows stored"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=rows)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_json(values: dict[str, Any] | list[Any]) -> None:
    """Print values as JSON, the same on a terminal and in a pipe."""
    import orjson

    print(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())


def print_verdict(report: Report) -> None:
    """Print what was found of each stream, what is wrong, and the verdict as the last line."""
    console = Console()
    streams = Table(box=box.SIMPLE_HEAD)
    streams.add_column("stream", overflow="fold")
    for name in ("reserved", "batches", "stored", "rejected", "in flight"):
        streams.add_column(name, justify="right")
    streams.add_column("verdict")
    for s in report.streams:
        streams.add_row(
            s.stream_id,
            "-" if s.next_row is None else f"{s.next_row:,}",
            *(f"{n:,}" for n in (s.batches, s.stored, s.rejected, s.lease_rows)),
            "[bold red]incomplete[/]" if s.problems else "[green]complete[/]",
        )
    console.print(streams)
    if report.stream_count > len(report.streams):
        console.print(f"and {report.stream_count - len(report.streams)} more streams")
    # Plain prints: a line that names a range is for scripts too, and is never wrapped.
    for stream in report.streams:
        for problem in stream.problems:
            print(f"{stream.stream_id}: {problem}")
    for problem in report.problems:
        print(problem)
    verdict = "complete" if report.complete else "incomplete"
    dropped = f", {report.dropped:,} dropped for their age" if report.dropped else ""
    print(
        f"{verdict}: {report.samples:,} samples stored in {report.stream_count:,} streams"
        f"{dropped}, {report.lease_rows:,} rows in flight"
    )


def print_settings() -> None:
    """Print the table of settings."""
    shown = Table(box=box.SIMPLE_HEAD)
    for name in ("command", "flag", "variable", "accepted", "default"):
        shown.add_column(name, overflow="fold")
    for info in table():
        shown.add_row(info.component or "all", info.flag, info.variable, *_values(info))
    Console().print(shown)


def settings_page() -> str:
    """Give docs/settings.md."""
    lines = [_HEAD]
    for component, infos in itertools.groupby(_sorted(), key=lambda info: info.component):
        lines.append(f"## {_title(component)}\n")
        lines.append("| flag | variable | Helm value | accepted | default | |")
        lines.append("|---|---|---|---|---|---|")
        for info in infos:
            accepted, default = _values(info)
            value, shown = (f"`{text}`" if text else "" for text in (info.helm_value, default))
            cells = (f"`{info.flag}`", f"`{info.variable}`", value, accepted, shown, info.help)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _sorted() -> list[SettingInfo]:
    # What all share comes first, though some of it is declared with the first that talks to
    # Postgres; otherwise the table's order.
    return sorted(table(), key=lambda info: info.component != "")


def _title(component: str) -> str:
    commands = {"streamer": "stream", "collector": "collect", "keys": "keys kubernetes"}
    return f"telemq {commands.get(component, component)}" if component else "Several commands"


def _values(info: SettingInfo) -> tuple[str, str]:
    kinds = {str: "text", bool: "given or not", int: "whole number", float: "number"}
    accepted = info.accepted if info.choices or info.low is not None else kinds[info.type]
    if info.type is bool:
        return accepted, ""
    return accepted, "" if info.secret else str(info.default)
