"""Exactly once, whatever fails and however often a batch comes: against a real Postgres."""

from __future__ import annotations

import itertools
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemq.store.leases import open_stream, reserve
from telemq.store.verify import verify
from telemq.store.writer import Writer
from tests.support.batches import stored_batch

BATCHES, ROWS = 6, 4

#: One attempt to store: which batches, which of them a constraint refuses, and where it dies.
attempts = st.tuples(
    st.lists(st.integers(0, BATCHES - 1), min_size=1, max_size=8),
    st.sampled_from([None, None, "before_commit", "after_commit"]),
)
_numbers = itertools.count()


class _DiedError(Exception):
    pass


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(attempts, max_size=8),
    st.sets(st.integers(0, BATCHES - 1), max_size=2),
    st.sets(st.integers(0, ROWS - 1), max_size=2),
)
def test_every_row_is_a_sample_or_a_dead_letter_exactly_once(
    conn: psycopg.Connection[Any],
    tried: list[tuple[list[int], str | None]],
    poisoned: set[int],
    bad: set[int],
) -> None:
    """Redeliveries, duplicates in one commit, refusals and deaths at both moments, in any order."""
    stream = f"s{next(_numbers)}"
    open_stream(conn, stream, "source")
    reserve(conn, stream, "a", batch_records=ROWS, batches=BATCHES, rows_max=0, lease_s=60)
    poison = ",".join(str(n * ROWS) for n in poisoned) or "-1"
    conn.execute("TRUNCATE sample")
    conn.execute("DELETE FROM ledger")
    conn.execute("DELETE FROM dead_letter")
    conn.execute("ALTER TABLE sample DROP CONSTRAINT IF EXISTS odd")
    conn.execute(f"ALTER TABLE sample ADD CONSTRAINT odd CHECK (value NOT IN ({poison}))")
    conn.execute("DELETE FROM stream_lease WHERE stream_id <> %s", (stream,))
    conn.execute("DELETE FROM stream_progress WHERE stream_id <> %s", (stream,))
    batches = [
        stored_batch(n * ROWS, ROWS, stream=stream, bad=tuple(sorted(bad - {0})))
        for n in range(BATCHES)
    ]

    for numbers, death in tried:

        def die(moment: str, death: str | None = death) -> None:
            if moment == death:
                raise _DiedError

        try:
            Writer(conn, fail_point=die).store([batches[n] for n in numbers])
        except _DiedError:
            assert verify(conn).complete
    Writer(conn).store(batches)

    report = verify(conn)
    assert report.complete, (report.problems, [s.problems for s in report.streams])
    assert 0 == report.lease_rows
    stored = [v for (v,) in conn.execute("SELECT value FROM sample ORDER BY value")]
    assert [
        row for row in range(BATCHES * ROWS)
        if row // ROWS not in poisoned and row % ROWS not in bad - {0}
    ] == stored  # fmt: skip
    assert BATCHES * ROWS - len(stored) == sum(s.dead_letter_rows for s in report.streams)
