"""The journal's blocks: what is kept of messages that were appended together."""

from __future__ import annotations

from pathlib import Path

import pytest

from telemq.broker.blocks import Block, Blocks, Segment
from telemq.broker.entries import Append, Forget, Retried, State
from telemq.protocol import Packed


def note(sizes: list[int], place: int = 1) -> Append:
    """Make messages of these sizes; the payload of each is its place as a letter."""
    places = range(place, place + len(sizes))
    messages = tuple(Packed(f"m#{p}", 1, n, "", {}) for p, n in zip(places, sizes, strict=True))
    letters = zip(places, sizes, strict=True)
    return Append(place, messages, b"".join([bytes([96 + p]) * n for p, n in letters]))


def on_disk(blocks: Blocks, sizes: list[int], entry_bytes: int = 100) -> tuple[Block, Segment]:
    (block,) = blocks.append(note(sizes), 1000)
    segment = Segment(1, Path("1"), 0)
    blocks.locate(block, segment, entry_bytes)
    return block, segment


def places(block: Block) -> list[int]:
    return list(block.places)


def test_what_is_left_is_counted_and_trimmed_once_it_is_less_than_half() -> None:
    """A consumer settles some of a pack and keeps the others for long."""
    blocks = Blocks()
    block, segment = on_disk(blocks, [10] * 10)
    frame = block.payload
    blocks.forget(Forget(1, 3))
    assert (7, 70) == (blocks.live_messages, blocks.live_bytes)
    assert frame is block.payload
    blocks.forget(Forget(6, 3))
    assert (4, 40) == (blocks.live_messages, blocks.live_bytes)
    assert [4, 5, 9, 10] == places(block)
    assert b"d" * 10 + b"e" * 10 + b"i" * 10 + b"j" * 10 == block.payload
    blocks.forget(Forget(9, 1))
    blocks.forget(Forget(4, 2))
    assert {block.name: block} == segment.live
    blocks.forget(Forget(10, 1))
    assert (0, 0, {}) == (blocks.live_messages, blocks.live_bytes, segment.live)


def test_large_payload_is_let_go_although_most_messages_are_left() -> None:
    """One of them has nearly all the bytes."""
    blocks = Blocks()
    block, _ = on_disk(blocks, [1, 1, 500, 1, 1])
    blocks.forget(Forget(3, 1))
    assert ([1, 2, 4, 5], b"abde") == (places(block), block.payload)
    blocks.trim(block)
    assert b"abde" == block.payload


def test_block_is_no_larger_than_an_entry_may_be() -> None:
    """A pack may be longer than the largest message; a message alone never is."""
    blocks = Blocks()
    made = blocks.append(note([40, 40, 40, 100, 5]), 100)
    assert [[1, 2], [3], [4], [5]] == [places(block) for block in made]
    assert [b"a" * 40 + b"b" * 40, b"c" * 40] == [block.payload for block in made[:2]]
    assert [made[0], made[1], made[2]] == blocks.forget(Forget(2, 3))
    assert [1, 0, 0, 1] == [block.left for block in made]


def test_what_came_back_is_said_by_runs_and_forgotten_with_its_message() -> None:
    """A consumer died with a pack; then one of its messages was buried."""
    blocks = Blocks()
    block, segment = on_disk(blocks, [1] * 6)
    assert [2, 3, 4, 5, 6] == blocks.came_back(Retried(2, 5, 1, ""))
    assert [4] == blocks.came_back(Retried(4, 1, 2, "poison"))
    said = [Retried(2, 2, 1, ""), Retried(4, 1, 2, "poison"), Retried(5, 2, 1, "")]
    assert said == blocks.notes({6: None, 5: None, 4: None, 3: None, 2: None})
    assert [State(n.place - 1, n.count, n.attempt, n.dead) for n in said] == blocks.states(block)
    blocks.forget(Forget(3, 2))
    assert [Retried(2, 1, 1, ""), Retried(5, 1, 1, "")] == blocks.notes([2, 5])
    assert [State(1, 1, 1, ""), State(4, 2, 1, "")] == blocks.states(block)
    assert segment is block.segment


def test_what_is_not_on_disk_is_said_with_its_entry() -> None:
    """It came back before it was ever written, or is gone already."""
    blocks = Blocks()
    (block,) = blocks.append(note([1, 1]), 10)
    assert [] == blocks.states(block)
    assert [] == blocks.came_back(Retried(2, 3, 1, ""))
    assert [State(1, 1, 1, "")] == blocks.states(block)


def test_copied_block_counts_where_it_is_now() -> None:
    """The oldest segment's live messages are copied forward."""
    blocks = Blocks()
    block, old = on_disk(blocks, [10] * 4, 100)
    new = Segment(2, Path("2"), 0)
    blocks.forget(Forget(1, 1))
    blocks.trim(block)
    assert 75 == blocks.live_bytes
    blocks.locate(block, new, 70)
    assert ({}, {1: block}) == (old.live, new.live)
    assert (3, 70) == (blocks.live_messages, blocks.live_bytes)


def test_message_that_is_not_held_cannot_be_forgotten() -> None:
    """The rules and the journal would not agree on what is held."""
    blocks = Blocks()
    on_disk(blocks, [1, 1])
    with pytest.raises(KeyError):
        blocks.forget(Forget(2, 2))
