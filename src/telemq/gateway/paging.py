"""The cursor of a page: the place where it begins, as text that a client hands back; pure.

::

    place   time (8 bytes, microseconds since 1970), series id (4), value (8), rows skipped (4)
    digest  of the place and of the question, 8 bytes
    text    both in URL-safe base 64

The digest finds what was changed on the way, and a cursor that was given for another question. It
guards no secret: whoever computes one learns what another window would tell, and everything in a
cursor reaches Postgres as a parameter.
"""

from __future__ import annotations

import binascii
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from telemq.store.telemetry_query import Place, Question
from telemq.web.problems import ProblemError

__all__ = ["cursor_of", "place_of"]

_PLACE = struct.Struct(">qidI")
_DIGEST_BYTES = 8
_CHARACTERS = 4 * (_PLACE.size + _DIGEST_BYTES) // 3 + 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def cursor_of(place: Place, question: Question) -> str:
    """Give the cursor of the page of `question` that begins at `place`."""
    time_us = (place.time - _EPOCH) // timedelta(microseconds=1)
    packed = _PLACE.pack(time_us, place.series, place.value, place.skip)
    return _text(packed + _digest(packed, question))


def place_of(cursor: str, question: Question) -> Place:
    """Read a cursor.

    Raises:
        ProblemError: 400, it is none that was given for this question.
    """
    try:
        if len(cursor) != _CHARACTERS:
            raise ValueError
        read = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        packed, digest = read[: _PLACE.size], read[_PLACE.size :]
        # Other text, such as with its last bits changed, could say the same.
        if digest != _digest(packed, question) or _text(read) != cursor:
            raise ValueError
        time_us, series, value, skip = _PLACE.unpack(packed)
        return Place(_EPOCH + timedelta(microseconds=time_us), series, value, skip)
    except (ValueError, OverflowError, struct.error, binascii.Error) as error:
        raise ProblemError(
            400,
            "cursor is none of this question; take it from the Link header of the page before, "
            "and change nothing but limit and format",
        ) from error


def _digest(packed: bytes, question: Question) -> bytes:
    asked = (
        question.gpu, question.start, question.end, sorted(question.metrics),
        question.descending, question.step_s, question.aggregate,
    )  # fmt: skip
    told = repr(asked).encode("utf-8", "surrogatepass")
    return blake2b(packed + told, digest_size=_DIGEST_BYTES, key=b"telemq cursor").digest()


def _text(read: bytes) -> str:
    return urlsafe_b64encode(read).rstrip(b"=").decode()
