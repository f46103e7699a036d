"""The settings of what people ask in a terminal. A part of the table in `telemq.settings`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telemq.setting import setting
from telemq.settings_common import StoreSettings

__all__ = ["GpusSettings", "QuerySettings"]


@dataclass(frozen=True, kw_only=True)
class GpusSettings(StoreSettings):
    """`telemq gpus`."""

    component: ClassVar[str] = "gpus"

    interval_s: float = setting(
        5.0, "With --watch: time between two readings.", unit="s", low=1, high=3600
    )
    minutes: float = setting(
        10.0,
        "Length of the sparklines; a value that is older is not shown.",
        unit="min",
        low=1,
        high=1440,
    )
    sort: str = setting(
        "host",
        "What comes first: host and index; the busiest, idlest, fullest, hottest; most power; "
        "those silent for longest.",
        choices=("host", "util", "idle", "memory", "temp", "power", "silent"),
    )
    statement_s_max: float = setting(
        60.0, "Longest run of one question to Postgres.", unit="s", low=0.1, high=86_400
    )


@dataclass(frozen=True, kw_only=True)
class QuerySettings(StoreSettings):
    """`telemq query`."""

    component: ClassVar[str] = "query"

    chunk_rows: int = setting(
        5000, "Rows read and printed at a time.", unit="rows", low=1, high=1_000_000
    )
    statement_s_max: float = setting(
        3600.0, "Longest run of one query.", unit="s", low=0.1, high=86_400
    )
