"""The settings of what the gateway knows of the moment: latest values, live clients, brokers.

A part of the table in `telemq.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telemq.setting import setting
from telemq.settings_common import StoreSettings

__all__ = ["LatestSettings"]


@dataclass(frozen=True, kw_only=True)
class LatestSettings(StoreSettings):
    """For the gateway."""

    component: ClassVar[str] = "api"

    follow_s: float = setting(
        1.0,
        "How often the latest values are read while somebody asks for them.",
        unit="s",
        low=0.05,
        high=3600,
    )
    board_series_max: int = setting(
        1_000_000,
        "Most series whose latest values are kept in memory, some 500 bytes each.",
        unit="series",
        low=1,
        high=100_000_000,
    )
    stale_s: float = setting(
        300.0,
        "A series whose latest sample is older is left out of /metrics/gpus.",
        unit="s",
        low=1,
        high=31_536_000,
    )
    live_clients_max: int = setting(
        100, "Most clients of /api/v1/live.", unit="clients", low=0, high=100_000
    )
    live_samples_max: int = setting(
        200_000,
        "Most samples that wait for one slow live client; then it is told that it missed some.",
        unit="samples",
        low=1,
        high=100_000_000,
    )
    live_resume_s: float = setting(
        300.0,
        "Longest absence after which a live client gets what it missed.",
        unit="s",
        low=0,
        high=86_400,
    )
    live_heartbeat_s: float = setting(
        15.0,
        "A live client that gets nothing for so long gets a comment.",
        unit="s",
        low=0.05,
        high=300,
    )
    broker_ops: str = setting(
        "", "Ops addresses of the brokers for /api/v1/status, separated by commas; may be empty."
    )
    broker_wait_s: float = setting(
        2.0, "Longest wait for a broker's answer.", unit="s", low=0.1, high=60
    )
