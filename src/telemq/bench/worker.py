"""The processes of a benchmark: each tells its result, or why it has none, and what it used."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import Any, Self

from telemq.bench.measure import Part, usage
from telemq.errors import TelemqError
from telemq.memory import prepare_memory

__all__ = ["Crew", "Worker", "count_from_here", "shared_count", "stop_event"]


@dataclass(frozen=True, slots=True)
class _Failed:
    """What a worker sends in place of its result."""

    why: str


class Worker:
    """One function in a process of its own, which it can talk to through a pipe.

    The function is called as ``function(pipe, *args)``; what it returns comes back with what its
    process used. Its process ends with this one, even if that is killed.

    Args:
        name: for the report.
        function: importable by name.
        args: picklable.
    """

    def __init__(self, name: str, function: Callable[..., Any], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(theirs, name, function, args), name=name, daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid or 0

    def check(self) -> None:
        """Raise if it has ended, which it should not yet.

        Raises:
            TelemqError: it ended; says why, if the function raised something.
        """
        if not self._process.is_alive():
            while self.pipe.poll(0):
                self._receive()
            raise TelemqError(f"{self.name} ended too early")

    def receive(self, timeout_s: float) -> Any:
        """Wait for what the function sends.

        Raises:
            TelemqError: it raised something, ended without a word, or took too long.
        """
        end = time.monotonic() + timeout_s
        while not self.pipe.poll(0.1):
            if time.monotonic() > end:
                raise TelemqError(f"{self.name} took longer than {timeout_s:g} s")
            if not self._process.is_alive() and not self.pipe.poll(0):
                raise TelemqError(f"{self.name} ended without a result")
        return self._receive()

    def _receive(self) -> Any:
        try:
            told = self.pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise TelemqError(f"{self.name} ended without a result") from error
        if isinstance(told, _Failed):
            raise TelemqError(f"{self.name} failed: {told.why}")
        return told

    def result(self, timeout_s: float) -> tuple[Any, Part]:
        """Wait for the function's end; gives what it returned and what its process used."""
        value, part = self.receive(timeout_s)
        self._process.join(10)
        return value, part

    def close(self) -> None:
        """End the process, if it still runs; it has a moment to remove what it made."""
        self._process.terminate()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.pipe.close()
        self._process.close()


class Crew:
    """The workers of one run; a context manager that ends them all."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, name: str, function: Callable[..., Any], *args: Any) -> Worker:
        """Start a worker; see there."""
        worker = Worker(name, function, *args)
        self._stack.callback(worker.close)
        return worker


def shared_count() -> Synchronized[int]:
    """Give a count that workers share."""
    count: Synchronized[int] = multiprocessing.get_context("spawn").Value("q", 0)
    return count


_before: list[Part] = []


def count_from_here() -> None:
    """Begin to count the CPU time of this worker anew: what was before is its preparation."""
    _before[:] = [usage("")]


def _end(_signal: int, _frame: object) -> None:
    sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(pipe: Connection, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    signal.signal(signal.SIGTERM, _end)  # scratch folders are removed, servers of rivals stopped
    prepare_memory()  # as every service of telemq's does, and for the rivals' ends as well
    count_from_here()
    try:
        value = function(pipe, *args)
    except Exception as error:
        pipe.send(_Failed(f"{type(error).__name__}: {error}"))
        raise
    after = usage(name)
    pipe.send((value, Part(name, after.cpu_s - _before[0].cpu_s, after.peak_bytes)))


def stop_event(pipe: Connection, first: str = "") -> threading.Event:
    """Give an event that is set when the parent sends something; waits for `first` before."""
    stop = threading.Event()
    if first:
        pipe.recv()

    def wait() -> None:
        pipe.recv()
        stop.set()

    threading.Thread(target=wait, name="stop", daemon=True).start()
    return stop
