"""What the pipeline is doing, in numbers: read from its metrics and from its ledger."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import psycopg
from prometheus_client.parser import text_string_to_metric_families

__all__ = [
    "Growth",
    "Numbers",
    "Rate",
    "Totals",
    "Watch",
    "broker_numbers",
    "read_metrics",
    "read_totals",
    "scrape",
]

_EVERY_S = 1.0
#: A child that does not answer by then is skipped this time; it may be restarting.
_SCRAPE_S = 0.5
_METRICS_BYTES_MAX = 2**20
#: The ledger grows for ever and is summed up whole, so that at most 5 % of a database's core
#: goes into it.
_REST = 20
_CONNECT_S = 2
_DUPLICATES = "telemq_collector_duplicate_batches_total"

_TOTALS = "SELECT coalesce(sum(stored), 0)::bigint, coalesce(sum(rejected), 0)::bigint FROM ledger"


@dataclass(frozen=True, slots=True)
class Totals:
    """What the ledger holds; records over all streams."""

    stored: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Numbers:
    """One moment of the pipeline; None is what could not be read.

    Attributes:
        ready_records: queued and not delivered.
        leased_records: delivered and not settled.
        granted_records: credit that producers have not spent.
        capacity_records: room for the three above.
        oldest_s: age of the oldest message in the queue: how far storing lags behind.
        producers: connected streamers.
        consumers: connected collectors.
        totals: what the ledger holds.
        stored_per_s: records stored a second, over the last seconds.
        fault: why the database could not be read, or empty.
    """

    ready_records: float | None = None
    leased_records: float | None = None
    granted_records: float | None = None
    capacity_records: float | None = None
    oldest_s: float | None = None
    producers: float | None = None
    consumers: float | None = None
    totals: Totals | None = None
    stored_per_s: float | None = None
    fault: str = ""


def read_metrics(text: str) -> dict[tuple[str, str], float]:
    """Give each sample of a Prometheus text by its name and its label values, joined by commas.

    Raises:
        ValueError: it is not such a text.
    """
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def broker_numbers(samples: Mapping[tuple[str, str], float], so_far: Numbers) -> Numbers:
    """Give `so_far` with the broker's part of it replaced."""
    return replace(
        so_far,
        ready_records=samples.get(("telemq_broker_ready_records", "")),
        leased_records=samples.get(("telemq_broker_leased_records", "")),
        granted_records=samples.get(("telemq_broker_granted_records", "")),
        capacity_records=samples.get(("telemq_broker_capacity_records", "")),
        oldest_s=samples.get(("telemq_broker_oldest_message_seconds", "")),
        producers=samples.get(("telemq_broker_peers", "producer")),
        consumers=samples.get(("telemq_broker_peers", "consumer")),
    )


class Rate:
    """Turns readings of a growing total into a rate over the last `over_s` seconds."""

    def __init__(self, over_s: float = 5.0) -> None:
        self._over_s = over_s
        self._readings: list[tuple[float, float]] = []

    def add(self, at_s: float, total: float) -> float | None:
        """Take a reading; give the rate, or None while there is only one."""
        self._readings.append((at_s, total))
        # One reading from before the window stays: rates are between readings.
        while len(self._readings) > 2 and self._readings[1][0] <= at_s - self._over_s:
            del self._readings[0]
        since_s, before = self._readings[0]
        return (total - before) / (at_s - since_s) if at_s > since_s else None


class Growth:
    """Sums up a counter over the restarts of its process, which set it back to 0.

    Attributes:
        total: all that it has grown by.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._last = 0.0

    def read(self, value: float | None) -> None:
        """Take a reading; None is none."""
        if value is None:
            return
        self.total += value - self._last if value >= self._last else value
        self._last = value


class Watch:
    """Reads the numbers once a second in a thread of its own; a context manager.

    Args:
        dsn: the database.
        broker_ops: ``host:port`` of the broker's metrics.
        collector_ops: the same of each collector.
    """

    def __init__(self, dsn: str, broker_ops: str, collector_ops: Sequence[str]) -> None:
        self._dsn = dsn
        self._broker_ops = broker_ops
        self._duplicates = {address: Growth() for address in collector_ops}
        self._numbers = Numbers()
        self._rate = Rate()
        self._connection: psycopg.Connection | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="numbers", daemon=True)

    def latest(self) -> Numbers:
        """Give what was read last."""
        return self._numbers

    def duplicates_refused(self) -> int:
        """Give the batches that the ledger refused a second time, as far as was read."""
        return int(sum(growth.total for growth in self._duplicates.values()))

    def _run(self) -> None:
        ask_at = 0.0
        while not self._end.wait(_EVERY_S):
            numbers = broker_numbers(scrape(self._broker_ops), self._numbers)
            for address, growth in self._duplicates.items():
                growth.read(scrape(address).get((_DUPLICATES, "")))
            begin = time.monotonic()
            if begin >= ask_at:
                numbers = self._ask(numbers)
                took = time.monotonic() - begin
                ask_at = begin + took * _REST
            self._numbers = numbers

    def _ask(self, so_far: Numbers) -> Numbers:
        try:
            if self._connection is None:
                self._connection = psycopg.connect(
                    self._dsn, autocommit=True, connect_timeout=_CONNECT_S
                )
            totals = read_totals(self._connection)
        except psycopg.Error as error:
            self._close()
            return replace(so_far, stored_per_s=None, fault=str(error).partition("\n")[0])
        per_s = self._rate.add(time.monotonic(), totals.stored)
        return replace(so_far, totals=totals, stored_per_s=per_s, fault="")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        self._close()


def read_totals(connection: psycopg.Connection) -> Totals:
    """Sum up the ledger."""
    row = connection.execute(_TOTALS).fetchone()
    return Totals(*row) if row else Totals()


def scrape(address: str) -> dict[tuple[str, str], float]:
    """Read the metrics at ``host:port``; empty when nobody answers in time."""
    connection = http.client.HTTPConnection(address, timeout=_SCRAPE_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            return read_metrics(answer.read(_METRICS_BYTES_MAX).decode())
        except (OSError, http.client.HTTPException, ValueError):
            return {}
