"""Dead letters, tried again: what is acceptable now becomes samples, exactly once.

A retry is worth while after its cause is gone: a newer version reads the payload, a limit was
raised, a constraint was lifted, or a consumer had failed where nothing was wrong with the message.
One transaction moves everything at once, so that `telemq verify` is balanced before and after::

    BEGIN
      dead_letter   lock the letters, by id; those that somebody else has dealt with are left out
      ledger        lock their batches, by key; rejected - n, stored + n
      sample        COPY
      dead_letter   delete the letters; of a whole batch, keep its rows that are still bad
    COMMIT

Two operators who retry the same letters meet at the first lock: the second finds them gone. All
lock in the same order, so nobody waits in a circle. A letter that Postgres refuses is found by
halving, and stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from telemq.clock import utc_us
from telemq.codec import Decoder
from telemq.errors import RecordError, StoreError
from telemq.record import BatchId, RecordBatch, reject_times
from telemq.store.dead import DeadLetter, Selection, find, payload_of
from telemq.store.dead_read import read_again
from telemq.store.partitions import Partitions
from telemq.store.series import SeriesIds
from telemq.store.writer import (
    StoredBatch,
    copy_samples,
    dead_letters,
    is_refusal,
    refusal_text,
)

__all__ = ["Outcome", "Retrier"]

#: Letters of one transaction, and payload bytes unless one alone has more: what a collector holds.
_LETTERS_MAX = 500
_BYTES_MAX = 16 * 2**20
_GONE = "somebody else has retried or dropped it"
_NO_BATCH = "the ledger has no batch with these rejected rows; see telemq verify"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one letter.

    Attributes:
        id: the letter.
        stored: its records that are samples now.
        left: its rows that are still dead letters.
        reason: why these are; empty if all were stored.
    """

    id: int
    stored: int
    left: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A letter that decodes, with at least one record."""

    letter: DeadLetter
    payload: bytes
    batch: RecordBatch

    @property
    def records(self) -> int:
        return len(self.batch.value)

    @property
    def left(self) -> int:
        return len(self.batch.rejected)

    def outcome(self) -> Outcome:
        reason = self.batch.rejected[0].reason if self.left else ""
        return Outcome(self.letter.id, self.records, self.left, reason)

    def refused(self, reason: str) -> Outcome:
        return Outcome(self.letter.id, 0, self.letter.row_count, reason)


class Retrier:
    """Tries dead letters again over one connection.

    Args:
        conn: in autocommit mode, outside a transaction, and this object's alone.
        oldest_us: earliest record time accepted, microseconds since 1970 UTC.
        latest_us: latest record time accepted.
        partition_hours: width of the partitions that it makes.
        fail_point: called with ``before_commit``; for tests.
    """

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        *,
        oldest_us: int,
        latest_us: int,
        partition_hours: int = 24,
        fail_point: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._conn = conn
        self._oldest_us, self._latest_us = oldest_us, latest_us
        self._fail_point = fail_point
        self._series = SeriesIds(conn)
        self._partitions = Partitions(conn, partition_hours)
        self._decoder = Decoder()

    def retry(self, selection: Selection) -> Iterator[Outcome]:
        """Retry the selected letters that are there now; yields each one's outcome once committed.

        Raises:
            StoreError: the database cannot do it now; what was yielded is committed, and trying
                the rest again is safe.
        """
        try:
            newest = find(self._conn, selection, limit=1, newest=True)
            up_to, after = (newest[0].id if newest else 0), 0
            # What a retry leaves of a batch are new letters: beyond `up_to`, so not tried twice.
            while letters := find(
                self._conn, selection, limit=_LETTERS_MAX, after=after, up_to=up_to
            ):
                after = letters[-1].id
                for chunk in _chunks(letters):
                    yield from self._retry(chunk)
        except psycopg.Error as error:
            raise StoreError(f"cannot retry: {refusal_text(error)}") from error

    def _retry(self, letters: list[DeadLetter]) -> Iterator[Outcome]:
        candidates: list[_Candidate] = []
        for letter in letters:
            payload = payload_of(self._conn, letter.id)
            if payload is None:
                yield Outcome(letter.id, 0, 0, _GONE)
                continue
            try:
                batch = read_again(payload, letter.row_count, self._decoder)
            except RecordError as error:
                yield Outcome(letter.id, 0, letter.row_count, str(error))
                continue
            batch = reject_times(batch, self._oldest_us, self._latest_us)
            candidate = _Candidate(letter, payload, batch)
            if candidate.records:
                candidates.append(candidate)
            else:
                yield candidate.refused(batch.rejected[0].reason if batch.rejected else "no rows")
        yield from self._bisect(candidates)

    def _bisect(self, candidates: list[_Candidate]) -> list[Outcome]:
        if not candidates:
            return []
        try:
            return self._commit(candidates)
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            # A partition or a series that somebody has removed looks the same as bad data.
            self._partitions.forget()
            self._series.forget()
            reason = refusal_text(error)
        if len(candidates) == 1:
            return [candidates[0].refused(f"Postgres refused it: {reason}")]
        half = len(candidates) // 2
        return self._bisect(candidates[:half]) + self._bisect(candidates[half:])

    def _commit(self, candidates: list[_Candidate]) -> list[Outcome]:
        batches = [c.batch for c in candidates]
        self._partitions.ensure([batch.time_us for batch in batches], now_us=utc_us())
        ids = self._series.of(batches)
        with self._conn.transaction():
            live = self._lock_letters(candidates)
            homes = self._homes(live)
            chosen = [(c, i) for c, i in zip(candidates, ids, strict=True) if c.letter.id in homes]
            moved: Counter[BatchId] = Counter()
            for candidate, _ in chosen:
                moved[homes[candidate.letter.id]] += candidate.records
            self._move(moved)
            copy_samples(self._conn, [(c.batch, series_ids) for c, series_ids in chosen])
            self._replace([c for c, _ in chosen])
            self._fail_point("before_commit")
        return [
            c.outcome()
            if c.letter.id in homes
            else c.refused(_NO_BATCH)
            if c.letter.id in live
            else Outcome(c.letter.id, 0, 0, _GONE)
            for c in candidates
        ]

    def _lock_letters(self, candidates: list[_Candidate]) -> list[int]:
        rows = self._conn.execute(
            """
            SELECT id FROM dead_letter WHERE id = ANY(%s) AND dropped_at IS NULL
            ORDER BY id FOR UPDATE
            """,
            ([c.letter.id for c in candidates],),
        )
        return [id for (id,) in rows]

    def _homes(self, letters: list[int]) -> dict[int, BatchId]:
        """Give the batch in the ledger to which each letter belongs."""
        rows = self._conn.execute(
            """
            SELECT d.id, l.stream_id, l.first_row
            FROM dead_letter AS d CROSS JOIN LATERAL (
                SELECT * FROM ledger AS l
                WHERE l.stream_id = d.stream_id AND l.first_row <= d.first_row
                ORDER BY l.first_row DESC LIMIT 1
            ) AS l
            WHERE d.id = ANY(%s) AND d.first_row + d.row_count <= l.first_row + l.row_count
            """,
            (letters,),
        )
        return {id: BatchId(stream_id, first_row) for id, stream_id, first_row in rows}

    def _move(self, moved: Counter[BatchId]) -> None:
        """Count rows as stored that were counted as rejected; a check refuses too many."""
        keys = sorted(moved)
        columns = [
            [key.stream_id for key in keys],
            [key.first_row for key in keys],
            [moved[key] for key in keys],
        ]
        if not moved:
            return
        self._conn.execute(
            """
            SELECT FROM ledger
            JOIN unnest(%b::text[], %b::int8[]) AS k (stream_id, first_row)
                USING (stream_id, first_row)
            ORDER BY stream_id, first_row FOR UPDATE OF ledger
            """,
            columns[:2],
        )
        self._conn.execute(
            """
            UPDATE ledger AS l SET stored = l.stored + m.n, rejected = l.rejected - m.n
            FROM unnest(%b::text[], %b::int8[], %b::int4[]) AS m (stream_id, first_row, n)
            WHERE l.stream_id = m.stream_id AND l.first_row = m.first_row
            """,
            columns,
        )

    def _replace(self, candidates: list[_Candidate]) -> None:
        """Delete letters; what is still bad of a whole batch is kept row by row, with its time."""
        rest = [
            (*row, c.letter.at)
            for c in candidates
            for row in dead_letters(
                StoredBatch(
                    BatchId(c.letter.stream_id, c.letter.first_row),
                    c.letter.row_count,
                    c.payload,
                    c.batch,
                )
            )
        ]
        self._conn.execute(
            "DELETE FROM dead_letter WHERE id = ANY(%s)", ([c.letter.id for c in candidates],)
        )
        if rest:
            self._conn.execute(
                """
                INSERT INTO dead_letter (stream_id, first_row, row_count, reason, payload, at)
                SELECT * FROM unnest(%b::text[], %b::int8[], %b::int4[], %b::text[], %b::bytea[],
                                     %b::timestamptz[])
                """,
                [list(column) for column in zip(*rest, strict=True)],
            )


def _chunks(letters: list[DeadLetter]) -> Iterator[list[DeadLetter]]:
    chunk: list[DeadLetter] = []
    size = 0
    for letter in letters:
        if chunk and size + letter.payload_bytes > _BYTES_MAX:
            yield chunk
            chunk, size = [], 0
        chunk.append(letter)
        size += letter.payload_bytes
    if chunk:
        yield chunk
