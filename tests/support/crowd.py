"""Many links in one thread: producers that offer as fast as they can, consumers that settle."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from telemq.client.link import ConsumerLink, ProducerLink
from telemq.client.many import ManyLinks, context_for

__all__ = ["Consumers", "Producers", "serving", "spread"]


class Producers:
    """Producers of one thread, each with the same messages to publish under its own ids.

    Attributes:
        confirmed: ids, by producer.
    """

    def __init__(
        self, endpoint: str, count: int, messages: int, *, records: int = 1, payload: bytes = b"x",
        window_records: int = 100_000, window_bytes: int = 2**26,
    ) -> None:  # fmt: skip
        self._context = context_for(count)
        self.links = [
            ProducerLink(
                endpoint, name=f"{n}", window_records=window_records, window_bytes=window_bytes,
                context=self._context,
            )
            for n in range(count)
        ]  # fmt: skip
        self._many = ManyLinks(self.links)
        self._number = {link: n for n, link in enumerate(self.links)}
        self._messages, self._records, self._payload = messages, records, payload
        self._published = [0] * count
        self.confirmed: list[list[str]] = [[] for _ in range(count)]

    def step(self, timeout_s: float = 0.0) -> None:
        """Publish what fits into the windows, and take in what came."""
        for link in self._many.due(timeout_s):
            n = self._number[link]
            while self._published[n] < self._messages and link.room_records() >= self._records:
                id = f"{n}#{self._published[n] * self._records}"
                link.publish(id, self._records, self._payload)
                self._published[n] += 1
            self.confirmed[n] += link.poll(0)

    @property
    def done(self) -> bool:
        """Whether all is confirmed."""
        return all(len(ids) == self._messages for ids in self.confirmed)

    def ids(self) -> set[str]:
        """Give every id that is to be published."""
        return {
            f"{n}#{m * self._records}"
            for n in range(len(self.links))
            for m in range(self._messages)
        }

    def close(self) -> None:
        """Close the links."""
        for link in self.links:
            link.close()
        self._context.destroy(linger=0)


class Consumers:
    """Consumers of one thread that settle at once what they get.

    Attributes:
        seen: how often each id came.
    """

    def __init__(
        self, endpoint: str, count: int, *, credit_records: int = 100_000,
        credit_bytes: int = 2**22,
    ) -> None:  # fmt: skip
        self._context = context_for(count)
        self.links = [
            ConsumerLink(
                endpoint, name=f"{n}", credit_records=credit_records, credit_bytes=credit_bytes,
                context=self._context,
            )
            for n in range(count)
        ]  # fmt: skip
        self._many = ManyLinks(self.links)
        self.seen: Counter[str] = Counter()

    def step(
        self, timeout_s: float = 0.0, before_settling: Callable[[], None] | None = None
    ) -> None:
        """Take in what came and settle it."""
        for link in self._many.due(timeout_s):
            if deliveries := link.poll(0):
                self.seen.update(delivery.id for delivery in deliveries)
                if before_settling:
                    before_settling()
                link.settle(deliveries)

    def close(self) -> None:
        """Close the links."""
        for link in self.links:
            link.close()
        self._context.destroy(linger=0)


def spread(producers: Producers) -> tuple[int, float, int]:
    """Give the least, mean and greatest number of confirmed messages of a producer."""
    counts = [len(ids) for ids in producers.confirmed]
    return min(counts), sum(counts) / len(counts), max(counts)


@contextlib.contextmanager
def serving(endpoint: str, count: int, service_s: float) -> Iterator[tuple[list[int], Any]]:
    """Run consumers as processes, each taking so long for a message; yields pids and counts."""
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", count)
    processes = [
        context.Process(target=_serve, args=(endpoint, n, counts, service_s), daemon=True)
        for n in range(count)
    ]
    for process in processes:
        process.start()
    try:
        yield [process.pid or 0 for process in processes], counts
    finally:
        for process in processes:
            process.kill()
            process.join()


def _serve(endpoint: str, number: int, counts: Any, service_s: float) -> None:
    link = ConsumerLink(endpoint, name=f"{number}", credit_records=10, credit_bytes=10**6)
    while True:
        for delivery in link.poll(1.0):
            time.sleep(service_s)  # the work itself
            link.settle([delivery])
            counts[number] += 1
