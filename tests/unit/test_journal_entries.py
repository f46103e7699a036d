"""The bytes of the journal: what is read is what was written, whatever is damaged beside it."""

from __future__ import annotations

import zlib
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemq.broker import entries
from telemq.broker.bundle import Bundle
from telemq.broker.entries import (
    HEADER_BYTES,
    Damage,
    Forget,
    Found,
    Retried,
    Seal,
    State,
    decode_messages,
    decode_retried,
    encode_header,
    forgotten,
    scan,
    seal_of,
)
from telemq.broker.journal import Journal
from telemq.broker.recovery import bundles, load, path_of, read_journal
from telemq.errors import SettingError
from tests.support.diary import message

SALT = b"saltsalt"


def segment(number: int = 1, messages: int = 5, size_bytes: int = 40) -> bytes:
    """Make a segment of messages 1 to n, the first of which is forgotten and the last retried."""
    data = bytearray(encode_header(number, SALT))
    seal = Seal(SALT)
    for place in range(1, messages + 1):
        data += entry(seal, message(place, size_bytes), len(data))
    data += b"".join(seal.forget([Forget(1, 1)], len(data)))
    data += b"".join(seal.retried(Retried(messages, 1, 3, "poison"), len(data)))
    return bytes(data)


def entry(seal: Seal, one: Bundle, offset: int) -> bytes:
    """Encode a bundle."""
    places = range(one.place, one.end)
    return b"".join(seal.messages(places, one.messages, one.payload, [], offset))


def read(data: bytes) -> list[Found | Damage]:
    seal = seal_of(data)
    assert seal is not None
    return list(scan(memoryview(data), seal, len(data)))


def test_what_is_read_is_what_was_written() -> None:
    """A segment without damage."""
    found = read(segment())
    assert all(isinstance(one, Found) for one in found)
    bodies = [one.body for one in found if isinstance(one, Found)]
    for place in range(1, 6):
        told, got = message(place, 40), decode_messages(bodies[place - 1])
        assert ((place,), told.messages, told.payload, []) == (*got[:2], bytes(got[2]), got[3])
    assert [Forget(1, 1)] == forgotten(bodies[5])
    assert Retried(5, 1, 3, "poison") == decode_retried(bodies[6])


@settings(report_multiple_bugs=False)
@given(st.integers(0, 8 * (len(segment()) - HEADER_BYTES) - 1))
def test_one_flipped_bit_costs_one_entry_and_is_seen(bit: int) -> None:
    """A disk flips a bit anywhere: in a mark, a length, a checksum, a body."""
    data = bytearray(segment())
    data[HEADER_BYTES + bit // 8] ^= 1 << bit % 8
    found = read(bytes(data))
    assert 1 == sum(isinstance(one, Damage) for one in found)
    assert 6 == sum(isinstance(one, Found) for one in found)
    good = {bytes(one.body) for one in read(segment()) if isinstance(one, Found)}
    assert all(bytes(one.body) in good for one in found if isinstance(one, Found))


@given(st.integers(0, len(segment())))
def test_segment_cut_anywhere_gives_the_entries_before_the_cut(size_bytes: int) -> None:
    """The process ended in the middle of a write."""
    whole = segment()
    if size_bytes < HEADER_BYTES:
        assert seal_of(whole[:size_bytes]) is None
        return
    found = read(whole[:size_bytes])
    damages = [one for one in found if isinstance(one, Damage)]
    assert all(one.is_tail for one in damages)
    assert len(damages) <= 1
    ends = [*[one.offset for one in read(whole)][1:], len(whole)]
    assert sum(end <= size_bytes for end in ends) == len(found) - len(damages)


def test_checksum_is_the_crc_32_that_pythons_zlib_gives() -> None:
    """A journal of an earlier version is read, and one of this version by others."""
    header = encode_header(7, SALT)
    assert zlib.crc32(header[:-4]) == int.from_bytes(header[-4:])


def test_payload_that_holds_a_journal_cannot_pass_for_entries() -> None:
    """Somebody publishes a copy of a journal, and the entry that holds it is damaged."""
    inner = segment()
    outer = message(9)
    outer.payload, outer.size_bytes = inner, len(inner)
    data = bytearray(encode_header(1, SALT))
    at = len(data)
    data += entry(Seal(SALT), outer, at)
    data[at] ^= 1
    assert [Damage(at, len(data) - at, is_tail=True)] == read(bytes(data))


def test_checksum_that_is_not_compared_is_noticed() -> None:
    """A test of the test: with the checksum of bodies planted away, a flipped bit goes unseen."""
    with (
        patch.object(entries, "_is_sound", lambda kind, body: True),
        patch.object(entries, "crc32", lambda data, seed=0: 0),
        pytest.raises(AssertionError),
    ):
        test_one_flipped_bit_costs_one_entry_and_is_seen()


def test_missing_and_unreadable_segments_are_reported(tmp_path: Path) -> None:
    """Somebody deletes a file of the journal, and the disk loses the beginning of another."""
    path_of(tmp_path, 1).write_bytes(segment())
    path_of(tmp_path, 3).write_bytes(b"?" + segment(3)[1:])
    path_of(tmp_path, 4).write_bytes(encode_header(4, SALT))
    contents = read_journal(tmp_path)
    assert [2] == contents.missing
    assert [1, 3, 4] == [s.number for s in contents.segments]
    assert 2 == contents.corrupt_entries
    assert [2, 3, 4, 5] == sorted(p for kept in load(tmp_path, contents) for p in kept.places)


def test_journal_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Somebody updates a broker whose journal is not empty; a damaged header is no version."""
    data = bytearray(segment())
    data[7:8] = b"1"
    path_of(tmp_path, 1).write_bytes(data)
    assert 1 == read_journal(tmp_path).corrupt_entries
    data[HEADER_BYTES - 4 : HEADER_BYTES] = zlib.crc32(data[: HEADER_BYTES - 4]).to_bytes(4)
    path_of(tmp_path, 1).write_bytes(data)
    for _ in range(2):  # the lock is free again
        with pytest.raises(SettingError, match="--journal: 'segment 1, format telemqJ1'"):
            Journal(
                tmp_path, segment_bytes=10**6, bytes_max=10**8, payload_bytes_max=1000, now_ns=0
            )
    assert data == path_of(tmp_path, 1).read_bytes()


def test_segment_removed_while_others_are_read_is_not_missing(tmp_path: Path) -> None:
    """Somebody inspects the journal of a broker that is at work."""
    for number in (1, 2, 3):
        path_of(tmp_path, number).write_bytes(encode_header(number, SALT))
    read_bytes = Path.read_bytes

    def read_and_remove(path: Path) -> bytes:
        data = read_bytes(path)
        path_of(tmp_path, 2).unlink(missing_ok=True)
        return data

    with patch.object(Path, "read_bytes", read_and_remove):
        contents = read_journal(tmp_path)
    assert [] == contents.missing
    assert [1, 3] == [s.number for s in contents.segments]


def test_of_two_messages_with_one_id_the_later_is_live(tmp_path: Path) -> None:
    """A message was settled and published again, and the note of the first's end is lost."""
    data = bytearray(encode_header(1, SALT))
    for place in (1, 2):
        data += entry(Seal(SALT), message(place, id="same"), len(data))
    path_of(tmp_path, 1).write_bytes(data)
    contents = read_journal(tmp_path)
    assert [(2,)] == [kept.places for kept in load(tmp_path, contents)]
    assert [2] == list(contents.live)


def test_what_is_left_of_an_entry_is_held_together_as_far_as_it_can_be(tmp_path: Path) -> None:
    """A pack was settled in part, and its consumer died with another part."""
    singles = [message(place, 10) for place in range(1, 7)]
    messages = [one.messages[0] for one in singles]
    payload = b"".join([bytes(one.payload) for one in singles])
    seal, data = Seal(SALT), bytearray(encode_header(1, SALT))
    states = [State(0, 1, 4, "")]
    data += b"".join(seal.messages(range(1, 7), messages, payload, states, len(data)))
    data += b"".join(seal.forget([Forget(3, 1)], len(data)))
    data += b"".join(seal.retried(Retried(1, 3, 2, "poison"), len(data)))
    path_of(tmp_path, 1).write_bytes(data)
    contents = read_journal(tmp_path)
    (kept,) = load(tmp_path, contents)
    assert (1, 2, 4, 5, 6) == kept.places
    found = bundles([kept], contents, 9)
    shown = [(b.place, len(b), b.attempt, b.dead, b.arrived_ns) for b in found]
    assert [(1, 1, 4, "poison", 9), (2, 1, 2, "poison", 9), (4, 3, 0, "", 9)] == shown
    assert [1, 1, 3] == [len(b.messages) for b in found]
    assert payload[30:] == found[2].payload
    assert sum(m.records for m in messages[3:]) == found[2].records
    assert [10, 10, 30] == [b.size_bytes for b in found]


def test_places_of_damaged_entries_are_not_used_again(tmp_path: Path) -> None:
    """Nobody knows which message the damaged entry was; its place may be the greatest."""
    data = bytearray(segment())
    data[HEADER_BYTES + 4] ^= 1
    path_of(tmp_path, 1).write_bytes(data)
    assert read_journal(tmp_path).last_place >= 6
