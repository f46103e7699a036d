"""Printing into a pipe whose reader may have enough: ``telemq query … | head``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

__all__ = ["LEFT", "reader_may_leave"]

#: The exit code of a program that a closed pipe has ended; shells and scripts know it.
LEFT = 128 + signal.SIGPIPE


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Run what prints; when its reader is gone, end without a word.

    Raises:
        typer.Exit: the reader is gone, with `LEFT`.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(LEFT) from None
