"""The settings of the broker's other ways in and out: PULL, PUSH and HTTP.

A part of the table in `telemq.settings`, in a module of its own for its length. What each way
promises is in docs/ways.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telemq.setting import setting

__all__ = ["WaysSettings"]


@dataclass(frozen=True, kw_only=True)
class WaysSettings:
    """What a broker does besides speaking the protocol; all of it is off by default."""

    component: ClassVar[str] = "broker"

    pull: str = setting(
        "",
        "ZeroMQ endpoint that takes in what anyone PUSHes; empty is off. At most once: bounded by "
        "not reading while there is no room, and what was not read is lost with the broker.",
    )
    pull_content_type: str = setting(
        "telemq.record", "Content type of a pulled message that does not name its own."
    )
    pull_messages_max: int = setting(
        100,
        "Most messages of one pusher that wait unread in the broker's socket.",
        unit="messages",
        low=1,
        high=1_000_000,
    )
    push: str = setting(
        "",
        "ZeroMQ endpoint that fans messages out to whoever PULLs; empty is off. At most once: a "
        "message counts as settled when ZeroMQ has it; with no puller all stay queued.",
    )
    push_messages_max: int = setting(
        100,
        "Most messages of one puller that wait unsent in the broker's socket.",
        unit="messages",
        low=1,
        high=1_000_000,
    )
    http: str = setting(
        "", "HTTP address for /publish, /consume and /settle; empty is off, port 0 picks one."
    )
    http_token: str = setting(
        "",
        "Bearer token that HTTP clients must give; needed on an address other than loopback.",
        secret=True,
    )
    http_wait_s: float = setting(
        10.0,
        "How long an HTTP client waits for room or for a message when it does not say.",
        unit="s",
        low=0,
        high=3600,
    )
    http_wait_s_max: float = setting(
        60.0, "Longest wait that an HTTP client may ask for.", unit="s", low=0, high=3600
    )
    http_requests_max: int = setting(
        100,
        "Most HTTP requests at once that publish, and as many that consume; others get 503.",
        unit="requests",
        low=1,
        high=10_000,
    )
    http_leases_max: int = setting(
        1000,
        "Most messages that HTTP clients hold and have not settled.",
        unit="messages",
        low=1,
        high=100_000,
    )
    http_body_bytes_max: int = setting(
        2**20, "Largest body of an HTTP request.", unit="bytes", low=1024, high=2**30
    )
