"""Structured log lines on standard output: for people on a terminal, JSON for machines.

An event is a fixed lower-case phrase plus keys: ``log.info("batch stored", rows=500)``.
One line a batch or a change of state, never one a record.
"""

from __future__ import annotations

import logging
import sys
from typing import cast

import structlog

__all__ = ["Seldom", "configure", "get"]

_SECOND = 1_000_000_000


def configure(level: str = "info", format: str = "auto", **fixed: object) -> None:
    """Set up logging for this process.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        format: ``console``, ``json``, or ``auto``: console on a terminal, else JSON.
        **fixed: keys that stand in every line, such as ``component``.
    """
    for_people = format == "console" or (format == "auto" and sys.stdout.isatty())
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if for_people
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if for_people else [_tracebacks]),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        # Without a file it prints to what sys.stdout is then: a live display takes its place.
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    # Not context variables: those of the main thread do not reach the other threads.
    _fixed.clear()
    _fixed.update(fixed)


_fixed: dict[str, object] = {}
# structlog's own choice, here and in the console renderer, shows the local variables of every
# frame: there the DSN with its password would stand in the log.
_tracebacks = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def get(**keys: object) -> structlog.typing.FilteringBoundLogger:
    """Give a logger; `keys` stand in each of its lines."""
    return cast(structlog.typing.FilteringBoundLogger, structlog.get_logger(**_fixed, **keys))


class Seldom:
    """Lets one event of a kind through a second: peers may cause them as fast as they can send."""

    def __init__(self) -> None:
        #: By kind: when the last one went through, and how many did not since.
        self._kinds: dict[str, tuple[int, int]] = {}

    def due(self, kind: str, now_ns: int) -> int | None:
        """Give how many of this kind went unsaid since the last one, or None: do not say this one.

        Args:
            kind: one of few; each is remembered.
            now_ns: monotonic.
        """
        since_ns, unsaid = self._kinds.get(kind, (now_ns - _SECOND, 0))
        if now_ns < since_ns + _SECOND:
            self._kinds[kind] = (since_ns, unsaid + 1)
            return None
        self._kinds[kind] = (now_ns, 0)
        return unsaid
