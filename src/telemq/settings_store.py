"""The settings of how samples are laid out and how long they are kept.

A part of the table in `telemq.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telemq.setting import setting
from telemq.settings_common import StoreSettings

__all__ = ["KeepSettings", "MaintainSettings", "PartitionSettings"]


@dataclass(frozen=True, kw_only=True)
class PartitionSettings(StoreSettings):
    """For what makes partitions."""

    partition_hours: int = setting(
        24,
        "Width of new partitions of the samples; those that are there stay as they are.",
        unit="hours",
        low=1,
        high=8784,
    )


@dataclass(frozen=True, kw_only=True)
class KeepSettings(PartitionSettings):
    """For what maintains the store."""

    close_after_s: float = setting(
        3600.0,
        "A partition is closed, and rewritten as chunks, this long after the end of its range.",
        unit="s",
        low=0,
        high=31_536_000,
    )
    keep_raw: bool = setting(False, "Leave closed partitions as they are: no chunks.")
    keep_days: float = setting(
        0.0,
        "Drop samples that are older, a whole partition or chunk at a time; 0 keeps all.",
        unit="days",
        low=0,
        high=36_500,
    )


@dataclass(frozen=True, kw_only=True)
class MaintainSettings(KeepSettings):
    """`telemq maintain`."""

    component: ClassVar[str] = "maintain"

    every_s: float = setting(
        0.0,
        "Run again this long after each pass; 0 is one pass, and then end.",
        unit="s",
        low=0,
        high=86_400,
    )
