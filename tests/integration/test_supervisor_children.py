"""The supervisor with real child processes: restarts, stops, output, and leaving none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from telemq.errors import ChildError
from telemq.up import output
from telemq.up.output import Output
from telemq.up.supervisor import ChildState, Program, Supervisor

_SLEEPS = "import time; print('up', flush=True); time.sleep(60)"
_SERVES = """
import os, sys
from telemq.process import stop_on_signals
stop = stop_on_signals()
print("up", flush=True)
stop.wait(60)
print("drained", flush=True)
"""
_DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + _SLEEPS


def _program(name: str, code: str, *, group: str = "g", ends: bool = False) -> Program:
    return Program(name, group, (sys.executable, "-c", code), ends=ends)


def _until(supervisor: Supervisor, true: Callable[[], bool], within_s: float = 20) -> None:
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, supervisor.states()
        supervisor.step()
        time.sleep(0.01)


def _log(directory: Path, name: str) -> str:
    path = directory / f"{name}.log"
    return path.read_text() if path.exists() else ""


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    # A process that nobody waits for any more stays as a zombie until init has collected it.
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_killed_child_is_started_again(tmp_path: Path) -> None:
    """The kernel's OOM killer takes the broker."""
    with Supervisor([_program("broker", _SLEEPS)], log_dir=tmp_path) as supervisor:
        supervisor.start()
        first = supervisor.states()[0]
        assert "running" == first.state
        os.kill(first.pid, signal.SIGKILL)
        _until(supervisor, lambda: supervisor.states()[0].pid not in (0, first.pid))
        again = supervisor.states()[0]
        assert ("running", 1) == (again.state, again.restarts)


def test_child_that_keeps_dying_is_started_ever_more_slowly(tmp_path: Path) -> None:
    """A collector cannot reach its Postgres."""
    with Supervisor([_program("c", "raise SystemExit(1)")], log_dir=tmp_path) as supervisor:
        begin = time.monotonic()
        supervisor.start()
        _until(supervisor, lambda: supervisor.states()[0].restarts == 3)
        assert time.monotonic() - begin >= 0.1 + 0.2 + 0.4


def test_child_with_an_end_is_done(tmp_path: Path) -> None:
    """A streamer has published all of its rows."""
    with Supervisor([_program("s", "print('all')", ends=True)], log_dir=tmp_path) as supervisor:
        supervisor.start()
        _until(supervisor, lambda: supervisor.ended("g"))
        assert ["done"] == [c.state for c in supervisor.states()]
        assert "all\n" == _log(tmp_path, "s")


def test_child_that_is_done_can_be_started_again(tmp_path: Path) -> None:
    """Streamers were ended by hand before all rows were stored."""
    with Supervisor([_program("s", "", ends=True)], log_dir=tmp_path) as supervisor:
        supervisor.start()
        _until(supervisor, lambda: supervisor.ended("g"))
        supervisor.restart("g", 0.0)
        assert not supervisor.ended("g")
        _until(supervisor, lambda: supervisor.ended("g"))
        assert 1 == supervisor.states()[0].restarts


def test_stop_drains_one_group_and_leaves_the_other(tmp_path: Path) -> None:
    """Streamers stop first, while collectors still store what is queued."""
    programs = [_program("a", _SERVES, group="first"), _program("b", _SERVES, group="second")]
    with Supervisor(programs, log_dir=tmp_path) as supervisor:
        supervisor.start()
        _until(supervisor, lambda: "up" in _log(tmp_path, "a") and "up" in _log(tmp_path, "b"))
        supervisor.stop("first", 10)
        _until(supervisor, lambda: supervisor.ended("first"))
        assert ["stopped", "running"] == [c.state for c in supervisor.states()]
        assert "up\ndrained\n" == _log(tmp_path, "a")


def test_deaf_child_is_killed_when_its_time_is_over(tmp_path: Path) -> None:
    """A service hangs in its drain."""
    with Supervisor([_program("deaf", _DEAF)], log_dir=tmp_path) as supervisor:
        supervisor.start()
        _until(supervisor, lambda: "up" in _log(tmp_path, "deaf"))
        pid = supervisor.states()[0].pid
        supervisor.stop("g", 0.3)
        supervisor.step()
        assert "stopping" == supervisor.states()[0].state
        _until(supervisor, lambda: supervisor.ended("g"))
        assert _gone(pid)


def test_child_that_waits_for_its_restart_stops_at_once(tmp_path: Path) -> None:
    """Ctrl-C while a collector is down."""
    with Supervisor([_program("c", "raise SystemExit(1)")], log_dir=tmp_path) as supervisor:
        supervisor.start()
        _until(supervisor, lambda: supervisor.states()[0].state == "waiting")
        supervisor.stop("g", 10)
        assert ["stopped"] == [c.state for c in supervisor.states()]


def test_child_that_refuses_ends_it_with_its_own_words(tmp_path: Path) -> None:
    """The gateway's port is taken by another program."""
    code = "import sys; print('{}'); print('telemq: port 8080 is in use'); sys.exit(2)"
    with Supervisor([_program("api", code)], log_dir=tmp_path) as supervisor:
        supervisor.start()
        with pytest.raises(ChildError, match=r"^api does not start: port 8080 is in use$"):
            _until(supervisor, lambda: False)


def test_program_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    """The installation is replaced while it runs."""
    with Supervisor([Program("x", "g", ("/nonexistent",))], log_dir=tmp_path) as supervisor:
        supervisor.start()
        _until(supervisor, lambda: supervisor.states()[0].restarts == 1)


def test_leaving_ends_every_child(tmp_path: Path) -> None:
    """An error ends the supervisor in the middle."""
    with Supervisor([_program(n, _DEAF) for n in "abc"], log_dir=tmp_path) as supervisor:
        supervisor.start()
        pids = [c.pid for c in supervisor.states()]
    assert [True, True, True] == [_gone(pid) for pid in pids]
    assert [0, 0, 0] == [c.pid for c in supervisor.states()]


def test_children_do_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    """The supervisor gets a SIGKILL and cannot say a word."""
    code = f"""
import sys, time
from pathlib import Path
from telemq.up.supervisor import Program, Supervisor
child = Program("c", "g", (sys.executable, "-c", {_SERVES!r}))
with Supervisor([child], log_dir=Path({str(tmp_path)!r})) as supervisor:
    supervisor.start()
    print(supervisor.states()[0].pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        while not (line := parent.stdout.readline()).strip().isdigit():
            assert line
        pid = int(line)
        until = time.monotonic() + 20
        while "up" not in _log(tmp_path, "c"):
            assert time.monotonic() < until
            time.sleep(0.01)
        parent.kill()
    while not _gone(pid):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_terminal_interrupt_does_not_reach_children(tmp_path: Path) -> None:
    """Ctrl-C goes to all processes of the terminal's foreground group."""
    with Supervisor([_program("c", _SLEEPS)], log_dir=tmp_path) as supervisor:
        supervisor.start()
        pid = supervisor.states()[0].pid
        assert os.getpgid(0) != os.getpgid(pid)
        assert os.getsid(0) != os.getsid(pid)


def test_variables_reach_the_child_and_nobody_else(tmp_path: Path) -> None:
    """A DSN with its password is handed over."""
    program = Program(
        "c",
        "g",
        (sys.executable, "-c", "import os; print(os.environ['TELEMQ_DSN'])"),
        {"TELEMQ_DSN": "host=hunter2"},
        ends=True,
    )
    assert "hunter2" not in repr(program)
    with Supervisor([program], log_dir=tmp_path) as supervisor:
        supervisor.start()
        _until(supervisor, lambda: supervisor.ended("g"))
    assert "host=hunter2\n" == _log(tmp_path, "c")


def test_snapshot_of_a_child_that_runs(tmp_path: Path) -> None:
    """The panel shows the processes."""
    with Supervisor([_program("c", _SLEEPS)], log_dir=tmp_path) as supervisor:
        supervisor.start()
        state = supervisor.states()[0]
        assert ChildState("c", "g", "running", state.pid, 0, state.lived_s) == state
        assert state.lived_s > 0


def test_log_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service logs at level debug for a week."""
    monkeypatch.setattr(output, "LOG_BYTES_MAX", 1000)
    code = "for n in range(1000): print(f'line {n:04}')"
    with Supervisor([_program("c", code, ends=True)], log_dir=tmp_path) as supervisor:
        supervisor.start()
        _until(supervisor, lambda: supervisor.ended("g"))
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert ["c.log.1"] == [p.name for p in tmp_path.iterdir() if p.stat().st_size >= 1000]
    assert sum(sizes) <= 2 * 1010


def test_output_without_line_ends_is_cut(tmp_path: Path) -> None:
    """A child prints a megabyte without one line end."""
    read, write = os.pipe()
    taken = Output(tmp_path / "c.log")
    thread = taken.follow(os.fdopen(read, "rb"))
    with os.fdopen(write, "wb") as pipe:
        pipe.write(b"x" * 2**20)
    thread.join(10)
    assert 2**20 == (tmp_path / "c.log").stat().st_size
    assert 65_536 == max(len(line) for line in taken.last_lines())


def test_reason_is_what_the_command_line_said_last(tmp_path: Path) -> None:
    """A service logs its end after it has said why."""
    read, write = os.pipe()
    taken = Output(tmp_path / "c.log")
    assert "it printed nothing" == taken.reason()
    thread = taken.follow(os.fdopen(read, "rb"))
    with os.fdopen(write, "wb") as pipe:
        pipe.write(b"telemq: no disk\nstopped\n\n")
    thread.join(10)
    assert "no disk" == taken.reason()
