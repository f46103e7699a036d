"""CSV that a spreadsheet opens without running anything in it; pure.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, and a
formula can fetch a URL or start a program. Labels come from whoever runs a pod, so text that begins
so gets an apostrophe before it, which spreadsheets show as text (OWASP, "CSV Injection": also tab,
carriage return, line feed and the full-width forms, which some fold to the others). A number is
written as it is: ``-5`` is no formula.

Cells are quoted as RFC 4180 says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["csv_line", "csv_text"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_QUOTED = re.compile(r'[",\r\n]')


def csv_text(text: str) -> str:
    """Give one cell of text, safe and quoted where it must be."""
    if text.startswith(_FORMULA):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def csv_line(cells: Iterable[str | float | None], end: str = "\r\n") -> str:
    r"""Give one line; None is an empty cell.

    Args:
        cells: text, made safe; or numbers, as they are.
        end: of the line: RFC 4180's ``\r\n`` on the web, ``\n`` in a pipe.
    """
    return ",".join(_cell(cell) for cell in cells) + end


def _cell(cell: str | float | None) -> str:
    if isinstance(cell, str):
        return csv_text(cell)
    return "" if cell is None else repr(cell)
