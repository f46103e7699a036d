"""Measuring work that is spread over processes: time, CPU and peak memory of each.

Machines are shared and noisy, so a single run means little: subjects are run turn by turn
(A B A B …) and reported as medians with their spread, and compared as the median of the ratios of
neighbouring runs.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from telemq.errors import TelemqError

__all__ = ["Part", "Run", "Summary", "Worker", "ratio", "stop_event", "summarise", "usage"]


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
class Run:
    """One run of one subject.

    Attributes:
        subject: what was measured.
        records: how many records were carried; checked by the subject itself.
        seconds: from the first record's start to the last one's end.
        parts: what each process used.
    """

    subject: str
    records: int
    seconds: float
    parts: tuple[Part, ...]

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
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """Several runs of one subject.

    Attributes:
        subject: what was measured.
        records_per_s: least, median and greatest.
        cpu_s_per_million: median, by part; of all processes of that name.
        peak_bytes: greatest of one process, by part.
    """

    subject: str
    records_per_s: tuple[float, float, float]
    cpu_s_per_million: dict[str, float]
    peak_bytes: dict[str, int]


def summarise(runs: Sequence[Run]) -> list[Summary]:
    """Give one summary for each subject, in order of first appearance."""
    summaries = []
    for subject in dict.fromkeys(run.subject for run in runs):
        own = [run for run in runs if run.subject == subject]
        rates = sorted(run.records_per_s for run in own)
        names = dict.fromkeys(part.name for part in own[0].parts)
        summaries.append(
            Summary(
                subject,
                (rates[0], statistics.median(rates), rates[-1]),
                {
                    name: statistics.median(
                        sum(part.cpu_s for part in run.parts if part.name == name)
                        * 1e6
                        / run.records
                        for run in own
                    )
                    for name in names
                },
                {
                    name: max(p.peak_bytes for run in own for p in run.parts if p.name == name)
                    for name in names
                },
            )
        )
    return summaries


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


class Worker:
    """One function in a process of its own, which it can talk to through a pipe.

    The function is called as ``function(pipe, *args)``; what it returns comes back with what its
    process used. Its process ends with this one.

    Args:
        name: for the report.
        function: importable by name.
        args: picklable.
    """

    def __init__(self, name: str, function: Callable[..., Any], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(theirs, name, function, args), name=name, daemon=True
        )
        self._process.start()
        theirs.close()

    def receive(self, timeout_s: float) -> Any:
        """Wait for what the function sends.

        Raises:
            TelemqError: it ended without a word, or took too long.
        """
        end = time.monotonic() + timeout_s
        while not self.pipe.poll(0.1):
            if time.monotonic() > end:
                raise TelemqError(f"{self.name} took longer than {timeout_s:g} s")
            if not self._process.is_alive() and not self.pipe.poll(0):
                raise TelemqError(f"{self.name} ended without a result")
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise TelemqError(f"{self.name} ended without a result") from error

    def result(self, timeout_s: float) -> tuple[Any, Part]:
        """Wait for the function's end; gives what it returned and what its process used."""
        value, part = self.receive(timeout_s)
        self._process.join(10)
        return value, part

    def close(self) -> None:
        """End the process, if it still runs."""
        self.pipe.close()
        self._process.terminate()
        self._process.join(10)
        self._process.close()


def _work(pipe: Connection, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    before = usage(name)
    value = function(pipe, *args)
    after = usage(name)
    pipe.send((value, Part(name, after.cpu_s - before.cpu_s, after.peak_bytes)))


def stop_event(pipe: Connection, first: str = "") -> threading.Event:
    """Give an event that is set when the parent sends something; waits for `first` before."""
    stop = threading.Event()
    if first:
        pipe.recv()

    def wait() -> None:
        pipe.recv()
        stop.set()

    threading.Thread(target=wait, name="stop", daemon=True).start()
    return stop
