"""How a service process ends, with real signals in real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from telemq.process import LIFELINE

_SERVICE = """
import threading
from telemq.process import stop_on_signals

stop = stop_on_signals()
print("ready", flush=True)
{wait}
print("draining", flush=True)
threading.Event().wait(60 if {hangs} else 0)
print("drained", flush=True)
"""
_WAITS = {"for ever": "stop.wait()", "again and again": "while not stop.wait(0.00001): pass"}


@contextmanager
def _service(
    *, wait: str = "for ever", hangs: bool = False, lifeline: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    code = _SERVICE.format(wait=_WAITS[wait], hangs=hangs)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | ({LIFELINE: str(lifeline)} if lifeline else {}),
        pass_fds=(lifeline,) if lifeline else (),
    )
    with process:
        try:
            assert "ready" == _line(process)
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("wait", list(_WAITS))
def test_first_signal_drains(number: signal.Signals, wait: str) -> None:
    """Kubernetes ends a pod, or somebody presses Ctrl-C."""
    with _service(wait=wait) as process:
        process.send_signal(number)
        assert "draining" == _line(process)
        assert "drained" == _line(process)
        assert 0 == process.wait(10)


def test_second_signal_ends_at_once() -> None:
    """The drain takes long and somebody presses Ctrl-C again."""
    with _service(hangs=True) as process:
        process.send_signal(signal.SIGINT)
        assert "draining" == _line(process)
        process.send_signal(signal.SIGINT)
        assert 128 + signal.SIGINT == process.wait(10)


def test_loss_of_supervisor_ends_the_process() -> None:
    """The supervisor was killed: the kernel has closed its end of the pipe."""
    read, write = os.pipe()
    try:
        with _service(lifeline=read) as process:
            os.close(write)
            assert 128 + signal.SIGKILL == process.wait(10)
    finally:
        os.close(read)


def test_lifeline_is_not_passed_on() -> None:
    """A service starts processes of its own, such as the embedded Postgres."""
    read, write = os.pipe()
    code = (
        "import os, subprocess, sys\n"
        "from telemq.process import stop_on_signals\n"
        f"fd = int(os.environ['{LIFELINE}'])\n"
        "stop_on_signals()\n"
        f"print('{LIFELINE}' in os.environ, os.get_inheritable(fd))\n"
    )
    try:
        shown = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {LIFELINE: str(read)},
            pass_fds=(read,),
            stdout=subprocess.PIPE,
            text=True,
            timeout=20,
            check=True,
        ).stdout
    finally:
        os.close(read)
        os.close(write)
    assert "False False" == shown.strip()
