"""How a running pipeline is shown: a live panel on a terminal, else a log line now and then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from telemq import log
from telemq.up.numbers import Numbers
from telemq.up.supervisor import ChildState, State

__all__ = ["Display", "Lines", "LivePanel", "View", "display", "render"]

_PANEL_EVERY_S = 0.25
_LINE_EVERY_S = 5.0
_STYLES: dict[State, str] = {
    "running": "green",
    "waiting": "bold red",
    "stopping": "yellow",
    "done": "cyan",
    "stopped": "dim",
}


@dataclass(frozen=True, slots=True)
class View:
    """All that is shown of one moment.

    Attributes:
        phase: what goes on, in a word or two: ``running``, ``draining streamer``.
        lived_s: seconds since the start.
        left_s: seconds until the end that was asked for, or None.
        children: the processes, in the order of their start.
        numbers: what was read last.
        stored_before: records that the ledger held at the start.
        api: the gateway's ``host:port``.
        broker_ops: the broker's ``host:port`` for metrics.
        store: where the data is, in words, without a secret.
    """

    phase: str
    lived_s: float
    left_s: float | None
    children: Sequence[ChildState]
    numbers: Numbers
    stored_before: int
    api: str
    broker_ops: str
    store: str


class Display(Protocol):
    """Shows one view after the other; a context manager."""

    def show(self, view: View) -> None:
        """Show it, unless the last one is too young."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def display(console: Console) -> Display:
    """Choose what fits the console."""
    return LivePanel(console) if console.is_terminal else Lines()


class LivePanel:
    """The panel, drawn over itself four times a second; what is logged appears above it."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._next_s = 0.0

    def show(self, view: View) -> None:
        """Draw the panel anew, if it is time."""
        if view.lived_s >= self._next_s:
            self._next_s = view.lived_s + _PANEL_EVERY_S
            self._live.update(render(view), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()


class Lines:
    """One structured log line every five seconds."""

    def __init__(self) -> None:
        self._log = log.get()
        self._next_s = _LINE_EVERY_S

    def show(self, view: View) -> None:
        """Log a line, if it is time."""
        if view.lived_s < self._next_s:
            return
        self._next_s = view.lived_s + _LINE_EVERY_S
        n = view.numbers
        self._log.info(
            "pipeline",
            phase=view.phase,
            stored=n.totals.stored if n.totals else None,
            stored_per_s=None if n.stored_per_s is None else round(n.stored_per_s),
            rejected=n.totals.rejected if n.totals else None,
            ready_records=_whole(n.ready_records),
            leased_records=_whole(n.leased_records),
            granted_records=_whole(n.granted_records),
            oldest_s=n.oldest_s,
            running=sum(c.state == "running" for c in view.children),
            restarts=sum(c.restarts for c in view.children),
            **({"fault": n.fault} if n.fault else {}),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


def render(view: View) -> RenderableType:
    """Draw one view."""
    left = "" if view.left_s is None else f", {_duration(view.left_s)} left"
    return Panel(
        Group(_processes(view.children), Text(), _flow(view), Text(), _links(view)),
        title=f"telemq up: {view.phase} for {_duration(view.lived_s)}{left}",
        title_align="left",
        subtitle="Ctrl-C drains and ends; a second one ends at once",
        subtitle_align="left",
        box=box.ROUNDED,
        expand=False,
    )


def _processes(children: Sequence[ChildState]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in ("process", "state"):
        table.add_column(name)
    for name in ("pid", "restarts", "up for"):
        table.add_column(name, justify="right")
    for child in children:
        table.add_row(
            child.name,
            Text(child.state, style=_STYLES[child.state]),
            str(child.pid or "-"),
            Text(str(child.restarts), style="bold red" if child.restarts else ""),
            _duration(child.lived_s) if child.pid else "-",
        )
    return table


def _flow(view: View) -> Table:
    n = view.numbers
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    if n.totals is None:
        table.add_row("stored", "-", n.fault)
    else:
        new = n.totals.stored - view.stored_before
        table.add_row("stored", f"{n.totals.stored:,}", f"{new:,} since the start")
        table.add_row("rejected", f"{n.totals.rejected:,}", Text(n.fault, style="bold red"))
    table.add_row("rate", _count(n.stored_per_s), "records/s")
    used = sum(filter(None, (n.ready_records, n.leased_records, n.granted_records)))
    table.add_row("queue ready", _count(n.ready_records), _bar(used, n.capacity_records))
    table.add_row("queue leased", _count(n.leased_records), f"to {_count(n.consumers)} collectors")
    table.add_row("credit", _count(n.granted_records), f"with {_count(n.producers)} streamers")
    table.add_row("lag", "-" if n.oldest_s is None else f"{n.oldest_s:.1f} s", "oldest in queue")
    return table


def _bar(used: float, capacity: float | None) -> RenderableType:
    if not capacity:
        return Text("-")
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_row(
        ProgressBar(total=capacity, completed=used, width=20), f"of {_count(capacity)} in use"
    )
    return row


def _links(view: View) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    base = f"http://{view.api}"
    table.add_row("dashboard", Text(f"{base}/", style="bold"))
    table.add_row("API", f"{base}/swagger  {base}/redoc")
    table.add_row("metrics", f"http://{view.broker_ops}/metrics")
    table.add_row("data", view.store)
    return table


def _count(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}"


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
