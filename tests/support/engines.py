"""Every engine with a small queue behind it, for the contract suite; and what sets them apart.

To add an engine: a context manager that yields an `EngineUnderTest`, and a line in `ENGINES`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from telemq.broker.server import limits_of
from telemq.engine.base import ConsumerEngine, ProducerEngine
from telemq.engine.memory import MemoryQueue
from telemq.engine.select import open_consumer, open_producer
from telemq.settings import BrokerSettings, CollectorSettings, StreamerSettings
from tests.support.brokers import RunningBroker
from tests.support.nats import NatsServer
from tests.support.ports import free_port

__all__ = ["ATTEMPTS", "CAPACITY", "ENGINES", "LEASE_S", "EngineUnderTest", "Promises"]

#: Of each queue: records in it, deliveries of a message, length of a lease. All messages of the
#: suite count ten records, since JetStream bounds messages.
CAPACITY, ATTEMPTS, LEASE_S = 100, 3, 2.0


@dataclass(frozen=True)
class Promises:
    """What one engine promises and another does not.

    Attributes:
        confirms: when a message is confirmed: once it is ``settled``, or once it is ``stored``.
        restarts: whether there is a server that can be killed and started again.
        in_order: whether first deliveries are in the order of publication.
        copies: how often a message may come that two producers publish at the same time.
        again: whether an id that was settled a moment ago is delivered when it is published again.
    """

    confirms: str = "settled"
    restarts: bool = True
    in_order: bool = True
    copies: int = 1
    again: bool = True


@dataclass(frozen=True)
class EngineUnderTest:
    """Opens ends of one queue.

    Attributes:
        promises: its line of the table.
        producer: opens one; the arguments are settings of a streamer.
        consumer: opens one; the arguments are settings of a collector.
        restart: kills what is behind it and starts it again.
    """

    promises: Promises
    producer: Callable[..., ProducerEngine]
    consumer: Callable[..., ConsumerEngine]
    restart: Callable[[], None]


def _broker(**changed: Any) -> BrokerSettings:
    settings = BrokerSettings(
        producer_bind=f"tcp://127.0.0.1:{free_port()}",
        consumer_bind=f"tcp://127.0.0.1:{free_port()}",
        capacity_records=CAPACITY,
        attempts_max=ATTEMPTS,
        lease_s=LEASE_S,
        heartbeat_s=0.2,
    )
    return replace(settings, **changed)


@contextlib.contextmanager
def memory(_: Path) -> Iterator[EngineUnderTest]:
    """Run the rule book in this process."""
    queue = MemoryQueue(limits_of(_broker()))

    def producer(window_records: int = 50, window_bytes: int = 10**6) -> ProducerEngine:
        return queue.producer(name="test", window_records=window_records, window_bytes=window_bytes)

    def consumer(credit_records: int = 1000, credit_bytes: int = 10**6) -> ConsumerEngine:
        return queue.consumer(name="test", credit_records=credit_records, credit_bytes=credit_bytes)

    yield EngineUnderTest(Promises(restarts=False), producer, consumer, lambda: None)


def brokers(
    promises: Promises, *capacities: int, **changed: Any
) -> Callable[[Path], AbstractContextManager[EngineUnderTest]]:
    """Make what runs one broker for each capacity, all with the settings in `changed`.

    A text among the latter has ``{folder}`` replaced by a folder of the test's.
    """

    @contextlib.contextmanager
    def run(folder: Path) -> Iterator[EngineUnderTest]:
        given = {
            k: v.format(folder=folder) if isinstance(v, str) else v for k, v in changed.items()
        }
        settings = [_broker(capacity_records=capacity, **given) for capacity in capacities]
        running = [RunningBroker(one) for one in settings]

        def restart() -> None:
            for at, one in enumerate(settings):
                running[at].stop(bye=False)
                running[at] = RunningBroker(one)

        yield _opened(
            promises,
            {"broker": ",".join(one.producer_bind for one in settings)},
            {"broker": ",".join(one.consumer_bind for one in settings)},
            restart,
        )
        for broker in running:
            broker.stop()

    return run


@contextlib.contextmanager
def jetstream(folder: Path) -> Iterator[EngineUnderTest]:
    """Run one NATS server, with a stream bounded in messages."""
    with NatsServer(folder / "nats") as server:

        def restart() -> None:
            server.kill()
            server.start()

        settings = {
            "engine": f"nats://{server.address}/contract",
            "stream_messages_max": CAPACITY // 10,
            "stream_bytes_max": 64 * 2**20,
        }
        promises = Promises(confirms="stored", again=False)
        collector = {**settings, "lease_s": LEASE_S, "attempts_max": ATTEMPTS}
        yield _opened(promises, settings, collector, restart)


def _opened(
    promises: Promises,
    streamer: dict[str, Any],
    collector: dict[str, Any],
    restart: Callable[[], None],
) -> EngineUnderTest:
    def producer(**changed: Any) -> ProducerEngine:
        settings = {"window_records": 50, "window_bytes": 10**6, **streamer, **changed}
        return open_producer(StreamerSettings(**settings), name="test")

    def consumer(**changed: Any) -> ConsumerEngine:
        settings = {"credit_records": 1000, "credit_bytes": 10**6, **collector, **changed}
        return open_consumer(CollectorSettings(**settings), name="test")

    return EngineUnderTest(promises, producer, consumer, restart)


#: The engines of the contract suite. With two brokers, each has a queue of its own.
ENGINES: dict[str, Callable[[Path], AbstractContextManager[EngineUnderTest]]] = {
    "memory": memory,
    "broker": brokers(Promises(), CAPACITY),
    "two-brokers": brokers(Promises(in_order=False, copies=2), CAPACITY // 2, CAPACITY // 2),
    "journal": brokers(Promises(confirms="stored"), CAPACITY, journal="{folder}/journal"),
    "jetstream": jetstream,
}
