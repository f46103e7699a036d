"""What the journal keeps, in blocks: messages that were appended together, until all are forgotten.

A block is one entry on disk and one object here. Its messages are forgotten in any order, and what
is left of it is copied forward as one entry again, which is never longer than the first. A block
belongs to the journal alone, so no other thread sees it half changed; it shares the payload with
the broker's bundle until more than half of it is forgotten, and then keeps a copy of the rest.

Pure: no file is touched here. What is said of a message that came back is kept by place, apart from
its block, because it changes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from telemq.broker.entries import Append, Forget, Retried, State
from telemq.protocol import Packed, Payload

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Block", "Blocks", "Segment"]


@dataclass(slots=True, eq=False)
class Segment:
    """One file; `live` has the blocks in it that are not forgotten, by name."""

    number: int
    path: Path
    size_bytes: int
    live: dict[int, Block] = field(default_factory=dict)


class Block(msgspec.Struct, eq=False):
    """Messages that are on disk in one entry, or are to be.

    Attributes:
        name: place of the first message when it was made.
        places: of its messages, ascending.
        messages: id, records, length of the payload, key and metadata of each.
        payload: theirs, end to end.
        left: how many are not forgotten.
        left_bytes: payload bytes of those.
        segment: where it is, or None if it is not on disk.
        entry_bytes: length of its entry there.
    """

    name: int
    places: Sequence[int]
    messages: tuple[Packed, ...]
    payload: Payload
    left: int
    left_bytes: int
    segment: Segment | None = None
    entry_bytes: int = 0

    @property
    def live_bytes(self) -> int:
        """The part of its entry that what is left would take, about."""
        return self.entry_bytes * self.left // len(self.places)


class Blocks:
    """All blocks of which something is left, by place.

    Attributes:
        live_messages: on disk and not forgotten.
        live_bytes: of their entries.
    """

    def __init__(self) -> None:
        self._by_place: dict[int, Block] = {}
        #: Attempts, and why it is dead, of each message that came back.
        self._states: dict[int, tuple[int, str]] = {}
        self.live_messages = self.live_bytes = 0

    def append(self, note: Append, payload_bytes_max: int) -> list[Block]:
        """Take in messages that are not on disk yet: one block, or more if that would be larger."""
        blocks, start, at, end = [], 0, 0, 0
        for index, message in enumerate(note.messages):
            if index > start and end + message.bytes - at > payload_bytes_max:
                blocks.append(self._part(note, start, index, at, end))
                start, at = index, end
            end += message.bytes
        blocks.append(self._part(note, start, len(note.messages), at, end))
        return blocks

    def _part(self, note: Append, start: int, stop: int, at: int, end: int) -> Block:
        payload = note.payload
        if end - at < len(payload):
            payload = bytes(payload[at:end])  # a view would keep all of it
        places = range(note.place + start, note.place + stop)
        return self.add(places, note.messages[start:stop], payload)

    def add(self, places: Sequence[int], messages: tuple[Packed, ...], payload: Payload) -> Block:
        """Take in one block."""
        block = Block(places[0], places, messages, payload, len(places), len(payload))
        self._by_place.update(dict.fromkeys(places, block))
        return block

    def locate(self, block: Block, segment: Segment, entry_bytes: int) -> None:
        """Note that a block is on disk now, or there and no more where it was."""
        if block.segment is not None:
            del block.segment.live[block.name]
            self._count(block, -1)
        block.segment, block.entry_bytes = segment, entry_bytes
        segment.live[block.name] = block
        self._count(block, 1)

    def forget(self, run: Forget) -> list[Block]:
        """Forget messages that are held; gives their blocks.

        Raises:
            KeyError: there is none with one of those places.
        """
        blocks, place, end = [], run.place, run.place + run.count
        while place < end:
            block = self._by_place[place]
            count = min(end, block.places[-1] + 1) - place
            self._forget(block, place, count)
            blocks.append(block)
            place += count
        return blocks

    def _forget(self, block: Block, place: int, count: int) -> None:
        self._count(block, -1)
        for one in range(place, place + count):
            del self._by_place[one]
            if self._states:
                self._states.pop(one, None)
        if count == block.left:
            block.left = block.left_bytes = 0
            if block.segment is not None:
                del block.segment.live[block.name]
            return
        at = bisect_left(block.places, place)
        block.left_bytes -= sum([m.bytes for m in block.messages[at : at + count]])
        block.left -= count
        if 2 * block.left < len(block.places) or 2 * block.left_bytes < len(block.payload):
            self.trim(block)
        self._count(block, 1)

    def trim(self, block: Block) -> None:
        """Drop what is forgotten from a block."""
        if block.left == len(block.places):
            return
        view, at = memoryview(block.payload), 0
        kept: list[tuple[int, Packed, memoryview]] = []
        for place, message in zip(block.places, block.messages, strict=True):
            if place in self._by_place:
                kept.append((place, message, view[at : at + message.bytes]))
            at += message.bytes
        block.entry_bytes = block.live_bytes
        block.places = [place for place, _, _ in kept]
        block.messages = tuple([message for _, message, _ in kept])
        block.payload = b"".join([payload for _, _, payload in kept])

    def came_back(self, note: Retried) -> list[int]:
        """Keep what is said of messages; gives the places of those that are on disk."""
        on_disk = []
        for place in range(note.place, note.place + note.count):
            if block := self._by_place.get(place):
                self._states[place] = note.attempt, note.dead
                if block.segment is not None:
                    on_disk.append(place)
        return on_disk

    def notes(self, places: Iterable[int]) -> list[Retried]:
        """Say again what was said of messages, as few notes as do."""
        notes: list[Retried] = []
        for place in sorted(places):
            attempt, dead = self._states[place]
            last = notes[-1] if notes else None
            if last and last == Retried(place - last.count, last.count, attempt, dead):
                notes[-1] = Retried(last.place, last.count + 1, attempt, dead)
            else:
                notes.append(Retried(place, 1, attempt, dead))
        return notes

    def states(self, block: Block) -> list[State]:
        """Say of a block's messages, by their index, which came back."""
        if not self._states:
            return []
        index = {place: at for at, place in enumerate(block.places) if place in self._states}
        return [State(index[n.place], n.count, n.attempt, n.dead) for n in self.notes(index)]

    def _count(self, block: Block, sign: int) -> None:
        if block.segment is not None:
            self.live_messages += sign * block.left
            self.live_bytes += sign * block.live_bytes
