"""Gives back what emptied partitions take on disk, once nobody can see what was in them.

A row that was deleted is still there for older snapshots (a long query, pg_dump). TRUNCATE and DROP
would take it from them, so both wait until no snapshot is older than the transaction that emptied
the partition. Then the partition is truncated, and dropped when it has stayed empty for a while: a
partition that late samples still come to would else be made and dropped again and again.

Both need a lock against everybody, the drop on all of `sample`. It is asked for only for as long as
`LOCK_MS`, since whoever comes later waits behind it; if it is not had, the next pass asks again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from telemq.store.compact import only_one

__all__ = ["LOCK_MS", "briefly", "drop", "has_samples", "note_empty", "truncate", "unseen"]

#: Longest wait for a lock against everybody: so long may a pass hold up readers and writers.
LOCK_MS = 200
#: Partitions of one transaction; a drop takes up to 20 ms.
_DROPS = 10

# Snapshots of other databases cannot see our tables, autovacuum shows what it sees to nobody, and
# those of a standby that reports them count.
_UNSEEN = """
SELECT partition, at FROM partition_emptied
WHERE partition = ANY(%s)
  AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint - xid::text::bigint > (
    SELECT coalesce(max(age(xmin)), -1) FROM (
        SELECT backend_xmin AS xmin FROM pg_stat_activity
        WHERE coalesce(datname = current_database(), true) AND pid <> pg_backend_pid()
          AND backend_type IS DISTINCT FROM 'autovacuum worker'
        UNION ALL
        SELECT xmin FROM pg_replication_slots
    ) AS snapshot WHERE xmin IS NOT NULL)
"""


@contextmanager
def briefly(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Begin a transaction that waits `LOCK_MS` at most for each lock.

    Raises:
        psycopg.errors.LockNotAvailable: out of the statement that had to wait for longer.
    """
    with conn.transaction():
        conn.execute("SELECT set_config('lock_timeout', %s, true)", [f"{LOCK_MS}ms"])
        yield


def has_samples(conn: psycopg.Connection[Any], partition: str) -> bool:
    """Tell whether a partition holds any sample now."""
    query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(partition))
    return conn.execute(query).fetchone() == (True,)


def note_empty(conn: psycopg.Connection[Any], partitions: list[str]) -> None:
    """Note partitions found empty; a note that is there already stays as it is."""
    conn.execute(
        "INSERT INTO partition_emptied (partition) SELECT unnest(%s::text[])"
        " ON CONFLICT DO NOTHING",
        [partitions],
    )


def unseen(conn: psycopg.Connection[Any], partitions: list[str]) -> dict[str, Any]:
    """Give those of which no snapshot sees any more what was in them, and when it was emptied."""
    return dict(conn.execute(_UNSEEN, [partitions]).fetchall())


def truncate(conn: psycopg.Connection[Any], partition: str) -> int:
    """Empty a partition's files, unless there are samples again; gives the bytes that are free now.

    Raises:
        psycopg.errors.LockNotAvailable: somebody reads or writes it.
    """
    name = sql.Identifier(partition)
    with briefly(conn):
        if not only_one(conn):
            return 0
        row = conn.execute(
            "SELECT pg_relation_size(%s::regclass), pg_total_relation_size(%s::regclass)",
            [name.as_string(conn)] * 2,
        ).fetchone()
        assert row is not None  # no FROM
        if row[0] == 0:
            return 0
        conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(name))
        if has_samples(conn, partition):
            return 0
        conn.execute(sql.SQL("TRUNCATE {}").format(name))
    return int(row[1])


def drop(conn: psycopg.Connection[Any], partitions: list[str]) -> list[str]:
    """Drop partitions, those with samples again left out; gives which.

    Raises:
        psycopg.errors.LockNotAvailable: somebody reads or writes samples all the time; those that
            were dropped before stay so.
    """
    dropped: list[str] = []
    for start in range(0, len(partitions), _DROPS):
        with briefly(conn):
            if not only_one(conn):
                break
            conn.execute("LOCK TABLE ONLY sample IN ACCESS EXCLUSIVE MODE")
            empty = [p for p in partitions[start : start + _DROPS] if not has_samples(conn, p)]
            for partition in empty:
                conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(partition)))
            conn.execute("DELETE FROM partition_emptied WHERE partition = ANY(%s)", [empty])
        dropped += empty
    return dropped
