"""The SQL of questions about a whole fleet; pure.

Series are chosen first, by name, and their samples read by id. Several series may be one *track*
(one metric of one GPU in one group, whatever else their labels say); a statement gets the track of
each series and gives at most one row a track.

A day of one metric of 2,000 GPUs is millions of rows that lie all over a day's partition. A bitmap
visits each page once: 2.4 s, where one look-up a row took 5.3 s, of 2 million out of 20 million
samples on two busy cores. Workers would hand every row over before it is grouped, which costs more
than they bring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString

from telemq.store.telemetry_query import Statement

__all__ = [
    "PLAN",
    "busy",
    "covered",
    "idle_spans",
    "intervals",
    "last_seen",
    "over",
    "risen",
    "series_of",
]

#: Before any of these, in the same transaction. 64 MB hold the bitmap of some GB, and the groups.
PLAN: LiteralString = """
SELECT set_config('enable_indexscan', 'off', true), set_config('work_mem', '64MB', true),
       set_config('max_parallel_workers_per_gather', '0', true)
"""
_TRACKS: LiteralString = "unnest(%(ids)s::int[], %(tracks)s::int[]) AS asked (id, track)"
_SAMPLES: LiteralString = (
    "samples_between(%(start)s, %(end)s) AS sample WHERE sample.series_id = ANY(%(ids)s)"
)
#: DCGM has numbers for "not measured": 2^31 - 16 and more. No utilisation, power or temperature is
#: so large.
_MEASURED: LiteralString = "value >= 0 AND value < 1e6"

_SERIES: LiteralString = """
SELECT s.id, s.gpu, g.uuid, s.gpu_id, s.model_name, s.hostname, s.namespace, s.pod, s.container,
       s.metric_name
FROM series AS s JOIN gpu AS g ON g.id = s.gpu
WHERE s.metric_name = ANY(%(metrics)s)
   OR (NOT EXISTS (SELECT FROM series AS o WHERE o.gpu = s.gpu AND o.metric_name = ANY(%(metrics)s))
       AND s.metric_name = (SELECT min(o.metric_name) FROM series AS o WHERE o.gpu = s.gpu))
ORDER BY s.id
"""


def series_of(metrics: Sequence[str]) -> Statement:
    """Give what finds the series of these metrics, and of a GPU without any those of another."""
    return _SERIES, {"metrics": list(metrics)}


def covered(tracks: Mapping[int, int], start: datetime, end: datetime, gap: timedelta) -> Statement:
    """Give, for each track, for how long it was there and its time-weighted mean.

    Columns: track, seconds covered, seconds covered by what was measured, integral of the values
    over these (value times seconds).

    The time between two samples counts unless it is longer than `gap`. That follows exactly from
    the first and last sample of each `gap`-wide bin, because no two samples of a bin are further
    apart.
    """
    return _COVERED, _values(tracks, start, end, gap=gap)


_BINNED: LiteralString = f"""
    SELECT series_id, date_bin(%(gap)s, ts, timestamptz '2001-01-01 00:00+00') AS bin,
           min(ts) AS first, max(ts) AS last, {{aggregates}}
    FROM {_SAMPLES} GROUP BY 1, 2
"""
#: From its first to its last sample, and on to the first of the next bin that has any.
_SECONDS: LiteralString = """
    date_part('epoch', last - first + CASE
        WHEN next - last <= %(gap)s THEN next - last ELSE interval '0' END) AS seconds
"""
_COVERED: LiteralString = f"""
SELECT track, sum(seconds), coalesce(sum(seconds) FILTER (WHERE mean IS NOT NULL), 0),
       coalesce(sum(mean * seconds), 0)
FROM (
    SELECT track, mean, {_SECONDS}
    FROM (
        SELECT track, bin, min(first) AS first, max(last) AS last,
               sum(total) / nullif(sum(count), 0) AS mean,
               lead(min(first)) OVER (PARTITION BY track ORDER BY bin) AS next
        FROM ({
    _BINNED.replace(
        "{aggregates}",
        f'''
              count(*) FILTER (WHERE {_MEASURED}) AS count,
              sum(value) FILTER (WHERE {_MEASURED}) AS total''',
    )
}) AS binned
        JOIN {_TRACKS} ON asked.id = series_id
        GROUP BY track, bin
    ) AS merged
) AS spans
GROUP BY track
"""


def risen(tracks: Mapping[int, int], start: datetime, end: datetime, gap: timedelta) -> Statement:
    """Give, for each track of a counter, for how long it was there and by how much it rose.

    Columns: track, seconds covered, rise. A rise beyond `_RISE_MAX` a second is a counter that
    began anew, and no rise.
    """
    return _RISEN, _values(tracks, start, end, gap=gap, most=_RISE_MAX)


#: Of mJ: 10 kW, which no GPU draws.
_RISE_MAX = 1e7
_RISEN: LiteralString = f"""
SELECT track, sum(seconds), coalesce(sum(rise) FILTER (WHERE rise <= %(most)s * seconds), 0)
FROM (
    SELECT track, {_SECONDS},
           high - low + CASE
               WHEN next - last <= %(gap)s AND next_low >= high THEN next_low - high ELSE 0
           END AS rise
    FROM (
        SELECT track, bin, min(first) AS first, max(last) AS last, min(low) AS low,
               max(high) AS high, lead(min(first)) OVER following AS next,
               lead(min(low)) OVER following AS next_low
        FROM ({
    _BINNED.replace("{aggregates}", "min(value) AS low, max(value) AS high").replace(
        "GROUP BY", "AND value >= 0 AND value < 1e18 GROUP BY"
    )
}) AS binned
        JOIN {_TRACKS} ON asked.id = series_id
        GROUP BY track, bin
        WINDOW following AS (PARTITION BY track ORDER BY bin)
    ) AS merged
) AS spans
GROUP BY track
"""


def over(
    tracks: Mapping[int, int], limits: Mapping[int, float], start: datetime, end: datetime
) -> Statement:
    """Give, for each track that has any, the samples over its limit.

    Columns: track, the highest value, the last one, first and last time.

    Args:
        tracks: of each series.
        limits: of each series.
        start: of the window, inclusive.
        end: of the window, inclusive.
    """
    return _OVER, _values(tracks, start, end, limits=[limits[series] for series in tracks])


_OVER: LiteralString = f"""
SELECT track, max(value), (array_agg(value ORDER BY ts DESC))[1], min(ts), max(ts)
FROM {
    _SAMPLES.replace(
        "WHERE",
        '''
    JOIN unnest(%(ids)s::int[], %(tracks)s::int[], %(limits)s::float8[]) AS asked (id, track, high)
    ON asked.id = sample.series_id WHERE''',
    )
}
  AND value > high AND value < 1e6
GROUP BY track
"""


def last_seen(tracks: Mapping[int, int], start: datetime, end: datetime) -> Statement:
    """Give each series that has samples: track, id, last time, mean gap (or null).

    It needs no values, so the index answers it.
    """
    return _LAST_SEEN, _values(tracks, start, end)


_LAST_SEEN: LiteralString = f"""
SELECT track, series_id, last, mean FROM (
    SELECT series_id, max(ts) AS last, (max(ts) - min(ts)) / nullif(count(*) - 1, 0) AS mean
    FROM {_SAMPLES} GROUP BY series_id
) AS seen JOIN {_TRACKS} ON asked.id = series_id
"""


def intervals(lasts: Mapping[int, tuple[datetime, timedelta]]) -> Statement:
    """Give the id of each series and the median gap, in seconds, of its last twenty samples or so.

    Args:
        lasts: of each series, when its last sample was, and its mean gap.
    """
    return _INTERVALS, {
        "ids": list(lasts),
        "lasts": [last for last, _ in lasts.values()],
        "spans": [20 * mean for _, mean in lasts.values()],
    }


_INTERVALS: LiteralString = """
SELECT asked.id, gaps.median
FROM unnest(%(ids)s::int[], %(lasts)s::timestamptz[], %(spans)s::interval[])
     AS asked (id, last, span),
LATERAL (
    SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY gap) AS median FROM (
        SELECT date_part('epoch', ts - lag(ts) OVER (ORDER BY ts)) AS gap
        FROM samples_between(asked.last - asked.span, asked.last) WHERE series_id = asked.id
    ) AS each
) AS gaps
WHERE gaps.median IS NOT NULL
"""


def busy(tracks: Mapping[int, int], start: datetime, end: datetime, below: float) -> Statement:
    """Give each track that has a sample that is not below a limit."""
    return _BUSY, _values(tracks, start, end, below=below)


_BUSY: LiteralString = f"""
SELECT DISTINCT track FROM (
    SELECT DISTINCT series_id FROM {_SAMPLES} AND value >= %(below)s AND value < 1e6
) AS found JOIN {_TRACKS} ON asked.id = series_id
"""


def idle_spans(
    tracks: Mapping[int, int], start: datetime, end: datetime, below: float
) -> Statement:
    """Give, for each track that ends below a limit, since when it is.

    Columns: track, first and last time since the last sample that was not below, number and mean
    of the samples since then.
    """
    return _IDLE_SPANS, _values(tracks, start, end, below=below)


_IDLE_SPANS: LiteralString = f"""
SELECT track, min(ts), max(ts), count(*), sum(value) / count(*) FROM (
    SELECT track, ts, value,
           max(ts) FILTER (WHERE value >= %(below)s) OVER (PARTITION BY track) AS busy
    FROM {_SAMPLES.replace("WHERE", f"JOIN {_TRACKS} ON asked.id = sample.series_id WHERE")}
      AND {_MEASURED}
) AS marked
WHERE busy IS NULL OR ts > busy
GROUP BY track
"""


def _values(
    tracks: Mapping[int, int], start: datetime, end: datetime, **more: Any
) -> dict[str, Any]:
    ids, numbers = list(tracks), list(tracks.values())
    return {"ids": ids, "tracks": numbers, "start": start, "end": end, **more}
