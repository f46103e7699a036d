"""What the gateway counts, and the ASGI layer that counts it.

Labels are few by nature: the route's template, never a path, and the status.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from telemq.gateway.follower import Follower
from telemq.store.reader import Reader

__all__ = ["METRICS", "GatewayMetrics", "MetricInfo", "metered"]


class MetricInfo(NamedTuple):
    """One metric: name, type, labels and one line of help."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str


METRICS: tuple[MetricInfo, ...] = (
    MetricInfo(
        "telemq_api_requests_total", "counter", ("route", "status"), "Requests that were answered."
    ),
    MetricInfo(
        "telemq_api_request_seconds", "histogram", ("route",), "From request to the last byte."
    ),
    MetricInfo("telemq_api_rows_sent_total", "counter", (), "Telemetry records sent."),
    MetricInfo(
        "telemq_api_answers_cut_total",
        "counter",
        ("reason",),
        "Telemetry answers that ended before their last row: gone, stalled, stopped or failed.",
    ),
    MetricInfo(
        "telemq_api_refused_total",
        "counter",
        ("reason",),
        "Requests that were not let in: token, scope, host, rate; head, body, slow, malformed, "
        "connections.",
    ),
    MetricInfo("telemq_api_pool_connections", "gauge", (), "Open Postgres connections."),
    MetricInfo("telemq_api_pool_idle", "gauge", (), "Postgres connections that are not in use."),
    MetricInfo("telemq_api_pool_waiting", "gauge", (), "Requests that wait for a connection."),
    MetricInfo("telemq_api_board_series", "gauge", (), "Series whose latest value is in memory."),
    MetricInfo("telemq_api_board_turn_seconds", "gauge", (), "How long reading what is new took."),
    MetricInfo("telemq_api_live_clients", "gauge", (), "Clients of /api/v1/live."),
    MetricInfo(
        "telemq_api_live_missed_total", "counter", (), "Samples that slow live clients missed."
    ),
)
_HELP = {metric.name: metric.help for metric in METRICS}
_LABELS = {metric.name: metric.labels for metric in METRICS}
# From a small answer of a millisecond to a download of minutes.
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class GatewayMetrics:
    """The metrics of one gateway, in a registry of their own.

    Args:
        reader: asked for the state of its connections when the metrics are read.
        follower: asked for the state of the latest values then.
    """

    def __init__(self, reader: Reader, follower: Follower) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("telemq_api_requests_total")
        name = "telemq_api_request_seconds"
        self._seconds = Histogram(
            name, _HELP[name], _LABELS[name], buckets=_BUCKETS_S, registry=self.registry
        )
        self._rows = self._counter("telemq_api_rows_sent_total")
        self._cut = self._counter("telemq_api_answers_cut_total")
        self._refused = self._counter("telemq_api_refused_total")
        self.registry.register(_Pool(reader))
        self.registry.register(_Latest(follower))
        ProcessCollector(registry=self.registry)

    def _counter(self, name: str) -> Counter:
        return Counter(name, _HELP[name], _LABELS[name], registry=self.registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def rows_sent(self, count: int) -> None:
        """Count telemetry records that were sent."""
        self._rows.inc(count)

    def cut(self, reason: str) -> None:
        """Count a telemetry answer that did not reach its end."""
        self._cut.labels(reason).inc()

    def refused(self, reason: str) -> None:
        """Count a request that was not let in."""
        self._refused.labels(reason).inc()


class _Pool(Collector):
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def collect(self) -> Iterable[Metric]:
        stats = self._reader.stats()
        for name, value in (
            ("telemq_api_pool_connections", stats.connections),
            ("telemq_api_pool_idle", stats.idle),
            ("telemq_api_pool_waiting", stats.waiting),
        ):
            yield GaugeMetricFamily(name, _HELP[name], value=value)


class _Latest(Collector):
    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def collect(self) -> Iterable[Metric]:
        for name, value in (
            ("telemq_api_board_series", self._follower.series),
            ("telemq_api_board_turn_seconds", self._follower.turn_s),
            ("telemq_api_live_clients", self._follower.fanout.clients),
        ):
            yield GaugeMetricFamily(name, _HELP[name], value=value)
        name = "telemq_api_live_missed_total"
        yield CounterMetricFamily(name, _HELP[name], value=self._follower.fanout.missed)


#: On every answer that does not set its own. An API answer is no page: it may load nothing; it is
#: true now, and may be for its asker alone, so nobody keeps it. No header lets other origins in.
_HEADERS = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}


def metered(app: ASGIApp, metrics: GatewayMetrics) -> ASGIApp:
    """Give `app` with every request counted and the security headers on every answer.

    It wraps the whole application, because Litestar runs no middleware for a path it does not know.
    """

    async def meter(scope: Scope, receive: Receive, send: Send) -> None:
        status = 0
        began = time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message["headers"])
                given = {name.lower() for name, _ in headers}
                headers += [pair for pair in _HEADERS.items() if pair[0] not in given]
                message["headers"] = headers
            await send(message)

        try:
            await app(scope, receive, watched)
        finally:
            if status:
                route = str(scope.get("path_template") or "(unknown)")
                metrics.answered(route, status, time.perf_counter() - began)

    return meter
