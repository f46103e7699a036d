"""A broker as the command line starts it, with its ops address, in a thread of the test."""

from __future__ import annotations

import threading
from typing import Self

import httpx

from telemq.broker.server import run
from telemq.settings import BrokerSettings
from tests.support.brokers import DEADLINE_S, until
from tests.support.ports import free_port

__all__ = ["BrokerProcess"]


class BrokerProcess:
    """`run` of the broker; a context manager.

    Attributes:
        producers: endpoint.
        consumers: endpoint.
        ops: its ops address, as a URL.
    """

    def __init__(self) -> None:
        producer, consumer, ops = free_port(), free_port(), free_port()
        self.producers = f"tcp://127.0.0.1:{producer}"
        self.consumers = f"tcp://127.0.0.1:{consumer}"
        self.ops = f"http://127.0.0.1:{ops}"
        self._stop = threading.Event()
        self._settings = BrokerSettings(
            producer_bind=self.producers,
            consumer_bind=self.consumers,
            ops_address=f"127.0.0.1:{ops}",
            drain_s=0,
        )
        self._thread = threading.Thread(target=run, args=(self._settings, self._stop), daemon=True)

    def get(self, path: str) -> httpx.Response:
        """Ask the ops address."""
        return httpx.get(self.ops + path, timeout=DEADLINE_S, trust_env=False)

    def _answers(self) -> bool:
        try:
            return self.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def __enter__(self) -> Self:
        self._thread.start()
        until(self._answers, "the broker answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the broker does not end"
