"""Keeps named child processes running until they are stopped, group by group.

::

    running --ends--> waiting --pause over--> running          see restart.py for the rule
       |                 |
       | exit 0          | stop
       v                 v
     done             stopped <--ends-- stopping               SIGTERM; past its limit SIGKILL

One thread, the caller's, owns all of it: it calls `Supervisor.step` several times a second.
Children run in sessions of their own, so that a Ctrl-C on the terminal reaches only the supervisor,
and hold the lifeline (see telemq.process), so that they never outlive it.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self, cast

from telemq import log
from telemq.clock import Nanoseconds, monotonic_ns
from telemq.errors import ChildError
from telemq.process import LIFELINE
from telemq.up.output import Output
from telemq.up.restart import Again, Done, Refused, RestartRule

__all__ = ["ChildState", "Program", "State", "Supervisor"]

State = Literal["running", "waiting", "stopping", "done", "stopped"]
#: Exit code given to a child that could not even be started, as shells do.
_NOT_STARTED = 127
#: Longest wait for a child after SIGKILL; only one in the kernel's hands takes longer.
_KILL_S = 5.0


@dataclass(frozen=True, slots=True)
class Program:
    """What one child runs.

    Attributes:
        name: unique among its supervisor's, such as ``streamer-1``; names its log file.
        group: children of one group are stopped together.
        argv: the command; never holds a secret, since everybody can read it.
        env: variables on top of the supervisor's own.
        ends: it has an end of its own, and is not started again after exit 0.
    """

    name: str
    group: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ends: bool = False


@dataclass(frozen=True, slots=True)
class ChildState:
    """A snapshot of one child; `pid` and `lived_s` are 0 while it does not run."""

    name: str
    group: str
    state: State
    pid: int
    restarts: int
    lived_s: float


class Supervisor:
    """Starts children and restarts those that die; a context manager that leaves none behind.

    Args:
        programs: what to run, in the order of their start.
        log_dir: existing directory for ``<name>.log``; None lets children print where this
            process prints.
        clock: the monotonic clock.
    """

    def __init__(
        self,
        programs: Iterable[Program],
        *,
        log_dir: Path | None = None,
        clock: Callable[[], Nanoseconds] = monotonic_ns,
    ) -> None:
        self._clock = clock
        self._log = log.get()
        self._lifeline, self._held = os.pipe()
        self._children = [_Child(p, log_dir) for p in programs]

    def start(self) -> None:
        """Start every child."""
        for child in self._children:
            self._start(child)

    def step(self) -> None:
        """Start again what died and is due, and kill what overran its stop.

        Raises:
            ChildError: a child refused to run several times in a row; the others still run.
        """
        now = self._clock()
        for child in self._children:
            if child.state in {"running", "stopping"}:
                code = child.exit_code()
                if code is not None:
                    self._ended(child, code, now)
                elif child.state == "stopping" and now >= child.due:
                    child.signal(signal.SIGKILL)
            elif child.state == "waiting" and now >= child.due:
                child.restarts += 1
                self._start(child)

    def stop(self, group: str, within_s: float) -> None:
        """Ask a group to end, with SIGTERM; `step` kills what still runs after `within_s`."""
        due = Nanoseconds(self._clock() + int(within_s * 1e9))
        for child in self._children:
            if child.program.group != group:
                continue
            if child.state == "waiting":
                child.state = "stopped"
            elif child.state == "running":
                child.state, child.due = "stopping", due
                child.signal(signal.SIGTERM)

    def restart(self, group: str, pause_s: float) -> None:
        """Start those of a group again that are done, because their end was none."""
        due = Nanoseconds(self._clock() + int(pause_s * 1e9))
        for child in self._children:
            if child.program.group == group and child.state == "done":
                child.state, child.due = "waiting", due

    def ended(self, group: str) -> bool:
        """Tell whether all of a group are done or stopped."""
        return all(
            c.state in {"done", "stopped"} for c in self._children if c.program.group == group
        )

    def states(self) -> list[ChildState]:
        """Give a snapshot of every child, in the order given."""
        now = self._clock()
        return [c.snapshot(now) for c in self._children]

    def _start(self, child: _Child) -> None:
        try:
            child.start(self._lifeline, self._clock())
        except OSError as error:
            self._log.error("child not started", child=child.program.name, reason=str(error))
            child.started = self._clock()
            self._ended(child, _NOT_STARTED, child.started)
        else:
            self._log.info("child started", child=child.program.name, pid=child.snapshot(0).pid)

    def _ended(self, child: _Child, code: int, now: Nanoseconds) -> None:
        name = child.program.name
        stopping = child.state == "stopping"
        child.forget_process()
        if stopping:
            child.state = "stopped"
            if code:
                self._log.warning("child stopped", child=name, code=code, reason=child.why(code))
            return
        verdict = child.rule.ended(code, (now - child.started) / 1e9)
        match verdict:
            case Done():
                child.state = "done"
                self._log.info("child done", child=name)
            case Again(pause_s=pause_s):
                child.state, child.due = "waiting", Nanoseconds(now + int(pause_s * 1e9))
                self._log.warning(
                    "child died", child=name, code=code, again_in_s=pause_s, reason=child.why(code)
                )
            case Refused():
                child.state = "stopped"
                raise ChildError(f"{name} does not start: {child.why(code)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # With the last write end gone, each child ends itself; the signal is for those that hang.
        os.close(self._held)
        os.close(self._lifeline)
        for child in self._children:
            child.signal(signal.SIGKILL)
        for child in self._children:
            if not child.wait(_KILL_S):
                self._log.error("child not killed", child=child.program.name)


class _Child:
    """One child's process, and what is known of it over its restarts."""

    def __init__(self, program: Program, log_dir: Path | None) -> None:
        self.program = program
        self.rule = RestartRule(ends=program.ends)
        self.state: State = "stopped"
        self.restarts = 0
        self.started = Nanoseconds(0)
        #: While waiting: when to start; while stopping: when to kill.
        self.due = Nanoseconds(0)
        self._output = Output(log_dir / f"{program.name}.log") if log_dir else None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, lifeline: int, now: Nanoseconds) -> None:
        self._process = subprocess.Popen(
            self.program.argv,
            env={**os.environ, **self.program.env, LIFELINE: str(lifeline)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if self._output else None,
            stderr=subprocess.STDOUT if self._output else None,
            pass_fds=(lifeline,),
            start_new_session=True,
        )
        self.state, self.started = "running", now
        if self._output:
            self._follower = self._output.follow(cast(IO[bytes], self._process.stdout))

    def exit_code(self) -> int | None:
        return self._process.poll() if self._process else None

    def signal(self, number: int) -> None:
        if self._process:
            self._process.send_signal(number)

    def wait(self, within_s: float) -> bool:
        if self._process:
            try:
                self._process.wait(within_s)
            except subprocess.TimeoutExpired:
                return False
            self.forget_process()
        return True

    def forget_process(self) -> None:
        """Drop what has ended; its last lines are read first."""
        if self._process and self._output:
            # Limited: a grandchild may hold the pipe open.
            self._follower.join(1.0)
        self._process = None

    def why(self, code: int) -> str:
        if code < 0:
            return signal.Signals(-code).name
        return self._output.reason() if self._output else "see above"

    def snapshot(self, now: int) -> ChildState:
        runs = self._process is not None
        return ChildState(
            self.program.name,
            self.program.group,
            self.state,
            self._process.pid if self._process else 0,
            self.restarts,
            (now - self.started) / 1e9 if runs else 0.0,
        )
