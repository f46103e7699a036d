"""Opens the end of a queue that the settings name: the one place that knows all engines."""

from __future__ import annotations

import importlib
from types import ModuleType

from telemq.client.link import ConsumerLink, ProducerLink
from telemq.engine.base import ConsumerEngine, ProducerEngine
from telemq.engine.gather import ManyConsumer
from telemq.engine.resolve import endpoints_of, is_followed
from telemq.engine.spread import ManyProducer
from telemq.errors import SettingError
from telemq.keys import load_link_keys
from telemq.settings import CollectorSettings, StreamerSettings

__all__ = ["open_consumer", "open_producer"]


def open_producer(settings: StreamerSettings, *, name: str) -> ProducerEngine:
    """Open the producers' end.

    Args:
        settings: ``engine`` says of which queue.
        name: of this peer, for the queue's log.

    Raises:
        SettingError: an address or a key file is malformed, or the engine is not installed.
    """
    if _is_nats(settings.engine):
        producer: ProducerEngine = _jetstream().open_jetstream_producer(settings, name=name)
        return producer
    endpoints = endpoints_of(settings.broker)
    keys = load_link_keys(settings.key, settings.broker_key)
    if len(endpoints) == 1 and not is_followed(endpoints[0]):
        return ProducerLink(
            endpoints[0],
            name=name,
            window_records=settings.window_records,
            window_bytes=settings.window_bytes,
            keys=keys,
        )
    return ManyProducer(
        endpoints,
        name=name,
        window_records=settings.window_records,
        window_bytes=settings.window_bytes,
        resolve_s=settings.resolve_s,
        keys=keys,
    )


def open_consumer(settings: CollectorSettings, *, name: str) -> ConsumerEngine:
    """Open the consumers' end.

    Args:
        settings: ``engine`` says of which queue.
        name: of this peer, for the queue's log.

    Raises:
        SettingError: an address or a key file is malformed, or the engine is not installed.
    """
    if _is_nats(settings.engine):
        consumer: ConsumerEngine = _jetstream().open_jetstream_consumer(settings, name=name)
        return consumer
    endpoints = endpoints_of(settings.broker)
    keys = load_link_keys(settings.key, settings.broker_key)
    if len(endpoints) == 1 and not is_followed(endpoints[0]):
        return ConsumerLink(
            endpoints[0],
            name=name,
            credit_records=settings.credit_records,
            credit_bytes=settings.credit_bytes,
            keys=keys,
        )
    return ManyConsumer(
        endpoints,
        name=name,
        credit_records=settings.credit_records,
        credit_bytes=settings.credit_bytes,
        resolve_s=settings.resolve_s,
        keys=keys,
    )


def _is_nats(engine: str) -> bool:
    if engine in {"", "zmq"}:
        return False
    if engine.partition("://")[0] in {"nats", "tls"}:
        return True
    # Not what was given: it may be an address with a password and a typing error.
    accepted = "empty or zmq for telemq's own broker, or nats://host,host/STREAM for JetStream"
    raise SettingError("--engine", "(secret)", accepted)


def _jetstream() -> ModuleType:
    """Import what an extra brings, only when it is asked for."""
    try:
        return importlib.import_module("telemq.engine.jetstream")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "nats":
            raise
        accepted = "empty or zmq, unless NATS is installed with: pip install 'telemq[nats]'"
        raise SettingError("--engine", "nats", accepted) from error
