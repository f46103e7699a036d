"""What the fleet's samples mean: who is idle, who used how much, what is wrong.

The rules are told in docs/api.md, section "The fleet".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from telemq.gateway.fleet_views import Idle, Trouble, Troubled, Usage
from telemq.store.fleet import Covered, Fleet, FleetSeries, Over, Seen

__all__ = ["GROUPS", "Health", "Window", "health", "idle", "usage"]

UTILIZATION, TEMPERATURE = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP"
POWER, ENERGY = "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
XID, ECC = "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"

#: Intervals without a sample after which a series has ended.
_SILENT_INTERVALS = 3
_J_PER_KWH = 3.6e6
_MJ_PER_KWH = 3.6e9  # millijoules

Kind = Literal["hot", "xid", "ecc", "silent"]
_METRIC_OF: dict[Kind, str] = {"hot": TEMPERATURE, "xid": XID, "ecc": ECC}

GROUPS: dict[str, Callable[[FleetSeries], str]] = {
    "namespace": lambda series: series.namespace,
    # Pods of two namespaces may have one name.
    "pod": lambda series: f"{series.namespace}/{series.pod}" if series.namespace else series.pod,
    "host": lambda series: series.hostname,
}


@dataclass(frozen=True, slots=True)
class Window:
    """A window of time, both ends inclusive; it does not end in the future."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Health:
    """GPUs with whom something is wrong; and of each kind how many GPUs do not measure it."""

    troubled: list[Troubled]
    not_measured: dict[Kind, int]


async def idle(
    fleet: Fleet, window: Window, *, below: float, minutes: float, namespace: str
) -> list[Idle]:
    """Give the GPUs that a pod has now and has not used for so long, the longest first.

    Args:
        fleet: at one moment.
        window: how far to look back, and the moment that is "now".
        below: a utilisation under this is no use, %.
        minutes: how long it must last.
        namespace: of the pods; empty for all.
    """
    tracks: dict[int, int] = {}
    pods: list[FleetSeries] = []
    numbers: dict[tuple[int, str, str, str], int] = {}
    for series in await fleet.series([UTILIZATION]):
        if series.metric_name != UTILIZATION or not series.pod:
            continue
        if namespace and series.namespace != namespace:
            continue
        key = (series.gpu, series.namespace, series.pod, series.container)
        if key not in numbers:
            numbers[key] = len(pods)
            pods.append(series)
        tracks[series.id] = numbers[key]
    # Most are not idle, and the last minutes tell that already.
    half = min(timedelta(minutes=minutes / 2), window.end - window.start)
    busy = await fleet.busy(tracks, window.end - half, window.end, below)
    maybe = {series: track for series, track in tracks.items() if track not in busy}
    found = []
    for track, span in (await fleet.idle_spans(maybe, window.start, window.end, below)).items():
        if span.samples < 2 or _silent_s(span.last, window, span.interval_s):
            continue
        # The last sample stands for its interval too.
        lasted = (span.last - span.first).total_seconds() + span.interval_s
        if lasted >= 60 * minutes:
            pod = pods[track]
            found.append(
                Idle(
                    uuid=pod.uuid,
                    hostname=pod.hostname,
                    gpu_id=pod.gpu_id,
                    model_name=pod.model_name,
                    namespace=pod.namespace,
                    pod=pod.pod,
                    container=pod.container,
                    mean_utilization=round(span.mean, 3),
                    idle_minutes=round(lasted / 60, 2),
                    since=span.first,
                )
            )
    return sorted(found, key=lambda i: (-i.idle_minutes, i.mean_utilization, i.uuid))


async def usage(fleet: Fleet, window: Window, *, group_by: str, gap: timedelta) -> list[Usage]:
    """Give what each group had of the GPUs, the most first.

    Args:
        fleet: at one moment.
        window: which time.
        group_by: of `GROUPS`.
        gap: the longest time between two samples that counts.
    """
    found = await fleet.series([UTILIZATION, POWER, ENERGY])
    has_power = {series.gpu for series in found if series.metric_name == POWER}
    numbers: dict[tuple[int, str, str], int] = {}
    values: dict[int, int] = {}
    counters: dict[int, int] = {}
    for series in found:
        key = (series.gpu, GROUPS[group_by](series), series.metric_name)
        number = numbers.setdefault(key, len(numbers))
        if series.metric_name != ENERGY:
            values[series.id] = number
        elif series.gpu not in has_power:
            counters[series.id] = number
    told = await fleet.covered(values, window.start, window.end, gap)
    told |= await fleet.risen(counters, window.start, window.end, gap)
    by_group: dict[str, dict[int, dict[str, Covered]]] = defaultdict(lambda: defaultdict(dict))
    for (gpu, group, metric), number in numbers.items():
        if number in told:
            by_group[group][gpu][metric] = told[number]
    answers = [_usage(group, gpus.values()) for group, gpus in by_group.items()]
    return sorted(answers, key=lambda u: (-u.gpu_hours, u.group))


def _usage(group: str, gpus: Iterable[dict[str, Covered]]) -> Usage:
    """Add up what one group had; of each GPU what is known, by metric."""
    all = list(gpus)
    used = [of[UTILIZATION] for of in all if UTILIZATION in of]
    measured_s = sum(of.measured_s for of in used)
    drawn_kwh = [
        of[metric].integral / per_kwh
        for of in all
        for metric, per_kwh in ((POWER, _J_PER_KWH), (ENERGY, _MJ_PER_KWH))
        if metric in of and of[metric].measured_s
    ]
    return Usage(
        group=group,
        gpu_hours=round(sum(max(c.seconds for c in of.values()) for of in all) / 3600, 4),
        mean_utilization=round(sum(of.integral for of in used) / measured_s, 3)
        if measured_s
        else None,
        energy_kwh=round(sum(drawn_kwh), 4) if drawn_kwh else None,
        gpus=len(all),
        gpus_without_utilization=len(all) - sum(of.measured_s > 0 for of in used),
        gpus_without_energy=len(all) - len(drawn_kwh),
    )


async def health(fleet: Fleet, window: Window, *, hot_c: float) -> Health:
    """Give the GPUs with whom something is or was wrong, those with most problems first.

    Args:
        fleet: at one moment.
        window: which time; a GPU is silent as of its end.
        hot_c: a temperature over this is hot, °C.
    """
    found = await fleet.series([UTILIZATION, *_METRIC_OF.values()])
    gpus = {series.gpu: series for series in found}
    kinds: list[Kind] = list(_METRIC_OF)
    limits = {TEMPERATURE: hot_c, XID: 0.0, ECC: 0.0}
    metrics = {metric: place for place, metric in enumerate(limits)}
    judged = [series for series in found if series.metric_name in limits]
    over = await fleet.over(
        {s.id: s.gpu * len(limits) + metrics[s.metric_name] for s in judged},
        {s.id: limits[s.metric_name] for s in judged},
        window.start,
        window.end,
    )
    seen = await fleet.seen(_one_metric_each(found), window.start, window.end)
    measures = {(series.gpu, series.metric_name) for series in judged}
    troubled, not_measured = [], Counter[Kind]()
    for gpu, series in gpus.items():
        if gpu not in seen:  # not a sample in the window: it is no part of this fleet
            continue
        missing = [kind for kind in kinds if (gpu, _METRIC_OF[kind]) not in measures]
        not_measured.update(missing)
        problems = [
            _over_limit(kind, over[number], hot_c)
            for place, kind in enumerate(kinds)
            if (number := gpu * len(limits) + place) in over
        ]
        if silent := _silent(seen[gpu], window):
            problems.append(silent)
        if problems:
            troubled.append(
                Troubled(
                    uuid=series.uuid,
                    hostname=series.hostname,
                    gpu_id=series.gpu_id,
                    model_name=series.model_name,
                    problems=problems,
                    not_measured=list(missing),
                )
            )
    troubled.sort(key=lambda t: (-len(t.problems), t.hostname, t.gpu_id, t.uuid))
    return Health(troubled, dict(not_measured))


def _one_metric_each(found: Iterable[FleetSeries]) -> dict[int, int]:
    """Give the series, by GPU, that tell whether a GPU is there: of one metric, which most have."""
    order = [UTILIZATION, *_METRIC_OF.values()]
    rank = {metric: place for place, metric in enumerate(order)}
    best: dict[int, int] = {}
    for series in found:
        of = rank.get(series.metric_name, len(order))
        best[series.gpu] = min(of, best.get(series.gpu, of))
    return {s.id: s.gpu for s in found if rank.get(s.metric_name, len(order)) == best[s.gpu]}


def _over_limit(kind: Kind, over: Over, hot_c: float) -> Trouble:
    if kind == "hot":
        value, detail = over.highest, f"up to {over.highest:g} °C; the limit is {hot_c:g} °C"
    elif kind == "xid":
        value, detail = over.latest, f"XID {over.latest:g}"
    else:
        value, detail = over.highest, f"{over.highest:g} double-bit errors"
    return Trouble(kind=kind, detail=detail, value=value, since=over.first)


def _silent(seen: Seen, window: Window) -> Trouble | None:
    if not seen.interval_s or not (silent_s := _silent_s(seen.last, window, seen.interval_s)):
        return None
    detail = f"no sample for {silent_s:.0f} s; it had one every {seen.interval_s:.3g} s"
    return Trouble(kind="silent", detail=detail, value=silent_s, since=seen.last)


def _silent_s(last: datetime, window: Window, interval_s: float) -> float:
    """Give for how long there was no sample at the end of the window; 0 if that is no sign."""
    silent_s = (window.end - last).total_seconds()
    return silent_s if silent_s > _SILENT_INTERVALS * interval_s else 0.0
