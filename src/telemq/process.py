"""How a service process ends: on a signal, or when whoever started it is gone.

A supervisor gives its children the read end of a pipe (`LIFELINE`). The kernel closes the other end
when the supervisor dies, even by SIGKILL, so its children never outlive it.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

__all__ = ["LIFELINE", "stop_on_signals"]

#: Environment variable that holds the file descriptor of the pipe; set by the supervisor only.
LIFELINE = "TELEMQ_LIFELINE_FD"


def stop_on_signals() -> threading.Event:
    """Give an event that SIGTERM, SIGINT or the loss of the supervisor sets.

    A second signal ends the process at once. Must be called from the main thread.
    """
    stop = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    lifeline = os.environ.pop(LIFELINE, "")
    if lifeline:
        threading.Thread(target=_watch, args=(int(lifeline),), name="lifeline", daemon=True).start()
    return stop


def _watch(fd: int) -> None:
    os.set_inheritable(fd, False)
    os.read(fd, 1)
    os.kill(os.getpid(), signal.SIGTERM)
