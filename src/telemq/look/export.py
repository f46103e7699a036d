"""`telemq query`: telemetry of some GPUs, one after the other, with the memory of one chunk.

Each GPU is one question of `telemq.store.telemetry`, as the gateway asks it, so an answer has the
same records in the same order of time. What is printed before a failure stays printed; JSON then
lacks its end, so that what looks whole is whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from telemq.look.lines import LineWriter
from telemq.look.names import check_metrics, find_gpus
from telemq.record import SeriesLabels
from telemq.settings import QuerySettings
from telemq.store import recent
from telemq.store.reader import Reader
from telemq.store.records import CsvWriter, JsonWriter
from telemq.store.samples import Samples
from telemq.store.telemetry import telemetry
from telemq.store.telemetry_query import Question

__all__ = ["FORMATS", "Exported", "Wish", "export", "find"]

_CONNECT_S = 10.0
#: GPUs whose newest sample is looked for when there was nothing to print.
_LOOKED_AT = 8


class _Writer(Protocol):
    def go_on(self, labels: Mapping[int, SeriesLabels]) -> None: ...

    def chunk(self, samples: Samples) -> bytes: ...

    def end(self) -> bytes: ...


def _lines(labels: Mapping[int, SeriesLabels]) -> _Writer:
    return JsonWriter(labels, lines=True)


def _head(labels: Mapping[int, SeriesLabels]) -> _Writer:
    return LineWriter(labels, bold=True)


#: What makes the writer of a format; ``terminal`` is ``table`` with a head that stands out.
FORMATS: dict[str, Callable[[Mapping[int, SeriesLabels]], _Writer]] = {
    "table": LineWriter,
    "terminal": _head,
    "csv": CsvWriter,
    "json": JsonWriter,
    "ndjson": _lines,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is wanted.

    Attributes:
        gpus: words for GPUs, see `find_gpus`.
        question: what is asked of each; its `gpu` is not used, its `limit` is that of all.
        format: a key of `FORMATS`.
    """

    gpus: Sequence[str]
    question: Question
    format: str


@dataclass(frozen=True, slots=True)
class Exported:
    """What was printed.

    Attributes:
        rows: how many.
        newest: time of the newest sample of these GPUs and metrics, if there was none to print.
    """

    rows: int
    newest: datetime | None = None


def find(settings: QuerySettings, wish: Wish) -> list[str]:
    """Give the UUIDs of the GPUs that are meant.

    Raises:
        SettingError: a GPU or metric that there is not; or the DSN is malformed.
        StoreError: the database is none of telemq's, or too slow.
        psycopg.OperationalError: it cannot be reached.
    """
    with recent.connect(
        settings.dsn, name="telemq query", statement_s_max=settings.statement_s_max
    ) as conn:
        gpus = find_gpus(wish.gpus, recent.gpus(conn))
        if wish.question.metrics:
            known = recent.metrics(conn, [gpu.id for gpu in gpus])
            check_metrics(wish.question.metrics, known)
    return [gpu.uuid for gpu in gpus]


async def export(
    settings: QuerySettings, wish: Wish, uuids: Sequence[str], write: Callable[[bytes], object]
) -> Exported:
    """Print what is wanted.

    Args:
        settings: with `dsn` resolved.
        wish: what is wanted.
        uuids: of the GPUs that `find` gave.
        write: takes one part after the other.

    Raises:
        StoreError: the database cannot be used.
        SlowQueryError: a query ran into its limit.
        AggregateError: an aggregate is no number.
        BrokenPipeError: as `write` raises it.
    """
    writer: _Writer | None = None
    rows = 0
    async with Reader(
        settings.dsn,
        connections=1,
        wait_s=_CONNECT_S,
        statement_s_max=settings.statement_s_max,
    ) as reader:
        for uuid in uuids:
            limit = wish.question.limit
            if limit is not None and rows == limit:
                break
            question = dataclasses.replace(
                wish.question, gpu=uuid, limit=None if limit is None else limit - rows
            )
            async with telemetry(reader, question) as found:
                labels = found.labels if found else {}
                if writer is None:
                    writer = FORMATS[wish.format](labels)
                writer.go_on(labels)
                while found and (samples := await found.fetch(settings.chunk_rows)):
                    write(writer.chunk(samples))
                    rows += len(samples)
        if writer is not None:
            write(writer.end())
        return Exported(rows, None if rows else await _newest(reader, wish.question, uuids))


async def _newest(reader: Reader, question: Question, uuids: Sequence[str]) -> datetime | None:
    newest: datetime | None = None
    for uuid in uuids[:_LOOKED_AT]:
        asked = Question(uuid, metrics=question.metrics, descending=True, limit=1)
        async with telemetry(reader, asked) as found:
            for at, *_ in (await found.fetch(1)).rows() if found else ():
                newest = at if newest is None else max(newest, at)
    return newest
