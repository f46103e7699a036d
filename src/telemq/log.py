"""Structured log lines on standard output: for people on a terminal, JSON for machines.

An event is a fixed lower-case phrase plus keys: ``log.info("batch stored", rows=500)``.
One line a batch or a change of state, never one a record.
"""

from __future__ import annotations

import logging
import sys
from typing import cast

import structlog

__all__ = ["configure", "get"]


def configure(level: str = "info", format: str = "auto", **fixed: object) -> None:
    """Set up logging for this process.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        format: ``console``, ``json``, or ``auto``: console on a terminal, else JSON.
        **fixed: keys that stand in every line, such as ``component``.
    """
    for_people = format == "console" or (format == "auto" and sys.stdout.isatty())
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
        if for_people
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if for_people else [structlog.processors.dict_tracebacks]),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    # Not context variables: those of the main thread do not reach the other threads.
    _fixed.clear()
    _fixed.update(fixed)


_fixed: dict[str, object] = {}


def get(**keys: object) -> structlog.typing.FilteringBoundLogger:
    """Give a logger; `keys` stand in each of its lines."""
    return cast(structlog.typing.FilteringBoundLogger, structlog.get_logger(**_fixed, **keys))
