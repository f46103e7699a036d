"""From a delivery to a batch that can be stored: decode it, or say why it is kept as a dead letter.

Whatever a producer sends comes out as something that the store accepts and that accounts for as
many rows as the delivery counts, so nothing can get stuck here.
"""

from __future__ import annotations

from hashlib import blake2b

from telemq.codec import Decoder
from telemq.engine.base import Delivery
from telemq.errors import RecordError
from telemq.record import BatchId, reject_times
from telemq.store.writer import StoredBatch

__all__ = ["Intake", "batch_id"]

_SECOND_US = 1_000_000
_DAY_US = 86_400 * _SECOND_US


class Intake:
    """Reads deliveries.

    Args:
        age_days_max: oldest record time accepted, before now.
        ahead_s_max: latest record time accepted, after now.
        series_max: series whose spelling is remembered.
    """

    def __init__(self, *, age_days_max: int, ahead_s_max: int, series_max: int) -> None:
        self._age_us = age_days_max * _DAY_US
        self._ahead_us = ahead_s_max * _SECOND_US
        self._decoder = Decoder(series_max)

    def read(self, delivery: Delivery, now_us: int) -> StoredBatch:
        """Give what is to be stored for a delivery.

        Args:
            delivery: as it came.
            now_us: microseconds since 1970 UTC, to judge the times of records by.
        """
        whole = StoredBatch(
            batch_id(delivery.id), delivery.records, delivery.payload, None, delivery.dead
        )
        if delivery.dead:
            return whole
        content_type = delivery.metadata.get("content-type", "")
        try:
            batch = self._decoder.decode(delivery.payload, content_type, delivery.records)
        except RecordError as error:
            return whole.refuse(str(error))
        batch = reject_times(batch, now_us - self._age_us, now_us + self._ahead_us)
        return StoredBatch(whole.id, whole.row_count, whole.payload, batch)


def batch_id(message_id: str) -> BatchId:
    """Give the identity under which a message is stored.

    Postgres text holds no U+0000. An id with one is a foreign producer's; it is stored with a
    visible sign in its place and a digest of the true id, so that no two ids become one.
    """
    if "\0" not in message_id:
        return BatchId.parse(message_id)
    stream_id, first_row = BatchId.parse(message_id)
    digest = blake2b(stream_id.encode(), digest_size=8).hexdigest()
    return BatchId(f"{stream_id.replace(chr(0), '␀')}~{digest}", first_row)
