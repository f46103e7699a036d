"""Moves the samples of a partition into chunks, a piece at a time.

::

    BEGIN
      advisory lock   of all who maintain; whoever does not get it at once leaves it
      one statement   DELETE of a piece of the partition, and of the chunks that it adds to
                      unless they are full; INSERT of the chunks made of both
      emptied         the partition, and this transaction
    COMMIT

What was deleted is what is inserted, so whatever else goes on, and wherever this is killed, a
sample is in the partition or in a chunk; a snapshot sees all of the move or nothing of it. Nobody
is locked out: what is written to the partition meanwhile is not seen by the DELETE, stays, and is
moved by the next pass. That is why samples are deleted row by row and the partition not truncated,
which no snapshot is safe from.

A piece follows the index, so it is whole series but for its ends; an hour that is cut in two there
is put together again by the next piece, as are late samples by the next pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from telemq.errors import StoreError

__all__ = ["CHUNK_SAMPLES", "PIECE_SAMPLES", "Moved", "compact", "only_one"]

#: A chunk with so many takes no more, and the hour gets another part: what rewriting one for a late
#: sample costs is bounded, and so is an array.
CHUNK_SAMPLES = 16_384
#: Samples of one transaction. Half a second, and some 30 MB to sort them.
PIECE_SAMPLES = 250_000
_WORK_MEM = "128MB"
#: Key of the advisory lock of those who maintain.
_MAINTAINER = int.from_bytes(b"telemqma")

_END_OF_PIECE = sql.SQL("""
SELECT series_id, ts FROM {partition} {after} ORDER BY series_id, ts OFFSET %(piece)s LIMIT 1
""")

# Ordering is part of the aggregates' input, so that it is sorted once.
_MOVE = sql.SQL("""
WITH gone AS (
    DELETE FROM {partition} {range} RETURNING series_id, ts, value,
        date_bin('1 hour', ts, '1900-01-01 00:00+00'::timestamptz) AS hour
), opened AS (
    DELETE FROM chunk USING (SELECT DISTINCT series_id, hour FROM gone) AS k
    WHERE chunk.series_id = k.series_id AND chunk.hour = k.hour
      AND chunk.samples < %(chunk)s
    RETURNING chunk.series_id, chunk.hour, chunk.times, chunk.small, chunk.wide
), sorted AS (
    SELECT *, (row_number() OVER (PARTITION BY series_id, hour ORDER BY time) - 1)
              / %(chunk)s AS part
    FROM (
        SELECT series_id, hour, value,
               (date_part('epoch', ts - hour) * 1000000 - 1800000000)::integer AS time
        FROM gone
        UNION ALL
        SELECT opened.series_id, opened.hour, coalesce(s.small::double precision, s.wide), s.time
        FROM opened CROSS JOIN LATERAL (
            SELECT unnest(opened.times) AS time, unnest(opened.small) AS small,
                   unnest(opened.wide) AS wide
        ) AS s
    ) AS either
), gathered AS (
    SELECT series_id, hour, part, count(*) AS samples, array_agg(time ORDER BY time) AS times,
           array_agg(value ORDER BY time) AS wide,
           -- All whole, of 2 bytes, and none of them the negative zero, which is equal to zero.
           bool_and(CASE WHEN abs(value) <= 32767
               THEN value = trunc(value) AND (value <> 0 OR atan2(value, -1) > 0) ELSE false
           END) AS small
    FROM sorted GROUP BY series_id, hour, part
), made AS (
    INSERT INTO chunk (series_id, hour, part, samples, times, small, wide)
    SELECT series_id, hour, part + coalesce((
               SELECT max(full_one.part) + 1 FROM chunk AS full_one
               WHERE full_one.series_id = gathered.series_id AND full_one.hour = gathered.hour
                 AND full_one.samples >= %(chunk)s), 0),
           samples, times, CASE WHEN small THEN wide::smallint[] END,
           CASE WHEN NOT small THEN wide END
    FROM gathered
    RETURNING samples
)
SELECT (SELECT count(*) FROM gone),
       (SELECT coalesce(sum(cardinality(times)), 0) FROM opened)::bigint,
       (SELECT coalesce(sum(samples), 0) FROM made)::bigint, (SELECT count(*) FROM made)
""")


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved; all of it is committed.

    Attributes:
        samples: from the partition into chunks.
        merged: samples of chunks that were there before and took others in.
        chunks: that were written.
        pieces: transactions.
    """

    samples: int = 0
    merged: int = 0
    chunks: int = 0
    pieces: int = 0

    def __add__(self, other: Moved) -> Moved:
        return Moved(
            self.samples + other.samples,
            self.merged + other.merged,
            self.chunks + other.chunks,
            self.pieces + other.pieces,
        )


def only_one(conn: psycopg.Connection[Any]) -> bool:
    """Tell whether this transaction is the only one that maintains; it is until it ends.

    Args:
        conn: in a transaction.
    """
    row = conn.execute("SELECT pg_try_advisory_xact_lock(%s)", [_MAINTAINER]).fetchone()
    return row == (True,)


def compact(
    conn: psycopg.Connection[Any],
    partition: str,
    *,
    piece_samples: int = PIECE_SAMPLES,
    chunk_samples: int = CHUNK_SAMPLES,
    go_on: Callable[[], bool] = lambda: True,
    fail_point: Callable[[str], None] = lambda _: None,
) -> Moved | None:
    """Move what is in a partition now; None if somebody else maintains, with a part moved.

    Args:
        conn: in autocommit mode, outside a transaction, at read committed.
        partition: its name.
        piece_samples: of one transaction, but for samples of one moment of one series.
        chunk_samples: a chunk with so many takes no more.
        go_on: asked between pieces.
        fail_point: called with ``locked``, ``moved`` and ``noted`` within each transaction, and
            ``committed`` after it; for tests.

    Raises:
        psycopg.Error: what was committed before stays.
        StoreError: the counts do not agree; nothing of that piece is changed.
    """
    # It would clean up behind us, for nothing, and hold up the truncation.
    conn.execute(
        sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = false)").format(sql.Identifier(partition))
    )
    moved, after = Moved(), None
    while go_on():
        with conn.transaction():
            if not only_one(conn):
                return None
            fail_point("locked")
            conn.execute(sql.SQL("SET LOCAL work_mem = {}").format(sql.Literal(_WORK_MEM)))
            piece, after = _move(conn, partition, after, piece_samples, chunk_samples)
            fail_point("moved")
            _note(conn, partition)
            fail_point("noted")
        fail_point("committed")
        moved += piece
        if after is None:
            break
    return moved


def _move(
    conn: psycopg.Connection[Any],
    partition: str,
    after: tuple[Any, ...] | None,
    piece_samples: int,
    chunk_samples: int,
) -> tuple[Moved, tuple[Any, ...] | None]:
    """Move one piece; give its end, or None if it was the last."""
    name = sql.Identifier(partition)
    begin = sql.SQL("(series_id, ts) > (%(series)s, %(ts)s)")
    values: dict[str, Any] = {"piece": piece_samples - 1, "chunk": chunk_samples}
    bounds: list[sql.Composable] = []
    if after is not None:
        bounds.append(begin)
        values |= {"series": after[0], "ts": after[1]}
    end = conn.execute(
        _END_OF_PIECE.format(partition=name, after=_where(bounds)), values
    ).fetchone()
    if end is not None:
        bounds.append(sql.SQL("(series_id, ts) <= (%(last)s, %(last_ts)s)"))
        values |= {"last": end[0], "last_ts": end[1]}
    row = conn.execute(_MOVE.format(partition=name, range=_where(bounds)), values).fetchone()
    assert row is not None  # aggregates
    gone, opened, made, chunks = row
    if gone + opened != made:
        raise StoreError(f"{partition}: {gone} + {opened} samples would become {made} in chunks")
    return Moved(gone, opened, chunks, 1), end


def _where(bounds: list[sql.Composable]) -> sql.Composable:
    return sql.SQL("WHERE ") + sql.SQL(" AND ").join(bounds) if bounds else sql.SQL("")


def _note(conn: psycopg.Connection[Any], partition: str) -> None:
    """Note that samples were deleted from a partition, which older snapshots still see."""
    conn.execute(
        """
        INSERT INTO partition_emptied (partition) VALUES (%s)
        ON CONFLICT (partition) DO UPDATE SET xid = excluded.xid, at = excluded.at
        """,
        [partition],
    )
