"""A CSV file of DCGM metrics, read once into columns and replayed for ever.

The stream's row *i* is the file's row ``i % rows``, so every streamer that has the same file cuts
the same batch from the same range. That is why a row that is no record keeps its place: it is
handed on as a `Rejection`, and the ranges stay without gaps.

Reading rules, where CSV leaves a choice:

- A row is one line. No DCGM label holds a line break, and so an open quote costs its own row and
  not the rest of the file.
- Blank lines are no rows. The order of the columns is free; unknown ones are ignored.
- Each line is decoded by itself, so that one line that is not UTF-8 is one bad row.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import re
import stat
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from telemq import log
from telemq.errors import SourceError
from telemq.grouping import SeriesTable
from telemq.record import RecordBatch, Rejection, SeriesLabels

__all__ = ["COLUMNS", "SAMPLE", "BadRow", "CsvReplay", "bundled_sample", "read_csv"]

#: The columns that a file must have, in the order in which exporters' scrapes are written.
COLUMNS = (
    "timestamp",
    "metric_name",
    "gpu_id",
    "device",
    "uuid",
    "modelName",
    "Hostname",
    "container",
    "pod",
    "namespace",
    "value",
    "labels_raw",
)
#: Name of the sample that comes with telemq.
SAMPLE = "dcgm_sample.csv"

#: Longest line read as a row. A real one has 450 bytes; without a limit, a line of a thousand
#: million commas would become as many Python strings.
_ROW_BYTES_MAX = 2**20
#: Characters of a bad row that are kept for its dead letter, so that a batch of a thousand of them
#: still fits into a message.
_KEPT_CHARS = 4096
#: Bad rows named in a log line or an error.
_SHOWN_ROWS = 5

_LABEL_COLUMNS = [c for c in COLUMNS if c not in ("timestamp", "value")]
_COLUMN_OF_LABEL = dict(zip(SeriesLabels._fields, _LABEL_COLUMNS, strict=True))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", flags=re.ASCII
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", flags=re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", flags=re.IGNORECASE)


class BadRow(NamedTuple):
    """A row of the file that is no record.

    Attributes:
        row: line number in the file, from 1; the header is line 1.
        column: the column at fault; empty when it is the row as a whole.
        fault: what is wrong, without the value, so that equal faults can be counted.
        found: the value at fault, shortened; may be empty.
        text: the row as it was read, at most 4,096 characters.
    """

    row: int
    column: str
    fault: str
    found: str
    text: str

    @property
    def reason(self) -> str:
        """Say it in one line: ``row 7, column value: 'abc' is not a number``."""
        column = f", column {self.column}" if self.column else ""
        return f"row {self.row}{column}: {self.found}{' ' if self.found else ''}{self.fault}"


@dataclass(frozen=True, slots=True)
class CsvReplay:
    """A file's rows in columns; row `i` of the stream is row ``i % rows`` of the file.

    Attributes:
        path: the file.
        fingerprint: sha256 of the file's bytes, in hex.
        series: the distinct series, in the order of their first row.
        series_index: (rows,) int32, each row's index into `series`; -1 for a bad row.
        time_us: (rows,) int64, as recorded, microseconds since 1970 UTC; 0 for a bad row.
        value: (rows,) float64, finite; 0 for a bad row.
        bad: the bad rows by their index, from 0, ascending.
    """

    path: Path
    fingerprint: str
    series: tuple[SeriesLabels, ...]
    series_index: npt.NDArray[np.int32]
    time_us: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    bad: dict[int, BadRow]
    _table: SeriesTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Cut the series into groups, once for all batches."""
        object.__setattr__(self, "_table", SeriesTable(self.series))

    @property
    def rows(self) -> int:
        """Rows of the file, bad ones included, at least 1."""
        return len(self.value)

    @property
    def stream_id(self) -> str:
        """The stream's name unless one is given: ``csv/<file name>/<fingerprint's beginning>``."""
        return f"csv/{self.path.stem}/{self.fingerprint[:12]}"

    def batch(
        self, first_row: int, row_count: int, stamps_us: npt.NDArray[np.int64] | None = None
    ) -> RecordBatch:
        """Cut the batch of the stream's rows ``[first_row, first_row + row_count)``.

        Args:
            first_row: index in the stream, from 0.
            row_count: at least 1; may be more than the file has.
            stamps_us: (row_count,) the times of the rows; None keeps the recorded ones.
        """
        begin = first_row % self.rows
        index: slice | npt.NDArray[np.int64] = slice(begin, begin + row_count)
        if begin + row_count > self.rows:
            index = (begin + np.arange(row_count)) % self.rows
        of_file, value = self.series_index[index], self.value[index]
        times = self.time_us[index] if stamps_us is None else stamps_us
        rejected: tuple[Rejection, ...] = ()
        if self.bad:
            good = of_file >= 0
            if not good.all():
                rejected = self._rejected(begin, np.flatnonzero(~good))
                of_file, value, times = of_file[good], value[good], times[good]
        groups, series_index = self._table.pick(of_file)
        return RecordBatch.grouped(groups, series_index, times, value, rejected)

    def _rejected(self, begin: int, offsets: npt.NDArray[np.int64]) -> tuple[Rejection, ...]:
        rows = ((offset, self.bad[(begin + offset) % self.rows]) for offset in offsets.tolist())
        return tuple(Rejection(offset, row.reason, row.text) for offset, row in rows)


def bundled_sample() -> Path:
    """Give the path of the sample that comes with telemq: in the wheel, or in the checkout.

    Raises:
        SourceError: this installation has none.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package / "sample" / SAMPLE, package.parents[1] / "data" / SAMPLE)
    for place in places:
        if place.is_file():
            return place
    raise SourceError(f"this installation has no sample: neither {places[0]} nor {places[1]}")


def read_csv(path: Path, *, bytes_max: int = 2**30) -> CsvReplay:
    """Read a whole file into columns, and log its bad rows, one line a cause.

    Args:
        path: a regular file.
        bytes_max: largest file accepted.

    Raises:
        SourceError: the file cannot be read, is too large, changes while it is read, has no usable
            header, or not one good row. The text names file, row and column.
    """
    data = _read_bytes(path, bytes_max)
    lines = io.BytesIO(data.removeprefix(b"\xef\xbb\xbf"))
    header = _header(path, lines.readline(_ROW_BYTES_MAX + 1))
    series: dict[SeriesLabels, int] = {}
    index, times, values = array("i"), array("q"), array("d")
    bad: dict[int, BadRow] = {}
    for number, line in enumerate(lines, start=2):
        if line.isspace():
            continue
        try:
            labels, time_us, value = _parse(line, header)
            index.append(series.setdefault(labels, len(series)))
        except _Fault as fault:
            text = line[: 4 * _KEPT_CHARS].decode(errors="backslashreplace").rstrip("\r\n")
            bad[len(index)] = BadRow(
                number, fault.column, fault.fault, fault.found, text[:_KEPT_CHARS]
            )
            index.append(-1)
            time_us, value = 0, 0.0
        times.append(time_us)
        values.append(value)
    if not index:
        raise SourceError(f"{path}: there is no row below the header")
    _report(path, bad, len(index))
    return CsvReplay(
        path,
        hashlib.sha256(data).hexdigest(),
        tuple(series),
        np.frombuffer(index, np.int32),
        np.frombuffer(times, np.int64),
        np.frombuffer(values, np.float64),
        bad,
    )


def _open_now(path: str, flags: int) -> int:
    # Opening a pipe would wait for its writer otherwise.
    return os.open(path, flags | os.O_NONBLOCK)


def _read_bytes(path: Path, bytes_max: int) -> bytes:
    try:
        with open(path, "rb", opener=_open_now) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise SourceError(f"{path}: it is not a regular file")
            if before.st_size > bytes_max:
                raise SourceError(
                    f"{path}: it has {before.st_size} bytes; --file-bytes-max is {bytes_max}"
                )
            data = file.read(bytes_max + 1)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise SourceError(f"{path}: it cannot be read: {error.strerror or error}") from error
    if len(data) != before.st_size or before.st_mtime_ns != after.st_mtime_ns:
        raise SourceError(f"{path}: it was changed while it was read; try again when it is whole")
    return data


class _Header(NamedTuple):
    width: int
    labels: Callable[[Sequence[str]], tuple[str, ...]]
    time: int
    value: int


def _header(path: Path, line: bytes) -> _Header:
    if not line.strip():
        raise SourceError(
            f"{path}: row 1: there is no header; needed, in any order: {', '.join(COLUMNS)}"
        )
    try:
        found = _fields(line)
    except _Fault as fault:
        raise SourceError(f"{path}: row 1, the header: {fault.found} {fault.fault}") from fault
    missing = [c for c in COLUMNS if c not in found]
    twice = [c for c, count in Counter(found).items() if count > 1 and c in COLUMNS]
    if missing or twice:
        wrong = f"missing {', '.join(missing)}" if missing else f"twice {', '.join(twice)}"
        raise SourceError(
            f"{path}: row 1, the header: {wrong}; found: {_short(', '.join(found), 400)}; "
            f"needed, in any order: {', '.join(COLUMNS)}"
        )
    if extra := [c for c in found if c not in COLUMNS]:
        log.get().warning("columns ignored", file=str(path), columns=extra[:20], count=len(extra))
    places = [found.index(c) for c in _LABEL_COLUMNS]
    return _Header(len(found), itemgetter(*places), found.index("timestamp"), found.index("value"))


class _Fault(Exception):
    """Why a row is no record: column, fault, and what was found, as in `BadRow`."""

    def __init__(self, column: str, fault: str, found: str = "") -> None:
        super().__init__(column, fault, found)
        self.column = column
        self.fault = fault
        self.found = found


def _parse(line: bytes, header: _Header) -> tuple[SeriesLabels, int, float]:
    fields = _fields(line)
    if len(fields) != header.width:
        raise _Fault("", f"instead of the header's {header.width}", f"{len(fields)} fields")
    labels = SeriesLabels._make(header.labels(fields))
    if fault := labels.fault():
        label, _, what = fault.partition(" ")
        raise _Fault(_COLUMN_OF_LABEL[label], what)
    return labels, _time_us(fields[header.time]), _value(fields[header.value])


def _fields(line: bytes) -> list[str]:
    if len(line) > _ROW_BYTES_MAX:
        raise _Fault("", f"the line is longer than {_ROW_BYTES_MAX} bytes")
    try:
        return next(csv.reader((line.decode().rstrip("\r\n"),), strict=True))
    except UnicodeDecodeError as error:
        raise _Fault("", "is not UTF-8", f"byte 0x{line[error.start]:02x}") from error
    except csv.Error as error:
        text = str(error)
        open_quote = text == "unexpected end of data"
        raise _Fault("", "a quote is not closed" if open_quote else text) from error


@lru_cache(maxsize=4096)
def _time_us(text: str) -> int:
    if not _RFC_3339.fullmatch(text):
        raise _Fault("timestamp", "is not RFC 3339, such as 2025-07-18T20:42:34Z", _quote(text))
    try:
        return (datetime.fromisoformat(text.upper()) - _EPOCH) // timedelta(microseconds=1)
    except ValueError as error:
        raise _Fault("timestamp", "is no moment of the calendar", _quote(text)) from error


def _value(text: str) -> float:
    if not text:
        raise _Fault("value", "is empty")
    if not _NUMBER.fullmatch(text):
        what = "is not finite" if _NOT_FINITE.fullmatch(text) else "is not a number"
        raise _Fault("value", what, _quote(text))
    value = float(text)
    if math.isinf(value):
        raise _Fault("value", "is outside the range of a double", _quote(text))
    return value


def _quote(text: str) -> str:
    return repr(_short(text, 40))


def _short(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def _report(path: Path, bad: dict[int, BadRow], rows: int) -> None:
    if len(bad) == rows:
        first = "; ".join(row.reason for row in list(bad.values())[:_SHOWN_ROWS])
        raise SourceError(f"{path}: not one of its {rows} rows is a record: {first}")
    causes: defaultdict[tuple[str, str], list[BadRow]] = defaultdict(list)
    for row in bad.values():
        causes[row.column, row.fault].append(row)
    for (column, fault), rows_of_cause in causes.items():
        log.get().warning(
            "bad rows",
            file=str(path),
            column=column,
            fault=fault,
            count=len(rows_of_cause),
            rows=[row.row for row in rows_of_cause[:_SHOWN_ROWS]],
            found=rows_of_cause[0].found,
        )
