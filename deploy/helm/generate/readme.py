"""The tables of values in the chart's README."""

from __future__ import annotations

import re

from deploy.helm.generate.comments import Value

__all__ = ["fill_in", "rows"]

_BLOCK = re.compile(r"(<!-- >>> generated: values -->\n)(?:.*\n)*?(<!-- <<< generated -->\n)")


def fill_in(page: str, values: list[Value]) -> str:
    """Give the README with its tables made anew."""
    return _BLOCK.sub(lambda found: found[1] + "\n" + _tables(values) + "\n" + found[2], page)


def rows(values: list[Value]) -> list[Value]:
    """Give what is a row: a value, or a map whose own entries are not explained one by one."""
    inner = {v.path[:n] for v in values if v.comment for n in range(1, len(v.path))}
    leaves = [v for v in values if v.path not in inner]
    whole = {v.path for v in leaves}
    return [v for v in leaves if not any(v.path[:n] in whole for n in range(1, len(v.path)))]


def _tables(values: list[Value]) -> str:
    """Give one table for the values of the chart itself, then one a component."""
    titles = {
        v.path[0]: v.comment for v in values if len(v.path) == 1 and isinstance(v.default, dict)
    }
    found = rows(values)
    whole = [v for v in found if len(v.path) == 1]
    lines = ["### Of the chart", "", *_table(whole)]
    for name in dict.fromkeys(v.path[0] for v in found if len(v.path) > 1):
        lines += ["", f"### {name}", "", titles.get(name, ""), ""]
        lines += _table([v for v in found if v.path[0] == name and len(v.path) > 1])
    return "\n".join(lines) + "\n"


def _table(values: list[Value]) -> list[str]:
    head = ["| value | default | |", "|---|---|---|"]
    return head + [f"| `{v.name}` | `{_cell(v.shown)}` | {_cell(v.comment)} |" for v in values]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
