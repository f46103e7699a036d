"""How an answer ends of which the client does not wait for the end."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from prometheus_client import generate_latest

from telemq.gateway.answer import Whole, WholeAnswer
from telemq.gateway.app import create_app
from telemq.gateway.metrics import GatewayMetrics
from telemq.settings import ApiSettings

_SCOPE: Any = {}


def _metrics() -> GatewayMetrics:
    metrics: GatewayMetrics = create_app(ApiSettings(dsn="host=127.0.0.1 port=1")).state.metrics
    return metrics


async def _gone(*_: Any) -> Any:
    return {"type": "http.disconnect"}


async def _send(message: Any) -> None:
    raise AssertionError(f"nobody hears {message}")


def test_a_query_that_was_cancelled_while_it_ended_is_no_failure() -> None:
    """A client goes away, and Postgres says so of the statement that closes the cursor."""

    async def find() -> Whole:
        try:
            await asyncio.sleep(60)
        finally:
            raise psycopg.errors.QueryCanceled("canceling statement due to user request")

    metrics = _metrics()
    asyncio.run(WholeAnswer(metrics, "gpus", find)(_SCOPE, _gone, _send))
    shown = generate_latest(metrics.registry).decode()
    assert 'telemq_api_answers_cut_total{reason="gone"} 1.0' in shown
    assert 'reason="failed"' not in shown


def test_an_answer_that_fails_while_the_client_waits_is_a_failure() -> None:
    """The database goes away instead; nothing was sent, so there is an answer that says so."""

    async def find() -> Whole:
        raise psycopg.OperationalError("the connection is closed")

    async def waiting() -> Any:
        await asyncio.sleep(60)

    answer = WholeAnswer(_metrics(), "gpus", find)
    with pytest.raises(psycopg.OperationalError):
        asyncio.run(answer(_SCOPE, waiting, _send))
