"""What a panel of a Grafana dashboard is here: a question in SQL, and how its answer is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Board", "Choice", "Panel"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: the question.
        sql: its answer, with Grafana's macros and the board's choices.
        columns: what the answer has at least; of a time series these three.
        kind: Grafana's panel type.
        unit: Grafana's name of it.
        about: what to make of it.
        width: of 24.
        height: in Grafana's rows.
        units: of columns, where they have several.
        links: of columns of a table: the URL that a cell leads to.
        options: of the panel, besides the usual.
        top: of a scale, or None.
        limits: from here on yellow, and red.
        column_limits: the same of columns.
        stacked: whether lines are piled up.
    """

    title: str
    sql: str
    columns: tuple[str, ...] = ("time", "metric", "value")
    kind: str = "timeseries"
    unit: str = "short"
    about: str = ""
    width: int = 12
    height: int = 8
    units: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    top: float | None = None
    limits: tuple[float, float] | None = None
    column_limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    stacked: bool = False

    @property
    def format(self) -> str:
        """How Grafana reads the answer."""
        return "time_series" if self.kind == "timeseries" else "table"


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable of a dashboard: what a person chooses from.

    Attributes:
        name: in the SQL.
        label: over the box.
        sql: gives what there is to choose: one column, or ``__text`` and ``__value``.
        several: more than one may be chosen, and all are at first.
    """

    name: str
    label: str
    sql: str
    several: bool = True


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard.

    Attributes:
        uid: in its URL.
        title: its name.
        about: what it tells.
        choices: its variables.
        panels: by the head of their row; a row without a head has an empty one.
        hours: of the window at first.
        refresh: how often it is drawn anew.
    """

    uid: str
    title: str
    about: str
    choices: tuple[Choice, ...]
    panels: dict[str, tuple[Panel, ...]]
    hours: int = 3
    refresh: str = "30s"
