"""The part of the settings table that says which queue streamers and collectors talk to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telemq.setting import setting

__all__ = ["EngineSettings"]


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """For what talks to a queue; those of streamer and collector are made with it."""

    component: ClassVar[str] = ""

    engine: str = setting(
        "",
        "Empty or zmq for telemq's own broker, or nats://host,host/STREAM for NATS JetStream.",
        secret=True,
    )
    resolve_s: float = setting(
        10.0,
        "Interval of looking up the DNS names in --broker, whose addresses come and go.",
        unit="s",
        low=0.1,
        high=3600,
    )
    replicas: int = setting(
        1, "Servers that keep each message of a JetStream stream, when it is made.", low=1, high=5
    )
    stream_messages_max: int = setting(
        100_000,
        "Most messages in a JetStream stream, when it is made; then producers wait.",
        unit="messages",
        low=1,
        high=1_000_000_000,
    )
    stream_bytes_max: int = setting(
        2**30,
        "Most bytes in a JetStream stream, when it is made; then producers wait.",
        unit="bytes",
        low=1024,
        high=2**40,
    )

    @property
    def batch_bytes(self) -> int:
        """The longest batch to plan for: half of what the queue takes in one message by default."""
        return 2**22 if self.engine in ("", "zmq") else 2**19
