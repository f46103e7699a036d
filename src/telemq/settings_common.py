"""The settings that several components share. A part of the table in `telemq.settings`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telemq.setting import rows, setting

__all__ = ["Common", "StoreSettings"]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every component has."""

    component: ClassVar[str] = ""

    log_level: str = setting(
        "info", "Least important events to log.", choices=("debug", "info", "warning", "error")
    )
    log_format: str = setting(
        "auto",
        "Log lines for people or for machines; auto is console on a terminal, else JSON.",
        choices=("auto", "console", "json"),
    )
    insecure: bool = setting(
        False, "Allow listening on an address other than loopback without keys or tokens."
    )

    def __post_init__(self) -> None:
        """Check every value against its row."""
        for info in rows(type(self)):
            info.check(getattr(self, info.name))


@dataclass(frozen=True, kw_only=True)
class StoreSettings(Common):
    """For what talks to Postgres."""

    dsn: str = setting(
        "",
        "Postgres connection string or URL; empty means the embedded Postgres of --data-dir.",
        secret=True,
    )
    data_dir: str = setting(
        "", "Directory of the embedded Postgres; empty means the user's data directory."
    )
