"""Runs of a journal that is written, failed and cut off; and what must be true of it each time."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from unittest.mock import patch

from hypothesis import strategies as st

from telemq.broker import entries
from telemq.broker.bundle import Bundle
from telemq.broker.entries import Append, Forget, Retried
from telemq.broker.journal import Journal
from telemq.protocol import Packed
from tests.support.accounts import promised
from tests.support.disks import CrashDisk

__all__ = ["Entry", "journal_steps", "live", "message", "play_journal"]

Entry = tuple[str, int, int]
SEGMENT_BYTES, BYTES_MAX, PAYLOAD_BYTES_MAX = 400, 5000, 120
#: So small that limits are met with few messages.
_ABOUT_BYTES_MAX = 300
#: Messages of one entry.
_TOGETHER_MAX = 4

_STEPS = ("append", "sync") * 4 + ("forget",) * 3 + ("retried", "crash", "trouble", "no_space")
journal_steps = st.integers(0, 80).flatmap(
    lambda n: st.lists(
        st.tuples(st.sampled_from(_STEPS), st.integers(0, 255), st.integers(0, 255)),
        min_size=n,
        max_size=n,
    )
)


def message(place: int, size_bytes: int = 10, id: str = "") -> Bundle:
    """Make a message whose payload can be told from all others."""
    payload = (b"%d " % place * size_bytes)[:size_bytes]
    id = id or f"m#{place}"
    records = 1 + place % 7
    packed = Packed(id, records, size_bytes, "k", {"a": "b"})
    return Bundle((packed,), payload, records, size_bytes, place, 0, "", 0)


def live(journal: Journal) -> list[int]:
    """List the places of the messages that a journal found."""
    return [place for m in journal.messages for place in range(m.place, m.end)]


def play_journal(plan: list[Entry]) -> dict[str, int]:
    """Make a journal take every step, then crash and be read again; counts what was met.

    Raises:
        AssertionError: naming the promise that was broken.
    """
    with (
        tempfile.TemporaryDirectory() as scratch,
        patch.object(entries, "_ABOUT_BYTES_MAX", _ABOUT_BYTES_MAX),
    ):
        run = _Run(Path(scratch))
        try:
            for kind, a, b in plan:
                getattr(run, kind)(a, b)
                run.look()
            run.crash(255, 0)
            run.run_empty()
        finally:
            run.journal.close()
    return run.met


class _Run:
    """A journal, and a plain account of what it was told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.disk = CrashDisk()
        self.met: dict[str, int] = {}
        #: Held, and of those, confirmed; forgotten, and of those, for good.
        self.held: dict[int, Bundle] = {}
        self.tries: dict[int, int] = {}
        self.confirmed: set[int] = set()
        self.gone: set[int] = set()
        self.gone_for_good: set[int] = set()
        self.place = 0
        #: Which messages were appended together: place of the first, by place.
        self.together: dict[int, int] = {}
        self.journal = self._open()

    def _open(self) -> Journal:
        self.disk.adopt(self.directory)
        return Journal(
            self.directory,
            segment_bytes=SEGMENT_BYTES,
            bytes_max=BYTES_MAX,
            payload_bytes_max=PAYLOAD_BYTES_MAX,
            now_ns=0,
            disk=self.disk,
        )

    # ---- steps -----------------------------------------------------------------------------

    def append(self, a: int, b: int) -> None:
        """Some entries of one message or several."""
        for n in range(1 + a % 8):
            count = 1 + (a + b + n) % _TOGETHER_MAX
            size_bytes = b % (PAYLOAD_BYTES_MAX // count + 1)
            first = self.place + 1
            new = [message(first + m, size_bytes) for m in range(count)]
            self.place += count
            self.held |= {one.place: one for one in new}
            self.together |= dict.fromkeys([one.place for one in new], first)
            messages = tuple(packed for one in new for packed in one.messages)
            payload = b"".join([bytes(one.payload) for one in new])
            self.journal.keep([Append(first, messages, payload)])

    def forget(self, a: int, b: int) -> None:
        """Several at once, so that segments become empty; now and then all but the oldest."""
        places = list(self.held)
        first = a % (len(places) + 1)
        self._forget(places[1:] if b % 16 == 0 else places[first : first + 1 + b % 8])

    def _forget(self, places: list[int]) -> None:
        for start, count in self._runs(places):
            self.journal.keep([Forget(start, count)])
        for place in places:
            del self.held[place]
            self.gone.add(place)

    def _runs(self, places: list[int]) -> list[tuple[int, int]]:
        """Give what is in a row and was appended together: first place and how many."""
        runs: list[tuple[int, int]] = []
        for place in places:
            if runs and sum(runs[-1]) == place and self._are_together(place - 1, place):
                runs[-1] = runs[-1][0], runs[-1][1] + 1
            else:
                runs.append((place, 1))
        return runs

    def _are_together(self, *places: int) -> bool:
        return len({self.together[place] for place in places}) == 1

    def retried(self, a: int, b: int) -> None:
        """One, or all that were appended with it and came back as often."""
        if not self.held:
            return
        place = list(self.held)[a % len(self.held)]
        held = self.held[place]
        mates = [p for p in self.held if self._are_together(p, place)] if b % 2 else [place]
        state = held.attempt, held.dead
        mates = [p for p in mates if (self.held[p].attempt, self.held[p].dead) == state]
        held.attempt += 1
        held.dead = held.dead or ("dead" if b % 8 == 0 else "")
        for p in mates:
            self.held[p].attempt, self.held[p].dead = held.attempt, held.dead
        for start, count in self._runs(mates):
            self.journal.keep([Retried(start, count, held.attempt, held.dead)])

    def sync(self, a: int, b: int) -> None:
        self.journal.sync()
        self._count("stalled" if self.journal.stalled else "synced")
        self._count("limit" if "limit" in self.journal.stalled else "free")
        self.confirmed |= {p for p in self.held if p <= self.journal.synced_place()}
        if not self.journal.has_pending:
            self.gone_for_good |= self.gone
            self.tries = {p: m.attempt for p, m in self.held.items()}

    def trouble(self, a: int, b: int) -> None:
        """The next call of one kind fails."""
        calls = ("sync", "sync", "write", "create", "cut", "remove", "sync_directory")
        code = errno.ENOSPC if b % 3 == 0 else errno.EIO
        self.disk.fail[calls[a % len(calls)]] = code

    def no_space(self, a: int, b: int) -> None:
        """The disk is full, soon; or space has returned."""
        self.disk.free_bytes = None if b % 2 else 4 * a

    def crash(self, a: int, b: int) -> None:
        """The power fails, or (a is 255) only the process ends; then a new life begins."""
        self.disk.fail.clear()
        self.disk.free_bytes = None
        self.disk.crash(a / 255, ghosts=b % 2 == 1)
        self._leave()
        self.journal = self._open()
        self._count("crash")
        self._check_found()

    def run_empty(self) -> None:
        """All that is left is forgotten: all space must come back."""
        self._forget(list(self.held))
        for _ in range(3):
            self.journal.sync()
        least = SEGMENT_BYTES + PAYLOAD_BYTES_MAX + 400
        promised(not self.journal.stalled, "goes on", self.journal.stalled)
        promised(self.journal.used_bytes <= 2 * least, "reclaim", "dead segments stay")

    # ---- checks ----------------------------------------------------------------------------

    def look(self) -> None:
        """Check what must hold at any time."""
        used = sum(path.stat().st_size for path in self.directory.glob("*.journal"))
        promised(self.disk.peak_bytes <= BYTES_MAX, "limit", f"{self.disk.peak_bytes} bytes")
        # A removal that failed half way is not counted before it is done.
        is_counted = used == self.journal.used_bytes or (
            self.journal.stalled and used < self.journal.used_bytes
        )
        promised(bool(is_counted), "limit", "bytes are miscounted")

    def _check_found(self) -> None:
        found = {place: one for b in self.journal.messages for place, one in _apart(b)}
        places = list(found)
        promised(places == sorted(places), "order", f"{places}")
        promised(self.confirmed & set(self.held) <= set(places), "lost", "confirmed, not there")
        promised(not self.gone_for_good & set(places), "back", "forgotten, and there again")
        promised(set(places) <= set(self.held) | self.gone, "made up", "never told")
        for place, one in found.items():
            told = message(place, one.size_bytes)
            same = (told.messages, told.payload) == (one.messages, one.payload)
            promised(same, "changed", one.id)
            promised(one.attempt >= self.tries.get(place, 0), "attempts", "fewer than before")
        promised(not self.journal.found.corrupt_entries, "corrupt", "a crash is no corruption")
        # What was never confirmed is published again by its producer: here, under a new place.
        self.place = max(self.place, self.journal.synced_place())
        promised(self.journal.synced_place() >= max(places, default=0), "place", "used again")
        self.held = found
        self.together = {p: b.place for b in self.journal.messages for p in range(b.place, b.end)}
        self.tries = {place: one.attempt for place, one in found.items()}
        self.confirmed = set(places)
        self.gone -= set(places)

    def _leave(self) -> None:
        self.journal._tail.segment = None  # its descriptor died in the crash
        self.journal.close()

    def _count(self, what: str) -> None:
        self.met[what] = self.met.get(what, 0) + 1


def _apart(bundle: Bundle) -> list[tuple[int, Bundle]]:
    """Give the messages of a bundle one by one, by place."""
    apart, at = [], 0
    for place, packed in enumerate(bundle.messages, bundle.place):
        payload = bundle.payload[at : at + packed.bytes]
        at += packed.bytes
        one = Bundle((packed,), payload, packed.records, packed.bytes, place, 0, "", 0)
        one.attempt, one.dead = bundle.attempt, bundle.dead
        apart.append((place, one))
    return apart
