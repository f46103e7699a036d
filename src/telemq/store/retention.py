"""Drops samples that are too old, and accounts for them.

The ledger says for ever what was stored, so what is dropped is counted in `sample_dropped`, in the
same transaction: `telemq verify` adds it to what is there. A sample does not know its stream, so
the two can only be compared in total.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from telemq.store.compact import only_one
from telemq.store.emptied import briefly

__all__ = ["drop_chunks", "drop_partition"]

#: Chunks deleted in one transaction.
_CHUNKS = 20_000


def drop_partition(
    conn: psycopg.Connection[Any],
    partition: str,
    before: datetime,
    *,
    fail_point: Callable[[str], None] = lambda _: None,
) -> int | None:
    """Drop a partition with all its samples; gives how many these were.

    None if somebody else maintains; then nothing is changed.

    Whoever would write to it waits while they are counted, since then they must not change.
    Readers wait only for the drop itself.

    Args:
        conn: in autocommit mode, outside a transaction.
        partition: its name.
        before: the end of its range.
        fail_point: called with ``counted`` and ``dropped``; for tests.

    Raises:
        psycopg.errors.LockNotAvailable: somebody is in the way; nothing is changed.
    """
    name = sql.Identifier(partition)
    # The waits are shorter than Postgres takes to look for deadlocks: a writer that has its locks
    # in the other order goes on, and we come again.
    with briefly(conn):
        if not only_one(conn):
            return None
        conn.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(name))
        row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()
        assert row is not None  # an aggregate
        _account(conn, before, row[0])
        fail_point("counted")
        conn.execute("LOCK TABLE ONLY sample IN ACCESS EXCLUSIVE MODE")
        conn.execute(sql.SQL("DROP TABLE {}").format(name))
        conn.execute("DELETE FROM partition_emptied WHERE partition = %s", [partition])
        fail_point("dropped")
    return int(row[0])


def drop_chunks(
    conn: psycopg.Connection[Any],
    before: datetime,
    *,
    fail_point: Callable[[str], None] = lambda _: None,
) -> int:
    """Drop the chunks of hours that ended before a moment; gives how many samples these were.

    Args:
        conn: in autocommit mode, outside a transaction.
        before: what is not older stays.
        fail_point: called with ``counted`` in each transaction; for tests.
    """
    dropped: int = 0
    while True:
        with conn.transaction():
            if not only_one(conn):
                return dropped
            row = conn.execute(
                """
                WITH gone AS (
                    DELETE FROM chunk WHERE ctid = ANY(ARRAY(
                        SELECT ctid FROM chunk WHERE hour <= %s - interval '1 hour' LIMIT %s))
                    RETURNING samples
                )
                SELECT count(*), coalesce(sum(samples), 0)::bigint FROM gone
                """,
                [before, _CHUNKS],
            ).fetchone()
            assert row is not None  # an aggregate
            chunks, samples = row
            _account(conn, before, samples)
            fail_point("counted")
        dropped += samples
        if chunks < _CHUNKS:
            return dropped


def _account(conn: psycopg.Connection[Any], before: datetime, samples: int) -> None:
    if samples:
        conn.execute(
            "INSERT INTO sample_dropped (before, samples) VALUES (%s, %s)", [before, samples]
        )
