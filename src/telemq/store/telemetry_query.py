"""What a telemetry question is, and the SQL that answers it; pure.

Everything that a client says travels as a parameter; the text is put together from what stands in
this module only.

Rows are (time, series id, value), in that order of rows too, so a page begins at a `Place`. Samples
have no unique key: two may be equal in all three, and then a place says how many of them went
before. A page reads from its place on, and of chunks only so many hours as hold its rows: paging
deep costs what the first page does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

__all__ = [
    "AGGREGATES",
    "AT_ONCE_EACH",
    "AT_ONCE_SERIES",
    "LABELS",
    "STEP_S_MAX",
    "Place",
    "Question",
    "Statement",
    "equal_before",
]

#: A statement and its parameters.
Statement = tuple[LiteralString, dict[str, Any]]

#: How the samples of a step become one value. A rank, not an interpolation, is the 95th percentile:
#: a value that was measured. `last` is what DISTINCT ON keeps.
_FORMULA: dict[str, LiteralString] = {
    "min": "min(value)",
    "max": "max(value)",
    "mean": "sum(value) / count(*)",  # avg() adds squares up too, which overflow first
    "last": "",
    "p95": "percentile_disc(0.95) WITHIN GROUP (ORDER BY value)",
}
AGGREGATES = tuple(_FORMULA)
#: Longest step: a leap year.
STEP_S_MAX = 366 * 86_400
#: Of a series `s` and its GPU `g`: its labels in the order of `SeriesLabels`.
LABELS: LiteralString = """
s.metric_name, s.gpu_id, s.device, g.uuid, s.model_name, s.hostname,
s.container, s.pod, s.namespace, s.labels_raw
"""
#: What is read at once: windows up to this, of so many series so many samples each. In most fleets
#: they are a second apart or more, so that most answers of such a window fit; and columns of the
#: longest take 5 MiB.
_AT_ONCE = timedelta(hours=2)
AT_ONCE_EACH, AT_ONCE_SERIES = 8192, 32
#: A Monday, so that steps of weeks are weeks.
_BIN: LiteralString = "date_bin(%(step)s, ts, timestamptz '2001-01-01 00:00+00')"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: at this row.

    Attributes:
        time: of the row.
        series: of the row, its id.
        value: of the row; of a step it says nothing.
        skip: rows equal to it that went before.
    """

    time: datetime
    series: int
    value: float = 0.0
    skip: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """What telemetry is asked for.

    Attributes:
        gpu: a UUID; or, if no GPU has it, a ``gpu_id``.
        start: earliest time, inclusive.
        end: latest time, inclusive.
        metrics: names; none means all.
        descending: the latest first.
        step_s: width of a step in seconds, of which each series gives one row, whose time is the
            start of its step; 0 gives samples as they are.
        aggregate: how the samples of a step become one; of `AGGREGATES`.
        limit: most rows, or None.
        place: where the page begins; None at the beginning.
    """

    gpu: str
    start: datetime | None = None
    end: datetime | None = None
    metrics: tuple[str, ...] = ()
    descending: bool = False
    step_s: int = 0
    aggregate: str = "mean"
    limit: int | None = None
    place: Place | None = None

    @property
    def skip(self) -> int:
        """Rows at the page's place that went before."""
        return self.place.skip if self.place else 0

    def window(self) -> tuple[datetime | None, datetime | None]:
        """Give the bounds of what must be read: those asked for, without what went before."""
        start, end, place = self.start, self.end, self.place
        if place is None:
            return start, end
        if not self.descending:
            return (place.time if start is None else max(start, place.time)), end
        last = place.time
        if self.step_s:
            last += timedelta(seconds=self.step_s) - timedelta(microseconds=1)
        return start, (last if end is None else min(end, last))

    def enough(self, series: Sequence[int]) -> Statement | None:
        """Give what finds how much of chunks a page needs, to be given to `narrowed`; or None.

        One value, if there are so many: the end of the hour (if descending, the start) up to which
        chunks alone fill the page.
        """
        if self.limit is None or self.step_s:
            return None
        start, end = self.window()
        text = _ENOUGH_DESCENDING if self.descending else _ENOUGH
        return text, {
            **_bounds(start, end),
            "series": list(series),
            "rows": self.skip + self.limit + 1,
        }

    def narrowed(self, bound: datetime) -> Question:
        """Give the same question, whose page lies within `bound`."""
        if self.descending:
            return dataclasses.replace(self, start=bound)
        return dataclasses.replace(self, end=bound)

    def at_once(self, now: datetime) -> Statement | None:
        """Give what reads the whole answer in one statement, where it may be short; or None.

        One row: of each series that has samples its id, the texts of `LABELS` and how many samples,
        as arrays; and of all of them, one series after the other, the times and the values of
        `SeriesSamples`. Without such a series all are null. The answer is too long if it has more
        series than `AT_ONCE_SERIES`, or a series with more samples than `AT_ONCE_EACH`.

        Args:
            now: where a window that has no end is taken to end, to guess how long the answer is.
        """
        if self.start is None or self.limit is not None or self.place or self.step_s:
            return None
        if min(self.end or now, now) - self.start > _AT_ONCE:
            return None
        if any("\0" in text for text in (self.gpu, *self.metrics)):  # no text in Postgres
            return None
        return _WHOLE, {
            **_bounds(self.start, self.end),
            "gpu": self.gpu,
            "metrics": list(self.metrics),
            "each": AT_ONCE_EACH + 1,
            "most": AT_ONCE_SERIES + 1,
        }

    def rows(self, series: Sequence[int]) -> Statement:
        """Give what reads the page's rows, and one row more if there are any.

        Each is one column, the bytes that `Samples.packed` reads.

        Args:
            series: ids of the series asked for.
        """
        text, values = self._page(series, self.skip, None if self.limit is None else self.limit + 1)
        return f"{_PACKED} FROM ({text}) AS page", values

    def _page(self, series: Sequence[int], skip: int, limit: int | None) -> Statement:
        start, end = self.window()
        values = {**_bounds(start, end), "series": list(series), "skip": skip, "limit": limit}
        key: LiteralString = "(ts, series_id, value)"
        place: LiteralString = "(%(time)s, %(at)s, %(value)s)"
        source = _SAMPLES
        if self.step_s:
            values["step"] = timedelta(seconds=self.step_s)
            key, place = "(ts, series_id)", "(%(time)s, %(at)s)"
            formula = _FORMULA[self.aggregate]
            source = _aggregated(formula) if formula else _LAST
        after: LiteralString = ""
        if self.place is not None:
            values |= {
                "time": self.place.time,
                "at": self.place.series,
                "value": self.place.value,
            }
            after = f"WHERE {key} {'<=' if self.descending else '>='} {place}"
        order = _DESCENDING if self.descending else _ASCENDING
        return f"{source} {after} {order} OFFSET %(skip)s LIMIT %(limit)s", values


def equal_before(question: Question, series: Sequence[int], place: Place) -> Statement:
    """Give what counts the rows of a full page that come before all rows like `place`.

    Args:
        question: of the page, with a limit.
        series: ids of the series asked for.
        place: of the row that comes after the page.
    """
    text, values = question._page(series, question.skip, question.limit)
    sign: LiteralString = ">" if question.descending else "<"
    values |= {"t": place.time, "s": place.series, "v": place.value}
    return (
        f"SELECT count(*) FROM ({text}) AS page"
        f" WHERE (ts, series_id, value) {sign} (%(t)s, %(s)s, %(v)s)",
        values,
    )


_BETWEEN: LiteralString = (
    "samples_between(coalesce(%(start)s, '-infinity'::timestamptz),"
    " coalesce(%(end)s, 'infinity'::timestamptz))"
)
#: One field a row is half of the client's work with three.
_PACKED: LiteralString = "SELECT timestamptz_send(ts) || int4send(series_id) || float8send(value)"
#: One statement, so it sees one state of the database without a transaction around it; and one row,
#: because each row of several kilobytes would wake the client up.
_WHOLE: LiteralString = f"""
SELECT array_agg(id), array_agg(labels), array_agg(samples),
       string_agg(times, ''), string_agg(values, '')
FROM (
    SELECT s.id, ARRAY[{LABELS}] AS labels, found.*
    FROM gpu g JOIN series s ON s.gpu = g.id
    CROSS JOIN LATERAL (
        SELECT count(*) AS samples, string_agg(timestamptz_send(ts), '') AS times,
               string_agg(float8send(value), '') AS values
        FROM (
            SELECT ts, value FROM {_BETWEEN} WHERE series_id = s.id LIMIT %(each)s
        ) AS sample
    ) AS found
    WHERE g.uuid = %(gpu)s AND found.samples > 0
      AND (cardinality(%(metrics)s::text[]) = 0 OR s.metric_name = ANY(%(metrics)s::text[]))
    LIMIT %(most)s
) AS whole
"""
_SAMPLES: LiteralString = f"""
SELECT ts, series_id, value FROM (
    SELECT ts, series_id, value FROM {_BETWEEN} WHERE series_id = ANY(%(series)s)
) AS sample
"""
_LAST: LiteralString = f"""
SELECT ts, series_id, value FROM (
    SELECT DISTINCT ON (series_id, {_BIN}) {_BIN} AS ts, series_id, value
    FROM {_BETWEEN} AS sample (series_id, ts, value)
    WHERE series_id = ANY(%(series)s) ORDER BY series_id, {_BIN}, sample.ts DESC, value DESC
) AS step
"""


def _aggregated(formula: LiteralString) -> LiteralString:
    return f"""
SELECT ts, series_id, value FROM (
    SELECT {_BIN} AS ts, series_id, {formula} AS value
    FROM {_BETWEEN} WHERE series_id = ANY(%(series)s) GROUP BY 1, 2
) AS step
"""


_ASCENDING: LiteralString = "ORDER BY ts, series_id, value"
_DESCENDING: LiteralString = "ORDER BY ts DESC, series_id DESC, value DESC"
#: Of whole hours of the window: those at its ends may have samples outside.
_HOURS: LiteralString = """
    FROM chunk
    WHERE series_id = ANY(%(series)s)
      AND hour >= coalesce(%(start)s, '-infinity'::timestamptz)
      AND hour <= coalesce(%(end)s, 'infinity'::timestamptz) - interval '1 hour'
    GROUP BY hour
"""
_ENOUGH: LiteralString = f"""
SELECT hour + interval '1 hour' FROM (
    SELECT hour, sum(sum(samples)) OVER (ORDER BY hour) AS rows {_HOURS}
) AS so_far WHERE rows >= %(rows)s ORDER BY hour LIMIT 1
"""
_ENOUGH_DESCENDING: LiteralString = f"""
SELECT hour FROM (
    SELECT hour, sum(sum(samples)) OVER (ORDER BY hour DESC) AS rows {_HOURS}
) AS so_far WHERE rows >= %(rows)s ORDER BY hour DESC LIMIT 1
"""


def _bounds(start: datetime | None, end: datetime | None) -> dict[str, Any]:
    return {"start": start, "end": end}
