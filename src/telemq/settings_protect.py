"""The settings that protect the gateway from its clients: tokens, rates, limits.

A part of the table in `telemq.settings`, in a module of its own for its length. What they are for
is in docs/api.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telemq.setting import setting

__all__ = ["ProtectSettings"]


@dataclass(frozen=True, kw_only=True)
class ProtectSettings:
    """Who may ask a gateway, how often, and how much of it one client can take up."""

    component: ClassVar[str] = "api"

    tokens: str = setting(
        "auto",
        "Whether clients need a token (telemq tokens new); auto: on an address other than "
        "loopback, unless --insecure is given.",
        choices=("auto", "on", "off"),
    )
    token_cache_s: float = setting(
        5.0,
        "How long a gateway remembers a token that it looked up: so long may it let one in that "
        "was revoked.",
        unit="s",
        low=0,
        high=300,
    )
    rate_per_s: float = setting(
        100.0,
        "Requests a second of one token, or of one client address without tokens; 0 is no limit.",
        unit="requests/s",
        low=0,
        high=1_000_000,
    )
    rate_burst: int = setting(
        500,
        "Requests that one client may make at once, after a rest.",
        unit="requests",
        low=1,
        high=1_000_000,
    )
    clients_max: int = setting(
        10_000,
        "Most clients and tokens that are remembered at once; those that asked longest ago are "
        "forgotten first.",
        unit="clients",
        low=1,
        high=10_000_000,
    )
    connections_max: int = setting(
        1000,
        "Most open connections of clients; others are answered 503.",
        unit="connections",
        low=1,
        high=100_000,
    )
    request_s_max: float = setting(
        10.0,
        "Longest time that a client may take to send a request; then it gets 408.",
        unit="s",
        low=0.1,
        high=3600,
    )
    head_bytes_max: int = setting(
        32 * 2**10,
        "Largest head of a request, its path included; others get 431.",
        unit="bytes",
        low=1024,
        high=2**24,
    )
    body_bytes_max: int = setting(
        16 * 2**10,
        "Largest body of a request, of which nothing is read; others get 413.",
        unit="bytes",
        low=0,
        high=2**30,
    )
