"""The part of docs/performance.md that is made from the figures of one run. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from tests.bench.bars import judge, median_ratio

__all__ = ["BEGIN", "BENCH", "END", "GROWTH", "insert", "render", "straight"]

#: Where a part begins and ends, by its name.
BEGIN, END = "<!-- made by {}: begin -->", "<!-- made by {}: end -->"
BENCH, GROWTH = "nox -s bench", "tests.bench.growth"

Figures = Mapping[str, Any]
_CARRIED = {
    "carry 256": "256 records of 400 bytes a message",
    "carry 1": "1 record of 400 bytes a message",
}


def insert(page: str, part: str, name: str = BENCH) -> str:
    """Put the part in its place in the page.

    Raises:
        ValueError: the page has no such place.
    """
    before, begin, rest = page.partition(BEGIN.format(name))
    _, end, after = rest.partition(END.format(name))
    if not begin or not end:
        raise ValueError(f"the page has no lines {BEGIN.format(name)} and {END.format(name)}")
    return f"{before}{begin}\n{part}{end}{after}"


def straight(what: str, costs: Mapping[int, float]) -> str:
    """Say how much more something costs at the last point than at the first.

    Args:
        what: as the beginning of a sentence.
        costs: of one of what there is more of, by how many there are; a straight line has the same
            everywhere.
    """
    first, last = min(costs), max(costs)
    times = costs[last] / costs[first] if costs[first] else 0.0
    return f"\nAt {last:,}, {what} {times:.2f} times what it is at {first:,}.\n"


def render(figures: Figures) -> str:
    """Give the Markdown of one run."""
    return "\n".join(_lines(figures)).rstrip("\n") + "\n\n"


def _lines(figures: Figures) -> Iterator[str]:
    about = figures["about"]
    yield f"Date: {about['date']}, {about['mode']} mode, {about['minutes']:.0f} minutes."
    yield f"Machine: {about['machine']}."
    yield f"Versions: {about['versions']}."
    yield f"Load of the machine before and after: {about['load']}."
    if about["busy"]:
        yield "**Other work had most of the machine meanwhile: these are no figures to quote.**"
    for name, reason in figures["skipped"].items():
        yield f"Not measured: {name}: {reason}."
    for name, reason in figures["failed"].items():
        yield f"**Failed**: {name}: {reason}."
    yield ""
    yield from _bars(figures)
    for group, title in _CARRIED.items():
        if group in figures:
            yield from _rates(f"Carried, {title}", figures[group], "telemq", of_broker=True)
    if "latency" in figures:
        yield from _latency(figures["latency"], about["rate"])
    for group, title, first in (
        ("ingest", "Prepared batches from a queue into Postgres", "1 collector"),
        ("pipeline", "From CSV to committed rows", "telemq pipeline"),
    ):
        if group in figures:
            yield from _rates(title, figures[group], first)
    if "query" in figures:
        yield from _query(figures)
    if "backlog" in figures:
        yield from _backlog(figures["backlog"])


def _bars(figures: Figures) -> Iterator[str]:
    yield "### Bars\n"
    yield "| | bar | reach for | this run | |"
    yield "|---|---|---|---|---|"
    for verdict in judge(figures):
        bar, sign = verdict.bar, "<=" if verdict.bar.at_most else ">="
        figure = "–" if verdict.figure is None else f"{verdict.figure:.2f}{bar.unit}"
        reach = "–" if bar.reach is None else f"{bar.reach:g}{bar.unit}"
        yield f"| {bar.what} | {sign} {bar.bar:g}{bar.unit} | {reach} | {figure} | {verdict.word} |"
    yield ""


def _rates(title: str, group: Figures, first: str, *, of_broker: bool = False) -> Iterator[str]:
    turns = max(len(seen["records_per_s"]) for seen in group.values()) if group else 0
    yield f"### {title} ({turns} turn{'' if turns == 1 else 's'})\n"
    own = "| broker's CPU s a million | broker's peak MB " if of_broker else ""
    yield (
        f"| | records/s, median (least to greatest) | {first} against it "
        f"| CPU s a million, all processes {own}| limited by |"
    )
    yield "|---|---|---|---|" + "---|" * (3 if of_broker else 1)
    for name, seen in group.items():
        rates = seen["records_per_s"]
        line = (
            f"| {name} | {statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) "
            f"| {_against(group, first, name)} "
            f"| {statistics.median(seen['cpu_s_per_million']):.2f} "
        )
        if of_broker:
            broker = seen["parts"]["broker"]
            line += f"| {broker['cpu_s_per_million']:.2f} | {broker['peak_bytes'] / 1e6:.0f} "
        yield f"{line}| {seen['limit']} |"
    yield ""


def _against(group: Figures, first: str, name: str) -> str:
    if first not in group:
        return "–"
    ours, theirs = (group[subject]["records_per_s"] for subject in (first, name))
    return f"{median_ratio(ours, theirs):.2f}"


def _latency(group: Figures, rate: float) -> Iterator[str]:
    yield f"### Latency of single records at {rate:,.0f} a second\n"
    yield "| | until delivery: p50, p99 ms | until confirm: p50, p99 ms | records/s kept up |"
    yield "|---|---|---|---|"
    for name, seen in group.items():
        times = [
            statistics.median(seen[f"{what}_{quantile}_ms"])
            for what in ("delivered", "confirmed")
            for quantile in ("p50", "p99")
        ]
        kept = statistics.median(seen["records_per_s"])
        yield "| {} | {:.2f}, {:.2f} | {:.2f}, {:.2f} | {:,.0f} |".format(name, *times, kept)
    yield ""


def _query(figures: Figures) -> Iterator[str]:
    sizes, query = figures["sizes"], figures["query"]
    samples = max((size["samples"] for size in sizes.values()), default=0)
    yield f"### Reading, {samples:,} samples\n"
    if any(", cold: " in name for name in query):
        yield (
            "Cold is the first question to a Postgres that was restarted, with none of its files "
            "in the kernel's memory.\n"
        )
    yield "| | p50 ms | p99 ms | rows/s |"
    yield "|---|---|---|---|"
    for name, seen in query.items():
        p50, p99, rate = (
            statistics.median(seen[key])
            for key in ("delivered_p50_ms", "delivered_p99_ms", "records_per_s")
        )
        yield f"| {name} | {p50:,.2f} | {p99:,.2f} | {rate:,.0f} |"
    yield ""
    yield "| | bytes a sample on disk | of the wide table's |"
    yield "|---|---|---|"
    wide_bytes = sizes.get("wide table", {}).get("sample_bytes")
    for name, size in sizes.items():
        share = f"{size['sample_bytes'] / wide_bytes:.3f}" if wide_bytes else "–"
        yield f"| {name} | {size['sample_bytes']:.1f} | {share} |"
    yield ""


def _backlog(runs: list[dict[str, Any]]) -> Iterator[str]:
    yield "### Memory of a broker while records wait\n"
    yield "| records | a message | payload MB | broker before, full, drained MB | above payload |"
    yield "|---|---|---|---|---|"
    for run in runs:
        sizes = ", ".join(
            f"{run[key] / 1e6:.0f}" for key in ("empty_bytes", "full_bytes", "drained_bytes")
        )
        yield (
            f"| {run['records']:,} | {run['batch_records']} | {run['payload_bytes'] / 1e6:.0f} "
            f"| {sizes} | {run['overhead']:.1%} |"
        )
    yield ""
