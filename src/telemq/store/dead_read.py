"""What a dead letter kept, read again: as a batch, or in a few words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from telemq.codec import BATCH, RECORD, Decoder
from telemq.errors import RecordError
from telemq.record import RecordBatch

__all__ = ["Summary", "read_again", "summarise"]

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_again(payload: bytes, row_count: int, decoder: Decoder) -> RecordBatch:
    """Decode what a dead letter kept; which of the content types it is, the payload tells.

    Raises:
        RecordError: it is neither, or holds another number of rows.
    """
    if not payload:
        raise RecordError("its payload is empty")
    if payload.lstrip()[:1] == b"[":
        return decoder.decode(payload, RECORD, row_count)
    try:
        is_batch = "series" in _fields.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise RecordError(
            f"its payload is neither a {BATCH} nor a {RECORD}: such a row can only be corrected "
            "at its source and published again, as a stream of its own"
        ) from None
    return decoder.decode(payload, BATCH if is_batch else RECORD, row_count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What is in a payload that can be read.

    Attributes:
        records: rows that are records.
        series: distinct series of these.
        first: the earliest time of a record; None without records, or if no calendar has it.
        last: the latest.
        bad_rows: rows that are no records.
        bad_reason: why the first of these is none; else empty.
    """

    records: int
    series: int
    first: datetime | None
    last: datetime | None
    bad_rows: int
    bad_reason: str


def summarise(payload: bytes, row_count: int) -> Summary:
    """Tell what a retry would find.

    Raises:
        RecordError: the payload cannot be read.
    """
    batch = read_again(payload, row_count, Decoder())
    times = batch.time_us
    return Summary(
        records=len(times),
        series=len(batch.series),
        first=_moment(int(times.min())) if len(times) else None,
        last=_moment(int(times.max())) if len(times) else None,
        bad_rows=len(batch.rejected),
        bad_reason=batch.rejected[0].reason if batch.rejected else "",
    )


def _moment(time_us: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=time_us)
    except OverflowError:
        return None
