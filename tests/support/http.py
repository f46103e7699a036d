"""A broker with HTTP on, in threads of the test, and a client for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from telemq.broker.http.app import openapi_json
from telemq.broker.metrics import BrokerMetrics
from telemq.broker.ways_metrics import serving_http
from telemq.settings import BrokerSettings
from tests.support.brokers import DEADLINE_S, RunningBroker, running_broker

__all__ = ["http_broker"]


@contextmanager
def http_broker(
    headers: dict[str, str] | None = None, **settings: Any
) -> Iterator[tuple[RunningBroker, httpx.Client]]:
    """Run a broker that serves HTTP; yields it and a client whose base URL is its address.

    Every answer that the client gets must be one that the OpenAPI document names.
    """
    settings = {"http": "127.0.0.1:0", **settings}
    paths = json.loads(openapi_json())["paths"]

    def documented(response: httpx.Response) -> None:
        path = paths.get(response.request.url.path)
        if path is None:
            return
        described = path[response.request.method.lower()]["responses"]
        assert str(response.status_code) in described, response.request.url
        if response.status_code >= 400:
            assert "application/problem+json" == response.headers["content-type"]
            assert response.status_code == json.loads(response.read())["status"]

    with running_broker(**settings) as broker:
        metrics = BrokerMetrics(broker.stats)
        with (
            serving_http(BrokerSettings(**settings), broker.ways, metrics) as url,
            httpx.Client(
                base_url=url,
                timeout=DEADLINE_S,
                trust_env=False,
                headers=headers,
                event_hooks={"response": [documented]},
            ) as client,
        ):
            yield broker, client
