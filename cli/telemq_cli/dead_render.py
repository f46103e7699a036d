"""How dead letters look. What came from outside is made printable first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from telemq.errors import RecordError
from telemq.store.dead import DeadLetter
from telemq.store.dead_read import Summary, summarise
from telemq.store.dead_retry import Outcome
from telemq.terminal import dump, printable

__all__ = ["letter_values", "print_letter", "print_letters", "print_outcome", "print_retried"]


def print_letters(letters: Sequence[DeadLetter], total: int, row_count: int) -> None:
    """Print a table, a letter a line."""
    console = Console()
    if letters:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("id", justify="right", no_wrap=True)
        table.add_column("kept at, UTC", no_wrap=True)
        table.add_column("stream", no_wrap=True, overflow="ellipsis", max_width=24)
        table.add_column("rows", no_wrap=True)
        table.add_column("reason", no_wrap=True, overflow="ellipsis", ratio=1)
        for letter in letters:
            dropped = "(dropped) " if letter.dropped_at else ""
            table.add_row(
                str(letter.id),
                f"{letter.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
                Text(printable(letter.stream_id)),
                _rows(letter),
                Text(dropped + printable(letter.reason)),
            )
        console.print(table)
    more = f", of which {len(letters):,} are shown; see --limit" if total > len(letters) else ""
    print(f"{total:,} dead letters of {row_count:,} rows{more}")


def letter_values(letter: DeadLetter, payload: bytes) -> dict[str, Any]:
    """Give a letter as plain values: its payload as text, or else in hexadecimal."""
    values = dataclasses.asdict(letter)
    try:
        values["payload"] = payload.decode()
    except UnicodeDecodeError:
        values["payload_hex"] = payload.hex()
    try:
        values["read"] = dataclasses.asdict(summarise(payload, letter.row_count))
    except RecordError as error:
        values["unreadable"] = str(error)
    return values


def print_letter(letter: DeadLetter, payload: bytes, bytes_max: int) -> None:
    """Print a letter, what can be read of it, and its payload up to so many bytes."""
    lines = {
        "id": str(letter.id),
        "stream": printable(letter.stream_id),
        "rows": _rows(letter),
        "kept at": _shown(letter.at),
        "reason": printable(letter.reason),
    }
    if letter.dropped_at:
        lines["dropped"] = _shown(letter.dropped_at)
    else:
        lines["payload"] = f"{len(payload):,} bytes"
        try:
            lines["read"] = _summary(summarise(payload, letter.row_count))
        except RecordError as error:
            lines["unreadable"] = printable(str(error))
    for name, value in lines.items():
        print(f"{name:<11} {value}")
    if payload:
        print()
        print(dump(_cut(payload, bytes_max)))
    if len(payload) > bytes_max:
        print(f"and {len(payload) - bytes_max:,} bytes more; --raw gives all of it")


def print_outcome(outcome: Outcome) -> None:
    """Print what became of one letter, if not all went well."""
    if outcome.reason:
        print(
            f"{outcome.id}: {outcome.stored:,} records stored, {outcome.left:,} rows left: "
            f"{printable(outcome.reason)}"
        )


def print_retried(outcomes: Sequence[Outcome]) -> None:
    """Print the sum of a retry."""
    stored, left = sum(o.stored for o in outcomes), sum(o.left for o in outcomes)
    print(f"{len(outcomes):,} letters tried: {stored:,} records stored, {left:,} rows left")


def _rows(letter: DeadLetter) -> str:
    last = letter.first_row + letter.row_count - 1
    return f"{letter.first_row}" if letter.row_count == 1 else f"{letter.first_row} to {last}"


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _summary(summary: Summary) -> str:
    text = f"{summary.records:,} records of {summary.series:,} series"
    if summary.first and summary.last:
        text += f", from {_shown(summary.first)} to {_shown(summary.last)}"
    if summary.bad_rows:
        text += f"; {summary.bad_rows:,} bad rows, the first: {printable(summary.bad_reason)}"
    return text


def _cut(payload: bytes, bytes_max: int) -> bytes:
    """Cut before a character of UTF-8, not in the middle of one."""
    if len(payload) <= bytes_max:
        return payload
    end = bytes_max
    while end > bytes_max - 4 and payload[end] & 0xC0 == 0x80:
        end -= 1
    return payload[:end]
