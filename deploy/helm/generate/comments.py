"""Values with the comments above them, as they stand in values.yaml."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

__all__ = ["Value", "described"]

_LINE = re.compile(r"^( *)(?:- )?([A-Za-z_][\w]*):(?: |$)")
_COMMENT = re.compile(r"^ *# (?!>>>|<<<)(.*)$")


@dataclass(frozen=True, slots=True)
class Value:
    """One value, or a map of values.

    Attributes:
        path: keys from the outermost to its own.
        comment: the comment above it in one line; empty if there is none.
        default: as it is read; for a map, the map.
    """

    path: tuple[str, ...]
    comment: str
    default: Any

    @property
    def name(self) -> str:
        """The path as ``--set`` takes it."""
        return ".".join(self.path)

    @property
    def shown(self) -> str:
        """The default as JSON."""
        return json.dumps(self.default, ensure_ascii=False)


def described(text: str) -> list[Value]:
    """Give the values of a file, maps before what is in them, in the file's order.

    What is in a list, in a map in one line or in a map below a documented one that has no comments
    of its own, belongs to the default of that and is no value of its own.
    """
    values = yaml.safe_load(text)
    found: list[Value] = []
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        if told := _COMMENT.match(line):
            comment.append(told[1])
        elif key := _LINE.match(line):
            indent = len(key[1])
            path = [(i, k) for i, k in path if i < indent]
            path.append((indent, key[2]))
            keys = tuple(k for _, k in path)
            if comment or "- " not in line:
                default = _look_up(values, keys)
                if default is not _MISSING:
                    found.append(Value(keys, " ".join(comment), default))
            comment = []
        else:
            comment = []
    return found


_MISSING = object()


def _look_up(values: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            return _MISSING
        values = values[key]
    return values
