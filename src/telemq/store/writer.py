"""Stores batches exactly once: the one transaction on which the promise rests.

::

    BEGIN
      ledger        one row a batch; a batch whose key is there already is left out of what follows
      sample        COPY of all new batches' records, sorted by (series, time)
      dead_letter   what of the new batches was rejected
      stream_lease  the batches' leases are closed
    COMMIT

Because the ledger comes first, two writers with the same batch meet there: the second waits for the
first one's commit and then leaves the batch out. All writers take their ledger keys in the same
order, so they never wait in a circle. Sorting is what makes the COPY fast: consecutive rows fall
on the same leaf of the index.

A batch that Postgres refuses for what is in it is found by halving, and kept whole as a dead letter
with Postgres' reason, so that it cannot hold up the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from telemq.clock import utc_us
from telemq.errors import StoreError
from telemq.protocol import Payload
from telemq.record import BatchId, RecordBatch
from telemq.store.partitions import Partitions
from telemq.store.series import SeriesIds

__all__ = [
    "PAYLOAD_BYTES_MAX",
    "REASON_MAX",
    "Stored",
    "StoredBatch",
    "Writer",
    "copy_samples",
    "dead_letters",
    "is_refusal",
    "refusal_text",
]

#: Longest reason of a dead letter, in characters: that of the wire protocol.
REASON_MAX = 1000
#: Longest payload of a dead letter; twice the largest message that a broker takes by default.
PAYLOAD_BYTES_MAX = 16 * 2**20

#: Postgres counts microseconds from 2000-01-01 UTC.
_POSTGRES_EPOCH_US = 946_684_800_000_000
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
# One row of COPY BINARY: the count of fields, and before each field its length in bytes.
_COPY_ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("id_bytes", ">i4"),
        ("series_id", ">i4"),
        ("ts_bytes", ">i4"),
        ("ts", ">i8"),
        ("value_bytes", ">i4"),
        ("value", ">f8"),
    ]
)
#: SQLSTATEs that blame the data, beside data and integrity errors: a program limit (a key too long
#: for its index) and a trigger's RAISE. All others blame the connection, the server or the schema.
_REFUSALS = ("54", "P0001")


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch as it is handed to the store: decoded, or to be kept whole as a dead letter.

    Attributes:
        id: its identity.
        row_count: rows of the stream that it accounts for.
        payload: what came over the wire; kept if the batch is rejected.
        batch: its records, with `row_count` rows; None if the whole batch is rejected.
        reason: why the whole batch is rejected; else empty.
    """

    id: BatchId
    row_count: int
    payload: Payload
    batch: RecordBatch | None
    reason: str = ""

    @property
    def stored(self) -> int:
        """Records that become samples."""
        return 0 if self.batch is None else len(self.batch.value)

    def refuse(self, reason: str) -> StoredBatch:
        """Give the same batch, rejected whole."""
        return dataclasses.replace(self, batch=None, reason=reason)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a `Writer.store` did; all of it is committed.

    Attributes:
        batches: batches that were new.
        records: records of these that are samples now.
        rejected: rows of these that are dead letters now.
        duplicates: batches that were stored before, or came twice.
        disputed: those among `duplicates` that were stored with another row count: somebody gave
            one identity to two batches, and this one's rows are not kept.
        refused: new batches that Postgres refused, now dead letters, with its reason.
    """

    batches: int = 0
    records: int = 0
    rejected: int = 0
    duplicates: int = 0
    disputed: tuple[BatchId, ...] = ()
    refused: tuple[tuple[BatchId, str], ...] = ()

    def __add__(self, other: Stored) -> Stored:
        return Stored(
            self.batches + other.batches,
            self.records + other.records,
            self.rejected + other.rejected,
            self.duplicates + other.duplicates,
            self.disputed + other.disputed,
            self.refused + other.refused,
        )


class Writer:
    """Stores batches over one connection.

    What it remembers (series ids, partitions) is true as long as the connection lasts: make a new
    one for a new connection, since that may lead to a database that was restored.

    Args:
        conn: in autocommit mode, outside a transaction, and the writer's alone.
        series_max: series ids remembered.
        partition_hours: width of the partitions that it makes.
        fail_point: called with ``before_commit`` and ``after_commit``; for tests that kill the
            process just there.
    """

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        *,
        series_max: int = 1_000_000,
        partition_hours: int = 24,
        fail_point: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._conn = conn
        self._series = SeriesIds(conn, series_max)
        self._partitions = Partitions(conn, partition_hours)
        self._fail_point = fail_point

    def store(self, batches: Sequence[StoredBatch]) -> Stored:
        """Store what is new among `batches`, in one transaction unless Postgres refuses some.

        Args:
            batches: in any order; the times of their records within the years 1900 to 9999.

        Raises:
            StoreError: the database cannot do it now. Nothing or, if it had refused some before,
                only a part is stored; calling again with the same batches is safe.
        """
        unique = sorted({b.id: b for b in reversed(batches)}.values(), key=lambda b: b.id)
        again = Stored(duplicates=len(batches) - len(unique))
        if not unique:
            return again
        try:
            try:
                return again + self._commit(unique)
            except psycopg.Error as error:
                if not is_refusal(error):
                    raise
            # A partition or a series that somebody has removed looks the same as bad data.
            self._partitions.forget()
            self._series.forget()
            return again + self._bisect(unique)
        except psycopg.Error as error:
            raise StoreError(f"cannot store: {refusal_text(error)}") from error

    def _bisect(self, batches: list[StoredBatch]) -> Stored:
        try:
            return self._commit(batches)
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            reason = refusal_text(error)
        if len(batches) > 1:
            half = len(batches) // 2
            return self._bisect(batches[:half]) + self._bisect(batches[half:])
        (batch,) = batches
        kept = self._commit([batch.refuse(f"Postgres refused the batch: {reason}")])
        return dataclasses.replace(kept, refused=((batch.id, reason),) if kept.batches else ())

    def _commit(self, batches: list[StoredBatch]) -> Stored:
        decoded = {b.id: b.batch for b in batches if b.batch is not None}
        self._partitions.ensure([batch.time_us for batch in decoded.values()], now_us=utc_us())
        resolved = self._series.of(list(decoded.values()))
        ids = dict(zip(decoded, resolved, strict=True))
        with self._conn.transaction():
            new = self._insert_ledger(batches)
            fresh = [b for b in batches if b.id in new]
            disputed = self._disputed([b for b in batches if b.id not in new])
            copy_samples(
                self._conn, [(batch, ids[key]) for key, batch in decoded.items() if key in new]
            )
            self._insert_dead_letters(fresh)
            self._close_leases(batches)
            self._fail_point("before_commit")
        self._fail_point("after_commit")
        return Stored(
            batches=len(fresh),
            records=sum(b.stored for b in fresh),
            rejected=sum(b.row_count - b.stored for b in fresh),
            duplicates=len(batches) - len(fresh),
            disputed=disputed,
        )

    def _insert_ledger(self, batches: list[StoredBatch]) -> set[BatchId]:
        stored = [b.stored for b in batches]
        rows = self._conn.execute(
            """
            INSERT INTO ledger (stream_id, first_row, row_count, stored, rejected)
            SELECT * FROM unnest(%b::text[], %b::int8[], %b::int4[], %b::int4[], %b::int4[])
            ON CONFLICT DO NOTHING RETURNING stream_id, first_row
            """,
            [
                *_keys(batches),
                [b.row_count for b in batches],
                stored,
                [b.row_count - s for b, s in zip(batches, stored, strict=True)],
            ],
        )
        return {BatchId(stream_id, first_row) for stream_id, first_row in rows}

    def _disputed(self, known: list[StoredBatch]) -> tuple[BatchId, ...]:
        if not known:
            return ()
        rows = self._conn.execute(
            """
            SELECT stream_id, first_row
            FROM ledger AS l
            JOIN unnest(%b::text[], %b::int8[], %b::int4[]) AS k (stream_id, first_row, row_count)
                USING (stream_id, first_row)
            WHERE l.row_count <> k.row_count ORDER BY stream_id, first_row
            """,
            [*_keys(known), [b.row_count for b in known]],
        )
        return tuple(BatchId(stream_id, first_row) for stream_id, first_row in rows)

    def _insert_dead_letters(self, batches: list[StoredBatch]) -> None:
        letters = [letter for b in batches for letter in dead_letters(b)]
        if not letters:
            return
        self._conn.execute(
            """
            INSERT INTO dead_letter (stream_id, first_row, row_count, reason, payload)
            SELECT * FROM unnest(%b::text[], %b::int8[], %b::int4[], %b::text[], %b::bytea[])
            """,
            [list(column) for column in zip(*letters, strict=True)],
        )

    def _close_leases(self, batches: list[StoredBatch]) -> None:
        self._conn.execute(
            """
            DELETE FROM stream_lease AS l
            USING unnest(%b::text[], %b::int8[]) AS done (stream_id, first_row)
            WHERE l.stream_id = done.stream_id AND l.first_row = done.first_row
            """,
            _keys(batches),
        )


def copy_samples(
    conn: psycopg.Connection[Any], batches: Sequence[tuple[RecordBatch, npt.NDArray[np.int32]]]
) -> None:
    """Copy the records of some batches into `sample`, in one go.

    Args:
        conn: in a transaction.
        batches: each with the ids of its series; the partitions of their times must be there.
    """
    if not any(len(batch.value) for batch, _ in batches):
        return
    data = _copy_data(
        np.concatenate([ids[batch.series_index] for batch, ids in batches]),
        np.concatenate([batch.time_us for batch, _ in batches]),
        np.concatenate([batch.value for batch, _ in batches]),
    )
    with (
        conn.cursor() as cursor,
        cursor.copy("COPY sample (series_id, ts, value) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.write(data)


def _copy_data(
    series_id: npt.NDArray[np.int32], time_us: npt.NDArray[np.int64], value: npt.NDArray[np.float64]
) -> bytes:
    order = np.lexsort((time_us, series_id))
    rows = np.empty(len(order), _COPY_ROW)
    rows["fields"] = 3
    rows["id_bytes"], rows["ts_bytes"], rows["value_bytes"] = 4, 8, 8
    rows["series_id"] = series_id[order]
    rows["ts"] = time_us[order] - _POSTGRES_EPOCH_US
    rows["value"] = value[order]
    return b"".join((_COPY_HEADER, rows.data, _COPY_TRAILER))


def _keys(batches: list[StoredBatch]) -> list[list[Any]]:
    return [[b.id.stream_id for b in batches], [b.id.first_row for b in batches]]


def dead_letters(batch: StoredBatch) -> list[tuple[str, int, int, str, bytes]]:
    """Give the dead letters of a batch: stream, first row, row count, reason, payload."""
    if batch.batch is None:
        return [_dead_letter(batch.id, 0, batch.row_count, batch.reason, batch.payload)]
    return [
        _dead_letter(batch.id, r.offset, 1, r.reason, r.payload.encode())
        for r in batch.batch.rejected
    ]


def _dead_letter(
    id: BatchId, offset: int, row_count: int, reason: str, payload: Payload
) -> tuple[str, int, int, str, bytes]:
    # Postgres text holds no U+0000.
    reason = reason.replace("\0", "")
    if len(payload) > PAYLOAD_BYTES_MAX:
        cut = f" (payload cut at {PAYLOAD_BYTES_MAX} of {len(payload)} bytes)"
        reason = reason[: REASON_MAX - len(cut)] + cut
    kept = bytes(payload[:PAYLOAD_BYTES_MAX])
    return (id.stream_id, id.first_row + offset, row_count, reason[:REASON_MAX], kept)


def is_refusal(error: psycopg.Error) -> bool:
    """Tell whether an error blames the data, and not the connection, the server or the schema."""
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
        return True
    return (error.sqlstate or "").startswith(_REFUSALS)


def refusal_text(error: psycopg.Error) -> str:
    """Say what Postgres said, without any of the data."""
    # The detail and context would repeat the data.
    return error.diag.message_primary or str(error) or type(error).__name__
