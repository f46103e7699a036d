"""The settings of commands that do one thing and end. A part of the table in `telemq.settings`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telemq.setting import setting
from telemq.settings_common import Common, StoreSettings

__all__ = ["KeysSettings", "MigrateSettings"]


@dataclass(frozen=True, kw_only=True)
class MigrateSettings(StoreSettings):
    """`telemq migrate`."""

    component: ClassVar[str] = "migrate"

    wait_s: float = setting(
        0.0,
        "How long to wait for a Postgres that does not answer yet or is starting up; "
        "one that refuses is not waited for.",
        unit="s",
        low=0,
        high=3600,
    )


@dataclass(frozen=True, kw_only=True)
class KeysSettings(Common):
    """`telemq keys kubernetes`."""

    component: ClassVar[str] = "keys"

    wait_s: float = setting(
        60.0,
        "How long to try again while the Kubernetes API does not answer or is overloaded.",
        unit="s",
        low=0,
        high=3600,
    )
