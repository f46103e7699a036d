"""What one `telemq up` has done, as its last word."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from telemq import log

__all__ = ["Report", "tell"]


@dataclass(frozen=True, slots=True)
class Report:
    """The sum of one run.

    Attributes:
        ended: why it ended: ``rows stored``, ``time over`` or ``stopped``.
        lived_s: seconds from the start to the end of the drain.
        stored: records stored by this run.
        stored_all: records that the ledger holds.
        rejected: rows kept as dead letters instead, by this run.
        dead_letters: dead letters that the database holds.
        duplicates_refused: batches that came a second time and changed nothing.
        restarts: child processes and servers that died and were started again.
        complete: the verdict of `telemq verify`; None when it could not tell.
        fault: why it could not tell, or the first fault that it found; or empty.
    """

    ended: str
    lived_s: float
    stored: int
    stored_all: int
    rejected: int
    dead_letters: int
    duplicates_refused: int
    restarts: int
    complete: bool | None
    fault: str = ""

    @property
    def stored_per_s(self) -> float:
        """Records stored a second, start and drain included."""
        return self.stored / self.lived_s if self.lived_s else 0.0

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        words = {True: "complete", False: "incomplete", None: "cannot tell"}[self.complete]
        return f"{words}: {self.fault}" if self.fault else words


def tell(report: Report, console: Console, *, again: str) -> None:
    """Print the report on a terminal, else log it as one line.

    Args:
        report: what to tell.
        console: where to.
        again: flags with which other commands find the same database, such as ``--data-dir X``.
    """
    if not console.is_terminal:
        numbers = {**asdict(report), "lived_s": round(report.lived_s, 2)}
        log.get().info("report", **numbers, stored_per_s=round(report.stored_per_s))
        return
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("ended", f"{report.ended}, after {report.lived_s:.1f} s")
    table.add_row("stored", f"{report.stored:,} records, {report.stored_per_s:,.0f} a second")
    table.add_row("in the database", f"{report.stored_all:,} records")
    table.add_row("rejected", f"{report.rejected:,} rows")
    table.add_row("dead letters", f"{report.dead_letters:,} in the database")
    table.add_row("duplicates refused", f"{report.duplicates_refused:,} batches")
    table.add_row("restarts", f"{report.restarts:,}")
    table.add_row("verify", report.verdict, style="green" if report.complete else "bold red")
    table.add_row("look again", f"telemq verify{again}\ntelemq api{again}")
    console.print(table)
