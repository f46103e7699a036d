"""``telemq journal``: what a broker's journal holds."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from telemq_cli.app import app
from telemq_cli.outcome import FAILED, outcome

if TYPE_CHECKING:
    from telemq.broker.recovery import Contents, Kept

__all__ = ["inspect", "journal"]

#: A broker that reclaims segments faster than they are read is not read more often than this.
_READINGS_MAX = 5

journal = typer.Typer(no_args_is_help=True, help="Look into a broker's journal.")
app.add_typer(journal, name="journal")


@journal.command()
def inspect(
    directory: Annotated[
        Path, typer.Argument(help="Directory of the journal.", show_default=False)
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show segments, messages that are not settled, and what is damaged; changes nothing.

    A broker may be at work there. Exit code 0: sound; 1: entries are corrupt; 2: not readable.
    """
    raise typer.Exit(outcome(lambda: _inspect(directory, as_json)))


def _inspect(directory: Path, as_json: bool) -> int:
    from telemq.errors import SettingError
    from telemq_cli.render import print_json

    try:
        if not (directory / "lock").exists():
            raise FileNotFoundError(2, "it is none")
        contents, messages = _read(directory)
    except OSError as error:
        raise SettingError("DIRECTORY", str(directory), f"a journal ({error.strerror})") from error
    if as_json:
        print_json({**contents.to_dict(), "messages": messages})
    else:
        _print(contents, messages)
    return FAILED if contents.corrupt_entries else 0


def _read(directory: Path) -> tuple[Contents, list[dict[str, Any]]]:
    from telemq.broker.recovery import load, read_journal

    for _ in range(_READINGS_MAX - 1):
        contents = read_journal(directory)
        # Between the two readings a running broker may have copied forward and removed a segment.
        with contextlib.suppress(FileNotFoundError):
            return contents, _facts(load(directory, contents), contents)
    contents = read_journal(directory)
    return contents, _facts(load(directory, contents), contents)


def _facts(kept: list[Kept], contents: Contents) -> list[dict[str, Any]]:
    """Give what is said of each message, in order of arrival."""
    messages = {}
    for entry in kept:
        for place, message in zip(entry.places, entry.messages, strict=True):
            attempt, dead = contents.retried.get(place, (0, ""))
            messages[place] = {
                "id": message.id,
                "records": message.records,
                "bytes": message.bytes,
                "attempt": attempt,
                "dead": dead,
            }
    return [messages[place] for place in sorted(messages)]


def _print(contents: Contents, messages: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    segments = Table(box=box.SIMPLE_HEAD)
    kinds = ("messages", "forget", "retried")
    for name in ("segment", "bytes", *kinds, "corrupt", "torn bytes"):
        segments.add_column(name, justify="right")
    for s in contents.segments:
        counts = (f"{s.entries[kind]:,}" for kind in kinds)
        torn = f"{s.torn.size_bytes:,}" if s.torn else "0"
        segments.add_row(str(s.number), f"{s.size_bytes:,}", *counts, str(len(s.corrupt)), torn)
    console.print(segments)
    held = Table(box=box.SIMPLE_HEAD)
    held.add_column("not settled", overflow="fold")
    for name in ("records", "bytes", "attempt"):
        held.add_column(name, justify="right")
    held.add_column("dead", overflow="fold")
    for m in messages:
        held.add_row(m["id"], f"{m['records']:,}", f"{m['bytes']:,}", str(m["attempt"]), m["dead"])
    console.print(held)
    # Plain prints: a line that names a damaged place is for scripts too, and is never wrapped.
    for s in contents.segments:
        for d in s.corrupt:
            print(f"corrupt: segment {s.number}, offset {d.offset}, {d.size_bytes} bytes")
    for number in contents.missing:
        print(f"corrupt: segment {number} is missing")
    records, size_bytes = sum(m["records"] for m in messages), sum(m["bytes"] for m in messages)
    print(
        f"{len(messages):,} messages not settled, {records:,} records, {size_bytes:,} bytes, "
        f"{contents.corrupt_entries} corrupt entries"
    )
