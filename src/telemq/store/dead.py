"""Dead letters: finding, showing and dropping them.

A dead letter accounts for `row_count` rows that the ledger counts as rejected, so its row in the
table is never deleted while they are: dropping takes away the payload and notes when
(`dropped_at`), and `telemq verify` stays balanced. Only a retry that has stored rows removes
letters, together with their count in the ledger (`dead_retry`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.rows import class_row

__all__ = [
    "WHERE",
    "DeadLetter",
    "Selection",
    "count",
    "drop",
    "find",
    "payload_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One dead letter without its payload.

    Attributes:
        id: its number, ascending with time.
        stream_id: the stream of its rows.
        first_row: the first row that it accounts for.
        row_count: 1 for a bad row of a batch; all rows of it when the batch as a whole was bad.
        reason: why.
        at: when it was kept, UTC.
        payload_bytes: size of the payload that is kept.
        dropped_at: when an operator dropped it; None while it has its payload.
    """

    id: int
    stream_id: str
    first_row: int
    row_count: int
    reason: str
    at: datetime
    payload_bytes: int
    dropped_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters; what is None does not matter.

    Attributes:
        ids: their numbers.
        stream: their stream.
        reason: a part of their reason, in any case.
        since: kept at this time or later.
        dropped: those that were dropped, too.
    """

    ids: tuple[int, ...] | None = None
    stream: str | None = None
    reason: str | None = None
    since: datetime | None = None
    dropped: bool = False

    def to_sql(self) -> dict[str, Any]:
        """Give the parameters of `WHERE`."""
        ids = None if self.ids is None else list(self.ids)
        names = ("stream", "reason", "since", "dropped")
        return {"ids": ids} | {name: getattr(self, name) for name in names}


#: The condition of a `Selection`.
WHERE: LiteralString = """
    (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s::bigint[]))
    AND (%(stream)s::text IS NULL OR stream_id = %(stream)s)
    AND (%(reason)s::text IS NULL OR strpos(lower(reason), lower(%(reason)s)) > 0)
    AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
    AND (%(dropped)s OR dropped_at IS NULL)
"""
_COLUMNS: LiteralString = """
    id, stream_id, first_row, row_count, reason, at, length(payload) AS payload_bytes, dropped_at
"""


def find(
    conn: psycopg.Connection[Any],
    selection: Selection,
    *,
    limit: int,
    after: int = 0,
    up_to: int = 2**63 - 1,
    newest: bool = False,
) -> list[DeadLetter]:
    """Give the selected letters in order of their ids.

    Args:
        conn: to the database.
        selection: which.
        limit: most letters.
        after: only letters with a greater id.
        up_to: only letters with no greater id.
        newest: give the last ones of them, the newest first.
    """
    with conn.cursor(row_factory=class_row(DeadLetter)) as cursor:
        return cursor.execute(
            f"""
            SELECT {_COLUMNS} FROM dead_letter
            WHERE {WHERE} AND id > %(after)s AND id <= %(up_to)s
            ORDER BY id {"DESC" if newest else "ASC"} LIMIT %(limit)s
            """,
            {**selection.to_sql(), "after": after, "up_to": up_to, "limit": limit},
        ).fetchall()


def count(conn: psycopg.Connection[Any], selection: Selection) -> tuple[int, int]:
    """Give how many letters are selected, and how many rows they account for."""
    row = conn.execute(
        f"SELECT count(*), coalesce(sum(row_count), 0)::bigint FROM dead_letter WHERE {WHERE}",
        selection.to_sql(),
    ).fetchone()
    assert row is not None  # an aggregate without GROUP BY has one row
    letters, rows = row
    return letters, rows


def payload_of(conn: psycopg.Connection[Any], id: int) -> bytes | None:
    """Give the payload of a letter: empty once it was dropped; None if there is no such letter."""
    row = conn.execute("SELECT payload FROM dead_letter WHERE id = %s", (id,)).fetchone()
    return None if row is None else bytes(row[0])


def drop(conn: psycopg.Connection[Any], selection: Selection) -> list[int]:
    """Take away the payloads of the selected letters for good; gives the ids, ascending.

    Their rows stay, so that the ledger's count of rejected rows is still accounted for. One that
    was dropped before, or that somebody retries at this moment with success, is left out.

    Args:
        conn: in autocommit mode, outside a transaction.
        selection: which.
    """
    rows = conn.execute(
        f"""
        WITH chosen AS (
            SELECT id FROM dead_letter WHERE {WHERE} ORDER BY id FOR UPDATE
        )
        UPDATE dead_letter AS d SET payload = '', dropped_at = now()
        FROM chosen WHERE d.id = chosen.id RETURNING d.id
        """,
        dataclasses.replace(selection, dropped=False).to_sql(),
    )
    return sorted(id for (id,) in rows)
