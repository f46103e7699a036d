"""The journal: which messages the broker holds, in segment files that only grow or go.

A message is appended, and forgotten by a later entry; see `entries` for the bytes. One thread owns
a journal; nothing here waits, logs or reads a clock. `keep` takes notes, `sync` brings what it can
to the disk, and what stands in the way is a state, not an exception::

                 keep            write + fsync
    pending  <---------  note          |
       |                               v
       '--------------------------> located in a segment ---- forgotten
       ^                               |
       '---- a write or fsync failed --'

Rules, each with a test:

- A place counts as synced after the fsync that covers it, or once it is forgotten.
- After a failed write nothing more goes into that segment: it is cut back to what was synced, and
  what was not is written again, into a new one. After a failed fsync the kernel may have dropped
  pages and call the next fsync a success, so all live messages of that segment are written again.
- Segments go from the oldest on, and only when every message in them is forgotten or copied: an
  entry that forgets a message never goes before that message does. For each one removed, the
  directory is synced, so that a crash cannot bring back an older one than is missing.
- When more is dead than live, the oldest segment's live messages are copied forward.
- The files never take more than `bytes_max`. New messages leave two reserves (of a segment and a
  message each): one for notes of what is forgotten, one for copying forward, so that a full
  journal can always become less full.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from telemq.broker.blocks import Block, Blocks, Segment
from telemq.broker.bundle import Bundle
from telemq.broker.disk import Disk, lock, unusable
from telemq.broker.entries import (
    HEADER_BYTES,
    Append,
    Buffer,
    Forget,
    Note,
    Retried,
    Seal,
    entry_bytes_max,
)
from telemq.broker.recovery import Contents, bundles, load, path_of, read_journal
from telemq.broker.tail import Tail
from telemq.errors import SettingError

__all__ = ["Journal"]

#: Runs of places in one entry that forgets.
_FORGET_RUNS = 2048


class Journal:
    """A directory of segments; see the module for its rules.

    Args:
        directory: made if it is not there; locked until `close`.
        segment_bytes: a segment that is larger gets no more entries.
        bytes_max: of all files together.
        payload_bytes_max: largest payload of an entry; that of one message, at least.
        now_ns: arrival of the messages that are found.
        disk: the file system.

    Raises:
        SettingError: `bytes_max` is too little, or the directory cannot be used, or what is in it.
        BusyError: another broker uses the directory.

    Attributes:
        found: what was in the directory, for the log.
        messages: what was live, in order; whoever restores them may clear it.
        stalled: why what is pending cannot be written; empty when all is well.
        used_bytes: of all files.
    """

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int,
        bytes_max: int,
        payload_bytes_max: int,
        now_ns: int,
        disk: Disk | None = None,
    ) -> None:
        self._disk = disk or Disk()
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._bytes_max = bytes_max
        self._payload_bytes_max = payload_bytes_max
        self._reserve_bytes = segment_bytes + entry_bytes_max(payload_bytes_max) + 2 * HEADER_BYTES
        if bytes_max < 4 * self._reserve_bytes:
            least = f"at least {4 * self._reserve_bytes:,} bytes, four segments and messages"
            raise SettingError("--journal-bytes-max", bytes_max, least)
        self._segments: list[Segment] = []
        self._tail = Tail(directory, self._disk)
        self._blocks = Blocks()
        #: To be written: blocks by name, runs of places, and places of those that came back.
        self._appends: dict[int, Block] = {}
        self._moves: dict[int, Block] = {}
        self._forgets: list[Forget] = []
        self._retried: dict[int, None] = {}
        #: Written and not synced: blocks with the size of the entry; and the other notes.
        self._written: list[tuple[Block, int]] = []
        self._written_notes: list[Retried | Forget] = []
        self._is_full = False
        self._syncs = 0
        self.stalled = ""
        self.used_bytes = 0
        self._lock = lock(directory)
        try:
            self.found = read_journal(directory)
            self.messages = self._recover(self.found, now_ns)
        except OSError as error:
            os.close(self._lock)
            raise unusable(directory, error) from error
        except SettingError:
            os.close(self._lock)
            raise

    # ---- what it knows ---------------------------------------------------------------------

    @property
    def segments(self) -> int:
        """How many files there are."""
        return len(self._segments)

    @property
    def live_messages(self) -> int:
        """How many messages on disk are not forgotten."""
        return self._blocks.live_messages

    @property
    def live_bytes(self) -> int:
        """How many bytes of the files are theirs."""
        return self._blocks.live_bytes

    @property
    def has_pending(self) -> bool:
        """Whether `sync` has something to do."""
        return bool(self._appends or self._forgets or self._retried or self._moves)

    def synced_place(self) -> int:
        """Give up to which place everything is on disk or forgotten."""
        return next(iter(self._appends)) - 1 if self._appends else self._last_place

    # ---- what is to be done ----------------------------------------------------------------

    def keep(self, notes: Iterable[Note]) -> None:
        """Take notes, in order; nothing is written before `sync`."""
        for note in notes:
            match note:
                case Append():
                    for block in self._blocks.append(note, self._payload_bytes_max):
                        self._appends[block.name] = block
                        self._last_place = block.places[-1]
                case Forget():
                    self._forget(note)
                case Retried():
                    self._retried |= dict.fromkeys(self._blocks.came_back(note))

    def sync(self) -> bool:
        """Bring to the disk what can be, and remove what is not needed; tell whether it fsynced.

        When that fails or there is no room, `stalled` says why, and what is not safe stays pending.
        """
        before = self._syncs
        try:
            if self._tail.given_up is not None:
                self._cut_back(self._tail.given_up)
            # Each turn copies one segment forward, to make room for what does not fit.
            for _ in range(len(self._segments) + 1):
                self._write()
                self._flush()
                self._remove_gone()
                if not (self._is_full and self._plan_moves()):
                    break
            self._plan_moves()
        except OSError as error:
            self._fail(error)
        else:
            limit = f"its limit of {self._bytes_max:,} bytes is reached"
            self.stalled = limit if self._is_full and self._appends else ""
        return self._syncs > before

    def close(self) -> None:
        """Free the directory; what is pending is not written."""
        self._tail.leave()
        os.close(self._lock)

    # ---- writing ---------------------------------------------------------------------------

    def _forget(self, run: Forget) -> None:
        # What was never written needs no note of its end.
        is_on_disk = False
        for block in self._blocks.forget(run):
            is_on_disk |= block.segment is not None
            if not block.left:
                self._appends.pop(block.name, None)
                self._moves.pop(block.name, None)
        if not is_on_disk:
            return
        if self._retried:
            for place in range(run.place, run.place + run.count):
                self._retried.pop(place, None)
        last = self._forgets[-1] if self._forgets else None
        if last and last.place + last.count == run.place:
            self._forgets[-1] = Forget(last.place, last.count + run.count)
        else:
            self._forgets.append(run)

    def _write(self) -> None:
        self._is_full = False
        notes_max = self._bytes_max - self._reserve_bytes
        while self._forgets:
            runs = self._forgets[:_FORGET_RUNS]
            if not self._add(partial(Seal.forget, runs=runs), notes_max):
                break
            del self._forgets[:_FORGET_RUNS]
            self._written_notes += runs
        for note in self._blocks.notes(self._retried):
            if not self._add(partial(Seal.retried, note=note), notes_max):
                break
            for place in range(note.place, note.place + note.count):
                del self._retried[place]
            self._written_notes.append(note)
        self._write_blocks(self._moves, self._bytes_max)
        self._write_blocks(self._appends, notes_max - self._reserve_bytes)
        self._tail.write()

    def _write_blocks(self, pending: dict[int, Block], most_bytes: int) -> None:
        for name, block in list(pending.items()):
            self._blocks.trim(block)
            size_bytes = self._add(
                partial(
                    Seal.messages,
                    places=block.places,
                    messages=block.messages,
                    payload=block.payload,
                    states=self._blocks.states(block),
                ),
                most_bytes,
            )
            if not size_bytes:
                self._is_full = True
                return
            del pending[name]
            self._written.append((block, size_bytes))

    def _add(self, encode: Callable[..., list[Buffer]], most_bytes: int) -> int:
        """Add an entry to what is to be written; gives its size, or 0 if there is no room."""
        segment = self._tail.segment
        if segment is not None and segment.size_bytes >= self._segment_bytes:
            self._tail.write()
            self._flush()
            self._tail.leave()
        segment = self._tail.segment or self._begin_segment()
        parts = encode(self._tail.seal, offset=segment.size_bytes)
        size_bytes = sum(map(len, parts))
        if self.used_bytes + size_bytes > most_bytes:
            return 0
        self.used_bytes += size_bytes
        self._tail.add(segment, parts, size_bytes)
        return size_bytes

    def _begin_segment(self) -> Segment:
        number = self._segments[-1].number + 1 if self._segments else self._next_number
        segment = self._tail.create(number)
        self._segments.append(segment)
        self.used_bytes += segment.size_bytes
        self._tail.begin(segment)
        return segment

    def _flush(self) -> None:
        """Have all that was written on disk, and note where it is."""
        segment = self._tail.segment
        if segment is None or not self._tail.sync():
            return
        self._syncs += 1
        for block, size_bytes in self._written:
            self._blocks.locate(block, segment, size_bytes)
        self._written.clear()
        self._written_notes.clear()

    def _fail(self, error: OSError) -> None:
        """Give up the active segment; all that is not safe in it is pending again."""
        self.stalled = f"{error.strerror or error} ({errno.errorcode.get(error.errno or 0, '?')})"
        again = {block.name: block for block, _ in self._written}
        self._moves = {n: b for n, b in again.items() if b.segment} | self._moves
        self._appends = {n: b for n, b in again.items() if not b.segment} | self._appends
        self._forgets = [n for n in self._written_notes if isinstance(n, Forget)] + self._forgets
        for note in self._written_notes:
            if isinstance(note, Retried):
                self._retried |= dict.fromkeys(self._blocks.came_back(note))
        self._written.clear()
        self._written_notes.clear()
        segment = self._tail.segment
        if self._tail.give_up(error) and segment is not None:
            self._moves |= segment.live

    def _cut_back(self, segment: Segment) -> None:
        self.used_bytes -= self._tail.cut_back(segment)
        if not segment.size_bytes:
            self._segments.remove(segment)
            self._next_number = segment.number

    # ---- room ------------------------------------------------------------------------------

    def _remove_gone(self) -> None:
        while self._segments:
            oldest = self._segments[0]
            if oldest is self._tail.segment or oldest.live:
                return
            self._disk.remove(oldest.path)
            self._disk.sync_directory(self._directory)
            del self._segments[0]
            self._next_number = oldest.number + 1
            self.used_bytes -= oldest.size_bytes

    def _plan_moves(self) -> bool:
        """Plan to copy the oldest segment's live messages forward, if that is worth it."""
        oldest = self._segments[0] if self._segments else None
        dead_bytes = self.used_bytes - self.live_bytes
        is_worth = dead_bytes > self.live_bytes + 2 * self._segment_bytes or (
            self._is_full and dead_bytes > max(self._segment_bytes, self.used_bytes // 4)
        )
        if oldest is None or oldest is self._tail.segment or self._moves or not is_worth:
            return False
        self._moves = dict(oldest.live)
        return True

    # ---- beginning -------------------------------------------------------------------------

    def _recover(self, found: Contents, now_ns: int) -> list[Bundle]:
        self._last_place = found.last_place
        self._next_number = found.segments[-1].number + 1 if found.segments else 1
        superseded = set(found.live)
        kept = load(self._directory, found)
        by_number = {}
        for report in found.segments:
            path = path_of(self._directory, report.number)
            size_bytes = report.size_bytes
            if report.torn is not None:
                size_bytes = report.torn.offset
                self._disk.cut(path, size_bytes)
            by_number[report.number] = Segment(report.number, path, size_bytes)
            self.used_bytes += size_bytes
        self._segments = list(by_number.values())
        for entry in kept:
            block = self._blocks.add(entry.places, entry.messages, entry.payload)
            self._blocks.locate(block, by_number[entry.located.number], entry.located.size_bytes)
        for place, (attempt, dead) in found.retried.items():
            self._blocks.came_back(Retried(place, 1, attempt, dead))
        self._forgets = [Forget(place, 1) for place in sorted(superseded - set(found.live))]
        self._remove_gone()
        return bundles(kept, found, now_ns)
