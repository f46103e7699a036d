"""The database of one `telemq up`: somebody's own, or the embedded one, kept running."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from telemq import log
from telemq.clock import Nanoseconds, monotonic_ns
from telemq.errors import BusyError, EmbeddedError, SettingError
from telemq.settings import UpSettings
from telemq.store.embedded import EmbeddedPostgres, default_data_dir
from telemq.up.restart import PAUSE_S_MAX

__all__ = ["Database"]


class Database:
    """Gives a DSN, and owns the data directory for as long as it is open; a context manager.

    Args:
        settings: with a DSN nothing is started, and the directory holds only logs.
        clock: the monotonic clock.

    Attributes:
        data_dir: the directory, absolute.
        dsn: what to connect to; empty before it is open.
        restarts: how often the embedded server died and was started again.
    """

    def __init__(
        self, settings: UpSettings, *, clock: Callable[[], Nanoseconds] = monotonic_ns
    ) -> None:
        named = settings.data_dir
        self.data_dir = (Path(named).expanduser() if named else default_data_dir()).absolute()
        self.dsn = settings.dsn
        self.restarts = 0
        self._clock = clock
        self._embedded = None if self.dsn else EmbeddedPostgres(self.data_dir)
        self._again = Nanoseconds(0)
        self._held = contextlib.ExitStack()

    @property
    def embedded(self) -> bool:
        """Whether this process runs the server."""
        return self._embedded is not None

    def __enter__(self) -> Self:
        """Open it.

        Raises:
            BusyError: another process uses the directory; the text names its pid.
            SettingError: the directory cannot be made or written.
            EmbeddedError: the embedded server cannot be started.
        """
        if self._embedded is None:
            self._held.enter_context(_claim(self.data_dir))
        else:
            self.dsn = self._embedded.start()
            self._held.callback(self._embedded.stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    def step(self) -> None:
        """Start the embedded server again if it has died; returns when it runs or has failed to."""
        if self._embedded is None or self._clock() < self._again:
            return
        if self._embedded.running() is not None:
            return
        log.get().warning("database died", log=str(self._embedded.server_log))
        self.restarts += 1
        try:
            self._embedded.stop()
            self._embedded.start()
        except (EmbeddedError, BusyError) as error:
            log.get().error("database not started", reason=str(error), again_in_s=PAUSE_S_MAX)
        self._again = Nanoseconds(self._clock() + int(PAUSE_S_MAX * 1e9))


@contextlib.contextmanager
def _claim(data_dir: Path) -> Iterator[None]:
    """Hold the directory as the embedded server's owner would: there is one lock, not two."""
    path = data_dir / "postgres.lock"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = path.open("a+")
    except OSError as error:
        accepted = f"a directory that this user can write ({error.strerror})"
        raise SettingError("--data-dir", str(data_dir), accepted) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            raise BusyError(f"{data_dir} is in use by the process with pid {pid}") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
