"""The bars that telemq is to clear, and whether the figures of one run do.

Pure: figures in, rows out. A figure is a ratio within the run, the median over its turns, except
where the bar itself is absolute. A bar is not judged by a load that is too small: of a run of a
tenth of a second most is start-up, and a table that fits into a hundred pages is quick whatever its
layout.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["BARS", "Bar", "Verdict", "judge", "median_ratio"]

Figures = Mapping[str, Any]

#: What a bar is about, and how long a run has to be to say something.
_SAMPLES, _WAITING_RECORDS, _LATENCY_RECORDS, _SECONDS = 20_000_000, 1_000_000, 5000, 0.2


class _TooSmallError(Exception):
    """The load was too small for the figure; the text says what it takes."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing to show.

    Attributes:
        what: in words.
        figure: computes it; LookupError where something was not measured.
        bar: to be reached.
        reach: hoped for; None is nothing more.
        at_most: whether less is better.
        unit: of the figure, after it.
    """

    what: str
    figure: Callable[[Figures], float]
    bar: float
    reach: float | None
    at_most: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run says of a bar.

    Attributes:
        bar: which.
        figure: None where it was not measured, or not with enough.
        lacks: what it takes to judge the bar; empty if it was there.
    """

    bar: Bar
    figure: float | None
    lacks: str = ""

    @property
    def word(self) -> str:
        """Say it: ``reached``, ``met``, ``not met``, ``not measured``, or what it needs."""
        if self.lacks:
            return f"needs {self.lacks}"
        if self.figure is None:
            return "not measured"
        if self.bar.reach is not None and self._clears(self.bar.reach):
            return "reached"
        return "met" if self._clears(self.bar.bar) else "not met"

    def _clears(self, mark: float) -> bool:
        assert self.figure is not None
        return self.figure <= mark if self.bar.at_most else self.figure >= mark


def judge(figures: Figures) -> list[Verdict]:
    """Compare the figures of one run with every bar."""
    is_full = figures["about"]["mode"] == "full"
    verdicts = []
    for bar in BARS:
        try:
            verdicts.append(Verdict(bar, bar.figure(figures)))
        except LookupError:
            verdicts.append(Verdict(bar, None))
        except _TooSmallError as error:
            verdicts.append(Verdict(bar, None, str(error) if is_full else "--full"))
    return verdicts


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Give the median of the ratios of neighbouring turns."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _ratio(group: str, subject: str, other: str) -> _Figure:
    def figure(figures: Figures) -> float:
        both = [figures[group][name] for name in (subject, other)]
        for seen in both:
            _take(seen["records"] / statistics.median(seen["records_per_s"]), _SECONDS, "s a run")
        return median_ratio(*(seen["records_per_s"] for seen in both))

    return figure


def _prompt(figures: Figures) -> float:
    both = [figures["latency"][name] for name in ("telemq", "Redis Streams")]
    for seen in both:
        _take(seen["records"], _LATENCY_RECORDS, "records")
    return median_ratio(*(seen["delivered_p99_ms"] for seen in both))


def _take(there: float, least: float, what: str) -> None:
    if there < least:
        raise _TooSmallError(f"{least:,} {what}")


_Figure = Callable[[Figures], float]


def _carried(subject: str, other: str, batch: int = 256) -> _Figure:
    return _ratio(f"carry {batch}", subject, other)


def _broker_cpu(figures: Figures) -> float:
    ours, theirs = (
        figures["carry 256"][name]["parts"]["broker"]["cpu_s_per_million"]
        for name in ("telemq", "zmq.proxy ROUTER/DEALER")
    )
    return float(ours / theirs)


def _waiting(figures: Figures) -> float:
    (run,) = figures["backlog"] or [{}]
    _take(run["records"], _WAITING_RECORDS, "records")
    return 1 + float(run["overhead"])


def _sizes(figures: Figures) -> Figures:
    sizes: Figures = figures["sizes"]
    for size in sizes.values():
        _take(size["samples"], _SAMPLES, "samples")
    return sizes


def _bytes(layout: str) -> _Figure:
    def figure(figures: Figures) -> float:
        sizes = _sizes(figures)
        return float(sizes[layout]["sample_bytes"] / sizes["wide table"]["sample_bytes"])

    return figure


def _gpu_hour(figures: Figures) -> float:
    _sizes(figures)
    ours, theirs = (
        figures["query"][f"{layout}: one GPU, one hour"]["delivered_p50_ms"]
        for layout in ("telemq", "wide table")
    )
    return median_ratio(ours, theirs)


def _gpu_list(figures: Figures) -> float:
    _sizes(figures)
    return float(statistics.median(figures["query"]["telemq: list of GPUs"]["delivered_p50_ms"]))


_PROXY = "zmq.proxy ROUTER/DEALER"
_PIPELINE = "telemq pipeline"

BARS = (
    Bar("broker, 256 a message, against zmq.proxy ROUTER/DEALER",
        _carried("telemq", _PROXY), 1, 1.3),
    Bar("the same against JetStream, memory", _carried("telemq", "JetStream, memory"), 1.5, 2),
    Bar("the same against Redis Streams", _carried("telemq", "Redis Streams"), 1.5, 2),
    Bar("the same against RabbitMQ", _carried("telemq", "RabbitMQ"), 1.5, 2),
    Bar("the same against beanstalkd", _carried("telemq", "beanstalkd"), 0.8, 1.1),
    Bar("broker, 1 a message, against zmq.proxy ROUTER/DEALER",
        _carried("telemq", _PROXY, 1), 1.2, 1.8),
    Bar("the same against Redis Streams", _carried("telemq", "Redis Streams", 1), 2, 3),
    Bar("the same against JetStream, memory", _carried("telemq", "JetStream, memory", 1), 10, 20),
    Bar("broker with journal, 256 a message, against JetStream, file",
        _carried("telemq, journal", "JetStream, file"), 1.5, 2),
    Bar("the same against Redis Streams, AOF everysec",
        _carried("telemq, journal", "Redis Streams, AOF everysec"), 1.5, 2),
    Bar("broker with CURVE, 256 a message, against itself without",
        _carried("telemq, CURVE", "telemq"), 0.4, 0.5),
    Bar("p99 until delivery at 5,000 single records/s, against Redis Streams",
        _prompt, 1, 0.6, at_most=True),
    Bar("one collector, prepared batches, against COPY BINARY of the same rows",
        _ratio("ingest", "1 collector", "COPY BINARY alone"), 1, 1.4),
    Bar("two collectors, against the same",
        _ratio("ingest", "2 collectors", "COPY BINARY alone"), 1.3, 2),
    Bar("whole pipeline, against the same COPY",
        _ratio("pipeline", _PIPELINE, "COPY BINARY alone"), 0.6, 1),
    Bar("whole pipeline, against COPY of the wide text table",
        _ratio("pipeline", _PIPELINE, "COPY of the wide table"), 1.5, 4),
    Bar("whole pipeline, against one INSERT a record, 8 clients",
        _ratio("pipeline", _PIPELINE, "INSERT a record, 8 clients"), 25, 60),
    Bar("whole pipeline, against the same over JetStream, file",
        _ratio("pipeline", _PIPELINE, "pipeline over JetStream, file"), 1.3, 2),
    Bar("CPU of the broker, 256 a message, against zmq.proxy", _broker_cpu, 1, 0.8, at_most=True),
    Bar("broker's memory for records that wait, against their payload", _waiting, 1.2, 1.05,
        at_most=True),
    Bar("one GPU, one hour, of 20 million samples: p50 against the wide table",
        _gpu_hour, 0.5, 0.2, at_most=True),
    Bar("list of GPUs at 20 million samples, p50", _gpu_list, 2, None, at_most=True, unit=" ms"),
    Bar("bytes on disk a sample, against the wide table",
        _bytes("telemq"), 0.2, 0.15, at_most=True),
    Bar("the same when compacted", _bytes("telemq, compacted"), 0.05, 0.02, at_most=True),
)  # fmt: skip
