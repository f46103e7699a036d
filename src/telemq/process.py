"""How a service process ends: on a signal, or when whoever started it is gone.

A supervisor gives its children the read end of a pipe (`LIFELINE`). The kernel closes the other end
when the supervisor dies, even by SIGKILL, so its children never outlive it.
"""

from __future__ import annotations

import os
import signal
import threading
from queue import SimpleQueue
from types import FrameType

__all__ = ["LIFELINE", "stop_on_signals"]

#: Environment variable that holds the file descriptor of the pipe; set by the supervisor only.
LIFELINE = "TELEMQ_LIFELINE_FD"
_SHOW_CURSOR = b"\x1b[?25h\n"


def stop_on_signals() -> threading.Event:
    """Give an event that SIGTERM or SIGINT sets; must be called from the main thread.

    A second signal ends the process at once, with exit code 128 + its number. So does the loss of
    the supervisor, without a drain: with it went the embedded Postgres, and what this process held
    is published or taken over again at the next start.
    """
    stop = threading.Event()
    # A handler that sets the event itself can hang for ever: it runs in the main thread, which may
    # be inside stop.wait() and hold the event's lock. Putting into a SimpleQueue is re-entrant.
    signals: SimpleQueue[int] = SimpleQueue()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        signals.put(number)

    threading.Thread(target=_obey, args=(signals, stop), name="signals", daemon=True).start()
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    lifeline = os.environ.pop(LIFELINE, "")
    if lifeline:
        fd = int(lifeline)
        os.set_inheritable(fd, False)
        threading.Thread(target=_watch, args=(fd,), name="lifeline", daemon=True).start()
    return stop


def _obey(signals: SimpleQueue[int], stop: threading.Event) -> None:
    signals.get()
    stop.set()
    number = signals.get()
    if os.isatty(1):
        # A live display hides the cursor and has no chance any more to bring it back.
        os.write(1, _SHOW_CURSOR)
    os._exit(128 + number)


def _watch(fd: int) -> None:
    # Nothing is ever written: the read ends when the last write end is closed.
    os.read(fd, 1)
    os._exit(128 + signal.SIGKILL)
