"""The metrics of the ways in and out besides the protocol, and HTTP's thread where it is on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from telemq.broker.metrics import BrokerMetrics
from telemq.broker.ways import Ways
from telemq.log import get
from telemq.settings import BrokerSettings

__all__ = ["WaysMetrics", "serving_http"]


class WaysMetrics(Collector):
    """Shows what the ways have counted; the broker's thread counts, others read.

    Args:
        ways: of the broker.
        requests: HTTP answers by path and status.
    """

    def __init__(self, ways: Ways, requests: Counter[tuple[str, int]]) -> None:
        self._ways = ways
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the ways that are on."""
        if pull := self._ways.pull:
            yield CounterMetricFamily(
                "telemq_broker_pulled_messages", "Messages taken in by PULL.", value=pull.pulled
            )
            yield CounterMetricFamily(
                "telemq_broker_pull_refused_messages",
                "Messages at PULL of a form that is not accepted.",
                value=pull.refused,
            )
        if push := self._ways.push:
            yield CounterMetricFamily(
                "telemq_broker_pushed_messages", "Messages handed over to PUSH.", value=push.pushed
            )
        if http := self._ways.http:
            yield from self._http(http.waiting, http.leases)

    def _http(self, waiting: int, leases: int) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "telemq_broker_http_waiting_requests",
            "HTTP requests that wait for room, a message or a confirm.",
            value=waiting,
        )
        yield GaugeMetricFamily(
            "telemq_broker_http_leased_messages",
            "Messages that HTTP clients hold.",
            value=leases,
        )
        requests = CounterMetricFamily(
            "telemq_broker_http_requests", "HTTP answers.", labels=["path", "status"]
        )
        for (path, status), count in sorted(self._requests.copy().items()):
            requests.add_metric([path, str(status)], count)
        yield requests


@contextmanager
def serving_http(settings: BrokerSettings, ways: Ways, metrics: BrokerMetrics) -> Iterator[str]:
    """Serve HTTP, if it is on; yields its URL, or nothing. Registers the metrics of all ways.

    Raises:
        SettingError: the address is malformed, or not loopback without a token or ``--insecure``.
        BusyError: somebody else listens there.
    """
    if ways.http is None:
        metrics.registry.register(WaysMetrics(ways, Counter()))
        yield ""
        return
    # A broker without HTTP starts in half the time.
    from telemq.broker.http.app import HttpServer  # noqa: PLC0415 - only where it is asked for

    with HttpServer(settings, ways.http.door, metrics) as server:
        metrics.registry.register(WaysMetrics(ways, server.requests))
        get().info("broker serves http", url=server.url, swagger=f"{server.url}/swagger")
        yield server.url
