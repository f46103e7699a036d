"""How `telemq gpus` looks: as many GPUs and columns as fit. Names are made printable.

On a narrow terminal names are cut and columns go, those first that can be done without; what is
left out is in ``--json``. A number is never cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from telemq.look.board import GpuRow
from telemq.terminal import printable

__all__ = ["View", "ago", "render", "spark"]

_BARS = "▁▂▃▄▅▆▇█"
#: Lines that are no GPU: title, head, a gap, "and N more", and the line that Rich leaves free.
_OTHER_LINES = 5
_GPUS_MIN = 1
#: From when on a GPU is silent: twice the longest usual time between scrapes.
_SILENT = timedelta(seconds=120)
_HOT_CELSIUS = 85
#: A sparkline is shortened by so many, so that its head is a round number of minutes.
_BARS_STEP = 5
#: Between two columns.
_GAP = 2
#: Columns that may be narrower than their text, and how narrow; the first gets room first.
_GIVES_WAY = {"host": 10, "history": 10, "pod": 24, "model": 16}
#: What goes on a narrow terminal, in this order.
_GOES = ("model", "pod", "power", "memory", "history", "temp")
_RIGHT = {"gpu", "util", "memory", "temp", "power", "seen"}


@dataclass(frozen=True, slots=True)
class View:
    """What is shown of one moment.

    Attributes:
        rows: in the order in which they are shown.
        at: the database's clock.
        window_s: length of the sparklines.
        fault: why nothing newer could be read; else empty.
    """

    rows: Sequence[GpuRow]
    at: datetime
    window_s: float
    fault: str = ""


def render(view: View, *, width: int, height: int | None, ends: str = "") -> RenderableType:
    """Draw one view.

    Args:
        view: what is shown.
        width: columns there are.
        height: lines there are; None for as many as it takes.
        ends: how it is ended, for the title; or empty.
    """
    fault_lines = bool(view.fault)
    shown = view.rows
    if height is not None and len(shown) > height - _OTHER_LINES - fault_lines:
        shown = shown[: max(_GPUS_MIN, height - _OTHER_LINES - fault_lines)]
    title = f"telemq gpus  {view.at:%Y-%m-%d %H:%M:%S} UTC  {_totals(view)}{ends}"
    parts: list[RenderableType] = [Text(title, style="bold", no_wrap=True, overflow="ellipsis")]
    if view.fault:
        told = printable(view.fault)
        parts.append(Text(told, style="bold red", no_wrap=True, overflow="ellipsis"))
    if shown:
        parts.append(_table(view, shown, width))
    elif not view.fault:
        parts.append(Text("no GPUs", style="dim"))
    if left := view.rows[len(shown) :]:
        silent = sum(_is_silent(row, view.at) for row in left)
        told = f", {silent:,} of them silent" if silent else ""
        parts.append(Text(f"… and {len(left):,} more{told}", style="dim"))
    return Group(*parts)


def spark(values: Sequence[float | None], low: float = 0, high: float = 100) -> str:
    """Spell values as bars of eight heights; a gap where there is none."""
    span = high - low
    return "".join(
        " " if v is None else _BARS[max(0, min(7, int((v - low) / span * 8)))] for v in values
    )


def ago(moment: datetime | None, at: datetime) -> str:
    """Say how long ago something was, in four or five characters."""
    if moment is None:
        return "never"
    seconds = max(0, int((at - moment).total_seconds()))
    for limit, unit, size in ((120, "s", 1), (7200, "m", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds // size} {unit}"
    return f"{seconds // 86_400} d"


def _table(view: View, rows: Sequence[GpuRow], width: int) -> Table:
    cells = [_cells(row, view.at) for row in rows]
    heads = {name: name for name in cells[0]} | {"pod": "namespace/pod", "history": ""}
    natural = {
        name: max(len(head), *(of[name].cell_len for of in cells)) for name, head in heads.items()
    }
    widths = _fit(natural, width)
    if bars := widths.get("history"):
        slots = natural["history"]
        bars = widths["history"] = max(_BARS_STEP, bars - bars % _BARS_STEP)
        heads["history"] = f"{view.window_s / 60 * bars / slots:.3g} min"
        for of in cells:
            of["history"] = of["history"][slots - bars :]  # the newest
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for name, columns in widths.items():
        table.add_column(
            heads[name],
            justify="right" if name in _RIGHT else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=columns,
        )
    for of in cells:
        table.add_row(*(of[name] for name in widths))
    return table


def _fit(natural: Mapping[str, int], width: int) -> dict[str, int]:
    """Give the width of each column that is shown.

    Args:
        natural: width of the text of each.
        width: of all, with gaps.
    """
    least = {name: min(wide, _GIVES_WAY.get(name, wide)) for name, wide in natural.items()}
    for name in _GOES:
        if sum(least.values()) + _GAP * (len(least) - 1) > width:
            del least[name]
    spare = width - sum(least.values()) - _GAP * (len(least) - 1)
    for name in filter(least.__contains__, _GIVES_WAY):
        more = max(0, min(spare, natural[name] - least[name]))
        least[name] += more
        spare -= more
    return least


def _cells(row: GpuRow, at: datetime) -> dict[str, Text]:
    celsius = row.temperature_celsius
    hot = celsius is not None and celsius >= _HOT_CELSIUS
    seen = Text(ago(row.last_seen, at), style="bold red" if _is_silent(row, at) else "dim")
    return {
        "host": Text(printable(row.gpu.hostname)),
        "gpu": Text(printable(row.gpu.gpu_id)),
        "model": Text(printable(row.gpu.model_name)),
        "pod": Text(_pods(row)),
        "util": _number(row.utilization_percent, "%"),
        "history": Text(spark(row.recent), style="cyan"),
        "memory": Text(_memory(row)),
        "temp": _number(celsius, " °C", "bold red" if hot else ""),
        "power": _number(row.power_watts, " W"),
        "seen": seen,
    }


def _number(number: float | None, unit: str, style: str = "") -> Text:
    return Text("-", style="dim") if number is None else Text(f"{number:.0f}{unit}", style=style)


def _memory(row: GpuRow) -> str:
    if row.memory_used_mib is None:
        return "-"
    used = f"{row.memory_used_mib / 1024:.1f}"
    total = row.memory_total_mib
    return f"{used} GiB" if total is None else f"{used} of {total / 1024:.0f} GiB"


def _pods(row: GpuRow) -> str:
    if not row.pods:
        return "-"
    first, *others = row.pods
    name = f"{first.namespace}/{first.pod}" if first.namespace else first.pod
    return printable(name) + (f" +{len(others)}" if others else "")


def _is_silent(row: GpuRow, at: datetime) -> bool:
    return row.last_seen is None or at - row.last_seen > _SILENT


def _totals(view: View) -> str:
    rows = view.rows
    hosts = len({row.gpu.hostname for row in rows})
    told = [_count(len(rows), "GPU"), f"on {_count(hosts, 'host')}"]
    busy = [row.utilization_percent for row in rows if row.utilization_percent is not None]
    watts = [row.power_watts for row in rows if row.power_watts is not None]
    text = " ".join(told)
    if busy:
        text += f", {sum(busy) / len(busy):.0f}% busy"
    if watts:
        text += f", {sum(watts) / 1000:.1f} kW"
    if silent := sum(_is_silent(row, view.at) for row in rows):
        text += f", {silent:,} silent"
    return text


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")
