"""Faults to plant in the journal and in the rules beside it, to see that the tests catch them.

`JOURNAL_FAULTS` and `JOURNALED_FAULTS` give, by name, the fault and what a test may name for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

from telemq.broker import journal as journal_module
from telemq.broker.blocks import Block, Blocks, Segment
from telemq.broker.bundle import Bundle
from telemq.broker.core import Outgoing
from telemq.broker.entries import Buffer, Forget, Seal
from telemq.broker.intake import Intake
from telemq.broker.inventory import Inventory
from telemq.broker.journal import Journal
from telemq.broker.journaled import JournaledCore, _Answering, _Noting
from telemq.broker.peers import Producer
from telemq.broker.recovery import Contents, read_journal
from telemq.broker.tail import Tail
from tests.support.disks import CrashDisk
from tests.support.planted import Fault

__all__ = ["JOURNALED_FAULTS", "JOURNAL_FAULTS"]

JOURNAL_FAULTS: dict[str, Fault] = {}
JOURNALED_FAULTS: dict[str, Fault] = {}

Plant = Callable[[], Iterator[None]]


def _fault(faults: dict[str, Fault], *breaks: str) -> Callable[[Plant], None]:
    def keep(plant: Plant) -> None:
        faults[plant.__name__.strip("_")] = Fault(
            contextlib.contextmanager(plant), frozenset(breaks)
        )

    return keep


# ---- the journal -------------------------------------------------------------------------------


@_fault(JOURNAL_FAULTS, "lost")
def _confirmed_before_the_fsync() -> Iterator[None]:
    with patch.object(Journal, "synced_place", lambda self: self._last_place):
        yield


@_fault(JOURNAL_FAULTS, "lost")
def _fsync_is_left_out() -> Iterator[None]:
    with patch.object(CrashDisk, "sync", lambda self, fd: None):
        yield


@_fault(JOURNAL_FAULTS, "back", "reclaim")
def _forget_is_not_written() -> Iterator[None]:
    forget = Journal._forget

    def silent(self: Journal, run: Forget) -> None:
        forget(self, run)
        self._forgets.clear()

    with patch.object(Journal, "_forget", silent):
        yield


@_fault(JOURNAL_FAULTS, "lost", "back")
def _fsync_that_failed_is_tried_again() -> Iterator[None]:
    fail = Journal._fail

    def trusting(self: Journal, error: OSError) -> None:
        if not self._tail._is_syncing:
            fail(self, error)
            return
        with contextlib.suppress(OSError):
            self._flush()

    with patch.object(Journal, "_fail", trusting):
        yield


@_fault(JOURNAL_FAULTS, "lost", "corrupt", "back", "limit")
def _segment_goes_on_after_a_failed_write() -> Iterator[None]:
    def going_on(self: Tail, error: OSError) -> bool:
        del error
        self._is_syncing = False
        self._drop()
        return False

    with patch.object(Tail, "give_up", going_on):
        yield


@_fault(JOURNAL_FAULTS, "back", "attempts")
def _any_empty_segment_is_removed() -> Iterator[None]:
    def eager(self: Journal) -> None:
        for segment in [s for s in self._segments if s is not self._tail.segment and not s.live]:
            self._disk.remove(segment.path)
            self._disk.sync_directory(self._directory)
            self._segments.remove(segment)
            self._next_number = segment.number + 1
            self.used_bytes -= segment.size_bytes

    # A gap in the numbers would give it away at once; here it must be the promise that does.
    with patch.object(Journal, "_remove_gone", eager), _gaps_are_not_noticed():
        yield


@contextlib.contextmanager
def _gaps_are_not_noticed() -> Iterator[None]:
    read = read_journal

    def blind(directory: Path) -> object:
        contents = read(directory)
        contents.missing.clear()
        return contents

    with patch.object(journal_module, "read_journal", blind):
        yield


@_fault(JOURNAL_FAULTS, "lost", "back")
def _directory_is_not_synced() -> Iterator[None]:
    with patch.object(CrashDisk, "sync_directory", lambda self, path: None):
        yield


@_fault(JOURNAL_FAULTS, "lost")
def _copied_messages_are_let_go_before_the_copy_is_safe() -> Iterator[None]:
    plan = Journal._plan_moves

    def hasty(self: Journal) -> bool:
        planned = plan(self)
        if planned:
            for block in self._moves.values():
                assert block.segment is not None
                block.segment.live.pop(block.name)
            self._remove_gone()
        return planned

    with patch.object(Journal, "_plan_moves", hasty):
        yield


@_fault(JOURNAL_FAULTS, "limit")
def _limit_is_not_kept() -> Iterator[None]:
    add = Journal._add

    def boundless(self: Journal, encode: object, most_bytes: int) -> int:
        return add(self, encode, 2**60)  # type: ignore[arg-type]  # passed on

    with patch.object(Journal, "_add", boundless):
        yield


@_fault(JOURNAL_FAULTS, "reclaim", "goes on", "limit")
def _dead_segments_stay() -> Iterator[None]:
    with patch.object(Journal, "_remove_gone", lambda self: None):
        yield


@_fault(JOURNAL_FAULTS, "corrupt")
def _torn_end_is_not_cut() -> Iterator[None]:
    recover = Journal._recover

    def sparing(self: Journal, found: Contents, now_ns: int) -> list[Bundle]:
        for segment in found.segments:
            segment.torn = None
        return recover(self, found, now_ns)

    with patch.object(Journal, "_recover", sparing):
        yield


@_fault(JOURNAL_FAULTS, "attempts")
def _retries_are_not_written() -> Iterator[None]:
    keep = Journal.keep

    def quiet(self: Journal, notes: list[object]) -> None:
        keep(self, notes)  # type: ignore[arg-type]  # passed on
        self._retried.clear()

    with patch.object(Journal, "keep", quiet):
        yield


@_fault(JOURNAL_FAULTS, "attempts")
def _states_are_not_written_with_their_block() -> Iterator[None]:
    with patch.object(Blocks, "states", lambda self, block: []):
        yield


@_fault(JOURNAL_FAULTS, "changed")
def _trimmed_block_keeps_the_first_payloads() -> Iterator[None]:
    trim = Blocks.trim

    def shifted(self: Blocks, block: Block) -> None:
        payload = block.payload
        trim(self, block)
        block.payload = payload[: len(block.payload)]

    with patch.object(Blocks, "trim", shifted):
        yield


@_fault(JOURNAL_FAULTS, "lost")
def _note_forgets_the_next_message_too() -> Iterator[None]:
    forget = Seal.forget

    def generous(self: Seal, runs: list[Forget], offset: int) -> list[Buffer]:
        return forget(self, [Forget(run.place, run.count + 1) for run in runs], offset)

    with patch.object(Seal, "forget", generous):
        yield


@_fault(JOURNAL_FAULTS, "lost")
def _block_leaves_its_segment_with_its_first_message() -> Iterator[None]:
    forget = Blocks._forget

    def hasty(self: Blocks, block: Block, place: int, count: int) -> None:
        if block.segment is not None:
            block.segment.live.setdefault(block.name, block)
        forget(self, block, place, count)
        if block.segment is not None:
            block.segment.live.pop(block.name, None)

    locate = Blocks.locate

    def patient(self: Blocks, block: Block, segment: Segment, entry_bytes: int) -> None:
        if block.segment is not None:
            block.segment.live[block.name] = block
        locate(self, block, segment, entry_bytes)

    with patch.object(Blocks, "_forget", hasty), patch.object(Blocks, "locate", patient):
        yield


# ---- the rules beside it -----------------------------------------------------------------------


@_fault(JOURNALED_FAULTS, "confirms")
def _confirm_at_once() -> Iterator[None]:
    add = _Answering._add

    def hasty(self: _Answering, producer: Producer, bundle: Bundle) -> bool:
        is_new = add(self, producer, bundle)
        if is_new:
            self._core._confirm(bundle)
        return is_new

    with patch.object(_Answering, "_add", hasty):
        yield


@_fault(JOURNALED_FAULTS, "confirms")
def _duplicate_of_a_synced_message_is_confirmed_when_settled() -> Iterator[None]:
    with patch.object(_Answering, "_claim_again", Intake._claim_again):
        yield


@_fault(JOURNALED_FAULTS, "confirms")
def _confirmed_again_when_settled() -> Iterator[None]:
    with patch.object(Bundle, "unclaim", lambda self: None):
        yield


@_fault(JOURNALED_FAULTS, "confirms")
def _synced_confirms_one_too_many() -> Iterator[None]:
    synced = JournaledCore.synced

    def generous(self: JournaledCore, place: int, now_ns: int) -> list[Outgoing]:
        return synced(self, place + 1, now_ns)

    with patch.object(JournaledCore, "synced", generous):
        yield


@_fault(JOURNALED_FAULTS, "P10")
def _stall_is_ignored() -> Iterator[None]:
    def deaf(self: JournaledCore, stalled: bool, now_ns: int) -> list[Outgoing]:
        self._now = max(now_ns, self._now)
        return self._settle_up()

    with patch.object(JournaledCore, "stall", deaf):
        yield


@_fault(JOURNALED_FAULTS, "notes")
def _settled_message_is_not_forgotten() -> Iterator[None]:
    with patch.object(_Noting, "settle", Inventory.settle):
        yield


@_fault(JOURNALED_FAULTS, "confirms")
def _piece_that_is_cut_off_is_not_confirmed() -> Iterator[None]:
    with patch.object(_Noting, "_cut", Inventory._cut):
        yield
