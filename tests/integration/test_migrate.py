"""Bringing a real database to the schema: in order, once, by one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from telemq.errors import StoreError
from telemq.settings import KeepSettings
from telemq.store.maintain import maintain
from telemq.store.migrate import MIGRATE_LOCK, Migration, migrate, migrations
from telemq.store.verify import verify
from tests.support.postgres import Databases

ONE = Migration("0001_one", "CREATE TABLE one (a int); INSERT INTO one VALUES (1);")
TWO = Migration("0002_two", "ALTER TABLE one ADD b int DEFAULT 2")


@pytest.fixture
def empty_dsn(postgres: Databases) -> Iterator[str]:
    """The DSN of a database without any table."""
    with postgres.fresh(migrated=False) as dsn:
        yield dsn


@pytest.fixture
def empty(empty_dsn: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection to it."""
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        yield conn


def names(conn: psycopg.Connection) -> list[str]:
    rows = conn.execute("SELECT name FROM schema_migration ORDER BY applied_at").fetchall()
    return [name for (name,) in rows]


def test_package_migrations_give_the_schema(empty: psycopg.Connection) -> None:
    """The first component to start on a new database; the second finds nothing to do."""
    known = [migration.name for migration in migrations()]
    assert "0001_store" == known[0]
    assert known == migrate(empty)
    assert (0,) == empty.execute("SELECT count(*) FROM telemetry").fetchone()
    assert [] == migrate(empty)
    assert known == names(empty)


def test_database_of_the_version_before_keeps_its_samples_and_its_old_programs(
    empty: psycopg.Connection,
) -> None:
    """A rolling upgrade: the schema is new, and a collector and a gateway are still old."""
    before = [m for m in migrations() if m.name < "0003"]
    assert 2 == len(before)
    migrate(empty, before)
    old_writes = (
        "CREATE TABLE {0} (LIKE sample INCLUDING ALL)",
        "ALTER TABLE sample ATTACH PARTITION {0}"
        " FOR VALUES FROM ('{1} 00:00+00') TO ('{2} 00:00+00')",
        "INSERT INTO sample SELECT 1, '{1} 10:00+00'::timestamptz + n * interval '1 s', n / 8.0"
        " FROM generate_series(0, 4999) AS n",
        "INSERT INTO ledger VALUES ('s', {3}, 5000, 5000, 0)",
    )
    empty.execute(
        "INSERT INTO gpu (uuid, gpu_id, device, model_name, hostname)"
        " VALUES ('U', '0', 'd', 'm', 'h');"
        "INSERT INTO series (fingerprint, gpu, metric_name, gpu_id, device, model_name, hostname,"
        " container, pod, namespace, labels_raw)"
        " VALUES ('0123456789abcdef', 1, 'M', '0', 'd', 'm', 'h', '', '', '', '')"
    )
    for statement in old_writes:
        empty.execute(statement.format("sample_20260301", "2026-03-01", "2026-03-02", 0).encode())
    old_telemetry = empty.execute("SELECT * FROM telemetry ORDER BY timestamp").fetchall()
    assert [m.name for m in migrations()[2:]] == migrate(empty)
    assert old_telemetry == empty.execute("SELECT * FROM telemetry ORDER BY timestamp").fetchall()
    # The old programs go on: one makes a partition and stores, one reads.
    for statement in old_writes:
        empty.execute(
            statement.format("sample_20260302", "2026-03-02", "2026-03-03", 5000).encode()
        )
    assert (10_000,) == empty.execute("SELECT count(*) FROM sample").fetchone()
    assert verify(empty).complete
    before_pass = empty.execute("SELECT * FROM telemetry ORDER BY timestamp").fetchall()
    done = maintain(empty, KeepSettings(), now=datetime(2026, 3, 9, tzinfo=UTC))
    assert 10_000 == done.moved
    assert before_pass == empty.execute("SELECT * FROM telemetry ORDER BY timestamp").fetchall()
    assert verify(empty).complete


def test_only_what_is_missing_is_applied(empty: psycopg.Connection) -> None:
    """An upgrade."""
    assert ["0001_one"] == migrate(empty, [ONE])
    assert ["0002_two"] == migrate(empty, [ONE, TWO])
    assert (1, 2) == empty.execute("SELECT a, b FROM one").fetchone()


def test_failed_migration_leaves_nothing_of_itself(empty: psycopg.Connection) -> None:
    """A bad migration on data that nobody thought of: those before it stay, it does not."""
    bad = Migration("0002_bad", "CREATE TABLE half (a int); SELECT 1/0;")
    with pytest.raises(StoreError, match="0002_bad: division by zero"):
        migrate(empty, [ONE, bad])
    assert ["0001_one"] == names(empty)
    assert (None,) == empty.execute("SELECT to_regclass('half')").fetchone()


def test_components_that_start_at_once_apply_each_once(empty_dsn: str) -> None:
    """`telemq up` on a new database: everybody migrates first."""
    together = threading.Barrier(6)

    def start() -> list[str]:
        with psycopg.connect(empty_dsn, autocommit=True) as conn:
            together.wait(10)
            return migrate(conn, [ONE, TWO])

    with ThreadPoolExecutor(6) as pool:
        applied = [
            name for future in [pool.submit(start) for _ in range(6)] for name in future.result()
        ]
    assert ["0001_one", "0002_two"] == sorted(applied)


def test_edited_migration_is_refused(empty: psycopg.Connection) -> None:
    """Somebody mends a typing error in a released migration."""
    migrate(empty, [ONE])
    with pytest.raises(StoreError, match="0001_one was edited"):
        migrate(empty, [replace(ONE, sql=ONE.sql + " ")])


def test_database_ahead_of_the_code_is_used_as_it_is(empty: psycopg.Connection) -> None:
    """A rolling upgrade: an old collector restarts after a new one has migrated."""
    migrate(empty, [ONE, TWO])
    assert [] == migrate(empty, [ONE])


@pytest.mark.parametrize("strange", ["0000_theirs", "0003_theirs"])
def test_database_of_other_code_is_refused(empty: psycopg.Connection, strange: str) -> None:
    """The DSN names the database of a fork, whose history is not ours."""
    migrate(empty, [ONE])
    empty.execute("INSERT INTO schema_migration VALUES (%s, 'x')", [strange])
    with pytest.raises(StoreError, match=f"other code.*{strange}|{strange}.*other code"):
        migrate(empty, [ONE, TWO])
    assert ["0001_one", strange] == names(empty)


def test_reader_that_blocks_is_named(empty: psycopg.Connection, empty_dsn: str) -> None:
    """Somebody left psql open in a transaction."""
    migrate(empty, [ONE])
    with psycopg.connect(empty_dsn, application_name="left-open") as reader:
        reader.execute("SELECT * FROM one")
        pid = reader.info.backend_pid
        with pytest.raises(StoreError, match=rf"0002_two.*pid {pid} \(left-open, idle in trans"):
            migrate(empty, [ONE, TWO], lock_wait_s=0.2)
    assert ["0002_two"] == migrate(empty, [ONE, TWO])


def test_another_process_that_migrates_is_waited_for_within_a_limit(
    empty: psycopg.Connection, empty_dsn: str
) -> None:
    """A migration of another component takes long, or hangs."""
    with psycopg.connect(empty_dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATE_LOCK])
        with pytest.raises(StoreError, match=f"no lock within 0.2 s.*pid {other.info.backend_pid}"):
            migrate(empty, [ONE], lock_wait_s=0.2)


def test_session_is_left_as_it_was(empty: psycopg.Connection) -> None:
    """The caller goes on with the same connection."""
    before = empty.execute("SHOW lock_timeout").fetchone()
    migrate(empty, [ONE])
    assert before == empty.execute("SHOW lock_timeout").fetchone()
    assert psycopg.pq.TransactionStatus.IDLE == empty.info.transaction_status


def test_connection_without_autocommit_is_committed(
    empty: psycopg.Connection, empty_dsn: str
) -> None:
    """A caller who forgets autocommit must not lose the schema when it closes."""
    with psycopg.connect(empty_dsn) as conn:
        migrate(conn, [ONE])
        conn.rollback()
    assert ["0001_one"] == names(empty)
