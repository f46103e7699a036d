"""Reads a journal's directory, and says what is live in it and what is damaged.

Reading changes nothing, so a broker's directory can be read while it runs: entries and whole
segments may then come and go, and the end of the last segment may be one that is just being
written.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from telemq.broker.bundle import Bundle
from telemq.broker.entries import (
    FORGET,
    HEAD_BYTES,
    HEADER_BYTES,
    MESSAGE,
    RETRIED,
    Damage,
    Found,
    Retried,
    decode_message,
    decode_retried,
    forgotten,
    place_of,
    scan,
    seal_of,
)

__all__ = ["Contents", "Located", "SegmentReport", "load", "path_of", "read_journal"]

_SUFFIX = ".journal"
_KINDS = {MESSAGE: "message", FORGET: "forget", RETRIED: "retried"}


class Located(NamedTuple):
    """Where a message is.

    Attributes:
        number: of the segment.
        offset: of the entry in it.
        size_bytes: of the entry.
    """

    number: int
    offset: int
    size_bytes: int


@dataclass(slots=True)
class SegmentReport:
    """One segment file.

    Attributes:
        number: its place in the journal.
        size_bytes: its length.
        entries: how many of each kind.
        corrupt: entries that were skipped.
        torn: the end of the last segment, where writing was cut off; None if it is whole.
    """

    number: int
    size_bytes: int
    entries: Counter[str] = field(default_factory=Counter)
    corrupt: list[Damage] = field(default_factory=list)
    torn: Damage | None = None


@dataclass(slots=True)
class Contents:
    """What a journal holds.

    Attributes:
        segments: oldest first.
        live: messages that are not forgotten, by place.
        retried: what became of live messages since they were written, by place.
        missing: numbers of segments that should be there.
        last_place: no message has a greater one.
    """

    segments: list[SegmentReport] = field(default_factory=list)
    live: dict[int, Located] = field(default_factory=dict)
    retried: dict[int, Retried] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    last_place: int = 0

    @property
    def corrupt_entries(self) -> int:
        """Damaged entries and missing segments; a torn end is neither."""
        return len(self.missing) + sum(len(s.corrupt) for s in self.segments)

    def to_dict(self) -> dict[str, Any]:
        """Give all but the messages as JSON can hold it."""
        return {
            "segments": [
                {
                    "number": s.number,
                    "bytes": s.size_bytes,
                    "entries": dict(s.entries),
                    "corrupt": [{"offset": d.offset, "bytes": d.size_bytes} for d in s.corrupt],
                    "torn": s.torn and {"offset": s.torn.offset, "bytes": s.torn.size_bytes},
                }
                for s in self.segments
            ],
            "missing_segments": self.missing,
            "corrupt_entries": self.corrupt_entries,
        }


def path_of(directory: Path, number: int) -> Path:
    """Give the file of a segment."""
    return directory / f"{number:016d}{_SUFFIX}"


def read_journal(directory: Path) -> Contents:
    """Read all segments, oldest first.

    Raises:
        OSError: the directory or a file cannot be read.
    """
    contents = Contents()
    numbers = sorted(
        int(path.stem) for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdigit()
    )
    due = numbers[0] if numbers else 0
    for number in numbers:
        contents.missing += range(due, number)
        due = number + 1
        try:
            data = path_of(directory, number).read_bytes()
        except FileNotFoundError:
            continue  # a broker that runs removed it: nothing in it was needed any more
        contents.segments.append(_read(contents, number, data, is_last=number == numbers[-1]))
    # Each damaged entry may have been that of a message, and has at least a byte.
    contents.last_place += sum(d.size_bytes for s in contents.segments for d in s.corrupt)
    contents.retried = {p: r for p, r in contents.retried.items() if p in contents.live}
    return contents


def load(directory: Path, contents: Contents, now_ns: int) -> list[Bundle]:
    """Read the live messages, in order of arrival, each id once.

    Of two with the same id, only the later stays in `contents`: the earlier was settled, and the
    note of that is lost.

    Raises:
        OSError: a file cannot be read.
    """
    messages: dict[str, Bundle] = {}
    by_segment: dict[int, list[Located]] = {}
    for located in contents.live.values():
        by_segment.setdefault(located.number, []).append(located)
    for number, places in by_segment.items():
        with path_of(directory, number).open("rb") as file:
            for located in places:
                file.seek(located.offset)
                message = _message(file.read(located.size_bytes), contents, now_ns)
                other = messages.get(message.id)
                if other is None or other.place < message.place:
                    messages[message.id] = message
                if other is not None:
                    del contents.live[min(other.place, message.place)]
    return sorted(messages.values(), key=lambda message: message.place)


def _message(entry: bytes, contents: Contents, now_ns: int) -> Bundle:
    message = decode_message(memoryview(entry)[HEAD_BYTES:], now_ns)
    if retried := contents.retried.get(message.place):
        message.attempt = max(message.attempt, retried.attempt)
        message.dead = message.dead or retried.dead
    return message


def _read(contents: Contents, number: int, data: bytes, *, is_last: bool) -> SegmentReport:
    report = SegmentReport(number, len(data))
    seal = seal_of(data)
    if seal is None:
        # Only its beginning was ever written, or all of it is lost.
        damage = Damage(0, len(data), is_tail=not data.strip(b"\0") or len(data) < HEADER_BYTES)
        _note(report, damage, is_last=is_last)
        return report
    for one in scan(memoryview(data), seal, len(data)):
        if isinstance(one, Damage):
            _note(report, one, is_last=is_last)
        else:
            report.entries[_KINDS[one.kind]] += 1
            _apply(contents, number, one)
    return report


def _note(report: SegmentReport, damage: Damage, *, is_last: bool) -> None:
    if is_last and damage.is_tail:
        report.torn = damage
    elif damage.size_bytes:
        report.corrupt.append(damage)


def _apply(contents: Contents, number: int, found: Found) -> None:
    if found.kind == FORGET:
        places = forgotten(found.body)
        for place in places:
            contents.live.pop(place, None)
        contents.last_place = max(contents.last_place, *places)
        return
    place = place_of(found.body)
    contents.last_place = max(contents.last_place, place)
    if found.kind == RETRIED:
        contents.retried[place] = decode_retried(found.body)
    else:
        # One that was copied forward is met again; the later copy stays.
        contents.live[place] = Located(number, found.offset, HEAD_BYTES + len(found.body))
