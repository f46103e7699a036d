"""What is on the Grafana dashboard: rows of panels, each a question that an operator asks."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PANELS", "Panel"]


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
