"""A real broker and a real collector in threads, and ways to wait for what they do."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from telemq.broker.server import BrokerServer
from telemq.broker.stats import BrokerStats
from telemq.collector.service import run
from telemq.settings import BrokerSettings, CollectorSettings

__all__ = ["Broker", "Collector", "eventually", "running_broker", "running_collector"]


def eventually(condition: Callable[[], bool], what: str, within_s: float = 20) -> None:
    """Wait until `condition` holds; fail with `what` if it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.01)


class Broker:
    """A broker in a thread.

    Attributes:
        producers: endpoint for producers.
        consumers: endpoint for consumers.
        stats: as of the last step.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self._server = BrokerServer(settings)
        self.producers = self._server.producer_endpoint
        self.consumers = self._server.consumer_endpoint
        self.stats: BrokerStats = self._server.core.stats()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._server.step(20)
            self.stats = self._server.core.stats()
        self._server.close()

    def stop(self) -> None:
        """End it; what it holds is gone."""
        self._stop.set()
        self._thread.join(10)


@contextlib.contextmanager
def running_broker(
    *, lease_s: float = 30.0, heartbeat_s: float = 0.5, producers: str = "", consumers: str = ""
) -> Iterator[Broker]:
    """Run a broker, on free ports unless endpoints are given."""
    broker = Broker(
        BrokerSettings(
            producer_bind=producers or "tcp://127.0.0.1:0",
            consumer_bind=consumers or "tcp://127.0.0.1:0",
            lease_s=lease_s,
            heartbeat_s=heartbeat_s,
        )
    )
    try:
        yield broker
    finally:
        broker.stop()


class Collector:
    """A collector in a thread.

    Attributes:
        error: what `run` raised, or None.
        code: what `run` returned, or None while it runs.
    """

    def __init__(self, settings: CollectorSettings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self.error: BaseException | None = None
        self.code: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.code = run(self._settings, self._stop)
        except BaseException as error:  # noqa: BLE001  # the test looks at it
            self.error = error

    @property
    def ended(self) -> bool:
        """Whether `run` has come back."""
        return not self._thread.is_alive()

    def stop(self, within_s: float = 20) -> None:
        """Ask it to stop, and wait until it has."""
        self._stop.set()
        self._thread.join(within_s)
        assert self.ended, f"the collector did not stop within {within_s} s"


@contextlib.contextmanager
def running_collector(settings: CollectorSettings) -> Iterator[Collector]:
    """Run a collector; at the end it is stopped, and must not have failed on its own."""
    collector = Collector(settings)
    try:
        yield collector
    finally:
        collector.stop()
    assert collector.error is None, collector.error
