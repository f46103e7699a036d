"""What a segment of the journal looks like, byte for byte, and how one is read again.

::

    segment      +--------+-------+-------+--
                 | header | entry | entry | ...            numbers are big-endian
                 +--------+-------+-------+--
    header       +----------+-----------+---------+--------+
                 | telemqJ1 | number u64| salt 8  | crc u32|        crc: of all before it
                 +----------+-----------+---------+--------+
    entry        +---------+---------+-----------+-------------+-------------+----- - -
                 | mark 3  | kind u8 | length u32| body crc u32| head crc u32| body
                 +---------+---------+-----------+-------------+-------------+----- - -
    body         MESSAGE  place u64, records u64, attempt u32, length u32 of a JSON array
                          [id, key, metadata, dead], the array, the payload
                 FORGET   place u64, again and again
                 RETRIED  place u64, attempt u32, why it is dead in UTF-8

The head's crc is seeded with the salt and the entry's offset. So after damage the next entry is
found by looking for a mark whose head is right *there*: a payload that holds a copy of a journal,
or old blocks of a disk, cannot pass for entries.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from zlib_ng.zlib_ng import crc32

from telemq.broker.bundle import Bundle
from telemq.protocol import Packed

__all__ = [
    "FORGET",
    "HEADER_BYTES",
    "HEAD_BYTES",
    "MESSAGE",
    "RETRIED",
    "Append",
    "Damage",
    "Forget",
    "Found",
    "Note",
    "Retried",
    "Seal",
    "decode_message",
    "decode_retried",
    "encode_header",
    "entry_bytes_max",
    "forgotten",
    "place_of",
    "scan",
    "seal_of",
]

MESSAGE, FORGET, RETRIED = 1, 2, 3
_MAGIC = b"telemqJ1"
_MARK = b"\xfeTq"
_HEADER = struct.Struct(">8sQ8sI")
_HEAD = struct.Struct(">3sBIII")
_FIXED = struct.Struct(">QQII")
_RETRIED = struct.Struct(">QI")
_PLACE = struct.Struct(">Q")
HEADER_BYTES = _HEADER.size
HEAD_BYTES = _HEAD.size
#: Longest array [id, key, metadata, dead]: a control frame, and a reason of a few kilobytes.
_ABOUT_BYTES_MAX = 72 * 1024

Buffer = bytes | bytearray | memoryview


class Append(NamedTuple):
    """A message was accepted, a bundle of one; it is to be on disk before it is confirmed."""

    message: Bundle


class Forget(NamedTuple):
    """A message is done with."""

    place: int


class Retried(NamedTuple):
    """A message came back: how often it was delivered, and why it is dead, or empty."""

    place: int
    attempt: int
    dead: str


#: What the core tells the journal, in order.
Note = Append | Forget | Retried


class Found(NamedTuple):
    """An entry whose checksums are right.

    Attributes:
        kind: MESSAGE, FORGET or RETRIED.
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

    def message(self, bundle: Bundle, offset: int) -> list[Buffer]:
        """Encode a message, which is a bundle of one; the payload is not copied."""
        (message,) = bundle.messages
        about = msgspec.json.encode((message.id, message.key, message.metadata, bundle.dead))
        fixed = _FIXED.pack(bundle.place, message.records, bundle.attempt, len(about))
        return self._entry(MESSAGE, offset, fixed + about, bundle.payload)

    def forget(self, places: list[int], offset: int) -> list[Buffer]:
        """Encode that messages are done with."""
        return self._entry(FORGET, offset, struct.pack(f">{len(places)}Q", *places))

    def retried(self, note: Retried, offset: int) -> list[Buffer]:
        """Encode that a message came back."""
        body = _RETRIED.pack(note.place, note.attempt) + note.dead.encode()
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
    """Read a segment's header; None when it is damaged, and nothing of the segment can be read."""
    if len(data) < HEADER_BYTES:
        return None
    magic, _, salt, crc = _HEADER.unpack_from(data)
    if magic != _MAGIC or crc != crc32(data[: HEADER_BYTES - 4]):
        return None
    return Seal(salt)


def entry_bytes_max(message_bytes_max: int) -> int:
    """Give the most bytes that a message can have on disk."""
    return _HEAD.size + _FIXED.size + _ABOUT_BYTES_MAX + message_bytes_max


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


def place_of(body: Buffer) -> int:
    """Give the place in the body of a MESSAGE or RETRIED."""
    place: int = _PLACE.unpack_from(body)[0]
    return place


def forgotten(body: Buffer) -> tuple[int, ...]:
    """Give the places in the body of a FORGET."""
    return struct.unpack(f">{len(body) // _PLACE.size}Q", body)


def decode_message(body: Buffer, now_ns: int) -> Bundle:
    """Give the message of a MESSAGE, a bundle of one that has just arrived and nobody waits for."""
    place, records, attempt, length = _FIXED.unpack_from(body)
    start = _FIXED.size + length
    about = bytes(body[_FIXED.size : start])
    id, key, metadata, dead = msgspec.json.decode(about, type=tuple[str, str, dict[str, str], str])
    payload = bytes(body[start:])
    return Bundle(
        (Packed(id, records, len(payload), key, metadata),),
        payload,
        records,
        len(payload),
        place=place,
        arrived_ns=now_ns,
        session="",
        number=0,
        attempt=attempt,
        dead=dead,
    )


def decode_retried(body: Buffer) -> Retried:
    """Give the note of a RETRIED."""
    place, attempt = _RETRIED.unpack_from(body)
    return Retried(place, attempt, bytes(body[_RETRIED.size :]).decode())


def _is_sound(kind: int, body: memoryview) -> bool:
    least = {MESSAGE: _FIXED.size, FORGET: _PLACE.size, RETRIED: _RETRIED.size}.get(kind)
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
