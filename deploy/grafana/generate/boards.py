"""What is on the dashboards: each panel is a question that somebody asks."""

from __future__ import annotations

from deploy.grafana.generate.panel import Board, Choice, Panel
from deploy.grafana.generate.queries import (
    FLEET_NOW,
    HOSTS,
    NOW,
    POWER,
    TEMP,
    UTIL,
    covered,
    of_gpu,
    only,
    over_time,
)

__all__ = ["BOARDS"]

_HOST = Choice("host", "Host", "SELECT DISTINCT hostname FROM gpu ORDER BY 1")
_TO_GPU = "/d/telemq-gpu?var-gpu=${__data.fields.uuid}&${__url_time_range}"
_TEAMS = "s.pod <> '' AND s.namespace IN (${namespace:sqlstring})"


_FLEET = Board(
    "telemq-fleet",
    "telemq: fleet",
    "Every GPU now, and the fleet over time.",
    (_HOST,),
    {
        "": (
            Panel(
                "Now",
                FLEET_NOW,
                ("GPUs", "silent", "utilization", "idle with a pod", "power", "hottest"),
                "stat",
                about="Of the newest values of the last ten minutes. Silent: nothing came. "
                "Idle with a pod: held by a pod, and under 5 %.",
                width=24,
                height=4,
                units={"utilization": "percent", "power": "watt", "hottest": "celsius"},
                column_limits={"silent": (1, 5), "hottest": (80, 87)},
            ),
        ),
        "Over time": (
            Panel(
                "Utilisation by host",
                over_time(UTIL, "s.hostname", "avg", HOSTS),
                unit="percent",
                top=100,
            ),
            Panel(
                "Power by host",
                over_time(POWER, "s.hostname", "sum", HOSTS),
                unit="watt",
                stacked=True,
            ),
            Panel(
                "Hottest GPU by host", over_time(TEMP, "s.hostname", "max", HOSTS), unit="celsius"
            ),
            Panel(
                "GPUs that report, by host",
                over_time(UTIL, "s.hostname", "count", HOSTS),
                about="A step down is a host or a GPU that went silent.",
                stacked=True,
            ),
        ),
        "Every GPU": (
            Panel(
                "GPUs now",
                NOW,
                ("host", "gpu", "model", "pod", "utilization", "memory", "temperature", "power",
                 "seen", "uuid"),
                "table",
                about="The newest values of the last ten minutes; a silent GPU has none.",
                width=24,
                height=16,
                units={"utilization": "percent", "memory": "mbytes", "temperature": "celsius",
                       "power": "watt", "seen": "dateTimeFromNow"},
                links={"gpu": _TO_GPU, "uuid": _TO_GPU},
            ),
        ),
    },
    refresh="1m",
)  # fmt: skip

_GPU = Board(
    "telemq-gpu",
    "telemq: GPU",
    "One GPU over time.",
    (
        Choice(
            "gpu",
            "GPU",
            "SELECT concat(hostname, ' ', gpu_id) AS __text, uuid AS __value FROM gpu"
            " ORDER BY hostname, length(gpu_id), gpu_id",
            several=False,
        ),
    ),
    {
        "": (
            Panel("Utilisation", of_gpu(UTIL, "DCGM_FI_DEV_MEM_COPY_UTIL", "DCGM_FI_DEV_ENC_UTIL",
                                        "DCGM_FI_DEV_DEC_UTIL"), unit="percent", top=100),
            Panel("Memory", of_gpu("DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"), unit="mbytes",
                  stacked=True),
            Panel("Power", of_gpu(POWER), unit="watt"),
            Panel("Temperature", of_gpu(TEMP, "DCGM_FI_DEV_MEMORY_TEMP"), unit="celsius",
                  limits=(80, 87)),
            Panel("Clocks", of_gpu("DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_MEM_CLOCK"),
                  unit="megahertz"),
            Panel("Everything", of_gpu(), about="Every metric there is, each in its own unit."),
        ),
        "Who used it": (
            Panel(
                "Pods",
                """SELECT s.namespace, s.pod, s.container, min(of.first) AS since,
       max(of.last) AS until
FROM series s JOIN gpu g ON g.id = s.gpu
CROSS JOIN LATERAL (
    SELECT min(ts) AS first, max(ts) AS last
    FROM samples_between($__timeFrom()::timestamptz, $__timeTo()::timestamptz)
    WHERE series_id = s.id
) AS of
WHERE g.uuid = ${gpu:sqlstring} AND s.pod <> '' AND of.first IS NOT NULL
GROUP BY 1, 2, 3
ORDER BY until DESC""",
                ("namespace", "pod", "container", "since", "until"),
                "table",
                width=24,
                units={"since": "dateTimeAsLocal", "until": "dateTimeAsLocal"},
            ),
        ),
    },
)  # fmt: skip

_USE = {"GPU-hours": "short", "utilization": "percent", "energy": "kwatth"}
_USAGE = Board(
    "telemq-usage",
    "telemq: usage",
    "Who uses the GPUs, and how well.",
    (
        Choice(
            "namespace",
            "Namespace",
            "SELECT DISTINCT namespace FROM series WHERE pod <> '' ORDER BY 1",
        ),
    ),
    {
        "": (
            Panel("By namespace", covered("namespace"),
                  ("namespace", "GPU-hours", "utilization", "energy", "gpus"), "table",
                  about="The time between two samples counts, unless it is over ten minutes.",
                  units=_USE),
            Panel("GPU-hours", only(covered("namespace"), "namespace", '"GPU-hours"'),
                  ("namespace", "GPU-hours"), "barchart", options={"xField": "namespace"}),
            Panel("GPUs held, by namespace", over_time(UTIL, "s.namespace", "count", _TEAMS),
                  stacked=True),
            Panel("Utilisation, by namespace", over_time(UTIL, "s.namespace", "avg", _TEAMS),
                  unit="percent", top=100),
            Panel("By pod", covered("namespace, pod"),
                  ("namespace", "pod", "GPU-hours", "utilization", "energy", "gpus"), "table",
                  width=24, height=12, units=_USE),
        ),
    },
    hours=24,
    refresh="5m",
)  # fmt: skip

_PIPELINE = Board(
    "telemq-pipeline",
    "telemq: pipeline, as Postgres sees it",
    "What is stored, in flight and refused. Brokers and services are on the Prometheus dashboard.",
    (),
    {
        "": (
            Panel("Stored", "SELECT coalesce(sum(stored), 0)::float8 AS value FROM ledger",
                  ("value",), "stat", about="Records, since the beginning.", width=6, height=4),
            Panel("In flight", "SELECT coalesce(sum(row_count), 0)::float8 AS value"
                  " FROM stream_lease", ("value",), "stat",
                  about="Rows that a streamer leased and that are not stored yet.", width=6,
                  height=4),
            Panel("Dead letters",
                  "SELECT count(*)::float8 AS value FROM dead_letter WHERE dropped_at IS NULL",
                  ("value",), "stat", about="telemq dead list shows them.", width=6, height=4,
                  limits=(1, 1000)),
            Panel("Stored last",
                  "SELECT extract(epoch FROM now() - max(stored_at)) AS value FROM ledger",
                  ("value",), "stat", "s", "Since the newest batch was stored.", 6, 4,
                  limits=(60, 600)),
            Panel("Records stored a second",
                  """SELECT $__timeGroup(stored_at, $__interval) AS "time", 'stored' AS metric,
       sum(stored) / ($__interval_ms / 1000.0) AS value
FROM ledger WHERE $__timeFilter(stored_at)
GROUP BY 1
ORDER BY 1""", unit="cps"),
            Panel("Rows refused",
                  """SELECT $__timeGroup(at, $__interval) AS "time", 'refused' AS metric,
       sum(row_count)::float8 AS value
FROM dead_letter WHERE $__timeFilter(at)
GROUP BY 1
ORDER BY 1"""),
            Panel("Streams",
                  """SELECT p.stream_id AS stream, p.next_row AS reserved,
       coalesce(sum(l.row_count), 0)::bigint AS "in flight",
       coalesce(sum(l.row_count) FILTER (WHERE l.leased_until < now()), 0)::bigint AS "run out"
FROM stream_progress p LEFT JOIN stream_lease l USING (stream_id)
GROUP BY 1, 2
ORDER BY 4 DESC, 3 DESC, 1
LIMIT 1000""", ("stream", "reserved", "in flight", "run out"), "table",
                  about="Rows that have run out are taken over by any streamer of that stream."),
            Panel("Why rows were refused",
                  """SELECT reason, count(*) AS letters, sum(row_count) AS rows, max(at) AS last
FROM dead_letter WHERE dropped_at IS NULL AND $__timeFilter(at)
GROUP BY 1
ORDER BY 2 DESC
LIMIT 100""", ("reason", "letters", "rows", "last"), "table",
                  units={"last": "dateTimeFromNow"}),
            Panel("What takes room on disk",
                  """SELECT kind, sum(bytes)::float8 AS bytes, count(*) AS tables
FROM (
    SELECT CASE WHEN c.relname ~ '^sample_' THEN 'samples as they came'
                WHEN c.relname = 'chunk' THEN 'chunks' ELSE 'the rest' END AS kind,
           pg_total_relation_size(c.oid) AS bytes
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'm')
) AS tables
GROUP BY 1
ORDER BY 2 DESC""", ("kind", "bytes", "tables"), "table", units={"bytes": "bytes"}, width=24),
        ),
    },
    refresh="1m",
)  # fmt: skip

BOARDS: tuple[Board, ...] = (_FLEET, _GPU, _USAGE, _PIPELINE)
