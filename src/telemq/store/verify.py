"""Proves from the database alone that nothing was lost and nothing counted twice.

For each stream, the ledger and the open leases must cover the rows from 0 to ``next_row`` without
gap or overlap; a lease is a batch that is still on its way. What the ledger says was stored and
rejected must be what the tables hold: samples in partitions and in chunks, and those that were
dropped because of their age. All is read in one snapshot, so it may run at any moment, beside any
number of writers, and beside `telemq maintain`.

What cannot be seen: a sample that was deleted while another one was doubled, since samples have no
key and are only counted; and of which stream a sample is that is missing, or was dropped, since
samples do not know it.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg.rows import dict_row

from telemq.errors import StoreError

__all__ = ["DAMAGES_MAX", "STREAMS_MAX", "Damage", "Report", "StreamReport", "verify"]

#: Streams listed in a report, the damaged ones first. Totals count all.
STREAMS_MAX = 1000
#: Damaged ranges listed for one stream.
DAMAGES_MAX = 20


@dataclass(frozen=True, slots=True)
class Damage:
    """A range of rows of a stream that is not covered exactly once.

    Attributes:
        kind: ``gap`` if nobody stored or leased them, ``overlap`` if they are there more than
            once, ``beyond`` if they lie after the end of what was ever reserved.
        first_row: the first of them.
        end_row: the row after the last.
    """

    kind: Literal["gap", "overlap", "beyond"]
    first_row: int
    end_row: int

    def __str__(self) -> str:
        """In words: ``rows 100 to 199 are in no batch``."""
        rows = f"rows {self.first_row} to {self.end_row - 1}"
        return {
            "gap": f"{rows} are in no batch, neither stored nor leased",
            "overlap": f"{rows} are in more than one batch",
            "beyond": f"{rows} were never reserved",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One stream.

    Attributes:
        stream_id: its name.
        next_row: rows reserved so far; None for a stream of a producer that keeps no cursor here:
            its end is not known, so only overlaps can be seen.
        batches: entries in the ledger.
        rows: rows that these account for.
        stored: records that the ledger says are samples.
        rejected: rows that the ledger says are dead letters.
        dead_letter_rows: rows that the dead letters account for.
        leases: batches in flight.
        lease_rows: rows of these.
        damages: at most `DAMAGES_MAX`, ascending.
        damage_count: how many there are.
    """

    stream_id: str
    next_row: int | None
    batches: int
    rows: int
    stored: int
    rejected: int
    dead_letter_rows: int
    leases: int
    lease_rows: int
    damages: tuple[Damage, ...]
    damage_count: int

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, in words; empty if the stream is whole."""
        found = [str(damage) for damage in self.damages]
        if self.damage_count > len(self.damages):
            found.append(f"{self.damage_count - len(self.damages)} more such ranges")
        if self.stored + self.rejected != self.rows:
            found.append(
                f"the ledger accounts for {self.rows} rows, of which {self.stored} stored and "
                f"{self.rejected} rejected"
            )
        if self.dead_letter_rows != self.rejected:
            found.append(
                f"the ledger says {self.rejected} rows were rejected, "
                f"the dead letters hold {self.dead_letter_rows}"
            )
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Report:
    """The whole database.

    Attributes:
        streams: at most `STREAMS_MAX`: damaged ones first, then by name.
        stream_count: how many there are.
        damaged_count: how many of them have problems.
        stored: records that the ledger says are samples.
        samples: samples that are there, in partitions and chunks.
        samples_without_series: those of them that no query shows, since their series is gone.
        lease_rows: rows in flight.
        chunked: those of the samples that are in chunks.
        chunks_damaged: chunks that do not hold the samples that they say.
        dropped: samples that were dropped because of their age.
    """

    streams: tuple[StreamReport, ...]
    stream_count: int
    damaged_count: int
    stored: int
    samples: int
    samples_without_series: int
    lease_rows: int
    chunked: int = 0
    chunks_damaged: int = 0
    dropped: int = 0

    @property
    def complete(self) -> bool:
        """Whether all is covered once and in balance. Rows in flight do not count against it."""
        return not self.problems and self.damaged_count == 0

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the samples, in words; each stream has its own."""
        found = []
        off = self.samples + self.dropped - self.stored
        if off:
            dropped = f" and {self.dropped} were dropped" if self.dropped else ""
            found.append(
                f"the ledger says {self.stored} records were stored, the table holds "
                f"{self.samples}{dropped}: {abs(off)} too {'many' if off > 0 else 'few'}"
            )
        if self.chunks_damaged:
            found.append(f"{self.chunks_damaged} chunks do not hold the samples that they say")
        if self.samples_without_series:
            found.append(f"{self.samples_without_series} samples belong to no series")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as plain values, for JSON."""
        streams = [dataclasses.asdict(s) | {"problems": list(s.problems)} for s in self.streams]
        return dataclasses.asdict(self) | {
            "complete": self.complete,
            "problems": list(self.problems),
            "streams": streams,
        }


# A range starts where everything before it in its stream ends: before it is a gap, or an overlap.
_DAMAGES = """
WITH range AS (
    SELECT stream_id, first_row, first_row + row_count AS end_row FROM ledger
    UNION ALL
    SELECT stream_id, first_row, first_row + row_count FROM stream_lease
), walk AS (
    SELECT stream_id, first_row, end_row,
           coalesce(max(end_row) OVER (
               PARTITION BY stream_id ORDER BY first_row, end_row
               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS covered
    FROM range
), damage AS (
    SELECT stream_id, 'gap' AS kind, covered AS first_row, first_row AS end_row
    FROM walk JOIN stream_progress USING (stream_id) WHERE first_row > covered
    UNION ALL
    SELECT stream_id, 'gap', coalesce(max(end_row), 0), next_row
    FROM stream_progress LEFT JOIN range USING (stream_id)
    GROUP BY stream_id, next_row HAVING coalesce(max(end_row), 0) < next_row
    UNION ALL
    SELECT stream_id, 'overlap', first_row, least(end_row, covered)
    FROM walk WHERE first_row < covered
    UNION ALL
    SELECT stream_id, 'beyond', greatest(first_row, next_row), end_row
    FROM range JOIN stream_progress USING (stream_id) WHERE end_row > next_row
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY stream_id ORDER BY first_row, kind) AS number,
           count(*) OVER (PARTITION BY stream_id) AS damage_count
    FROM damage
)
SELECT * FROM numbered WHERE number <= %(damages_max)s
ORDER BY stream_id, number LIMIT %(damages_max)s * %(streams_max)s
"""

_STREAMS = """
WITH summed AS (
    SELECT stream_id, count(*) AS batches, sum(row_count)::bigint AS rows,
           sum(stored)::bigint AS stored, sum(rejected)::bigint AS rejected
    FROM ledger GROUP BY stream_id
), leased AS (
    SELECT stream_id, count(*) AS leases, sum(row_count)::bigint AS lease_rows
    FROM stream_lease GROUP BY stream_id
), dead AS (
    SELECT stream_id, sum(row_count)::bigint AS dead_letter_rows
    FROM dead_letter GROUP BY stream_id
), stream AS (
    SELECT stream_id, next_row, coalesce(batches, 0) AS batches, coalesce(rows, 0) AS rows,
           coalesce(stored, 0) AS stored, coalesce(rejected, 0) AS rejected,
           coalesce(dead_letter_rows, 0) AS dead_letter_rows,
           coalesce(leases, 0) AS leases, coalesce(lease_rows, 0) AS lease_rows
    FROM stream_progress FULL JOIN summed USING (stream_id) FULL JOIN leased USING (stream_id)
        FULL JOIN dead USING (stream_id)
), judged AS (
    SELECT *, stream_id = ANY(%(uncovered)s) AS uncovered,
           stored + rejected <> rows OR dead_letter_rows <> rejected AS unbalanced
    FROM stream
)
SELECT stream_id, next_row, batches, rows, stored, rejected, dead_letter_rows, leases, lease_rows,
       count(*) OVER () AS stream_count,
       count(*) FILTER (WHERE uncovered OR unbalanced) OVER () AS damaged_count,
       sum(stored) OVER ()::bigint AS all_stored,
       sum(lease_rows) OVER ()::bigint AS all_lease_rows
FROM judged
ORDER BY uncovered OR unbalanced DESC, next_row IS NULL, stream_id LIMIT %(streams_max)s
"""

# A sample of a chunk counts if a query finds it: it has a time within the hour, and a value.
_SAMPLES = """
WITH unpacked AS (
    SELECT series_id, samples, hour = date_bin('1 hour', hour, '1900-01-01 00:00+00') AS whole, (
        SELECT count(*) FILTER (WHERE time >= -1800000000 AND time < 1800000000
                                      AND num_nonnulls(small, wide) = 1)
        FROM (SELECT unnest(times) AS time, unnest(chunk.small) AS small,
                     unnest(chunk.wide) AS wide) AS s
    ) AS found
    FROM chunk
), counted AS (
    SELECT series_id, count(*) AS n, 0 AS chunked, 0 AS damaged FROM sample GROUP BY series_id
    UNION ALL
    SELECT series_id, sum(found)::bigint, sum(found)::bigint,
           count(*) FILTER (WHERE found <> samples OR NOT whole)
    FROM unpacked GROUP BY series_id
)
SELECT coalesce(sum(n), 0)::bigint AS samples,
       coalesce(sum(n) FILTER (WHERE series.id IS NULL), 0)::bigint AS samples_without_series,
       coalesce(sum(chunked), 0)::bigint AS chunked,
       coalesce(sum(damaged), 0)::bigint AS chunks_damaged,
       (SELECT coalesce(sum(samples), 0) FROM sample_dropped)::bigint AS dropped
FROM counted LEFT JOIN series ON series.id = series_id
"""


def verify(conn: psycopg.Connection[Any]) -> Report:
    """Check the whole database in one snapshot; reads every sample once and changes nothing.

    Args:
        conn: in autocommit mode, outside a transaction.

    Raises:
        StoreError: it cannot be told: no connection, or no telemq tables there.
    """
    try:
        with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            # Before the snapshot is taken: a partition cannot be dropped between the two, and then
            # be missing in one of them.
            cursor.execute("LOCK TABLE ONLY sample IN ACCESS SHARE MODE")
            limits = {"damages_max": DAMAGES_MAX, "streams_max": STREAMS_MAX}
            damages = cursor.execute(_DAMAGES, limits).fetchall()
            uncovered = list({row["stream_id"] for row in damages})
            streams = cursor.execute(_STREAMS, {**limits, "uncovered": uncovered}).fetchall()
            samples = cursor.execute(_SAMPLES).fetchone()
    except psycopg.errors.UndefinedTable as error:
        raise StoreError(
            f"cannot verify: {error.diag.message_primary}; telemq migrate brings a database to "
            "the schema of this version"
        ) from error
    except psycopg.Error as error:
        raise StoreError(f"cannot verify: {error.diag.message_primary or error}") from error
    assert samples is not None  # an aggregate without GROUP BY has one row
    return _report(damages, streams, samples)


def _report(
    damages: list[dict[str, Any]], streams: list[dict[str, Any]], samples: dict[str, int]
) -> Report:
    found = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for row in damages:
        stream_id = row["stream_id"]
        found[stream_id].append(Damage(row["kind"], row["first_row"], row["end_row"]))
        counts[stream_id] = row["damage_count"]
    totals = streams[0] if streams else defaultdict(int)
    own = {field.name for field in dataclasses.fields(StreamReport)}
    return Report(
        streams=tuple(
            StreamReport(
                **{name: value for name, value in row.items() if name in own},
                damages=tuple(found[row["stream_id"]]),
                damage_count=counts[row["stream_id"]],
            )
            for row in streams
        ),
        stream_count=totals["stream_count"],
        damaged_count=totals["damaged_count"],
        stored=totals["all_stored"],
        lease_rows=totals["all_lease_rows"],
        **samples,
    )
