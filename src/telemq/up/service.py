"""`telemq up`: the main job on one machine, until it is done or stopped.

Postgres first, then broker, collectors, gateway and streamers; down in the opposite order, each
group only when the one that feeds it is dry. Nothing here has to succeed for the data to be right:
any of it may be killed at any moment, and the next start goes on from what Postgres holds.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
from rich.console import Console

from telemq import log, upfile
from telemq.clock import monotonic_ns
from telemq.errors import StoreError
from telemq.settings import UpSettings
from telemq.sources.csv_replay import bundled_sample, read_csv
from telemq.store import verify
from telemq.store.migrate import migrate
from telemq.up.database import Database
from telemq.up.numbers import Totals, Watch, read_totals
from telemq.up.panel import Display, View, display
from telemq.up.programs import STOP_ORDER, Places, places, programs, share
from telemq.up.report import Report, tell
from telemq.up.supervisor import Supervisor

__all__ = ["run"]

_TICK_S = 0.05
#: What a child has on top of its share of the drain, to close its sockets and end.
_EXIT_S = 2.0
#: Pause before streamers that ended too early are started again.
_AGAIN_S = 1.0
_ROWS = "SELECT coalesce(sum(row_count), 0) FROM ledger WHERE stream_id = %s AND first_row < %s"
_DEAD_LETTERS = "SELECT count(*) FROM dead_letter WHERE dropped_at IS NULL"


def run(
    settings: UpSettings,
    stop: threading.Event,
    *,
    command: Sequence[str],
    console: Console | None = None,
) -> int:
    """Run the pipeline until its rows are stored, its time is over, or `stop`; then drain it.

    Args:
        settings: what to run.
        stop: set to drain and end.
        command: what runs telemq's command line, such as ``(python, "-m", "telemq_cli")``.
        console: where to show what goes on; standard output if None.

    Returns:
        1 if the database is not complete after ``--rows``, else 0.

    Raises:
        SourceError: the file cannot be read.
        BusyError: a port or the data directory is in use.
        ChildError: a part of the pipeline refuses to run; everything has been stopped.
        StoreError: the database cannot be used.
    """
    console = console or Console()
    csv = (Path(settings.csv) if settings.csv else bundled_sample()).absolute()
    # Read here too, so that a bad file is refused before anything is started.
    stream_id = read_csv(csv).stream_id
    where = places(settings)
    with Database(settings) as database:
        before = _prepare(database.dsn)
        log_dir = database.data_dir / "log"
        log_dir.mkdir(exist_ok=True)
        plan = programs(settings, where, command=command, csv=csv, dsn=database.dsn)
        with (
            Supervisor(plan, log_dir=log_dir) as supervisor,
            Watch(database.dsn, where.broker_ops, where.collector_ops) as watch,
            upfile.announced(database.data_dir, where.broker_ops),
            display(console) as shown,
        ):
            running = _Running(
                settings=settings,
                stream_id=stream_id,
                where=where,
                database=database,
                supervisor=supervisor,
                watch=watch,
                shown=shown,
                before=before,
            )
            running.announce(log_dir)
            supervisor.start()
            ended = running.work(stop)
            running.drain()
        report = running.report(ended)
    tell(report, console, again=_again(settings))
    return 1 if settings.rows and ended != "stopped" and not report.complete else 0


class _Running:
    """One run between its start and its report."""

    def __init__(
        self,
        *,
        settings: UpSettings,
        stream_id: str,
        where: Places,
        database: Database,
        supervisor: Supervisor,
        watch: Watch,
        shown: Display,
        before: Totals,
    ) -> None:
        self._settings = settings
        self._stream_id = stream_id
        self._where = where
        self._database = database
        self._supervisor = supervisor
        self._watch = watch
        self._display = shown
        self._before = before
        self._begin = monotonic_ns()

    def announce(self, log_dir: Path) -> None:
        """Log where everything is: scripts read it from here when ports were picked."""
        log.get().info(
            "starting",
            api=f"http://{self._where.api}",
            broker_producers=f"tcp://{self._where.producers}",
            broker_consumers=f"tcp://{self._where.consumers}",
            broker_metrics=f"http://{self._where.broker_ops}/metrics",
            logs=str(log_dir),
        )

    def work(self, stop: threading.Event) -> str:
        """Keep everything running; gives why it is time to end."""
        for_s = self._settings.for_s
        while not stop.wait(_TICK_S):
            self._step("running")
            if self._settings.rows and self._supervisor.ended("streamer"):
                if self._rows_are_stored():
                    return "rows stored"
                # Somebody has ended them, with a SIGTERM of his own.
                self._supervisor.restart("streamer", _AGAIN_S)
            if for_s is not None and self._lived_s() >= for_s:
                return "time over"
        return "stopped"

    def drain(self) -> None:
        """Stop group after group; what overruns its share of the time is killed."""
        for group in STOP_ORDER:
            self._supervisor.stop(group, share(group, self._settings.drain_s) + _EXIT_S)
            while not self._supervisor.ended(group):
                self._step(f"draining {group}")
                threading.Event().wait(_TICK_S)

    def report(self, ended: str) -> Report:
        """Ask the database what came of it."""
        lived_s = self._lived_s()
        restarts = sum(c.restarts for c in self._supervisor.states()) + self._database.restarts
        totals, dead_letters, complete, fault = self._before, 0, None, ""
        try:
            with psycopg.connect(self._database.dsn, autocommit=True) as connection:
                totals = read_totals(connection)
                row = connection.execute(_DEAD_LETTERS).fetchone()
                dead_letters = row[0] if row else 0
                found = verify.verify(connection)
                complete = found.complete
                fault = next(_problems(found), "")
        except (psycopg.Error, StoreError) as error:
            fault = str(error).partition("\n")[0]
        return Report(
            ended=ended,
            lived_s=lived_s,
            stored=totals.stored - self._before.stored,
            stored_all=totals.stored,
            rejected=totals.rejected - self._before.rejected,
            dead_letters=dead_letters,
            duplicates_refused=self._watch.duplicates_refused(),
            restarts=restarts,
            complete=complete,
            fault=fault,
        )

    def _rows_are_stored(self) -> bool:
        rows = self._settings.rows
        try:
            with psycopg.connect(self._database.dsn, autocommit=True) as connection:
                got = connection.execute(_ROWS, (self._stream_id, rows)).fetchone()
        except psycopg.Error as error:
            log.get().warning("rows not counted", reason=str(error).partition("\n")[0])
            return False
        return got is not None and got[0] >= rows

    def _step(self, phase: str) -> None:
        self._database.step()
        self._supervisor.step()
        for_s, lived_s = self._settings.for_s, self._lived_s()
        self._display.show(
            View(
                phase=phase,
                lived_s=lived_s,
                left_s=None if for_s is None else max(0.0, for_s - lived_s),
                children=self._supervisor.states(),
                numbers=self._watch.latest(),
                stored_before=self._before.stored,
                api=self._where.api,
                broker_ops=self._where.broker_ops,
                store=str(self._database.data_dir) if self._database.embedded else "your Postgres",
            )
        )

    def _lived_s(self) -> float:
        return (monotonic_ns() - self._begin) / 1e9


def _problems(found: verify.Report) -> Iterator[str]:
    yield from found.problems
    for stream in found.streams:
        yield from (f"{stream.stream_id}: {problem}" for problem in stream.problems)


def _prepare(dsn: str) -> Totals:
    """Bring the database up to date; give what it holds already."""
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            migrate(connection)
            return read_totals(connection)
    except psycopg.Error as error:
        raise StoreError(f"the database cannot be used: {str(error).strip()}") from error


def _again(settings: UpSettings) -> str:
    # A DSN is a secret: whoever has given it knows it.
    if settings.dsn:
        return " --dsn ..."
    return f" --data-dir {shlex.quote(settings.data_dir)}" if settings.data_dir else ""
