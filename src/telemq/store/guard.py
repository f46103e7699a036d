"""Keeps the embedded Postgres running while the process that started it lives, and no longer.

Run as a file by `telemq.store.embedded`::

    python -I -S guard.py STOP_S SOCKET_DIR postgres -D …

Standard input is a pipe that only the owner can write to. The kernel closes it when the owner ends,
even by SIGKILL; then, or when the owner closes it on purpose, the server gets SIGINT (a fast
shutdown: transactions are rolled back, a checkpoint is written) and after STOP_S seconds SIGQUIT
(it ends at once and recovers on its next start). SOCKET_DIR is removed afterwards unless empty.

The owner writes one byte when the server accepts connections. From then on a server that ends by
itself is started again, because its clients wait for it; before, that is for the owner to report.

The guard ignores the signals that ask a process to end: whoever is told to end drains first, and
draining needs the database. It imports next to nothing, so it starts in some 10 ms.
"""

import contextlib
import os
import select
import signal
import sys
import time

__all__ = ["main"]

_ASKED_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: A server that was started again and ran this long had come up again.
_UP_S = 5.0
#: What a killed postmaster leaves behind keeps the next one out until it has noticed.
_AGAIN_S = 0.5
#: Starts in a row that did not come up before the guard gives up: a minute of them.
_FAILED_MAX = 100
#: Postgres itself kills what is left 5 s after SIGQUIT.
_QUIT_S = 10.0


def main(stop_s: float, socket_dir: str, command: list[str]) -> int:
    """Run `command` until standard input closes; give its last exit code."""
    for number in _ASKED_TO_END:
        signal.signal(number, signal.SIG_IGN)
    # A signal's number is written to the pipe, so that one wait sees both: owner and server.
    child_ended, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    try:
        return _keep_running(stop_s, command, child_ended)
    finally:
        if socket_dir:
            with contextlib.suppress(OSError):
                os.rmdir(socket_dir)


def _keep_running(stop_s: float, command: list[str], child_ended: int) -> int:
    came_up, failed = False, 0
    while True:
        server, since = _spawn(command), time.monotonic()
        code = None
        while code is None:
            readable, _, _ = select.select([0, child_ended], [], [])
            if 0 in readable:
                if not os.read(0, 1):
                    return _stop(server, stop_s, child_ended)
                came_up = True
            if child_ended in readable:
                code = _exit_code(server, child_ended)
        failed = 0 if time.monotonic() - since >= _UP_S else failed + 1
        if not came_up or failed > _FAILED_MAX or select.select([0], [], [], _AGAIN_S)[0]:
            return code


def _spawn(command: list[str]) -> int:
    return os.posix_spawnp(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
        setsigdef=[*_ASKED_TO_END, signal.SIGPIPE],
    )


def _stop(server: int, stop_s: float, child_ended: int) -> int:
    for number, wait_s in ((signal.SIGINT, stop_s), (signal.SIGQUIT, _QUIT_S)):
        os.kill(server, number)
        deadline = time.monotonic() + wait_s
        while select.select([child_ended], [], [], max(0, deadline - time.monotonic()))[0]:
            if (code := _exit_code(server, child_ended)) is not None:
                return code
    os.kill(server, signal.SIGKILL)
    return 128 + signal.SIGKILL


def _exit_code(server: int, child_ended: int) -> int | None:
    """Give the exit code of `server`, or None: SIGCHLD also tells of a pause."""
    os.read(child_ended, 64)
    pid, status = os.waitpid(server, os.WNOHANG)
    return abs(os.waitstatus_to_exitcode(status)) if pid else None


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2], sys.argv[3:]))
