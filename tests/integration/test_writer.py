"""What the promise of exactly once rests on: one transaction for ledger, samples and leases."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
import pytest

from telemq.errors import StoreError
from telemq.record import BatchId
from telemq.store.leases import Lease, open_stream, reserve, state
from telemq.store.writer import PAYLOAD_BYTES_MAX, REASON_MAX, Stored, StoredBatch, Writer
from tests.support.batches import NOW_US, labels, record_batch, stored_batch

Conn = psycopg.Connection[Any]


def _values(conn: Conn) -> list[float]:
    """Values of all samples, ascending: the rows that were stored, each as often as it is there."""
    return [v for (v,) in conn.execute("SELECT value FROM sample ORDER BY value")]


def _counts(conn: Conn) -> dict[str, int]:
    row = conn.execute(
        """
        SELECT (SELECT count(*) FROM sample), (SELECT count(*) FROM ledger),
               (SELECT count(*) FROM dead_letter), (SELECT count(*) FROM stream_lease)
        """
    ).fetchone()
    assert row is not None
    return dict(zip(("samples", "ledger", "dead_letters", "leases"), row, strict=True))


def test_records_come_out_as_they_went_in(conn: Conn) -> None:
    """Time to the microsecond, value to the last bit, and the labels of the right series."""
    batch = dataclasses.replace(
        record_batch(4, gpus=2), value=np.array([0.1, -1e308, 5e-324, 2.0**53 + 2])
    )
    Writer(conn).store([StoredBatch(BatchId("s", 0), 4, b"", batch)])
    rows = conn.execute("SELECT timestamp, uuid, value FROM telemetry ORDER BY timestamp")
    expected = [
        (datetime.fromtimestamp(NOW_US // 1_000_000, UTC).replace(microsecond=i), uuid, value)
        for i, (uuid, value) in enumerate(
            zip(["GPU-00000000", "GPU-00000001"] * 2, batch.value.tolist(), strict=True)
        )
    ]
    assert expected == rows.fetchall()


def test_many_batches_are_one_commit(conn: Conn) -> None:
    """What has piled up goes in together, and is told apart in the result."""
    moments: list[str] = []
    writer = Writer(conn, fail_point=moments.append)
    stored = writer.store([stored_batch(0), stored_batch(10, bad=(0, 3)), stored_batch(20)])
    assert Stored(batches=3, records=28, rejected=2) == stored
    assert ["before_commit", "after_commit"] == moments
    assert [v for v in range(30) if v not in (10, 13)] == _values(conn)
    assert [("s", 0, 10, 10, 0), ("s", 10, 10, 8, 2), ("s", 20, 10, 10, 0)] == conn.execute(
        "SELECT stream_id, first_row, row_count, stored, rejected FROM ledger ORDER BY 1, 2"
    ).fetchall()


def test_batch_that_is_stored_already_changes_nothing(conn: Conn) -> None:
    """A redelivery after a collector was killed between COMMIT and SETTLE."""
    Writer(conn).store([stored_batch(0, bad=(1,)), stored_batch(10)])
    again = Writer(conn).store([stored_batch(0, bad=(1,)), stored_batch(20)])
    assert Stored(batches=1, records=10, duplicates=1) == again
    assert [v for v in range(30) if v != 1] == _values(conn)
    assert 1 == _counts(conn)["dead_letters"]


def test_batch_that_comes_twice_in_one_call_is_stored_once(conn: Conn) -> None:
    """Published again while the first copy still waits in the same backlog."""
    stored = Writer(conn).store([stored_batch(0), stored_batch(10), stored_batch(0)])
    assert Stored(batches=2, records=20, duplicates=1) == stored
    assert list(range(20)) == _values(conn)


def test_identity_used_for_two_batches_is_told(conn: Conn) -> None:
    """A foreign producer numbers its rows from 0 again after a restart."""
    Writer(conn).store([stored_batch(0, 10)])
    stored = Writer(conn).store([stored_batch(0, 7), stored_batch(10)])
    assert (BatchId("s", 0),) == stored.disputed
    assert 1 == stored.duplicates
    assert list(range(20)) == _values(conn)


def test_commit_closes_the_leases_of_its_batches(conn: Conn) -> None:
    """The lease and the ledger change places in one transaction, so a row is never in neither."""
    open_stream(conn, "s", "source")
    leases = reserve(conn, "s", "a", batch_records=10, batches=3, rows_max=0, lease_s=60)
    assert Lease(10, 10) == leases[1]
    Writer(conn).store([stored_batch(0), stored_batch(20), stored_batch(0, stream="foreign")])
    assert (30, 1, 10) == dataclasses.astuple(state(conn, "s"))


def test_rejected_rows_become_dead_letters_with_row_and_reason(conn: Conn) -> None:
    """A cell of the CSV was no number."""
    Writer(conn).store([stored_batch(100, bad=(2, 5))])
    assert [
        ("s", 102, 1, "value is empty", b"row 2"),
        ("s", 105, 1, "value is empty", b"row 5"),
    ] == conn.execute(
        "SELECT stream_id, first_row, row_count, reason, payload FROM dead_letter ORDER BY 2"
    ).fetchall()


def test_batch_rejected_whole_accounts_for_all_its_rows(conn: Conn) -> None:
    """A payload that does not decode, with every byte that there is."""
    payload = bytes(range(256))
    batch = StoredBatch(BatchId("s", 7), 30, memoryview(payload), None, "not \0JSON")
    assert Stored(batches=1, rejected=30) == Writer(conn).store([batch])
    assert [("s", 7, 30, "not JSON", payload)] == conn.execute(
        "SELECT stream_id, first_row, row_count, reason, payload FROM dead_letter"
    ).fetchall()


def test_dead_letter_is_bounded(conn: Conn) -> None:
    """A reason and a payload out of all proportion; the reason tells what is missing."""
    payload = b"x" * (PAYLOAD_BYTES_MAX + 5)
    Writer(conn).store([StoredBatch(BatchId("s", 0), 1, payload, None, "why? " * 1000)])
    row = conn.execute("SELECT length(reason), length(payload), reason FROM dead_letter").fetchone()
    assert row is not None
    assert (REASON_MAX, PAYLOAD_BYTES_MAX) == row[:2]
    assert row[2].endswith(f"(payload cut at {PAYLOAD_BYTES_MAX} of {len(payload)} bytes)")


def test_samples_lie_sorted_by_series_and_time(conn: Conn) -> None:
    """A query of one GPU reads neighbouring pages; the COPY fills one leaf after the other."""
    Writer(conn).store([stored_batch(20), stored_batch(0), stored_batch(10)])
    rows = conn.execute("SELECT series_id, ts FROM sample ORDER BY ctid").fetchall()
    assert sorted(rows) == rows
    assert 30 == len(rows)


def test_records_of_several_days_find_their_partitions(conn: Conn) -> None:
    """A batch over midnight, and a replay of last year, in one commit."""
    last_year = NOW_US - 365 * 86_400_000_000
    midnight = NOW_US // 86_400_000_000 * 86_400_000_000
    batches = [
        StoredBatch(BatchId("s", n), 10, b"", record_batch(10, time_us=time_us))
        for n, time_us in enumerate((last_year, midnight - 5))
    ]
    assert 20 == Writer(conn).store(batches).records
    assert 3 == len(conn.execute("SELECT DISTINCT tableoid FROM sample").fetchall())


def test_nothing_is_stored_by_an_empty_call(conn: Conn) -> None:
    """Nothing had piled up."""
    assert Stored() == Writer(conn).store([])


def test_failure_before_the_commit_keeps_nothing(conn: Conn) -> None:
    """A collector dies just before COMMIT; the redelivered batch is stored as if new."""

    def die(moment: str) -> None:
        raise KeyboardInterrupt(moment)

    with pytest.raises(KeyboardInterrupt, match="before_commit"):
        Writer(conn, fail_point=die).store([stored_batch(0, bad=(1,))])
    assert {"samples": 0, "ledger": 0, "dead_letters": 0, "leases": 0} == _counts(conn)
    assert 9 == Writer(conn).store([stored_batch(0, bad=(1,))]).records


def test_failure_after_the_commit_keeps_all(conn: Conn) -> None:
    """A collector dies between COMMIT and SETTLE; the redelivered batch changes nothing."""

    def die(moment: str) -> None:
        if moment == "after_commit":
            raise KeyboardInterrupt(moment)

    with pytest.raises(KeyboardInterrupt, match="after_commit"):
        Writer(conn, fail_point=die).store([stored_batch(0)])
    assert Stored(duplicates=1) == Writer(conn).store([stored_batch(0)])
    assert list(range(10)) == _values(conn)


def test_writers_with_the_same_batches_store_each_once(dsn: str, conn: Conn) -> None:
    """A redelivery storm: every batch is with four collectors at once, in different orders."""
    results: list[Stored] = []

    def store(number: int) -> None:
        batches = [stored_batch(10 * n, stream=f"s{n % 3}", bad=(n % 10,)) for n in range(60)]
        rng = np.random.default_rng(number)
        with psycopg.connect(dsn, autocommit=True) as own:
            writer = Writer(own)
            order = rng.permutation(len(batches)).tolist()
            for start in range(0, len(order), 7):
                results.append(writer.store([batches[n] for n in order[start : start + 7]]))

    threads = [threading.Thread(target=store, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    total = sum(results, Stored())
    assert (60, 540, 60, 180) == (total.batches, total.records, total.rejected, total.duplicates)
    assert [10 * n + i for n in range(60) for i in range(10) if i != n % 10] == _values(conn)


def test_writers_do_not_wait_for_each_other_in_a_circle(dsn: str, conn: Conn) -> None:
    """Two collectors got the same batches in opposite orders; each ledger key takes its time."""
    conn.execute(
        """
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.03); RETURN NEW; END $$;
        CREATE TRIGGER dawdle BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION dawdle();
        """
    )
    barrier = threading.Barrier(2)
    results: list[Stored] = []

    def store(first_rows: list[int]) -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            writer = Writer(own)
            writer.store([stored_batch(0, stream="first, so that only the ledger is left")])
            barrier.wait(10)
            results.append(writer.store([stored_batch(row) for row in first_rows]))

    rows = [10 * n for n in range(8)]
    threads = [threading.Thread(target=store, args=(order,)) for order in (rows, rows[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [0, 8] == sorted(stored.batches for stored in results)


def test_zombie_that_commits_late_stores_nothing_again(dsn: str, conn: Conn) -> None:
    """A collector stood still in its transaction while another stored the batch before it."""
    entered, go_on = threading.Event(), threading.Event()

    def stand_still(moment: str) -> None:
        if moment == "before_commit":
            entered.set()
            assert go_on.wait(30)

    results: dict[str, Stored] = {}

    def store(name: str, fail_point: Callable[[str], None]) -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            results[name] = Writer(own, fail_point=fail_point).store([stored_batch(0)])

    zombie = threading.Thread(target=store, args=("zombie", stand_still))
    other = threading.Thread(target=store, args=("other", lambda _: None))
    zombie.start()
    assert entered.wait(30)
    other.start()
    _wait_for_lock(conn)
    go_on.set()
    zombie.join(30)
    other.join(30)
    assert {"zombie": Stored(batches=1, records=10), "other": Stored(duplicates=1)} == results
    assert list(range(10)) == _values(conn)


def _wait_for_lock(conn: Conn) -> None:
    """Wait until somebody waits for another transaction."""
    conn.execute(
        """
        DO $$ BEGIN
            FOR i IN 1..3000 LOOP
                EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE NOT granted);
                PERFORM pg_sleep(0.01);
            END LOOP;
        END $$
        """
    )


@pytest.mark.parametrize("poison", range(5))
def test_refused_batch_does_not_hold_up_the_others(conn: Conn, poison: int) -> None:
    """Somebody put a constraint on the table that a batch does not meet."""
    conn.execute(f"ALTER TABLE sample ADD CONSTRAINT odd CHECK (value <> {10 * poison + 4})")
    batches = [stored_batch(10 * n) for n in range(5)]
    stored = Writer(conn).store(batches)
    assert (5, 40, 10) == (stored.batches, stored.records, stored.rejected)
    ((refused, reason),) = stored.refused
    assert BatchId("s", 10 * poison) == refused
    assert 'violates check constraint "odd"' in reason
    letters = conn.execute("SELECT first_row, row_count, reason, payload FROM dead_letter")
    ((first_row, row_count, why, payload),) = letters.fetchall()
    assert (10 * poison, 10, batches[poison].payload) == (first_row, row_count, payload)
    assert f"Postgres refused the batch: {reason}" == why
    assert [v for v in range(50) if v // 10 != poison] == _values(conn)


def test_batch_that_a_trigger_refuses_is_kept_as_dead_letter(conn: Conn) -> None:
    """A site's own rule; asking again would never help."""
    Writer(conn).store([stored_batch(0)])
    conn.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'not on my table'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON sample FOR EACH ROW EXECUTE FUNCTION refuse();
        """
    )
    stored = Writer(conn).store([stored_batch(10), stored_batch(0)])
    assert ((BatchId("s", 10), "not on my table"),) == stored.refused
    assert 1 == stored.duplicates


def test_label_too_long_for_an_index_is_refused_for_its_batch_only(conn: Conn) -> None:
    """An attack: Postgres cannot index a key of 60 KB that does not compress."""
    rng = np.random.default_rng(1)
    uuid = "".join(map(chr, rng.integers(0x4E00, 0x9FFF, 20_000)))
    bad = dataclasses.replace(record_batch(3, gpus=1), series=(labels(uuid=uuid),))
    stored = Writer(conn).store([stored_batch(10), StoredBatch(BatchId("s", 0), 3, b"", bad)])
    assert [BatchId("s", 0)] == [batch for batch, _ in stored.refused]
    assert list(range(10, 20)) == _values(conn)


def test_dropped_partition_is_not_mistaken_for_bad_data(conn: Conn) -> None:
    """Somebody drops old days while a collector runs that remembers them."""
    writer = Writer(conn)
    yesterday = NOW_US - 86_400_000_000
    writer.store([StoredBatch(BatchId("s", 0), 5, b"", record_batch(5, time_us=yesterday))])
    day = datetime.fromtimestamp(yesterday / 1e6, UTC)
    conn.execute(f"DROP TABLE sample_{day:%Y%m%d}")
    late = StoredBatch(BatchId("s", 5), 5, b"", record_batch(5, time_us=yesterday))
    assert Stored(batches=1, records=5) == writer.store([late])


def test_missing_table_is_an_error_not_a_refusal(conn: Conn) -> None:
    """The schema is broken: nothing must be buried for that."""
    conn.execute("ALTER TABLE dead_letter RENAME TO elsewhere")
    with pytest.raises(StoreError, match='"dead_letter" does not exist'):
        Writer(conn).store([stored_batch(0, bad=(1,)), stored_batch(10)])
    conn.execute("ALTER TABLE elsewhere RENAME TO dead_letter")
    assert {"samples": 0, "ledger": 0, "dead_letters": 0, "leases": 0} == _counts(conn)


def test_changed_table_is_an_error_not_a_refusal(conn: Conn) -> None:
    """Somebody renamed a column: the dead letters could be written, and must not be."""
    conn.execute("ALTER TABLE sample RENAME COLUMN value TO reading")
    with pytest.raises(StoreError, match=r'column "value" .* does not exist'):
        Writer(conn).store([stored_batch(0)])
    assert {"samples": 0, "ledger": 0, "dead_letters": 0, "leases": 0} == _counts(conn)


def test_read_only_server_is_an_error_and_nothing_is_lost(conn: Conn) -> None:
    """A failover left us on the standby; after it, the same call goes through."""
    writer = Writer(conn)
    conn.execute("SET default_transaction_read_only = on")
    with pytest.raises(StoreError, match="read-only transaction"):
        writer.store([stored_batch(0)])
    conn.execute("SET default_transaction_read_only = off")
    assert Stored(batches=1, records=10) == writer.store([stored_batch(0)])


def test_lost_connection_is_an_error_and_nothing_is_kept(dsn: str, conn: Conn) -> None:
    """Postgres is restarted in the middle of a commit."""
    with psycopg.connect(dsn, autocommit=True) as own:

        def cut(moment: str) -> None:
            if moment == "before_commit":
                conn.execute("SELECT pg_terminate_backend(%s)", (own.info.backend_pid,))

        with pytest.raises(StoreError, match=r"terminat|closed"):
            Writer(own, fail_point=cut).store([stored_batch(0)])
        assert own.closed
    assert {"samples": 0, "ledger": 0, "dead_letters": 0, "leases": 0} == _counts(conn)
