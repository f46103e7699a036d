"""Telemetry as lines for people, of any number: columns as wide as labels need, before any row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from telemq.record import SeriesLabels
from telemq.store.samples import Samples
from telemq.terminal import printable

__all__ = ["LineWriter"]

_HEAD = ("time (UTC)", "host", "gpu", "namespace/pod", "metric", "value")
#: Columns of a value before it moves what follows; nothing does.
_VALUE = 12


class _Row(NamedTuple):
    """What stands between the time and the value of a sample."""

    host: str
    gpu: str
    pod: str
    metric: str


class LineWriter:
    """Writes samples as lines of a table, a chunk at a time.

    Args:
        labels: of every series that occurs first, by series id; they give the widths.
        bold: the head stands out on a terminal.
    """

    def __init__(self, labels: Mapping[int, SeriesLabels], *, bold: bool = False) -> None:
        self._widths = [len(name) for name in _HEAD[1:5]]
        self._bold = bold
        self._head = True
        self.go_on(labels)

    def go_on(self, labels: Mapping[int, SeriesLabels]) -> None:
        """Go on with samples of other series; what is wider than before moves its own lines."""
        rows = {series: _row(of) for series, of in labels.items()}
        if self._head:
            self._widths = [
                max(width, *(len(row[n]) for row in rows.values()), 0)
                for n, width in enumerate(self._widths)
            ]
        self._spelt = {series: self._between(row) for series, row in rows.items()}

    def chunk(self, samples: Samples) -> bytes:
        """Give the next lines: `samples`, at least one."""
        lines = [self._heading()] if self._head else []
        self._head = False
        lines += [
            f"{at.isoformat(' ', 'milliseconds')[:23]}{self._spelt[series]}{value:>{_VALUE}.10g}\n"
            for at, series, value in samples.rows()
        ]
        return "".join(lines).encode()

    def end(self) -> bytes:
        """Give the last part; nothing, also when there was no chunk."""
        return b""

    def _heading(self) -> str:
        text = f"{_HEAD[0]:<23}{self._between(_Row(*_HEAD[1:5]))}{_HEAD[5]:>{_VALUE}}"
        return f"\x1b[1m{text}\x1b[0m\n" if self._bold else f"{text}\n"

    def _between(self, row: _Row) -> str:
        cells = (text.ljust(width) for text, width in zip(row, self._widths, strict=True))
        return "  " + "  ".join(cells) + "  "


def _row(labels: SeriesLabels) -> _Row:
    pod = f"{labels.namespace}/{labels.pod}" if labels.namespace else labels.pod
    texts = (labels.hostname, labels.gpu_id, pod or "-", labels.metric_name)
    return _Row(*map(printable, texts))
