"""Reads a journal's directory, and says what is live in it and what is damaged.

Reading changes nothing, so a broker's directory can be read while it runs: entries and whole
segments may then come and go, and the end of the last segment may be one that is just being
written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from telemq.broker.bundle import Bundle
from telemq.broker.entries import (
    FORGET,
    HEAD_BYTES,
    HEADER_BYTES,
    MESSAGES,
    RETRIED,
    Damage,
    Found,
    decode_messages,
    decode_retried,
    forgotten,
    places_of,
    scan,
    seal_of,
)
from telemq.errors import SettingError
from telemq.protocol import Packed

__all__ = [
    "Contents",
    "Kept",
    "Located",
    "SegmentReport",
    "bundles",
    "load",
    "path_of",
    "read_journal",
]

_SUFFIX = ".journal"
_KINDS = {MESSAGES: "messages", FORGET: "forget", RETRIED: "retried"}


class Located(NamedTuple):
    """Where an entry is.

    Attributes:
        number: of the segment.
        offset: in it.
        size_bytes: its length.
    """

    number: int
    offset: int
    size_bytes: int


class Kept(NamedTuple):
    """What is live of an entry with messages.

    Attributes:
        located: where it is.
        places: of the messages, ascending.
        messages: id, records, length of the payload, key and metadata of each.
        payload: theirs, end to end.
    """

    located: Located
    places: tuple[int, ...]
    messages: tuple[Packed, ...]
    payload: bytes


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
        live: where the messages are that are not forgotten, by place.
        retried: attempts of live messages that came back, and why they are dead, by place.
        missing: numbers of segments that should be there.
        last_place: no message has a greater one.
    """

    segments: list[SegmentReport] = field(default_factory=list)
    live: dict[int, Located] = field(default_factory=dict)
    retried: dict[int, tuple[int, str]] = field(default_factory=dict)
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
        SettingError: a file is of another version of telemq.
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
    # A damaged entry may have been that of messages, each of which has some bytes.
    contents.last_place += sum(d.size_bytes for s in contents.segments for d in s.corrupt)
    contents.retried = {p: r for p, r in contents.retried.items() if p in contents.live}
    return contents


def load(directory: Path, contents: Contents) -> list[Kept]:
    """Read the live messages, each id once, and complete `contents.retried`.

    Of two with the same id, only the later stays in `contents`: the earlier was settled, and the
    note of that is lost.

    Raises:
        OSError: a file cannot be read.
    """
    by_id: dict[str, int] = {}
    found = []
    for located, body in _bodies(directory, contents):
        places, messages, payload, states = decode_messages(body)
        for state in states:
            for place in places[state.index : state.index + state.count]:
                if contents.live.get(place) == located:
                    attempt, dead = contents.retried.get(place, (0, ""))
                    contents.retried[place] = max(attempt, state.attempt), dead or state.dead
        for place, message in zip(places, messages, strict=True):
            if contents.live.get(place) != located:
                continue
            other = by_id.setdefault(message.id, place)
            if other != place:
                del contents.live[min(other, place)]
                by_id[message.id] = max(other, place)
        found.append((located, places, messages, payload))
    kept = []
    while found:  # whose payloads go one by one as they are copied
        entry = _kept(contents, *found.pop())
        if entry.places:
            kept.append(entry)
    return kept


def bundles(kept: Iterable[Kept], contents: Contents, now_ns: int) -> list[Bundle]:
    """Give the messages as the broker holds them, in order of arrival; nobody waits for them.

    Those of an entry stay together as far as their places are in a row and they have come back as
    often.
    """
    made = []
    for entry in kept:
        start = at = end = 0
        states = [contents.retried.get(place, (0, "")) for place in entry.places]
        for index, place in enumerate(entry.places, 1):
            end += entry.messages[index - 1].bytes
            if entry.places[index : index + 1] == (place + 1,) and states[index] == states[start]:
                continue
            messages = entry.messages[start:index]
            attempt, dead = states[start]
            made.append(
                Bundle(
                    messages,
                    entry.payload[at:end],
                    sum([message.records for message in messages]),
                    end - at,
                    place=entry.places[start],
                    arrived_ns=now_ns,
                    session="",
                    number=0,
                    attempt=attempt,
                    dead=dead,
                )
            )
            start, at = index, end
    return sorted(made, key=lambda bundle: bundle.place)


def _bodies(directory: Path, contents: Contents) -> Iterator[tuple[Located, memoryview]]:
    by_segment: dict[int, list[Located]] = {}
    for located in dict.fromkeys(contents.live.values()):
        by_segment.setdefault(located.number, []).append(located)
    for number, entries in by_segment.items():
        with path_of(directory, number).open("rb") as file:
            for located in entries:
                file.seek(located.offset)
                yield located, memoryview(file.read(located.size_bytes))[HEAD_BYTES:]


def _kept(
    contents: Contents,
    located: Located,
    places: tuple[int, ...],
    messages: tuple[Packed, ...],
    payload: memoryview,
) -> Kept:
    at, held, parts = 0, [], []
    for place, message in zip(places, messages, strict=True):
        if contents.live.get(place) == located:
            held.append((place, message))
            parts.append(payload[at : at + message.bytes])
        at += message.bytes
    return Kept(
        located,
        tuple([place for place, _ in held]),
        tuple([message for _, message in held]),
        b"".join(parts),
    )


def _read(contents: Contents, number: int, data: bytes, *, is_last: bool) -> SegmentReport:
    report = SegmentReport(number, len(data))
    try:
        seal = seal_of(data)
    except ValueError as error:
        accepted = "of this version; a journal of another has to be emptied by that one"
        raise SettingError("--journal", f"segment {number}, {error}", accepted) from error
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
        for run in forgotten(found.body):
            for place in range(run.place, run.place + run.count):
                contents.live.pop(place, None)
            contents.last_place = max(contents.last_place, run.place + run.count - 1)
    elif found.kind == RETRIED:
        note = decode_retried(found.body)
        end = note.place + note.count
        contents.retried.update(dict.fromkeys(range(note.place, end), (note.attempt, note.dead)))
        contents.last_place = max(contents.last_place, end - 1)
    else:
        # One that was copied forward is met again; the later copy stays.
        located = Located(number, found.offset, HEAD_BYTES + len(found.body))
        places = places_of(found.body)
        contents.live.update(dict.fromkeys(places, located))
        contents.last_place = max(contents.last_place, places[-1])
