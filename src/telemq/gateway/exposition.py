"""The latest values as Prometheus reads them, in its text format 0.0.4; pure.

Names and labels are those of DCGM, spelt once a series. A name that Prometheus would refuse gets
``_`` where it is wrong. Series that differ only in what is not shown, such as ``labels_raw``, are
one here, and the newest counts: Prometheus refuses a scrape that has the same series twice.

Without times of their own: a value is what is known at the scrape, and one that is too old is left
out, so that it ends in Prometheus as that of an exporter which is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import orjson

from telemq import dcgm
from telemq.gateway.board import Board
from telemq.store.latest import SeriesRow

__all__ = ["CONTENT_TYPE", "Exposition", "metric_name"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Series spelt before others have their turn: some 5 ms.
_AT_A_TIME = 2000
_REFUSED = re.compile(r"[^a-zA-Z0-9_:]", re.ASCII)
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Exposition:
    """The text of a board's latest values.

    Args:
        board: whose.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._spelt: list[bytes] = []

    def pieces(self, stale_us: int) -> Iterator[bytes]:
        """Yield the text; empty pieces only say that time has passed.

        Args:
            stale_us: a series whose latest sample is older by the database's clock is left out.
        """
        board = self._board
        # Two who ask at the same time spell in turns what both need.
        while (start := len(self._spelt)) < len(board):
            self._spelt += map(_spell, board.series[start : start + _AT_A_TIME])
            yield b""
        families: dict[str, list[int]] = {}
        for index, metric in enumerate(board.metrics):
            families.setdefault(metric_name(metric), []).append(index)
        for name, indexes in sorted(families.items()):
            yield from self._family(name, indexes, board.at_us - stale_us)

    def _family(self, name: str, indexes: list[int], since_us: int) -> Iterator[bytes]:
        board = self._board
        known = len(self._spelt)
        last_us, value = board.last_us[:known].copy(), board.value[:known].copy()
        slots = np.flatnonzero(np.isin(board.metric[:known], indexes) & (last_us >= since_us))
        slots = slots[np.argsort(last_us[slots], kind="stable")]
        if not len(slots):
            return
        newest: dict[bytes, bytes] = {}
        for start in range(0, len(slots), _AT_A_TIME):
            part = slots[start : start + _AT_A_TIME]
            values = orjson.dumps(value[part], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
            newest.update(zip(map(self._spelt.__getitem__, part.tolist()), values, strict=True))
            yield b""
        known_field = dcgm.field(name)
        help = known_field.help or "As its exporter gave it."
        unit = f" In {known_field.unit}." if known_field.unit else ""
        yield f"# HELP {name} {help}{unit}\n# TYPE {name} {known_field.kind}\n".encode()
        lines = list(newest.items())
        for start in range(0, len(lines), _AT_A_TIME):
            part_of = lines[start : start + _AT_A_TIME]
            yield b"".join([text + number + b"\n" for text, number in part_of])


def metric_name(name: str) -> str:
    """Give a metric's name as Prometheus accepts it."""
    accepted = _REFUSED.sub("_", name)
    return f"_{accepted}" if accepted[0].isdigit() else accepted


def _spell(row: SeriesRow) -> bytes:
    """Give what stands before a series' value."""
    labels = {
        "gpu": row.gpu_id,
        "UUID": row.uuid,
        "device": row.device,
        "modelName": row.model_name,
        "Hostname": row.hostname,
        "container": row.container,
        "pod": row.pod,
        "namespace": row.namespace,
    }
    spelt = ",".join([f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items()])
    return f"{metric_name(row.metric_name)}{{{spelt}}} ".encode()
