"""A real Postgres of one's own in a directory: it starts with its owner and ends with its owner.

What is in the directory, which nobody but its user can enter::

    postgres.lock    flock-ed by the owner while it lives; holds its pid
    postgres/        the cluster
    postgres.new-*/  a cluster in the making; renamed when complete, removed when found
    postgres.log     what the server says; emptied at a start when it has grown
    .s.PGSQL.5432    the socket, the only way in (in a directory of its own when the path is longer
                     than a socket's address can be)

One process owns the server: whoever holds the lock. When that process ends, however it ends, the
kernel frees the lock and closes the pipe that the guard reads (`telemq.store.guard`), and the guard
stops the server. Whoever gets the lock and still finds a server, because the guard was killed too
or is not done yet, stops that server first; so there never are two. Others join through `database`;
for them the server ends when its owner does.

Lock and pipe are not for children: an owner starts processes by exec, and never forks alone.
Nothing trades safety for speed: an acknowledged commit is on the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from telemq.errors import BusyError, EmbeddedError, SettingError
from telemq.store import guard
from telemq.store.binaries import Binaries, find_binaries, run_as
from telemq.store.cluster import NAME, STOP_S, Cluster, environment
from telemq.store.socketdir import SocketDir, give_to_owner

__all__ = ["EmbeddedPostgres", "database", "default_data_dir"]

_LOCK = "postgres.lock"
#: Some ten thousand lines; a quiet server writes a few an hour.
_LOG_BYTES = 4 * 2**20
#: Recovery after a kill reads at most max_wal_size, which takes a slow disk most of a minute.
_START_S = 60.0
_POLL_S = 0.005
#: What Postgres says while processes of a killed server are still about to end.
_BUSY_MEMORY = "shared memory block"

#: Server options that are ours, whatever the version's defaults are; why, beside each.
_OPTIONS = {
    "listen_addresses": "",  # the socket is the only way in
    "unix_socket_permissions": "0700",
    "port": "5432",  # only a part of the socket's name
    "fsync": "on",  # as by default: the promise of the store rests on this and the next
    "synchronous_commit": "on",
    "max_connections": "200",  # a hundred workers; an idle connection costs 2 MB
    "shared_buffers": "256MB",  # the hot pages of a day's index; memory is taken as it is used
    "max_wal_size": "4GB",  # at 1 GB, COPY forces checkpoints that write the same pages again
    "wal_compression": "on",  # a page's first change after a checkpoint logs the whole page
    "jit": "off",  # compiling takes longer than the gateway's queries
    "timezone": "UTC",  # initdb takes over the host's
    "log_timezone": "UTC",
}
#: Those of newer versions only, by the first that has them.
_OPTIONS_SINCE = {
    # Pages that the kernel has come through worker processes otherwise: 8.6 instead of 5.3 ms for
    # one GPU's hour. From a cold disk it is as quick.
    18: {"io_method": "sync"},
}


def default_data_dir() -> Path:
    """Give the user's data directory for telemq; it need not exist."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "telemq"
    # The XDG specification wants a relative path there ignored.
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local" / "share") / "telemq"


@contextlib.contextmanager
def database(dsn: str, data_dir: str) -> Iterator[str]:
    """Yield a DSN that can be connected to, starting the embedded server if it takes one.

    Args:
        dsn: given back as it is unless empty, if it can be read.
        data_dir: of the embedded server; empty for the user's own. A server that runs there is
            joined, and then ends when its owner does; otherwise it runs until the context ends.

    Raises:
        SettingError: the DSN cannot be read.
        EmbeddedError: the server cannot be found or started.
        BusyError: its owner lives, but the server was not ready within a minute.
    """
    if dsn:
        _check(dsn)
        yield dsn
        return
    server = EmbeddedPostgres(Path(data_dir).expanduser() if data_dir else default_data_dir())
    try:
        yield _start_or_join(server)
    finally:
        server.stop()


def _check(dsn: str) -> None:
    # Here and once, because libpq repeats in its error what it cannot read: the password, too.
    try:
        conninfo_to_dict(dsn)
    except psycopg.Error:
        accepted = (
            "a connection string or URL of libpq; in a URL a password's %, @, :, / and [ "
            "are written %25, %40, %3A, %2F and %5B"
        )
        raise SettingError("--dsn", "(secret)", accepted) from None


def _start_or_join(server: EmbeddedPostgres) -> str:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            return server.start()
        except BusyError:
            # Its owner may be starting it right now; or ending, and then it is ours to start.
            found = server.running()
            if found is not None:
                return found
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class EmbeddedPostgres:
    """One Postgres server that this process owns; a context manager that gives the DSN.

    A server that ends by itself is started again by its guard.

    Args:
        data_dir: made if it does not exist; else it must be empty or telemq's.
        binaries: the server's programs; found on this machine unless given.
        options: server options that replace or add to those of this module.
        start_s: longest wait for the server to accept connections, recovery included.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        binaries: Binaries | None = None,
        options: Mapping[str, str] | None = None,
        start_s: float = _START_S,
    ) -> None:
        self.data_dir = data_dir.resolve()
        #: What the server wrote, this start and those before.
        self.server_log = self.data_dir / "postgres.log"
        self._cluster = Cluster(self.data_dir / "postgres")
        self._socket_dir = SocketDir(self.data_dir)
        self._binaries = binaries
        self._options = options or {}
        self._start_s = start_s
        self._lock: int | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start the server; give its DSN once it accepts connections.

        Raises:
            BusyError: a live process owns the directory; the text names its pid.
            EmbeddedError: it cannot be started; nothing runs and the directory is free again.
        """
        if self._lock is not None:
            raise BusyError(f"{self.data_dir} is in use by this process")
        try:
            self._own()
            return self._start()
        except (OSError, subprocess.SubprocessError) as error:
            self.stop()
            what = getattr(error, "strerror", None) or error
            raise EmbeddedError(f"embedded Postgres in {self.data_dir}: {what}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and let go of the directory; does nothing if this is not its owner."""
        if self._lock is None:
            return
        try:
            self._end_guard()
            self._cluster.end_server()  # the guard may have been killed
            self._socket_dir.remove()
        finally:
            os.close(self._lock)
            self._lock = None

    def running(self) -> str | None:
        """Give the DSN of the server if it accepts connections now, whoever owns it."""
        server = self._cluster.server()
        if server is None or not server.ready:
            return None
        return make_conninfo(host=server.socket_dir, user=NAME, dbname=NAME)

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _own(self) -> None:
        """Take the lock, which makes everything else in the directory ours to change."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.listdir(self.data_dir)
        # The lock comes first, so this holds also while another process makes the directory.
        if found and _LOCK not in found:
            raise EmbeddedError(
                f"{self.data_dir} is not empty and not made by telemq; use another --data-dir"
            )
        lock = os.open(self.data_dir / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(lock, 20, 0).decode() or "unknown"
            os.close(lock)
            raise BusyError(f"{self.data_dir} is in use by another process, pid {pid}") from None
        self._lock = lock
        give_to_owner(lock, self.data_dir)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)

    def _start(self) -> str:
        self.data_dir.chmod(0o700)
        self._cluster.end_server()
        major = self._cluster.major()
        binaries = self._binaries or find_binaries(major)
        if major not in (None, binaries.major):
            raise EmbeddedError(
                f"{self._cluster.path} is of Postgres {major} and this is {binaries}; "
                "move the data with pg_dump of the older version, or use another --data-dir"
            )
        prefix = run_as(self.data_dir, binaries)
        if major is None:
            self._cluster.create(binaries, prefix)
        return self._serve(binaries, prefix)

    def _serve(self, binaries: Binaries, prefix: list[str]) -> str:
        """Start guard and server, and wait until the server accepts connections."""
        deadline = time.monotonic() + self._start_s
        while True:
            process, begin = self._spawn(binaries, prefix)
            while process.poll() is None and time.monotonic() < deadline:
                if (dsn := self.running()) is not None:
                    _pipe(process).write(b"\n")  # from now on the guard starts it again
                    return dsn
                time.sleep(_POLL_S)
            said = self.server_log.read_bytes()[begin:][-2000:].decode(errors="replace").strip()
            ended = process.returncode is not None
            if not ended or _BUSY_MEMORY not in said or time.monotonic() >= deadline:
                what = "ended" if ended else f"was not ready within {self._start_s:g} s"
                raise EmbeddedError(f"{binaries} {what}; its log {self.server_log} says:\n{said}")
            self._end_guard()
            time.sleep(0.1)

    def _spawn(self, binaries: Binaries, prefix: list[str]) -> tuple[subprocess.Popen[bytes], int]:
        """Start guard and server; give the guard and where in the log this start begins."""
        self._socket_dir.make()
        quoted = str(self._socket_dir.path).replace('"', '""')
        options = dict(_OPTIONS)
        for since, newer in _OPTIONS_SINCE.items():
            options |= newer if binaries.major >= since else {}
        options |= {**self._options, "unix_socket_directories": f'"{quoted}"'}
        postgres = [
            *(*prefix, str(binaries.directory / "postgres"), "-D", str(self._cluster.path)),
            *(f"--{name}={value}" for name, value in options.items()),
        ]
        remove = "" if self._socket_dir.path == self.data_dir else str(self._socket_dir.path)
        with self.server_log.open("ab") as server_log:
            give_to_owner(server_log.fileno(), self.data_dir)
            if server_log.tell() > _LOG_BYTES:
                server_log.truncate(0)
            begin = server_log.seek(0, os.SEEK_END)
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(STOP_S), remove, *postgres],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=server_log,
                stderr=server_log,
                start_new_session=True,  # Ctrl-C is for all processes of the terminal's session
                env=environment(),
            )
        return self._guard, begin

    def _end_guard(self) -> None:
        if self._guard is None:
            return
        _pipe(self._guard).close()
        try:
            self._guard.wait(STOP_S + 20)  # its own limits are shorter
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        self._guard = None


def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin
