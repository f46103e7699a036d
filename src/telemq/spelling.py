"""How the series of a batch are spelt in JSON, and recognised by their bytes.

Labels are 500 bytes a series and come again in every batch; read or spelt anew each time they
would be most of the work. So `Speller` puts each group of series on a line of its own, which is
white space to JSON (docs/protocol.md, Record batches)::

    {"series":[
    ["DCGM_FI_DEV_GPU_UTIL",...],["DCGM_FI_DEV_GPU_TEMP",...],
    ["DCGM_FI_DEV_FB_USED",...]
    ],"s":[0,1,2],"t":[...],"v":[...]}

and `SeriesReader` knows a line again by comparing its bytes. A JSON string holds no line feed, so a
line that was read before as whole series is the same series wherever it stands between these
brackets. What is spelt otherwise is for the reader of any JSON (`telemq.codec`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast
from weakref import WeakKeyDictionary

import msgspec
import orjson

from telemq.record import RecordBatch, SeriesGroup, SeriesLabels

__all__ = ["DECODE_ERRORS", "Lines", "SeriesReader", "Speller"]

#: What decoding raises. A thousand nested brackets are a RecursionError, not a MsgspecError.
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_OPEN, _BETWEEN, _CLOSE = b'{"series":[\n', b",\n", b"\n],"
_COMMA = ord(",")
#: Bytes by which a line is looked up, beside its length, before all of it is compared: metric and
#: GPU of its first series are among them.
_MARK = 256

_labels = msgspec.json.Decoder(SeriesLabels)
_raws = msgspec.json.Decoder(list[msgspec.Raw])


class Speller:
    """Spells the series of batches, and remembers how.

    Args:
        series_max: single series remembered; beyond it all are forgotten and learnt again.
            Groups are remembered as long as there are any.
    """

    def __init__(self, series_max: int) -> None:
        self._max = series_max
        self._spelt: dict[SeriesLabels, bytes] = {}
        self._lines: WeakKeyDictionary[SeriesGroup, bytes] = WeakKeyDictionary()

    def spell(self, batch: RecordBatch) -> bytes:
        """Give the beginning of the batch's object, from its brace to the comma after `series`."""
        groups = batch.groups or ((SeriesGroup(batch.series),) if batch.series else ())
        if not groups:
            return b'{"series":[],'
        lines = _BETWEEN.join([self._lines.get(group) or self._line(group) for group in groups])
        return b"".join((_OPEN, lines, _CLOSE))

    def _line(self, group: SeriesGroup) -> bytes:
        spelt = self._spelt.get
        line = b",".join([spelt(labels) or self._spell(labels) for labels in group.labels])
        self._lines[group] = line
        return line

    def _spell(self, labels: SeriesLabels) -> bytes:
        if len(self._spelt) >= self._max:
            self._spelt.clear()
        return self._spelt.setdefault(labels, orjson.dumps(tuple(labels)))


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that was read; `faults` are those of its series that cannot be stored, by place."""

    text: bytes
    group: SeriesGroup
    faults: tuple[tuple[int, str], ...]


class Lines(NamedTuple):
    """The beginning of a batch that was spelt in lines.

    Attributes:
        groups: its series.
        faults: why some of them cannot be stored, by their place among all series.
        end: where the rest of the object goes on, after the comma.
    """

    groups: tuple[SeriesGroup, ...]
    faults: list[tuple[int, str]]
    end: int


class SeriesReader:
    """Reads the series of batches, and remembers each, and each line, by its bytes.

    Args:
        series_max: series remembered, and series in lines remembered; beyond it all are forgotten
            and learnt again.
    """

    def __init__(self, series_max: int) -> None:
        self._max = series_max
        self._read: dict[bytes, SeriesLabels] = {}
        #: Of those that cannot be stored, why; empty as a rule.
        self._faults: dict[bytes, str] = {}
        self._lines: dict[tuple[int, bytes], _Line] = {}
        self._line_series = 0

    def read_lines(self, payload: bytes) -> Lines | None:
        """Read the beginning of a batch in lines; None if this is none, or not in lines."""
        if not payload.startswith(_OPEN):
            return None
        groups: list[SeriesGroup] = []
        faults: list[tuple[int, str]] = []
        start, count, is_last = len(_OPEN), 0, False
        while not is_last:
            end = payload.find(b"\n", start)
            if end <= start:
                return None
            line = self._lines.get((end - start, payload[start : min(start + _MARK, end)]))
            if line is None or not payload.startswith(line.text, start):
                line = self._learn_line(payload[start:end])
                if line is None:
                    return None
            groups.append(line.group)
            faults += [(count + place, fault) for place, fault in line.faults]
            count += len(line.group.labels)
            start, is_last = end + 1, payload[end - 1] != _COMMA
        if not payload.startswith(_CLOSE[1:], start):
            return None
        return Lines(tuple(groups), faults, start + len(_CLOSE) - 1)

    def read(
        self, raws: list[msgspec.Raw]
    ) -> tuple[tuple[SeriesLabels, ...], tuple[tuple[int, str], ...]]:
        """Give the labels of each series, and why some cannot be stored, by their place.

        Raises:
            MsgspecError, UnicodeDecodeError, RecursionError: one is no array of ten strings.
        """
        keys = list(map(bytes, raws))
        known = self._read.get
        found = cast("tuple[SeriesLabels, ...]", tuple(map(known, keys)))
        if None in found:
            # All again, since learning may have forgotten what was known.
            series = tuple(known(key) or self._learn(key) for key in keys)
            told = [(place, labels.fault()) for place, labels in enumerate(series)]
            return series, tuple((place, fault) for place, fault in told if fault)
        if self._faults:
            told = [(place, self._faults.get(key)) for place, key in enumerate(keys)]
            return found, tuple((place, fault) for place, fault in told if fault)
        return found, ()

    def _learn(self, key: bytes) -> SeriesLabels:
        labels = _labels.decode(key)
        if len(self._read) >= self._max:
            self._read.clear()
            self._faults.clear()
        if fault := labels.fault():
            self._faults[key] = fault
        return self._read.setdefault(key, labels)

    def _learn_line(self, text: bytes) -> _Line | None:
        try:
            raws = _raws.decode(b"[%b]" % text.removesuffix(b","))
            series, faults = self.read(raws)
        except DECODE_ERRORS:
            return None
        if not series:
            return None
        line = _Line(text, SeriesGroup(series), faults)
        key = (len(text), text[:_MARK])
        if old := self._lines.pop(key, None):
            self._line_series -= len(old.group.labels)
        if self._line_series + len(series) > self._max:
            self._lines.clear()
            self._line_series = 0
        if len(series) <= self._max:
            self._lines[key] = line
            self._line_series += len(series)
        return line
