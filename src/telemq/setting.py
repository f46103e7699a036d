"""What one setting is: a dataclass field with its unit, range, default and line of help.

The table of all settings is in `telemq.settings`.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from telemq.errors import SettingError
from telemq.helm_values import helm_value

__all__ = ["SettingInfo", "rows", "setting"]


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """One row of the table, as flag, variable and documentation need it.

    Attributes:
        component: ``broker``, ``collector`` …; empty for what all share.
        name: field name, such as ``lease_s``.
        type: the Python type of the value.
        default: the value when neither flag nor variable is given.
        help: one sentence.
        unit: ``s``, ``ms``, ``records``, ``bytes`` …, or empty.
        low: least accepted number, or None.
        high: greatest accepted number, or None.
        choices: accepted words, or empty for any.
        secret: never shown.
    """

    component: str
    name: str
    type: type
    default: Any
    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False

    @property
    def flag(self) -> str:
        """The command-line flag, such as ``--lease-s``."""
        return "--" + self.name.rstrip("_").replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable, such as ``TELEMQ_BROKER_LEASE_S``."""
        return "_".join(["TELEMQ", *filter(None, [self.component]), self.name.rstrip("_")]).upper()

    @property
    def helm_value(self) -> str:
        """The chart's value, such as ``broker.settings.leaseS``; empty where there is none."""
        return helm_value(self.component, self.name, self.variable)

    @property
    def accepted(self) -> str:
        """What is accepted, in words: ``1 to 3,600 s``."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        unit = f" {self.unit}" if self.unit else ""
        if self.low is None:
            return self.type.__name__
        low = f"{self.low:,}".removesuffix(".0")
        if self.high is None:
            return f"at least {low}{unit}"
        high = f"{self.high:,}".removesuffix(".0")
        return f"{low} to {high}{unit}"

    def check(self, value: Any) -> None:
        """Refuse a value outside the range.

        Raises:
            SettingError: with flag, value (masked if secret) and what is accepted.
        """
        shown = "(secret)" if self.secret else value
        if self.choices and value not in self.choices:
            raise SettingError(self.flag, shown, self.accepted)
        if isinstance(value, (int, float)) and not (
            (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
        ):
            raise SettingError(self.flag, shown, self.accepted)


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """Declare one setting as a dataclass field; see `SettingInfo` for the arguments."""
    row = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices}
    return field(default=default, repr=not secret, metadata={**row, "secret": secret})


def rows(component: type[Any]) -> Iterator[SettingInfo]:
    """Yield the table's rows for one settings class, what all share first.

    A field belongs to the component of the class that declares it: the same setting of two
    components is one row, with one variable.
    """
    hints = get_type_hints(component)
    classes: tuple[Any, ...] = component.__mro__
    for f in dataclasses.fields(component):
        owner = next(c.component for c in classes if f.name in inspect.get_annotations(c))
        yield SettingInfo(owner, f.name, hints[f.name], f.default, **f.metadata)
