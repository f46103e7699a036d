"""Which processes `telemq up` runs, with which settings and on which ports."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from telemq.errors import BusyError
from telemq.setting import SettingInfo, rows
from telemq.settings import (
    ApiSettings,
    BrokerSettings,
    CollectorSettings,
    Common,
    KeepSettings,
    MaintainSettings,
    StoreSettings,
    StreamerSettings,
    UpSettings,
)
from telemq.up.supervisor import Program

__all__ = ["STOP_ORDER", "Places", "places", "programs", "share"]

#: Each group ends before the one on which it depends; and its share of the drain's time.
STOP_ORDER: dict[str, float] = {
    "streamer": 0.5,
    "collector": 0.3,
    "broker": 0.1,
    "api": 0.05,
    "maintain": 0.05,
}

#: Time between two passes of maintenance; one with nothing to do takes some 10 ms.
_MAINTAIN_S = 60.0

_HOST = "127.0.0.1"
# Below 32768, where Linux begins to give out ports for outgoing connections: one of those could
# take a child's port while it is being restarted.
_PORTS = range(20_000, 32_000)
_TRIES = 200


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything listens, for as long as this run lasts; each is ``host:port``.

    Attributes:
        producers: the broker's endpoint for streamers, without ``tcp://``.
        consumers: the broker's endpoint for collectors, without ``tcp://``.
        api: the gateway.
        api_ops: the gateway's health and metrics.
        broker_ops: the broker's health and metrics.
        streamer_ops: one for each streamer.
        collector_ops: one for each collector.
    """

    producers: str
    consumers: str
    api: str
    api_ops: str
    broker_ops: str
    streamer_ops: tuple[str, ...]
    collector_ops: tuple[str, ...]


def places(settings: UpSettings) -> Places:
    """Choose a free port for everything that `settings` leaves open.

    Raises:
        BusyError: a port that was asked for is in use; the text names its flag.
    """
    api, producers = settings.api_port, settings.broker_port
    for flag, port in (
        ("--api-port", api),
        ("--broker-port", producers),
        ("--broker-port", producers and producers + 1),
    ):
        if port and not _is_free(port):
            raise BusyError(f"{flag}: port {port} is in use; give another, or 0 to pick one")
    chosen = {p for p in (api, producers, producers and producers + 1) if p}
    if not producers:
        producers, consumers = _pick(chosen), _pick(chosen)
    else:
        consumers = producers + 1
    return Places(
        producers=f"{_HOST}:{producers}",
        consumers=f"{_HOST}:{consumers}",
        api=f"{_HOST}:{api or _pick(chosen)}",
        api_ops=f"{_HOST}:{_pick(chosen)}",
        broker_ops=f"{_HOST}:{_pick(chosen)}",
        streamer_ops=tuple(f"{_HOST}:{_pick(chosen)}" for _ in range(settings.streamers)),
        collector_ops=tuple(f"{_HOST}:{_pick(chosen)}" for _ in range(settings.collectors)),
    )


def programs(
    settings: UpSettings, places: Places, *, command: Sequence[str], csv: Path, dsn: str
) -> list[Program]:
    """Give what to start, in order.

    Args:
        settings: of `telemq up`.
        places: where each one listens.
        command: what runs the command line, such as ``(python, "-m", "telemq_cli")``.
        csv: the file to replay.
        dsn: goes to the children in their environment, never in their arguments.
    """
    env = {"TELEMQ_DSN": dsn}
    common = {"log_level": settings.log_level, "log_format": "json"}

    def program(
        name: str, group: str, words: Sequence[str], kind: type[Common], **values: object
    ) -> Program:
        flags = _flags(kind, {**common, **values})
        ends = group == "streamer" and settings.rows > 0
        return Program(name, group, (*command, *words, *flags), env, ends)

    return [
        program(
            *("broker", "broker", ["broker"], BrokerSettings),
            producer_bind=f"tcp://{places.producers}",
            consumer_bind=f"tcp://{places.consumers}",
            ops_address=places.broker_ops,
            drain_s=share("broker", settings.drain_s),
        ),
        *(
            program(
                *(f"collector-{n}", "collector", ["collect"], CollectorSettings),
                broker=f"tcp://{places.consumers}",
                ops_address=ops,
                workers=1,
                partition_hours=settings.partition_hours,
                drain_s=share("collector", settings.drain_s),
            )
            for n, ops in enumerate(places.collector_ops, 1)
        ),
        program(
            *("api", "api", ["api"], ApiSettings),
            address=places.api,
            ops_address=places.api_ops,
            broker_ops=places.broker_ops,
        ),
        program(
            *("maintain", "maintain", ["maintain"], MaintainSettings),
            every_s=_MAINTAIN_S,
            **{info.name: getattr(settings, info.name) for info in _kept()},
        ),
        *(
            program(
                *(f"streamer-{n}", "streamer", ["stream", "csv", str(csv)], StreamerSettings),
                broker=f"tcp://{places.producers}",
                ops_address=ops,
                rows=settings.rows,
                rate=settings.rate_or_default / settings.streamers,
                clock=settings.clock,
                drain_s=share("streamer", settings.drain_s),
            )
            for n, ops in enumerate(places.streamer_ops, 1)
        ),
    ]


def share(group: str, drain_s: float) -> float:
    """Give the seconds of a drain that one group may take."""
    return round(STOP_ORDER[group] * drain_s, 3)


def _kept() -> list[SettingInfo]:
    """Give the settings that maintenance shares with `telemq up`."""
    own = {info.name for info in rows(KeepSettings)} - {info.name for info in rows(StoreSettings)}
    return [info for info in rows(KeepSettings) if info.name in own]


def _flags(kind: type[Common], values: dict[str, object]) -> list[str]:
    flags = {info.name: info.flag for info in rows(kind)}
    return [
        flags[name] if value is True else f"{flags[name]}={value}"
        for name, value in values.items()
        if value is not False
    ]


def _pick(taken: set[int]) -> int:
    # At random: two pipelines that start at the same time then meet hardly ever.
    for port in random.sample(_PORTS, _TRIES):
        if port not in taken and _is_free(port):
            taken.add(port)
            return port
    raise BusyError(f"no free port found from {_PORTS.start} to {_PORTS.stop - 1}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the services do: a port whose last connections are still closing is free to them.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True
