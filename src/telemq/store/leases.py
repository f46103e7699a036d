"""Who sends which rows of a replayable stream: the shared cursor, and a lease a batch.

``stream_progress.next_row`` is the cursor that all streamers of a stream share. `reserve` moves it
a whole range on and cuts the range into batches, each with a row in ``stream_lease``. From then on
the batch's identity and row count never change: a lease only changes its owner, and ends with the
commit that stores the batch (`telemq.store.writer`).

Every function is one statement, with times by the database's clock, so that streamers need neither
a common clock nor a transaction. Those that touch leases skip rows that somebody else has locked:
such a lease is being closed or taken over just now. So none of them ever waits for a commit, and
none can be part of a deadlock.

Each takes a connection in autocommit mode and raises ``psycopg.Error`` as it comes: the caller owns
the connection and knows what to do about it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row

from telemq.errors import StreamError

__all__ = [
    "Lease",
    "StreamState",
    "open_stream",
    "release",
    "renew",
    "reserve",
    "state",
    "take_over",
]


@dataclass(frozen=True, slots=True, order=True)
class Lease:
    """One batch that somebody has to publish: the rows `first_row` and the `row_count` - 1 next."""

    first_row: int
    row_count: int


@dataclass(frozen=True, slots=True)
class StreamState:
    """How far a stream is.

    Attributes:
        next_row: rows reserved so far; the first row that nobody has.
        open_leases: batches reserved and not stored yet.
        open_rows: the rows of those.
    """

    next_row: int
    open_leases: int
    open_rows: int


def open_stream(conn: psycopg.Connection[Any], stream_id: str, source: str) -> None:
    """Begin a stream, or join it.

    Args:
        conn: in autocommit mode.
        stream_id: the stream's name.
        source: fingerprint of what the rows are read from.

    Raises:
        StreamError: the stream exists and its rows come from another source.
    """
    # The update changes nothing; it makes RETURNING give the row whoever inserted it.
    row = conn.execute(
        """
        INSERT INTO stream_progress AS p (stream_id, source) VALUES (%s, %s)
        ON CONFLICT (stream_id) DO UPDATE SET source = p.source
        RETURNING p.source
        """,
        (stream_id, source),
    ).fetchone()
    if row is None or row[0] != source:
        raise StreamError(
            f"stream {stream_id!r} was begun from another source "
            f"({row and row[0]}, not {source}); give this one another --stream"
        )


def reserve(
    conn: psycopg.Connection[Any],
    stream_id: str,
    owner: str,
    *,
    batch_records: int,
    batches: int,
    rows_max: int,
    lease_s: float,
) -> list[Lease]:
    """Give the stream's next batches to `owner`; nobody else ever gets the same rows.

    Args:
        conn: in autocommit mode.
        stream_id: a stream that `open_stream` has begun.
        owner: who will publish them.
        batch_records: rows a batch; the stream's last one may have fewer.
        batches: most batches.
        rows_max: where the stream ends; 0 is nowhere.
        lease_s: how long they stay with the owner unless renewed.

    Returns:
        At most `batches` leases, ascending; none when the stream has come to its end.
    """
    # NO KEY: a plain FOR UPDATE would wait for the foreign key checks of others' leases.
    with conn.cursor(row_factory=class_row(Lease)) as cursor:
        cursor.execute(
            """
            WITH before AS (
                SELECT stream_id, next_row FROM stream_progress
                WHERE stream_id = %(stream)s FOR NO KEY UPDATE
            ), moved AS (
                UPDATE stream_progress AS p
                SET next_row = CASE WHEN %(rows_max)s::bigint = 0 THEN b.next_row + %(rows)s::bigint
                               ELSE least(b.next_row + %(rows)s::bigint, %(rows_max)s::bigint) END
                FROM before AS b
                WHERE p.stream_id = b.stream_id
                  AND (%(rows_max)s::bigint = 0 OR b.next_row < %(rows_max)s::bigint)
                RETURNING b.next_row AS from_row, p.next_row AS end_row
            )
            INSERT INTO stream_lease (stream_id, first_row, row_count, owner, leased_until)
            SELECT %(stream)s, first_row, least(%(batch)s::bigint, end_row - first_row),
                   %(owner)s, now() + make_interval(secs => %(lease_s)s)
            FROM moved, generate_series(from_row, end_row - 1, %(batch)s::bigint) AS first_row
            RETURNING first_row, row_count
            """,
            {
                "stream": stream_id,
                "owner": owner,
                "batch": batch_records,
                "rows": batch_records * batches,
                "rows_max": rows_max,
                "lease_s": lease_s,
            },
        )
        return sorted(cursor.fetchall())


def take_over(
    conn: psycopg.Connection[Any], stream_id: str, owner: str, *, batches: int, lease_s: float
) -> list[Lease]:
    """Give `owner` leases that have run out, whoever had them: the oldest rows first.

    Those may have been `owner`'s own, if it did not renew them in time.

    Args:
        conn: in autocommit mode.
        stream_id: the stream's name.
        owner: who will publish them.
        batches: most leases.
        lease_s: how long they stay with the owner unless renewed.

    Returns:
        At most `batches` leases, ascending. Two callers never get the same.
    """
    with conn.cursor(row_factory=class_row(Lease)) as cursor:
        cursor.execute(
            """
            WITH ended AS (
                SELECT stream_id, first_row FROM stream_lease
                WHERE stream_id = %(stream)s AND leased_until <= now()
                ORDER BY first_row LIMIT %(batches)s FOR UPDATE SKIP LOCKED
            )
            UPDATE stream_lease AS l
            SET owner = %(owner)s, leased_until = now() + make_interval(secs => %(lease_s)s)
            FROM ended AS e WHERE l.stream_id = e.stream_id AND l.first_row = e.first_row
            RETURNING l.first_row, l.row_count
            """,
            {"stream": stream_id, "owner": owner, "batches": batches, "lease_s": lease_s},
        )
        return sorted(cursor.fetchall())


def renew(conn: psycopg.Connection[Any], stream_id: str, owner: str, *, lease_s: float) -> set[int]:
    """Begin all open leases of `owner` anew, and tell which those are.

    Returns:
        The first rows of the leases that are still open and still this owner's. What the owner has
        beyond them is stored, or somebody else's: it may forget it.
    """
    # The last SELECT reads the snapshot, so it also gives leases that a commit has locked.
    rows = conn.execute(
        """
        WITH mine AS (
            SELECT stream_id, first_row FROM stream_lease
            WHERE stream_id = %(stream)s AND owner = %(owner)s FOR UPDATE SKIP LOCKED
        ), renewed AS (
            UPDATE stream_lease AS l SET leased_until = now() + make_interval(secs => %(lease_s)s)
            FROM mine AS m WHERE l.stream_id = m.stream_id AND l.first_row = m.first_row
        )
        SELECT first_row FROM stream_lease WHERE stream_id = %(stream)s AND owner = %(owner)s
        """,
        {"stream": stream_id, "owner": owner, "lease_s": lease_s},
    )
    return {first_row for (first_row,) in rows}


def release(
    conn: psycopg.Connection[Any], stream_id: str, owner: str, *, keep: Collection[int] = ()
) -> None:
    """Let all open leases of `owner` run out now, so that others need not wait for them.

    Args:
        conn: in autocommit mode.
        stream_id: the stream's name.
        owner: whose leases.
        keep: first rows of those that do not run out.
    """
    conn.execute(
        """
        WITH mine AS (
            SELECT stream_id, first_row FROM stream_lease
            WHERE stream_id = %(stream)s AND owner = %(owner)s
              AND first_row <> ALL (%(keep)s::bigint[])
            FOR UPDATE SKIP LOCKED
        )
        UPDATE stream_lease AS l SET leased_until = now()
        FROM mine AS m WHERE l.stream_id = m.stream_id AND l.first_row = m.first_row
        """,
        {"stream": stream_id, "owner": owner, "keep": list(keep)},
    )


def state(conn: psycopg.Connection[Any], stream_id: str) -> StreamState:
    """Tell how far a stream is; one that nobody has begun yet is at 0, with nothing open."""
    with conn.cursor(row_factory=class_row(StreamState)) as cursor:
        cursor.execute(
            """
            SELECT p.next_row, count(l.first_row) AS open_leases,
                   coalesce(sum(l.row_count), 0)::bigint AS open_rows
            FROM stream_progress AS p LEFT JOIN stream_lease AS l USING (stream_id)
            WHERE p.stream_id = %s GROUP BY p.next_row
            """,
            (stream_id,),
        )
        return cursor.fetchone() or StreamState(0, 0, 0)
