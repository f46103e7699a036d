"""How storing goes: what came in the last minute, and how far the streams are.

Reads a minute of the ledger, which its index on the time finds, and the small tables; never all of
the ledger or a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

__all__ = ["STREAMS_MAX", "Progress", "StreamProgress", "progress"]

#: Streams that are listed.
STREAMS_MAX = 1000
#: What the rate is taken from.
_RATE_S = 60

_LATELY = """
SELECT coalesce(sum(stored), 0)::float8 / %(seconds)s,
       extract(epoch FROM now() - max(stored_at))::float8
FROM ledger WHERE stored_at > now() - make_interval(secs => %(seconds)s)
"""
_DEAD = """
SELECT coalesce(sum(row_count) FILTER (WHERE dropped_at IS NULL), 0)::bigint FROM dead_letter
"""
_STREAMS = """
SELECT stream_id, next_row, count(l.first_row), coalesce(sum(l.row_count), 0)::bigint,
       count(*) OVER ()
FROM stream_progress LEFT JOIN stream_lease AS l USING (stream_id)
GROUP BY stream_id, next_row ORDER BY stream_id LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """One stream: rows reserved so far, and batches and rows of these that are not stored yet."""

    stream_id: str
    next_row: int
    leases: int
    lease_rows: int


@dataclass(frozen=True, slots=True)
class Progress:
    """All streams at one moment.

    Attributes:
        records_per_s: stored, over the last minute.
        stored_s_ago: since the last batch was stored; None if that was not in the last minute.
        dead_letters: rows kept as dead letters that nobody has dropped.
        streams: `STREAMS_MAX` at most, by name.
        stream_count: how many there are.
    """

    records_per_s: float
    stored_s_ago: float | None
    dead_letters: int
    streams: tuple[StreamProgress, ...]
    stream_count: int


async def progress(conn: psycopg.AsyncConnection[Any]) -> Progress:
    """Read how storing goes.

    Raises:
        psycopg.Error: as it comes.
    """
    async with conn.transaction():
        lately = await (await conn.execute(_LATELY, {"seconds": _RATE_S})).fetchone()
        dead = await (await conn.execute(_DEAD)).fetchone()
        streams = await (await conn.execute(_STREAMS, [STREAMS_MAX])).fetchall()
    assert lately is not None  # an aggregate without GROUP BY has one row
    assert dead is not None
    return Progress(
        records_per_s=lately[0],
        stored_s_ago=lately[1],
        dead_letters=dead[0],
        streams=tuple(StreamProgress(*row[:-1]) for row in streams),
        stream_count=streams[0][-1] if streams else 0,
    )
