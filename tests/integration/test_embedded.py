"""The embedded Postgres: started, stopped, killed, joined and refused, with real processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from telemq.errors import BusyError, EmbeddedError
from telemq.store import binaries
from telemq.store.binaries import Binaries, find_binaries
from telemq.store.cluster import Cluster
from telemq.store.embedded import EmbeddedPostgres, database

#: A process that owns the server of argv[1] until its standard input ends.
OWNER = """
import sys
from pathlib import Path
from telemq.store.embedded import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1])) as dsn:
    print(dsn, flush=True)
    sys.stdin.read()
"""
#: The same through `database`, so it joins or starts.
USER = """
import sys
import psycopg
from telemq.store.embedded import database
with database("", sys.argv[1]) as dsn:
    psycopg.connect(dsn).close()
    print(dsn, flush=True)
    sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")

BUSY = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%3000000%md5%'"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose server ran once and holds the table `kept`."""
    path = tmp_path_factory.mktemp("made") / "data"
    with EmbeddedPostgres(path) as dsn:
        execute(dsn, "CREATE TABLE kept (value int)")
    return path


@pytest.fixture
def data_dir(made: Path, tmp_path: Path) -> Path:
    """A copy of `made`: half a second less than a first start."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(statement.encode())


def value(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute(query.encode()).fetchone()
    return row[0] if row else None


def until(condition: Callable[[], object], *, limit_s: float = 10.0) -> None:
    """Wait until `condition` holds; fail when it does not in time."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@contextlib.contextmanager
def process(script: str, data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `script` on `data_dir`; it ends with the context, or with this process."""
    with subprocess.Popen(
        [sys.executable, "-c", script, data_dir],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            with contextlib.suppress(BrokenPipeError):
                running.communicate(timeout=20)


def first_line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def server_pid(data_dir: Path) -> int:
    server = Cluster(data_dir / "postgres").server()
    assert server is not None
    return server.pid


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def gone(pid: int) -> bool:
    """Tell whether a process has ended; one that nobody has waited for yet has ended too."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_first_start_makes_a_database_that_only_its_user_reaches(tmp_path: Path) -> None:
    """A newcomer runs `telemq up` and has no Postgres."""
    data_dir = tmp_path / "new" / "data"
    with EmbeddedPostgres(data_dir) as dsn:
        assert "telemq" == value(dsn, "SELECT current_database()")
        assert "telemq" == value(dsn, "SELECT current_user")
        assert "" == value(dsn, "SHOW listen_addresses")
        assert "on" == value(dsn, "SHOW fsync")
        assert "UTF8" == value(dsn, "SHOW server_encoding")
        assert "Ä" == value(dsn, "SELECT upper('ä')")
        assert 0o700 == data_dir.stat().st_mode & 0o777
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)


def test_pages_that_the_kernel_has_are_read_at_once(data_dir: Path) -> None:
    """Postgres 18 hands each read to a process of its own, which takes longer than the read."""
    with EmbeddedPostgres(data_dir) as dsn:
        if int(str(value(dsn, "SHOW server_version_num"))) < 180_000:
            pytest.skip("no Postgres 18 here")
        assert "sync" == value(dsn, "SHOW io_method")
    with EmbeddedPostgres(data_dir, options={"io_method": "worker"}) as dsn:
        assert "worker" == value(dsn, "SHOW io_method")


def test_restart_keeps_data(data_dir: Path) -> None:
    """A second `telemq up` goes on where the first one stopped."""
    server = EmbeddedPostgres(data_dir)
    dsn = server.start()
    execute(dsn, "INSERT INTO kept VALUES (7)")
    server.stop()
    assert server.running() is None
    assert dsn == server.start()
    try:
        assert 7 == value(dsn, "SELECT value FROM kept")
    finally:
        server.stop()


def test_server_ends_with_a_killed_owner(data_dir: Path) -> None:
    """The supervisor is killed: no server stays behind, and what was committed is there."""
    with process(OWNER, data_dir) as owner:
        execute(first_line(owner), "INSERT INTO kept VALUES (1)")
        server = server_pid(data_dir)
        owner.kill()
        until(lambda: gone(server), limit_s=2)
    with EmbeddedPostgres(data_dir) as dsn:
        assert 1 == value(dsn, "SELECT value FROM kept")
        assert "recovery" not in (data_dir / "postgres.log").read_text().split("starting")[-1]


def test_server_that_outlived_owner_and_guard_is_replaced(data_dir: Path) -> None:
    """Somebody kills every Python process; Postgres lives on without a guard."""
    with process(OWNER, data_dir) as owner:
        execute(first_line(owner), "INSERT INTO kept VALUES (2)")
        old = server_pid(data_dir)
        os.kill(parent(old), signal.SIGKILL)
        owner.kill()
        owner.wait()
    assert not gone(old)
    with EmbeddedPostgres(data_dir) as dsn:
        until(lambda: gone(old))
        assert 2 == value(dsn, "SELECT value FROM kept")
        guard = parent(server_pid(data_dir))
    until(lambda: gone(guard))


def test_stop_ends_the_server_when_its_guard_was_killed(data_dir: Path) -> None:
    """The guard alone is killed; the owner still leaves nothing running."""
    with EmbeddedPostgres(data_dir):
        server = server_pid(data_dir)
        os.kill(parent(server), signal.SIGKILL)
    until(lambda: gone(server))


def test_recovery_after_everything_was_killed(data_dir: Path) -> None:
    """Power is cut, or a container is killed: the next start recovers all that was committed."""
    with process(OWNER, data_dir) as owner:
        execute(first_line(owner), "INSERT INTO kept VALUES (3)")
        server = server_pid(data_dir)
        for pid in (parent(server), server, owner.pid):
            os.kill(pid, signal.SIGKILL)
    assert (data_dir / "postgres" / "postmaster.pid").exists()
    with EmbeddedPostgres(data_dir) as dsn:
        assert 3 == value(dsn, "SELECT value FROM kept")


def test_pid_file_of_a_killed_server_whose_pid_is_used_again(data_dir: Path) -> None:
    """A container starts again after a kill: pids count from 1, and the old one is somebody's."""
    stale = data_dir / "postgres" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{stale.parent}\n1\n5432\n{data_dir}\n\n\nready   \n")
    (data_dir / ".s.PGSQL.5432.lock").write_text(stale.read_text())
    server = EmbeddedPostgres(data_dir)
    assert server.running() is None
    with server as dsn:
        assert 0 == value(dsn, "SELECT count(*) FROM kept")


def test_killed_server_comes_back_while_its_owner_lives(data_dir: Path) -> None:
    """The kernel's out-of-memory killer takes Postgres; its clients reconnect."""
    with EmbeddedPostgres(data_dir) as dsn:
        execute(dsn, "INSERT INTO kept VALUES (4)")
        first = server_pid(data_dir)
        os.kill(first, signal.SIGKILL)
        until(lambda: gone(first) and EmbeddedPostgres(data_dir).running())
        assert 4 == value(dsn, "SELECT value FROM kept")
        second = server_pid(data_dir)
    until(lambda: gone(second))


def test_terminal_signals_do_not_reach_the_server(data_dir: Path) -> None:
    """Ctrl-C goes to every process of the terminal's session; draining needs the database."""
    with EmbeddedPostgres(data_dir):
        assert os.getsid(0) != os.getsid(server_pid(data_dir))


def test_second_owner_is_refused_by_name(data_dir: Path) -> None:
    """Two supervisors on one data directory."""
    with process(OWNER, data_dir) as owner:
        dsn = first_line(owner)
        with pytest.raises(BusyError, match=rf"pid {owner.pid}\b"):
            EmbeddedPostgres(data_dir).start()
        assert 1 == value(dsn, "SELECT 1")


def test_starting_twice_is_refused_and_leaves_the_server_alone(data_dir: Path) -> None:
    """A slip in our own code must not end a server in use."""
    server = EmbeddedPostgres(data_dir)
    with server as dsn:
        with pytest.raises(BusyError):
            server.start()
        assert 1 == value(dsn, "SELECT 1")


def test_database_joins_a_running_server(data_dir: Path) -> None:
    """`telemq verify` in a second terminal beside `telemq up`."""
    with EmbeddedPostgres(data_dir) as own:
        with database("", str(data_dir)) as joined:
            assert own == joined
        assert 1 == value(own, "SELECT 1")


def test_database_starts_a_server_for_its_time(data_dir: Path) -> None:
    """`telemq verify` when nothing else runs."""
    with database("", str(data_dir)) as dsn:
        assert 1 == value(dsn, "SELECT 1")
        server = server_pid(data_dir)
    assert gone(server)


def test_database_gives_back_a_dsn(tmp_path: Path) -> None:
    """With --dsn there is no embedded server."""
    with database("host=db.example", str(tmp_path / "unused")) as dsn:
        assert "host=db.example" == dsn
    assert [] == list(tmp_path.iterdir())


def test_processes_that_start_at_once_share_one_server(tmp_path: Path) -> None:
    """A streamer and a collector are started by hand at the same moment on a new directory."""
    data_dir = tmp_path / "data"
    with process(USER, data_dir) as one, process(USER, data_dir) as other:
        assert "" != first_line(one) == first_line(other)


@pytest.mark.parametrize("name", ["long" * 30, "with,comma"])
def test_path_that_does_not_fit_a_socket_address(made: Path, tmp_path: Path, name: str) -> None:
    """A data directory deep in a home directory: the socket goes elsewhere, privately."""
    data_dir = Path(shutil.copytree(made, tmp_path / name))
    with EmbeddedPostgres(data_dir) as dsn:
        assert 1 == value(dsn, "SELECT 1")
        socket_dir = Path(str(conninfo_to_dict(dsn)["host"]))
        assert not socket_dir.is_relative_to(tmp_path)
        assert 0o700 == socket_dir.stat().st_mode & 0o777
    assert not socket_dir.exists()
    with process(OWNER, data_dir) as owner:
        assert dsn == first_line(owner)
        owner.kill()
        until(lambda: not socket_dir.exists())


def test_kill_in_the_middle_of_the_first_start(tmp_path: Path) -> None:
    """Ctrl-C twice on the first `telemq up`: no half-made cluster is taken for a whole one."""
    data_dir = tmp_path / "data"
    with process(OWNER, data_dir) as owner:
        until(lambda: any(data_dir.glob("postgres.new-*/base")))
        owner.kill()
    assert not (data_dir / "postgres").exists()
    with EmbeddedPostgres(data_dir) as dsn:
        assert 1 == value(dsn, "SELECT 1")
    until(lambda: not any(data_dir.glob("postgres.new-*")))


def test_cluster_of_another_major_version_is_refused(data_dir: Path) -> None:
    """The wheel was upgraded to the next Postgres."""
    (data_dir / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedError, match="no Postgres 9 on this machine"):
        EmbeddedPostgres(data_dir).start()
    with pytest.raises(EmbeddedError, match=r"is of Postgres 9 .* pg_dump"):
        EmbeddedPostgres(data_dir, binaries=find_binaries()).start()


def test_directory_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    """--data-dir points to a home directory by mistake."""
    (tmp_path / "letter.txt").write_text("dear")
    mode = tmp_path.stat().st_mode
    with pytest.raises(EmbeddedError, match="is not empty and not made by telemq"):
        EmbeddedPostgres(tmp_path).start()
    assert ["letter.txt"] == os.listdir(tmp_path)
    assert mode == tmp_path.stat().st_mode


def test_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """--data-dir lies below a file."""
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match=r"file/data: Not a directory"):
        EmbeddedPostgres(tmp_path / "file" / "data").start()


def test_server_that_does_not_come_up_is_quoted(data_dir: Path) -> None:
    """The machine has not the memory, or an option is wrong: the log's end is in the error."""
    with pytest.raises(EmbeddedError, match=r'(?s)ended; its log .*"shared_buffers": "much"'):
        EmbeddedPostgres(data_dir, options={"shared_buffers": "much"}).start()
    with EmbeddedPostgres(data_dir) as dsn:
        assert 1 == value(dsn, "SELECT 1")


def test_server_that_takes_too_long_is_stopped(data_dir: Path) -> None:
    """Recovery takes longer than the limit: the directory is free again."""
    with pytest.raises(EmbeddedError, match="was not ready within 0 s"):
        EmbeddedPostgres(data_dir, start_s=0).start()
    assert Cluster(data_dir / "postgres").server() is None
    with EmbeddedPostgres(data_dir) as dsn:
        assert 1 == value(dsn, "SELECT 1")


def test_log_does_not_grow_for_ever(data_dir: Path) -> None:
    """A server that complained for a year."""
    server = EmbeddedPostgres(data_dir)
    with server.server_log.open("ab") as log:
        log.truncate(5 * 2**20)
    with server:
        assert 2**20 > server.server_log.stat().st_size


def test_oldest_supported_version(tmp_path: Path) -> None:
    """A distribution's Postgres 15 or 16, which has no locale of its own."""
    old = [found for found in binaries._candidates() if 15 <= found.major < 17]
    if not old:
        pytest.skip("no Postgres 15 or 16 here")
    with EmbeddedPostgres(tmp_path / "data", binaries=old[0]) as dsn:
        assert str(old[0].major) in str(value(dsn, "SHOW server_version"))
        assert "UTF8" == value(dsn, "SHOW server_encoding")


@needs_root
def test_root_without_user_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root in a container that forbids namespaces: the data is under /root, closed to others."""
    monkeypatch.setattr(binaries, "_can_unshare", lambda: False)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedPostgres(closed / "data") as dsn:
        assert "telemq" == value(dsn, "SELECT current_user")
        assert 0 != (closed / "data" / "postgres").stat().st_uid
    assert (0, 0o40700) == (closed.stat().st_uid, closed.stat().st_mode)


@needs_root
def test_programs_that_only_root_reaches_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the virtual environment under /root."""
    monkeypatch.setattr(binaries, "_can_unshare", lambda: False)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "bin").symlink_to(find_binaries().directory)
    only_root = Binaries(closed / "bin", find_binaries().major)
    with pytest.raises(EmbeddedError, match=r"cannot reach .*closed/bin/postgres: .*--dsn"):
        EmbeddedPostgres(tmp_path / "data", binaries=only_root).start()
    assert 0o700 == closed.stat().st_mode & 0o777


@needs_root
def test_root_on_the_directory_of_a_user_leaves_it_the_users(tmp_path: Path) -> None:
    """`sudo telemq up --data-dir` on what a user's own `telemq up` made."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    os.chown(data_dir, 65534, 65534)
    with EmbeddedPostgres(data_dir) as dsn:
        assert 1 == value(dsn, "SELECT 1")
        assert {65534} == {path.stat().st_uid for path in data_dir.iterdir()}


def test_busy_process_of_a_killed_server_is_waited_for(data_dir: Path) -> None:
    """A query that only computes does not notice that its server was killed until it is done."""
    with process(OWNER, data_dir) as owner:
        dsn = first_line(owner)
        with contextlib.closing(psycopg.connect(dsn, autocommit=True)) as busy:
            busy.pgconn.send_query(
                b"SELECT count(*) FROM generate_series(1, 3000000) AS i WHERE md5(i::text) = ''"
            )
            until(lambda: 2 == value(dsn, BUSY))  # it sees itself
            server = server_pid(data_dir)
            for pid in (parent(server), server, owner.pid):
                os.kill(pid, signal.SIGKILL)
            owner.wait()
            server_log = data_dir / "postgres.log"
            with EmbeddedPostgres(data_dir) as again:
                assert 1 == value(again, "SELECT 1")
            assert "shared memory block" in server_log.read_text()
