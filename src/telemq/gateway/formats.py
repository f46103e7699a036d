"""In which formats telemetry is told, and which one a request gets; pure.

``format=`` says it, else the header ``Accept`` (RFC 9110, section 12.5.1): of the ranges that match
a format the most particular one gives its quality, the best quality wins, and of equals the first
of `FORMATS`. What cannot be read of a header is as if it were not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from telemq.gateway.query import choice
from telemq.record import SeriesLabels
from telemq.store.records import CsvWriter, JsonWriter, Record, Writer
from telemq.web.problems import ProblemError

__all__ = ["FORMATS", "Format", "chosen", "offered"]


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write telemetry.

    Attributes:
        name: as ``format=`` says it.
        media_type: of the answer.
        writer: makes what writes an answer, given the labels of its series.
        aliases: other media types for it.
        file: the name under which a browser keeps it; empty: it shows it.
    """

    name: str
    media_type: str
    writer: Callable[[Mapping[int, SeriesLabels]], Writer]
    aliases: tuple[str, ...] = ()
    file: str = ""


def _lines(labels: Mapping[int, SeriesLabels]) -> Writer:
    return JsonWriter(labels, lines=True)


def _arrow(labels: Mapping[int, SeriesLabels]) -> Writer:
    from telemq.gateway.arrow import ArrowWriter  # noqa: PLC0415 (an extra)

    return ArrowWriter(labels, Record.__struct_fields__)


FORMATS: tuple[Format, ...] = (
    Format("json", "application/json", JsonWriter),
    Format("ndjson", "application/x-ndjson", _lines, ("application/ndjson", "application/jsonl")),
    Format("csv", "text/csv", CsvWriter, file="telemetry.csv"),
    Format("arrow", "application/vnd.apache.arrow.stream", _arrow, file="telemetry.arrows"),
)
_MISSING = "; arrow is not installed here (pip install 'telemq[arrow]')"
_QUALITY = re.compile(r"q\s*=\s*(0(\.\d{0,3})?|1(\.0{0,3})?)", re.ASCII | re.IGNORECASE)


def offered() -> tuple[Format, ...]:
    """Give the formats that this installation can write."""
    return FORMATS if find_spec("pyarrow") else FORMATS[:-1]


def chosen(format: str, accept: str, formats: tuple[Format, ...]) -> Format:
    """Give the format of an answer.

    Args:
        format: the parameter; empty when it is not given.
        accept: the header; empty when there is none.
        formats: what is offered.

    Raises:
        ProblemError: 400, `format` is no format's name; 406, it is not offered, or nothing that the
            header accepts is.
    """
    if format:
        choice("format", format, [known.name for known in FORMATS])
    fitting = [f for f in formats if f.name == format] if format else _accepted(accept, formats)
    if not fitting:
        told = ", ".join(f"{known.media_type} (format={known.name})" for known in formats)
        missing = _MISSING if len(formats) < len(FORMATS) else ""
        raise ProblemError(
            406, f"nothing that is accepted is offered here; offered: {told}{missing}"
        )
    return fitting[0]


def _accepted(accept: str, formats: tuple[Format, ...]) -> list[Format]:
    """Give the formats that a header accepts, the best first."""
    ranges: dict[str, float] = {}
    for element in accept.split(","):
        media, *parameters = (part.strip() for part in element.split(";"))
        qualities = [found for text in parameters if (found := _QUALITY.fullmatch(text))]
        if "/" in media:
            ranges[media.lower()] = float(qualities[0][1]) if qualities else 1.0
    if not ranges:
        return list(formats)
    rated = [(_quality(known, ranges), known) for known in formats]
    return [known for quality, known in sorted(rated, key=lambda r: -r[0]) if quality > 0]


def _quality(known: Format, ranges: Mapping[str, float]) -> float:
    exact = [ranges[name] for name in (known.media_type, *known.aliases) if name in ranges]
    if exact:
        return max(exact)
    return ranges.get(known.media_type.partition("/")[0] + "/*", ranges.get("*/*", 0.0))
