"""Text from outside, made fit for a terminal: peers choose their names, producers their payloads.

A name with an escape sequence in it could move the cursor, change colours or retitle the window of
the operator who looks at it.
"""

from __future__ import annotations

__all__ = ["dump", "printable"]

#: Bytes a line of `dump`.
_LINE_BYTES = 16


def printable(text: str, *, lines: bool = False) -> str:
    r"""Give text with what is not printable spelt as ``\x1b`` and the like.

    Args:
        text: from anybody.
        lines: leave line feeds and tabs as they are.
    """
    if text.isprintable():
        return text
    keep = "\n\t" if lines else ""
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def dump(payload: bytes) -> str:
    """Give bytes as they are read best: text if they are UTF-8, else lines of hexadecimal."""
    try:
        return printable(payload.decode(), lines=True)
    except UnicodeDecodeError:
        starts = range(0, len(payload), _LINE_BYTES)
        return "\n".join(payload[n : n + _LINE_BYTES].hex(" ") for n in starts)
