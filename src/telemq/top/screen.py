"""How `telemq top` looks: one moment drawn to fit a terminal. Names of peers are made printable."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from telemq.broker.stats import BrokerStats
from telemq.terminal import printable
from telemq.watch.numbers import BrokerView, PeerView, ordered, room_used, totals

__all__ = ["render", "short"]

#: Lines that are neither a broker nor a peer: title, heads, gaps, "and N more".
_OTHER_LINES = 6
_PEERS_MIN = 3
#: Columns from which on all numbers of a peer fit beside its name.
_WIDE = 100
#: Room used from which on producers will wait soon.
_NEARLY_FULL = 0.8


def render(
    views: Sequence[BrokerView], *, title: str, sort: str, width: int, height: int | None
) -> RenderableType:
    """Draw all brokers and as many peers as fit.

    Args:
        views: of all brokers.
        title: the first line.
        sort: order of the peers, see `ordered`.
        width: columns of the terminal; below `_WIDE` some numbers of peers are left out.
        height: lines of the terminal; None for as many as it takes.
    """
    faults = [view for view in views if view.fault]
    broker_lines = len(views) + (len(views) > 1) + len(faults)
    peers = ordered(views, sort)
    shown = peers
    if height is not None and len(peers) > height - _OTHER_LINES - broker_lines:
        shown = peers[: max(_PEERS_MIN, height - _OTHER_LINES - broker_lines)]
    left = len(peers) - len(shown) + sum(v.status.peers_left_out for v in views if v.status)
    parts: list[RenderableType] = [Text(title, style="bold"), _brokers(views)]
    for view in faults:
        told = f"{_name(view.url)}: {printable(view.fault)}"
        parts.append(Text(told, style="bold red", no_wrap=True, overflow="ellipsis"))
    parts.append(Text())
    if shown:
        parts.append(_peers(shown, several=len(views) > 1, wide=width >= _WIDE))
    elif any(v.status for v in views):
        parts.append(Text("no peers", style="dim"))
    if left:
        trouble = sum(bool(peer.trouble) for _, peer in peers[len(shown) :])
        told = f", {trouble:,} of them in trouble" if trouble else ""
        parts.append(Text(f"… and {left:,} more{told}", style="dim"))
    return Group(*parts)


def short(number: float | None) -> str:
    """Spell a number in five characters or so: ``999``, ``12.3k``, ``4.56M``; None is ``-``."""
    if number is None:
        return "-"
    for limit, unit in ((1e3, ""), (1e6, "k"), (1e9, "M"), (1e12, "G")):
        # Rounded first: 999,999 is 1M, not 1000k.
        scaled = float(f"{number / limit * 1e3:.3g}")
        if abs(scaled) < 1000:
            return f"{scaled:.0f}" if not unit and scaled >= 10 else f"{scaled:g}{unit}"
    return f"{number / 1e12:,.0f}T"


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    for name, justify in columns:
        wide = justify == "wide"
        table.add_column(
            name,
            justify="left" if wide else justify,  # type: ignore[arg-type] # a word that Rich knows
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if wide else None,
            min_width=8 if wide else None,
        )
    return table


def _brokers(views: Sequence[BrokerView]) -> Table:
    numbers = ("ready", "leased", "used", "in/s", "out/s", "oldest", "redeliv", "dead", "peers")
    table = _table(("broker", "wide"), *((name, "right") for name in numbers))
    for view in views:
        name = _name(view.url)
        if view.status is None:
            dashes = (Text("-", style="dim") for _ in numbers)
            table.add_row(Text(name, style="bold red"), *dashes)
            continue
        stats, rates = view.status.stats, view.rates
        table.add_row(
            Text(name + (" (draining)" if stats.draining else "")),
            short(stats.ready_records),
            short(stats.leased_records),
            _used(stats),
            short(rates.accepted if rates else None),
            short(rates.settled if rates else None),
            _seconds(stats.oldest_ns / 1e9),
            _alarm(stats.counters.redelivered, rates.redelivered_messages if rates else None),
            _alarm(stats.counters.buried, rates.buried_messages if rates else None),
            f"{stats.producers}+{stats.consumers}",
        )
    if len(views) > 1:
        t = totals(views)
        table.add_row(
            Text(f"{t.brokers} of {len(views)} read", style="dim"),
            short(t.ready_records),
            short(t.leased_records),
            "",
            short(t.accepted_per_s),
            short(t.settled_per_s),
            _seconds(t.oldest_s),
            short(t.redelivered),
            short(t.buried),
            f"{t.producers}+{t.consumers}",
        )
    return table


def _peers(peers: Sequence[tuple[str, PeerView]], *, several: bool, wide: bool) -> Table:
    keyed = any(peer.stats.key for _, peer in peers)
    # What is left out on a narrow terminal can be had with --once --json.
    columns = {
        "role": ("left", True),
        "peer": ("wide", True),
        "key": ("left", keyed),
        "broker": ("left", several),
        "rec/s": ("right", True),
        "done": ("right", wide),
        "held": ("right", True),
        "msgs": ("right", wide),
        "credit": ("right", wide or not several),
        "heard": ("right", True),
        "trouble": ("left", True),
    }
    table = _table(*((name, how) for name, (how, shown) in columns.items() if shown))
    for url, peer in peers:
        stats = peer.stats
        role = Text(stats.role, style="cyan" if stats.role == "producer" else "magenta")
        cells: dict[str, RenderableType] = {
            "role": role,
            "peer": Text(printable(stats.name) or stats.session),
            "key": Text(printable(stats.key)),
            "broker": Text(_name(url)),
            "rec/s": short(peer.per_s),
            "done": short(stats.done_records),
            "held": short(stats.held_records),
            "msgs": short(stats.held_messages),
            "credit": short(stats.credit_records),
            "heard": _seconds(stats.silent_s),
            "trouble": Text(peer.trouble, style="bold red"),
        }
        table.add_row(*(cells[name] for name, (_, shown) in columns.items() if shown))
    return table


def _name(url: str) -> str:
    return url.removeprefix("http://")


def _used(stats: BrokerStats) -> Text:
    used = room_used(stats)
    return Text(f"{used:.0%}", style="bold red" if used >= _NEARLY_FULL else "")


def _alarm(total: int, per_s: float | None) -> Text:
    return Text(short(total), style="bold red" if per_s else "")


def _seconds(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.0f} h"
