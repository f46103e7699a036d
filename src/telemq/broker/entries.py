"""What a segment of the journal looks like, byte for byte, and how one is read again.

::

    segment      +--------+-------+-------+--
                 | header | entry | entry | ...            numbers are big-endian
                 +--------+-------+-------+--
    header       +----------+-----------+---------+--------+
                 | telemqJ2 | number u64| salt 8  | crc u32|        crc: of all before it
                 +----------+-----------+---------+--------+
    entry        +---------+---------+-----------+-------------+-------------+----- - -
                 | mark 3  | kind u8 | length u32| body crc u32| head crc u32| body
                 +---------+---------+-----------+-------------+-------------+----- - -
    body         MESSAGES count u32, length u32 of a JSON array, place u64 of each message, the
                          array, their payloads end to end
                 FORGET   first place u64, how many u64, again and again
                 RETRIED  first place u64, how many u32, attempt u32, why they are dead in UTF-8
    array        [messages, states]; a message is [id, records, payload bytes, key, metadata], a
                 state is [index of the first, how many, attempt, why they are dead]

The head's crc is seeded with the salt and the entry's offset. So after damage the next entry is
found by looking for a mark whose head is right *there*: a payload that holds a copy of a journal,
or old blocks of a disk, cannot pass for entries.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
from zlib_ng.zlib_ng import crc32

from telemq.protocol import Packed, Payload

__all__ = [
    "FORGET",
    "HEADER_BYTES",
    "HEAD_BYTES",
    "MESSAGES",
    "RETRIED",
    "Append",
    "Damage",
    "Forget",
    "Found",
    "Note",
    "Retried",
    "Seal",
    "State",
    "decode_messages",
    "decode_retried",
    "encode_header",
    "entry_bytes_max",
    "forgotten",
    "places_of",
    "scan",
    "seal_of",
]

MESSAGES, FORGET, RETRIED = 1, 2, 3
#: The last byte is the version of the format.
_MAGIC = b"telemqJ2"
_MARK = b"\xfeTq"
_HEADER = struct.Struct(">8sQ8sI")
_HEAD = struct.Struct(">3sBIII")
_FIXED = struct.Struct(">II")
_RUN = struct.Struct(">QQ")
_RETRIED = struct.Struct(">QII")
_PLACE = struct.Struct(">Q")
HEADER_BYTES = _HEADER.size
HEAD_BYTES = _HEAD.size
#: Most bytes of what an entry has beside payloads: a control frame, a place for each of a thousand
#: messages, and a reason of a few kilobytes.
_ABOUT_BYTES_MAX = 80 * 1024

Buffer = bytes | bytearray | memoryview


class Append(msgspec.Struct, frozen=True):
    """Messages were accepted, with places in a row; they are to be on disk before their confirm.

    Attributes:
        place: of the first.
        messages: id, records, length of the payload, key and metadata of each.
        payload: theirs, end to end.
    """

    place: int
    messages: tuple[Packed, ...]
    payload: Payload


class Forget(msgspec.Struct, frozen=True):
    """Messages with places in a row are done with."""

    place: int
    count: int


class Retried(msgspec.Struct, frozen=True):
    """Messages with places in a row came back.

    Attributes:
        place: of the first.
        count: how many.
        attempt: how often they were delivered.
        dead: why they are dead, or empty.
    """

    place: int
    count: int
    attempt: int
    dead: str


class State(msgspec.Struct, frozen=True, array_like=True):
    """What `Retried` says, of messages in one entry, by the index of the first."""

    index: int
    count: int
    attempt: int
    dead: str


#: What the core tells the journal, in order.
Note = Append | Forget | Retried


class Found(NamedTuple):
    """An entry whose checksums are right.

    Attributes:
        kind: MESSAGES, FORGET or RETRIED.
        offset: of its head in the segment.
        body: a view of the segment's bytes.
    """

    kind: int
    offset: int
    body: memoryview


class Damage(NamedTuple):
    """Bytes that are no entry.

    Attributes:
        offset: where they begin.
        size_bytes: how many.
        is_tail: the file ends before an entry does that began here, or nothing but garbage follows.
    """

    offset: int
    size_bytes: int
    is_tail: bool


class Seal:
    """Makes entries of one segment.

    Args:
        salt: of that segment.
    """

    def __init__(self, salt: bytes) -> None:
        self._salt = salt

    def head_crc(self, head: Buffer, offset: int) -> int:
        """Give the checksum of the first 12 bytes of an entry that begins at an offset."""
        return crc32(head, crc32(_PLACE.pack(offset), crc32(self._salt)))

    def messages(
        self,
        places: Sequence[int],
        messages: Sequence[Packed],
        payload: Payload,
        states: Sequence[State],
        offset: int,
    ) -> list[Buffer]:
        """Encode messages; the payload is not copied."""
        about = msgspec.json.encode((messages, states))
        fixed = _FIXED.pack(len(places), len(about)) + struct.pack(f">{len(places)}Q", *places)
        return self._entry(MESSAGES, offset, fixed + about, payload)

    def forget(self, runs: Sequence[Forget], offset: int) -> list[Buffer]:
        """Encode that messages are done with."""
        return self._entry(
            FORGET, offset, b"".join([_RUN.pack(run.place, run.count) for run in runs])
        )

    def retried(self, note: Retried, offset: int) -> list[Buffer]:
        """Encode that messages came back."""
        body = _RETRIED.pack(note.place, note.count, note.attempt) + note.dead.encode()
        return self._entry(RETRIED, offset, body)

    def _entry(self, kind: int, offset: int, body: bytes, payload: Buffer = b"") -> list[Buffer]:
        crc = crc32(payload, crc32(body))
        length = len(body) + len(payload)
        start = _HEAD.pack(_MARK, kind, length, crc, 0)[:-4]
        return [start, _PLACE.pack(self.head_crc(start, offset))[4:], body, payload]


def encode_header(number: int, salt: bytes) -> bytes:
    """Give the first bytes of a segment; `salt` is 8 random bytes."""
    start = _HEADER.pack(_MAGIC, number, salt, 0)[:-4]
    return start + _PLACE.pack(crc32(start))[4:]


def seal_of(data: Buffer) -> Seal | None:
    """Read a segment's header; None when it is damaged, and nothing of the segment can be read.

    Raises:
        ValueError: it is sound, and of another version of the format.
    """
    if len(data) < HEADER_BYTES:
        return None
    magic, _, salt, crc = _HEADER.unpack_from(data)
    if crc != crc32(data[: HEADER_BYTES - 4]) or magic[:-1] != _MAGIC[:-1]:
        return None
    if magic != _MAGIC:
        raise ValueError(f"format {magic.decode('ascii', 'replace')}")
    return Seal(salt)


def entry_bytes_max(payload_bytes_max: int) -> int:
    """Give the most bytes that an entry can have whose payloads have so many."""
    return _HEAD.size + _FIXED.size + _ABOUT_BYTES_MAX + payload_bytes_max


def scan(data: memoryview, seal: Seal, size_bytes: int) -> Iterator[Found | Damage]:
    """Yield what a segment holds, in order, good or bad.

    Args:
        data: at least `size_bytes` of the segment, its header included; may be a mapped file.
        seal: of the segment.
        size_bytes: where it ends.
    """
    offset = HEADER_BYTES
    while offset < size_bytes:
        end = _end_of(data, seal, offset, size_bytes)
        if end is None:
            following = _resume(data, seal, offset + 1, size_bytes)
            # Cut in the middle of its head, in the middle of its body, or never written at all.
            yield Damage(offset, following - offset, following == size_bytes)
            offset = following
            continue
        _, kind, _, crc, _ = _HEAD.unpack_from(data, offset)
        body = data[offset + _HEAD.size : end]
        if crc == crc32(body) and _is_sound(kind, body):
            yield Found(kind, offset, body)
        else:
            # It is all there, but not what was written: that is no torn tail.
            yield Damage(offset, end - offset, is_tail=False)
        offset = end


def places_of(body: Buffer) -> tuple[int, ...]:
    """Give the places in the body of a MESSAGES."""
    count, _ = _FIXED.unpack_from(body)
    return struct.unpack_from(f">{count}Q", body, _FIXED.size)


def forgotten(body: Buffer) -> list[Forget]:
    """Give the places in the body of a FORGET, in runs."""
    return [Forget(*run) for run in _RUN.iter_unpack(body)]


def decode_messages(
    body: Buffer,
) -> tuple[tuple[int, ...], tuple[Packed, ...], memoryview, list[State]]:
    """Give the places, the messages, their payloads and their states in the body of a MESSAGES."""
    _, length = _FIXED.unpack_from(body)
    places = places_of(body)
    start = _FIXED.size + _PLACE.size * len(places)
    about = bytes(body[start : start + length])
    messages, states = msgspec.json.decode(about, type=tuple[tuple[Packed, ...], list[State]])
    return places, messages, memoryview(body)[start + length :], states


def decode_retried(body: Buffer) -> Retried:
    """Give the note of a RETRIED."""
    place, count, attempt = _RETRIED.unpack_from(body)
    return Retried(place, count, attempt, bytes(body[_RETRIED.size :]).decode())


def _is_sound(kind: int, body: memoryview) -> bool:
    least = {MESSAGES: _FIXED.size, FORGET: _RUN.size, RETRIED: _RETRIED.size}.get(kind)
    return least is not None and len(body) >= least


def _end_of(data: memoryview, seal: Seal, offset: int, size_bytes: int) -> int | None:
    """Give where the entry at an offset ends; None if there is none, or it is cut."""
    if offset + _HEAD.size > size_bytes:
        return None
    mark, _, length, _, crc = _HEAD.unpack_from(data, offset)
    if mark != _MARK or crc != seal.head_crc(data[offset : offset + _HEAD.size - 4], offset):
        return None
    end: int = offset + _HEAD.size + length
    return end if end <= size_bytes else None


def _resume(data: memoryview, seal: Seal, start: int, size_bytes: int) -> int:
    """Find the next entry from an offset on; gives the end of the segment if there is none."""
    # By pieces, which overlap by a mark: a memoryview cannot be searched.
    piece, offset = 2**20, start
    while offset < size_bytes:
        text = bytes(data[offset : min(offset + piece + len(_MARK) - 1, size_bytes)])
        at = text.find(_MARK)
        while at >= 0:
            if _end_of(data, seal, offset + at, size_bytes) is not None:
                return offset + at
            at = text.find(_MARK, at + 1)
        offset += piece
    return size_bytes
