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
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

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
    encode_header,
    entry_bytes_max,
)
from telemq.broker.recovery import Contents, load, path_of, read_journal
from telemq.errors import SettingError

__all__ = ["Journal"]

T = TypeVar("T")

#: Bytes gathered for one write: the copy is cheap, a call for each small entry is not.
_WRITE_BYTES = 4 * 2**20
#: Places in one entry that forgets.
_FORGET_PLACES = 4096
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(slots=True, eq=False)
class _Segment:
    """One file; `live` has the bytes of the entry of each message in it that is held."""

    number: int
    path: Path
    size_bytes: int
    live: dict[int, int] = field(default_factory=dict)


class Journal:
    """A directory of segments; see the module for its rules.

    Args:
        directory: made if it is not there; locked until `close`.
        segment_bytes: a segment that is larger gets no more entries.
        bytes_max: of all files together.
        message_bytes_max: largest payload.
        now_ns: arrival of the messages that are found.
        disk: the file system.

    Raises:
        SettingError: `bytes_max` is too little, or the directory cannot be used.
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
        message_bytes_max: int,
        now_ns: int,
        disk: Disk | None = None,
    ) -> None:
        self._disk = disk or Disk()
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._bytes_max = bytes_max
        self._reserve_bytes = segment_bytes + entry_bytes_max(message_bytes_max) + 2 * HEADER_BYTES
        if bytes_max < 4 * self._reserve_bytes:
            least = f"at least {4 * self._reserve_bytes:,} bytes, four segments and messages"
            raise SettingError("--journal-bytes-max", bytes_max, least)
        self._segments: list[_Segment] = []
        self._active: _Segment | None = None
        #: Given up after a failure, and not yet cut back; nothing is written before it is.
        self._to_cut: _Segment | None = None
        self._fd = -1
        self._seal = Seal(b"")
        self._synced_bytes = 0
        self._buffer: list[Buffer] = []
        self._buffer_bytes = 0
        self._appends: dict[int, Bundle] = {}
        self._moves: dict[int, Bundle] = {}
        self._forgets: list[int] = []
        self._retried: dict[int, Retried] = {}
        #: Written and not synced: by place with the size of the entry; and the other notes.
        self._written: dict[int, tuple[Bundle, int]] = {}
        self._written_notes: list[Retried | Forget] = []
        self._where: dict[int, tuple[Bundle, _Segment]] = {}
        self._is_full = self._is_syncing = False
        self._syncs = 0
        self.stalled = ""
        self.used_bytes = self.live_bytes = 0
        self._lock = lock(directory)
        try:
            self.found = read_journal(directory)
            self.messages = self._recover(self.found, now_ns)
        except OSError as error:
            os.close(self._lock)
            raise unusable(directory, error) from error

    # ---- what it knows ---------------------------------------------------------------------

    @property
    def segments(self) -> int:
        """How many files there are."""
        return len(self._segments)

    @property
    def live_messages(self) -> int:
        """How many messages on disk are not forgotten."""
        return len(self._where)

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
                case Append(message):
                    self._appends[message.place] = message
                    self._last_place = message.place
                case Forget(place):
                    self._forget(place)
                case Retried() if note.place in self._where:
                    self._retried[note.place] = note

    def sync(self) -> bool:
        """Bring to the disk what can be, and remove what is not needed; tell whether it fsynced.

        When that fails or there is no room, `stalled` says why, and what is not safe stays pending.
        """
        before = self._syncs
        try:
            if self._to_cut is not None:
                self._cut_back(self._to_cut)
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
        if self._active is not None:
            self._disk.close(self._fd)
            self._active = None
        os.close(self._lock)

    # ---- writing ---------------------------------------------------------------------------

    def _forget(self, place: int) -> None:
        self._retried.pop(place, None)
        self._moves.pop(place, None)
        # One that was never written needs no note of its end.
        self._appends.pop(place, None)
        if place in self._where:
            _, segment = self._where.pop(place)
            self.live_bytes -= segment.live.pop(place)
            self._forgets.append(place)

    def _write(self) -> None:
        self._is_full = False
        notes_max = self._bytes_max - self._reserve_bytes
        while self._forgets:
            places = self._forgets[:_FORGET_PLACES]
            if not self._add(Seal.forget, places, notes_max):
                break
            del self._forgets[:_FORGET_PLACES]
            self._written_notes += map(Forget, places)
        for place, note in list(self._retried.items()):
            if not self._add(Seal.retried, note, notes_max):
                break
            del self._retried[place]
            self._written_notes.append(note)
        self._write_messages(self._moves, self._bytes_max)
        self._write_messages(self._appends, notes_max - self._reserve_bytes)
        self._write_buffer()

    def _write_messages(self, pending: dict[int, Bundle], most_bytes: int) -> None:
        for place, message in list(pending.items()):
            size_bytes = self._add(Seal.message, message, most_bytes)
            if not size_bytes:
                self._is_full = True
                return
            del pending[place]
            self._written[place] = message, size_bytes

    def _add(self, encode: Callable[[Seal, T, int], list[Buffer]], what: T, most_bytes: int) -> int:
        """Add an entry to what is to be written; gives its size, or 0 if there is no room."""
        if self._active is not None and self._active.size_bytes >= self._segment_bytes:
            self._write_buffer()
            self._flush()
            self._disk.close(self._fd)
            self._active = None
        segment = self._active or self._begin_segment()
        parts = encode(self._seal, what, segment.size_bytes)
        size_bytes = sum(map(len, parts))
        if self.used_bytes + size_bytes > most_bytes:
            return 0
        self._buffer += parts
        self._buffer_bytes += size_bytes
        segment.size_bytes += size_bytes
        self.used_bytes += size_bytes
        if self._buffer_bytes >= _WRITE_BYTES:
            self._write_buffer()
        return size_bytes

    def _begin_segment(self) -> _Segment:
        number = self._segments[-1].number + 1 if self._segments else self._next_number
        path = path_of(self._directory, number)
        salt = os.urandom(8)
        self._fd = self._disk.create(path)
        self._active = _Segment(number, path, HEADER_BYTES)
        self._segments.append(self._active)
        self.used_bytes += HEADER_BYTES
        self._seal = Seal(salt)
        self._synced_bytes = 0
        self._disk.write(self._fd, encode_header(number, salt))
        self._disk.sync_directory(self._directory)
        return self._active

    def _write_buffer(self) -> None:
        if self._buffer:
            data = b"".join(self._buffer)
            self._buffer.clear()
            self._buffer_bytes = 0
            self._disk.write(self._fd, data)

    def _flush(self) -> None:
        """Have all that was written on disk, and note where it is."""
        segment = self._active
        if segment is None or segment.size_bytes == self._synced_bytes:
            return
        self._is_syncing = True
        self._disk.sync(self._fd)
        self._is_syncing = False
        self._syncs += 1
        self._synced_bytes = segment.size_bytes
        for place, (message, size_bytes) in self._written.items():
            if place in self._where:
                self.live_bytes -= self._where[place][1].live.pop(place)
            segment.live[place] = size_bytes
            self.live_bytes += size_bytes
            self._where[place] = message, segment
        self._written.clear()
        self._written_notes.clear()

    def _fail(self, error: OSError) -> None:
        """Give up the active segment; all that is not safe in it is pending again."""
        is_doubtful = self._is_syncing and error.errno not in _NO_SPACE
        self._is_syncing = False
        self.stalled = f"{error.strerror or error} ({errno.errorcode.get(error.errno or 0, '?')})"
        self._buffer.clear()
        self._buffer_bytes = 0
        again = {place: message for place, (message, _) in self._written.items()}
        self._moves = {p: m for p, m in again.items() if p in self._where} | self._moves
        self._appends = {p: m for p, m in again.items() if p not in self._where} | self._appends
        places = [note.place for note in self._written_notes if isinstance(note, Forget)]
        self._forgets = places + self._forgets
        for note in self._written_notes:
            if isinstance(note, Retried):
                self._retried.setdefault(note.place, note)
        self._written.clear()
        self._written_notes.clear()
        if self._active is not None:
            self._give_up(self._active, is_doubtful=is_doubtful)
            self._active = None

    def _give_up(self, segment: _Segment, *, is_doubtful: bool) -> None:
        if is_doubtful:
            self._moves |= {place: self._where[place][0] for place in segment.live}
        with suppress(OSError):
            self._disk.close(self._fd)
        self._to_cut = segment

    def _cut_back(self, segment: _Segment) -> None:
        """Cut what was not synced off a segment that was given up."""
        if self._synced_bytes:
            self._disk.cut(segment.path, self._synced_bytes)
        else:
            self._disk.remove(segment.path)
            self._disk.sync_directory(self._directory)
            self._segments.remove(segment)
            self._next_number = segment.number
        self.used_bytes -= segment.size_bytes - self._synced_bytes
        segment.size_bytes = self._synced_bytes
        self._to_cut = None

    # ---- room ------------------------------------------------------------------------------

    def _remove_gone(self) -> None:
        while self._segments:
            oldest = self._segments[0]
            if oldest is self._active or oldest.live:
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
        if oldest is None or oldest is self._active or self._moves or not is_worth:
            return False
        self._moves = {place: self._where[place][0] for place in oldest.live}
        return True

    # ---- beginning -------------------------------------------------------------------------

    def _recover(self, found: Contents, now_ns: int) -> list[Bundle]:
        self._last_place = found.last_place
        self._next_number = found.segments[-1].number + 1 if found.segments else 1
        superseded = set(found.live)
        messages = load(self._directory, found, now_ns)
        by_number = {}
        for report in found.segments:
            path = path_of(self._directory, report.number)
            size_bytes = report.size_bytes
            if report.torn is not None:
                size_bytes = report.torn.offset
                self._disk.cut(path, size_bytes)
            by_number[report.number] = _Segment(report.number, path, size_bytes)
            self.used_bytes += size_bytes
        self._segments = list(by_number.values())
        for message in messages:
            located = found.live[message.place]
            segment = by_number[located.number]
            segment.live[message.place] = located.size_bytes
            self.live_bytes += located.size_bytes
            self._where[message.place] = message, segment
        self._forgets = sorted(superseded - set(found.live))
        self._remove_gone()
        return messages
