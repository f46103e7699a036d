"""Which of the messages that wait fit into the next PACK; pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from telemq.client.labels import within_labels
from telemq.protocol import Packed

__all__ = ["Most", "first_that_fit"]


class Most(NamedTuple):
    """What a PACK may have.

    Attributes:
        messages: in it.
        records: in all of them.
        bytes: of all payloads.
        each_records: in one message.
        each_bytes: of one payload.
        label_bytes: none of the messages that wait has more (see `telemq.client.labels`).
    """

    messages: int
    records: int
    bytes: int
    each_records: int
    each_bytes: int
    label_bytes: int


def first_that_fit(waiting: Sequence[Packed], most: Most) -> tuple[list[Packed], int, int]:
    """List the first messages that fit together, as many as would if all were like the first.

    So a long queue of long ones is not looked through for each pack of a few.

    Args:
        waiting: at least one message; a deque.
        most: what they may have.

    Returns:
        They, their records and their payload bytes.
    """
    size = waiting[0].bytes
    alike = most.bytes // size if size else most.messages
    batch = list(islice(waiting, min(most.messages, most.records, alike)))
    batch = within_labels(batch, most.label_bytes)
    records = [packed.records for packed in batch]
    sizes = [packed.bytes for packed in batch]
    all_records, all_bytes = sum(records), sum(sizes)
    if (
        all_records > most.records
        or all_bytes > most.bytes
        or max(records, default=0) > most.each_records
        or max(sizes, default=0) > most.each_bytes
    ):
        end = _end(records, sizes, most)
        return batch[:end], sum(records[:end]), sum(sizes[:end])
    return batch, all_records, all_bytes


def _end(records: list[int], sizes: list[int], most: Most) -> int:
    """Count the first that fit."""
    left_records, left_bytes = most.records, most.bytes
    for at, (one_records, one_bytes) in enumerate(zip(records, sizes, strict=True)):
        left_records -= one_records
        left_bytes -= one_bytes
        over = left_records < 0 or left_bytes < 0
        if over or one_records > most.each_records or one_bytes > most.each_bytes:
            return at
    return len(records)
