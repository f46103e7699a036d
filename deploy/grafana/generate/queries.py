"""The SQL of the dashboards, put together from a few parts.

A question of a window goes from the series to their samples, through `samples_between`: Postgres
then reads the partitions and chunks of the window by index, and nothing else. What was chosen is
written ``${name:sqlstring}``: quoted by Grafana, whatever a label holds.
"""

from __future__ import annotations

__all__ = [
    "COVERED", "FLEET_NOW", "GPU", "HOSTS", "NEWEST", "NOW", "POWER", "TEMP", "UTIL", "covered",
    "of_gpu", "only", "over_time",
]  # fmt: skip

UTIL, TEMP, POWER = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE"
_FB_USED, _FB_FREE = "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"
_WINDOW = "samples_between($__timeFrom()::timestamptz, $__timeTo()::timestamptz)"
#: What "now" is: the last ten minutes of what is shown.
_LATELY = (
    "samples_between($__timeTo()::timestamptz - interval '10 minutes', $__timeTo()::timestamptz)"
)
HOSTS = "s.hostname IN (${host:sqlstring})"
GPU = "g.uuid = ${gpu:sqlstring}"

#: Means of each series by time.
_MEANS = f"""CROSS JOIN LATERAL (
    SELECT $__timeGroup(ts, $__interval) AS "time", avg(value) AS value
    FROM {_WINDOW} WHERE series_id = s.id GROUP BY 1
) AS of"""

#: The newest value of each metric of each GPU.
NEWEST = f"""WITH newest AS (
    SELECT s.gpu, s.metric_name, concat_ws('/', nullif(s.namespace, ''), nullif(s.pod, '')) AS pod,
           of.ts, of.value
    FROM series s
    CROSS JOIN LATERAL (
        SELECT ts, value FROM {_LATELY} WHERE series_id = s.id ORDER BY ts DESC LIMIT 1
    ) AS of
    WHERE {HOSTS}
      AND s.metric_name IN ('{UTIL}', '{TEMP}', '{POWER}', '{_FB_USED}', '{_FB_FREE}')
)"""


def _latest(metric: str) -> str:
    return f"(array_agg(n.value ORDER BY n.ts DESC) FILTER (WHERE n.metric_name = '{metric}'))[1]"


#: Every GPU as it is now; a silent one has no values.
NOW = f"""{NEWEST}
SELECT g.hostname AS host, g.gpu_id AS gpu, g.model_name AS model,
       nullif((array_agg(n.pod ORDER BY n.ts DESC))[1], '') AS pod,
       {_latest(UTIL)} AS utilization,
       {_latest(_FB_USED)} AS memory,
       {_latest(TEMP)} AS temperature,
       {_latest(POWER)} AS power,
       max(n.ts) AS seen, g.uuid
FROM gpu g LEFT JOIN newest n ON n.gpu = g.id
WHERE g.hostname IN (${{host:sqlstring}})
GROUP BY g.id
ORDER BY g.hostname, length(g.gpu_id), g.gpu_id"""

#: The fleet in one row: one question for all numbers at the head of a dashboard.
FLEET_NOW = f"""SELECT count(*) AS "GPUs",
       count(*) FILTER (WHERE seen IS NULL) AS silent,
       avg(utilization) AS utilization,
       count(*) FILTER (WHERE pod IS NOT NULL AND utilization < 5) AS "idle with a pod",
       sum(power) AS power,
       max(temperature) AS hottest
FROM (
{NOW}
) AS now"""

#: How long each series was there, and its integral, both in hours, as the gateway reckons: the time
#: between two samples counts, unless it is longer than ten minutes.
COVERED = f"""WITH covered AS (
    SELECT s.namespace, s.pod, s.hostname, s.gpu, s.metric_name, of.hours, of.total
    FROM series s
    CROSS JOIN LATERAL (
        SELECT sum(extract(epoch FROM gap)) / 3600 AS hours,
               sum(value * extract(epoch FROM gap)) / 3600 AS total
        FROM (
            SELECT value, lead(ts) OVER (ORDER BY ts) - ts AS gap
            FROM {_WINDOW} WHERE series_id = s.id
        ) AS gaps
        WHERE gap <= interval '10 minutes'
    ) AS of
    WHERE s.pod <> '' AND s.namespace IN (${{namespace:sqlstring}})
      AND s.metric_name IN ('{UTIL}', '{POWER}') AND of.hours > 0
)"""


def covered(by: str) -> str:
    """Give GPU-hours, mean utilisation and energy by some columns of `COVERED`."""
    util, power = (
        f"FILTER (WHERE metric_name = '{UTIL}')",
        f"FILTER (WHERE metric_name = '{POWER}')",
    )
    return f"""{COVERED}
SELECT {by},
       sum(hours) {util} AS "GPU-hours",
       sum(total) {util} / sum(hours) {util} AS utilization,
       sum(total) {power} / 1000 AS energy,
       count(DISTINCT gpu) AS gpus
FROM covered
GROUP BY {by}
ORDER BY "GPU-hours" DESC NULLS LAST
LIMIT 1000"""


def only(sql: str, *columns: str) -> str:
    """Give some columns of an answer: a chart of bars draws every number that it gets."""
    return f"SELECT {', '.join(columns)}\nFROM (\n{sql}\n) AS all_of_it"


def over_time(metric: str, by: str, how: str, where: str) -> str:
    """Give a metric of many GPUs by time.

    Args:
        metric: which.
        by: of a series: what a line stands for.
        how: GPUs are put together: ``avg``, ``sum``, ``count``, ``max``.
        where: which series.
    """
    return f"""SELECT "time", metric, {how}(value) AS value
FROM (
    SELECT of."time", {by} AS metric, s.gpu, avg(of.value) AS value
    FROM series s
    {_MEANS}
    WHERE s.metric_name = '{metric}' AND {where}
    GROUP BY 1, 2, 3
) AS gpus
GROUP BY 1, 2
ORDER BY 1"""


def of_gpu(*metrics: str) -> str:
    """Give metrics of the chosen GPU by time; all if none is named."""
    names = ", ".join(f"'{metric}'" for metric in metrics)
    narrowed = f"\n  AND s.metric_name IN ({names})" if metrics else ""
    return f"""SELECT of."time", s.metric_name AS metric, avg(of.value) AS value
FROM series s JOIN gpu g ON g.id = s.gpu
{_MEANS}
WHERE {GPU}{narrowed}
GROUP BY 1, 2
ORDER BY 1"""
