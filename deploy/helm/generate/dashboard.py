"""The Grafana dashboard: rows of panels, each a question that an operator asks.

What is in it is a table below; where panels stand, and the shape that Grafana wants, follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PANELS", "dashboard", "expressions"]

_WIDTH, _HEIGHT = 24, 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: What the dashboard's variables choose; every expression has it.
_WHERE = 'namespace=~"$namespace"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: the question.
        lines: legend and expression of each; ``%`` stands for the choice of namespace.
        unit: Grafana's name of it.
        about: what to make of it.
        kind: Grafana's panel type.
        columns: its width, of 24.
        stacked: whether lines are piled up.
        warn: from here on yellow, and red from `bad` on; of a stat.
        bad: see `warn`.
    """

    title: str
    lines: tuple[tuple[str, str], ...]
    unit: str = "short"
    about: str = ""
    kind: str = "timeseries"
    columns: int = 8
    stacked: bool = False
    warn: float | None = None
    bad: float | None = None


def _one(legend: str, expression: str) -> tuple[tuple[str, str], ...]:
    return ((legend, expression),)


PANELS: dict[str, tuple[Panel, ...]] = {
    "Is it well?": (
        Panel(
            "Stored",
            _one(
                "records/s", "sum(rate(telemq_collector_stored_records_total{%}[$__rate_interval]))"
            ),
            "cps",
            "Records a second that reach Postgres.",
            "stat",
            4,
        ),
        Panel(
            "Oldest message",
            _one("age", "max(telemq_broker_oldest_message_seconds{%})"),
            "s",
            "How long the oldest message has waited; from 120 s on TelemqBrokerStuck.",
            "stat",
            4,
            warn=30,
            bad=120,
        ),
        Panel(
            "Room used",
            _one(
                "used",
                "max((telemq_broker_ready_records{%} + telemq_broker_leased_records{%})"
                " / telemq_broker_capacity_records{%})",
            ),
            "percentunit",
            "Of the fullest broker, in records. Full is no loss: streamers wait.",
            "stat",
            4,
            warn=0.5,
            bad=0.8,
        ),
        Panel(
            "Dead letters, 24 h",
            _one("rows", "sum(increase(telemq_collector_rejected_records_total{%}[24h]))"),
            "short",
            "Rows that could not be stored: telemq dead list.",
            "stat",
            4,
            warn=1,
            bad=1000,
        ),
        Panel(
            "Streamers ready",
            _one("share", "avg(telemq_streamer_ready{%})"),
            "percentunit",
            "Share of streamers that reach both Postgres and a broker.",
            "stat",
            4,
        ),
        Panel(
            "Gateway errors",
            _one(
                "share",
                'sum(rate(telemq_api_requests_total{%,status=~"5.."}[$__rate_interval]))'
                " / sum(rate(telemq_api_requests_total{%}[$__rate_interval]))",
            ),
            "percentunit",
            "Share of answers that are 5xx.",
            "stat",
            4,
            warn=0.01,
            bad=0.05,
        ),
    ),
    "Queue": (
        Panel(
            "Records in and out",
            (
                (
                    "taken in",
                    "sum(rate(telemq_broker_accepted_records_total{%}[$__rate_interval]))",
                ),
                ("settled", "sum(rate(telemq_broker_settled_records_total{%}[$__rate_interval]))"),
            ),
            "cps",
            "Apart for long: storing cannot keep up, or makes up for it.",
        ),
        Panel(
            "What brokers hold",
            (
                ("ready", "sum(telemq_broker_ready_records{%})"),
                ("leased", "sum(telemq_broker_leased_records{%})"),
                ("granted", "sum(telemq_broker_granted_records{%})"),
            ),
            about="In records. Ready: nobody takes them yet; leased: with collectors.",
            stacked=True,
        ),
        Panel(
            "Payload bytes, by broker",
            (
                (
                    "{{pod}}",
                    "telemq_broker_ready_bytes{%} + telemq_broker_leased_bytes{%}",
                ),
            ),
            "bytes",
            "Work spreads by credit, so brokers should look alike.",
        ),
        Panel(
            "Age of the oldest message, by broker",
            _one("{{pod}}", "telemq_broker_oldest_message_seconds{%}"),
            "s",
        ),
        Panel(
            "Peers",
            (
                ("{{role}}s", "sum by (role) (telemq_broker_peers{%})"),
                ("producers that wait for room", "sum(telemq_broker_waiting_producers{%})"),
            ),
            about="Sessions: each peer has one with each broker.",
        ),
        Panel(
            "What goes wrong",
            (
                (
                    "redelivered",
                    "sum(rate(telemq_broker_redelivered_messages_total{%}[$__rate_interval]))",
                ),
                (
                    "leases run out",
                    "sum(rate(telemq_broker_expired_leases_total{%}[$__rate_interval]))",
                ),
                (
                    "peers silent",
                    "sum(rate(telemq_broker_silent_peers_total{%}[$__rate_interval]))",
                ),
                (
                    "refused: {{code}}",
                    "sum by (code) (rate(telemq_broker_refused_total{%}[$__rate_interval]))",
                ),
                ("buried", "sum(rate(telemq_broker_buried_messages_total{%}[$__rate_interval]))"),
            ),
            "cps",
            "Messages and sessions a second; all of it is repaired by itself, at a cost.",
        ),
    ),
    "Collectors": (
        Panel(
            "Stored, by pod",
            _one(
                "{{pod}}",
                "sum by (pod) (rate(telemq_collector_stored_records_total{%}[$__rate_interval]))",
            ),
            "cps",
            stacked=True,
        ),
        Panel(
            "Time of a commit",
            (
                (
                    "median",
                    "histogram_quantile(0.5, sum by (le)"
                    " (rate(telemq_collector_commit_seconds_bucket{%}[$__rate_interval])))",
                ),
                (
                    "99 of 100",
                    "histogram_quantile(0.99, sum by (le)"
                    " (rate(telemq_collector_commit_seconds_bucket{%}[$__rate_interval])))",
                ),
            ),
            "s",
            "Postgres at work. More collectors help until this grows.",
        ),
        Panel(
            "Records a commit",
            _one(
                "mean",
                "sum(rate(telemq_collector_stored_records_total{%}[$__rate_interval]))"
                " / sum(rate(telemq_collector_commits_total{%}[$__rate_interval]))",
            ),
            about="Writers commit what has piled up: large means that they are the limit.",
        ),
        Panel(
            "Held by collectors",
            (
                ("held", "sum(telemq_collector_held_records{%})"),
                ("not in a commit yet", "sum(telemq_collector_backlog_records{%})"),
                ("most that may be", "sum(telemq_collector_credit_records{%})"),
            ),
            about="In records.",
        ),
        Panel(
            "Batches that were not simply stored",
            (
                (
                    "stored before",
                    "sum(rate(telemq_collector_duplicate_batches_total{%}[$__rate_interval]))",
                ),
                (
                    "disputed",
                    "sum(rate(telemq_collector_disputed_batches_total{%}[$__rate_interval]))",
                ),
                (
                    "refused",
                    "sum(rate(telemq_collector_refused_batches_total{%}[$__rate_interval]))",
                ),
                (
                    "not decoded",
                    "sum(rate(telemq_collector_undecoded_batches_total{%}[$__rate_interval]))",
                ),
            ),
            "cps",
            "Stored before is harmless: the ledger at work.",
        ),
        Panel(
            "What collectors miss",
            (
                ("{{pod}} without Postgres", "telemq_collector_postgres_available{%} == 0"),
                ("{{pod}} without a broker", "telemq_collector_broker_connected{%} == 0"),
                (
                    "retries",
                    "sum(rate(telemq_collector_postgres_retries_total{%}[$__rate_interval]))",
                ),
            ),
            about="Empty is good.",
        ),
    ),
    "Streamers": (
        Panel(
            "Published and confirmed",
            (
                (
                    "published",
                    "sum(rate(telemq_streamer_published_rows_total{%}[$__rate_interval]))",
                ),
                (
                    "confirmed",
                    "sum(rate(telemq_streamer_confirmed_rows_total{%}[$__rate_interval]))",
                ),
            ),
            "cps",
            "Published more than confirmed for long: published again after losses.",
        ),
        Panel(
            "Not confirmed",
            _one("{{pod}}", "telemq_streamer_unconfirmed_records{%}"),
            about="Published and not stored yet, in records.",
            stacked=True,
        ),
        Panel(
            "Leases of rows",
            (
                ("ready", "sum(telemq_streamer_ready_leases{%})"),
                ("published", "sum(telemq_streamer_published_leases{%})"),
                ("lost/s", "sum(rate(telemq_streamer_lost_leases_total{%}[$__rate_interval]))"),
            ),
            about="Lost: another streamer took the rows over.",
        ),
    ),
    "Gateway": (
        Panel(
            "Answers, by status",
            _one(
                "{{status}}",
                "sum by (status) (rate(telemq_api_requests_total{%}[$__rate_interval]))",
            ),
            "reqps",
            stacked=True,
        ),
        Panel(
            "Time of an answer, 99 of 100",
            _one(
                "{{route}}",
                "histogram_quantile(0.99, sum by (route, le)"
                " (rate(telemq_api_request_seconds_bucket{%}[$__rate_interval])))",
            ),
            "s",
            "To the last byte; long answers are streamed.",
        ),
        Panel(
            "Postgres connections",
            (
                ("open", "sum(telemq_api_pool_connections{%})"),
                ("idle", "sum(telemq_api_pool_idle{%})"),
                ("requests that wait", "sum(telemq_api_pool_waiting{%})"),
            ),
        ),
    ),
    "Processes": (
        Panel(
            "Memory",
            _one("{{pod}}", 'process_resident_memory_bytes{%,job=~"telemq-.*"}'),
            "bytes",
            columns=12,
        ),
        Panel(
            "CPU",
            _one(
                "{{pod}}", 'rate(process_cpu_seconds_total{%,job=~"telemq-.*"}[$__rate_interval])'
            ),
            "short",
            "Cores. A broker is one thread: near 1 it is the limit, and another broker helps.",
            columns=12,
        ),
    ),
}


def expressions() -> list[str]:
    """Give every expression as Prometheus gets it, but for the dashboard's variables."""
    return [
        expression.replace("%", _WHERE)
        for panels in PANELS.values()
        for panel in panels
        for _, expression in panel.lines
    ]


def dashboard() -> dict[str, Any]:
    """Give the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in PANELS.items():
        at = {"x": 0, "y": y, "w": _WIDTH, "h": 1}
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": at,
            }
        )
        y += 1
        x = 0
        height = 4 if row[0].kind == "stat" else _HEIGHT
        for panel in row:
            if x + panel.columns > _WIDTH:
                x, y = 0, y + height
            at = {"x": x, "y": y, "w": panel.columns, "h": height}
            panels.append(_panel(panel, len(panels) + 1, at))
            x += panel.columns
        y += height
    return {
        "uid": "telemq",
        "title": "telemq",
        "description": "GPU telemetry: queue, collectors, streamers, gateway.",
        "tags": ["telemq"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _choices()},
        "panels": panels,
    }


def _choices() -> list[dict[str, Any]]:
    source = {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }
    query = 'label_values(process_start_time_seconds{job=~"telemq-.*"}, namespace)'
    namespace = {
        "name": "namespace",
        "label": "Namespace",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": "namespace"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    return [source, namespace]


def _panel(panel: Panel, number: int, at: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + n),
            "datasource": _SOURCE,
            "expr": expression.replace("%", _WHERE),
            "legendFormat": legend,
        }
        for n, (legend, expression) in enumerate(panel.lines)
    ]
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none"}
        defaults["custom"] = {"fillOpacity": 10, "stacking": stacking}
    if panel.warn is not None:
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        steps += [{"color": "yellow", "value": panel.warn}, {"color": "red", "value": panel.bad}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": at,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }
