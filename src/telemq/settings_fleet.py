"""The settings of the gateway's questions about a whole fleet.

A part of the table in `telemq.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telemq.setting import setting
from telemq.settings_common import StoreSettings

__all__ = ["FleetSettings"]


@dataclass(frozen=True, kw_only=True)
class FleetSettings(StoreSettings):
    """For the gateway."""

    component: ClassVar[str] = "api"

    fleet_days_max: float = setting(
        31.0,
        "Longest time window of one question about the whole fleet.",
        unit="days",
        low=0.01,
        high=3660,
    )
    fleet_keep_s: float = setting(
        15.0,
        "An answer about the whole fleet is given again for so long; 0 asks the database each "
        "time.",
        unit="s",
        low=0,
        high=3600,
    )
    fleet_gap_s: float = setting(
        600.0,
        "Longest time between two samples of a GPU that counts as use of it; more than its "
        "samples' interval.",
        unit="s",
        low=1,
        high=86_400,
    )
    hot_c: float = setting(85.0, "A GPU over this temperature is hot.", unit="°C", low=0, high=200)
