"""Measuring work that is spread over processes: time, CPU and peak memory of each.

Machines are shared and noisy, so a single run means little: subjects are run turn by turn
(A B A B …) and reported as medians with their spread, and compared as the median of the ratios of
neighbouring runs.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from telemq.errors import TelemqError

__all__ = [
    "Part",
    "Quantiles",
    "Run",
    "Summary",
    "limit",
    "process_usage",
    "ratio",
    "rss_bytes",
    "summarise",
    "usage",
]

#: A part that uses this much of a core, or all of them this much of the machine, is the limit.
_BUSY = 0.8


@dataclass(frozen=True, slots=True)
class Part:
    """What one process used.

    Attributes:
        name: its role.
        cpu_s: user and system time.
        peak_bytes: largest resident size.
    """

    name: str
    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How long something took, in milliseconds: median, 99th percentile, greatest."""

    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, took_ms: npt.NDArray[np.floating[Any]] | Sequence[float]) -> Self:
        """Compute them from single times."""
        p50, p99, most = np.quantile(took_ms, [0.5, 0.99, 1.0]).tolist()
        return cls(p50, p99, most)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one subject.

    Attributes:
        subject: what was measured.
        records: how many records were carried; checked by the subject itself.
        seconds: from the first record's start to the last one's end.
        parts: what each process used.
        delivered_ms: from a message's sending to its delivery, if a rate was given.
        confirmed_ms: from a message's sending to its confirm, if a rate was given.
    """

    subject: str
    records: int
    seconds: float
    parts: tuple[Part, ...]
    delivered_ms: Quantiles | None = None
    confirmed_ms: Quantiles | None = None

    @property
    def records_per_s(self) -> float:
        """Throughput."""
        return self.records / self.seconds

    @property
    def cpu_s_per_million(self) -> float:
        """CPU time of all parts for a million records."""
        return sum(part.cpu_s for part in self.parts) * 1e6 / self.records

    def to_dict(self) -> dict[str, Any]:
        """Give the run for JSON, with what is computed from it."""
        return asdict(self) | {
            "records_per_s": self.records_per_s,
            "cpu_s_per_million": self.cpu_s_per_million,
            "limit": limit(self),
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """Several runs of one subject.

    Attributes:
        subject: what was measured.
        records_per_s: least, median and greatest.
        cpu_s_per_million: median, by part; of all processes of that name.
        peak_bytes: greatest of one process, by part.
        limit: what held it back, in the run with the median rate.
        delivered_ms: medians of the quantiles of all runs, if a rate was given.
        confirmed_ms: the same, of confirms.
    """

    subject: str
    records_per_s: tuple[float, float, float]
    cpu_s_per_million: dict[str, float]
    peak_bytes: dict[str, int]
    limit: str = ""
    delivered_ms: Quantiles | None = None
    confirmed_ms: Quantiles | None = None


def summarise(runs: Sequence[Run]) -> list[Summary]:
    """Give one summary for each subject, in order of first appearance."""
    summaries = []
    for subject in dict.fromkeys(run.subject for run in runs):
        own = sorted((r for r in runs if r.subject == subject), key=lambda run: run.records_per_s)
        rates = [run.records_per_s for run in own]
        names = dict.fromkeys(part.name for part in own[0].parts)
        summaries.append(
            Summary(
                subject,
                (rates[0], statistics.median(rates), rates[-1]),
                {name: statistics.median(_cpu_s_per_million(run, name) for run in own)
                 for name in names},
                {name: max(p.peak_bytes for run in own for p in run.parts if p.name == name)
                 for name in names},
                limit(own[len(own) // 2]),
                _medians([run.delivered_ms for run in own]),
                _medians([run.confirmed_ms for run in own]),
            )
        )  # fmt: skip
    return summaries


def _cpu_s_per_million(run: Run, name: str) -> float:
    return sum(part.cpu_s for part in run.parts if part.name == name) * 1e6 / run.records


def _medians(all_runs: Sequence[Quantiles | None]) -> Quantiles | None:
    measured = [quantiles for quantiles in all_runs if quantiles is not None]
    if not measured:
        return None
    return Quantiles(
        statistics.median(q.p50 for q in measured),
        statistics.median(q.p99 for q in measured),
        max(q.most for q in measured),
    )


def limit(run: Run) -> str:
    """Say what held a run back: a part that was busy all the time, the cores, or waiting."""
    shares = {
        part.name: max(p.cpu_s for p in run.parts if p.name == part.name) / run.seconds
        for part in run.parts
    }
    name = max(shares, key=lambda name: shares[name])
    shown = f"{name} at {shares[name]:.0%} of a core"
    if shares[name] >= _BUSY:
        return shown
    cores = os.cpu_count() or 1
    used = sum(part.cpu_s for part in run.parts) / run.seconds
    if used >= _BUSY * cores:
        return f"all {cores} cores; most of all {shown}"
    return f"waiting; most of all {shown}"


def ratio(runs: Sequence[Run], subject: str, other: str) -> float:
    """Give the median, over neighbouring runs, of how many times faster `subject` is."""
    pairs = zip(
        [run.records_per_s for run in runs if run.subject == subject],
        [run.records_per_s for run in runs if run.subject == other],
        strict=True,
    )
    return statistics.median(mine / theirs for mine, theirs in pairs)


def usage(name: str) -> Part:
    """Give what this process used until now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Part(name, used.ru_utime + used.ru_stime, _peak_bytes(used.ru_maxrss))


def _peak_bytes(ru_maxrss: int) -> int:
    # On Linux, ru_maxrss of a new process begins with the size of the one that started it.
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def process_usage(name: str, pid: int) -> Part:
    """Give what another process used until now, with its children that have ended.

    Raises:
        OSError: there is no such process, or this is no Linux.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    peak = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()
    # The first of these is the third of proc(5); utime, stime, cutime and cstime are 14 to 17.
    cpu_s = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return Part(name, cpu_s, int(peak[0]) * 1024 if peak else 0)


def rss_bytes() -> int:
    """Give the resident size of this process now.

    Raises:
        TelemqError: this is no Linux.
    """
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError as error:
        raise TelemqError("memory is read from /proc/self/statm, which only Linux has") from error
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
