"""Bring a database to the schema that this version of the code needs.

The migrations are the numbered ``.sql`` files of the package, applied in order of their names, each
in a transaction of its own together with its line in ``schema_migration``. An advisory lock, held
for that transaction, lets every component call `migrate` first: one applies, the others wait and
find it done. A migration that was applied is never edited: its checksum is compared on every start.

Old and new code run side by side while an upgrade rolls through, so a database that is ahead of
the code is used as it is; migrations must therefore stay readable by the version before them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import LiteralString

import psycopg

from telemq import log
from telemq.errors import StoreError

__all__ = ["MIGRATE_LOCK", "SERVER_VERSION_MIN", "Migration", "migrate", "migrations"]

#: Oldest Postgres that is supported, as ``server_version_num``.
SERVER_VERSION_MIN = 150_000
#: Key of the advisory lock: "telemq" in ASCII, so that nobody else takes it by chance.
MIGRATE_LOCK = int.from_bytes(b"telemq")

_TABLE = b"""
CREATE TABLE IF NOT EXISTS schema_migration (
    name        text PRIMARY KEY,
    checksum    text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
)"""

# Who may be in the way: pg_blocking_pids answers only while we wait, and then we cannot ask.
_OPEN_TRANSACTIONS: LiteralString = """
SELECT pid, application_name, state, round(extract(epoch FROM clock_timestamp() - xact_start))
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND xact_start < clock_timestamp() - make_interval(secs => %s)
ORDER BY xact_start LIMIT 5"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered ``.sql`` file.

    Attributes:
        name: file name without ``.sql``, such as ``0001_store``.
        sql: its text.
    """

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, the same whatever the line ends of the checkout are."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Give the migrations that this version of the code knows, in order."""
    folder = files("telemq.store") / "migrations"
    return sorted(
        (
            Migration(entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8"))
            for entry in folder.iterdir()
            if entry.name.endswith(".sql")
        ),
        key=lambda migration: migration.name,
    )


def migrate(
    conn: psycopg.Connection, known: list[Migration] | None = None, *, lock_wait_s: float = 10.0
) -> list[str]:
    """Apply what is missing; give the names of what was applied, in order.

    Args:
        conn: must not be in a transaction.
        known: the migrations; those of the package unless given.
        lock_wait_s: longest wait for each lock. Readers queue behind a migration that waits, so
            this is also how long they may be held up.

    Raises:
        StoreError: the server is too old, an applied migration was edited, the database was
            migrated by other code, or a lock was not had in time. What was applied before stays.
    """
    if conn.info.server_version < SERVER_VERSION_MIN:
        raise StoreError(
            f"Postgres {conn.info.server_version // 10_000} is not supported; "
            f"it must be {SERVER_VERSION_MIN // 10_000} or later"
        )
    known = migrations() if known is None else known
    done: list[str] = []
    for migration in _missing(conn, known):
        try:
            if _apply(conn, migration, known, lock_wait_s):
                done.append(migration.name)
        except psycopg.errors.LockNotAvailable as error:
            raise StoreError(
                f"migration {migration.name}: no lock within {lock_wait_s:g} s; "
                f"{_in_the_way(conn, lock_wait_s)}"
            ) from error
        except psycopg.Error as error:
            raise StoreError(f"migration {migration.name}: {error}") from error
    if done:
        log.get().info("schema migrated", applied=done)
    return done


def _apply(
    conn: psycopg.Connection, migration: Migration, known: list[Migration], lock_wait_s: float
) -> bool:
    """Apply one migration unless another process did so while this one waited for the lock."""
    with conn.transaction():
        conn.execute("SELECT set_config('lock_timeout', %s, true)", [f"{lock_wait_s * 1000:.0f}ms"])
        conn.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATE_LOCK])
        conn.execute(_TABLE)
        if migration not in _missing(conn, known):
            return False
        conn.execute(migration.sql.encode())
        conn.execute(
            "INSERT INTO schema_migration (name, checksum) VALUES (%s, %s)",
            [migration.name, migration.checksum],
        )
        return True


def _missing(conn: psycopg.Connection, known: list[Migration]) -> list[Migration]:
    """Give what is not applied yet, after comparing what is."""
    with conn.transaction():
        if conn.execute("SELECT to_regclass('schema_migration')").fetchone() == (None,):
            return known
        found = conn.execute("SELECT name, checksum FROM schema_migration").fetchall()
    applied: dict[str, str] = dict(found)
    missing: list[Migration] = []
    for migration in known:
        checksum = applied.pop(migration.name, None)
        if checksum is None:
            missing.append(migration)
        elif checksum != migration.checksum:
            raise StoreError(
                f"migration {migration.name} was edited after it was applied here; "
                "put its text back and add a new migration instead"
            )
    newest = known[-1].name if known else ""
    if strange := sorted(name for name in applied if name < newest):
        raise StoreError(f"the database was migrated by other code: it has {', '.join(strange)}")
    if applied:
        log.get().warning("database is ahead of this version", ahead=sorted(applied))
        if missing:
            raise StoreError(
                f"the database has {', '.join(sorted(applied))} but lacks "
                f"{', '.join(m.name for m in missing)}; it was migrated by other code"
            )
    return missing


def _in_the_way(conn: psycopg.Connection, lock_wait_s: float) -> str:
    with conn.transaction():
        found = conn.execute(_OPEN_TRANSACTIONS, [lock_wait_s]).fetchall()
    if not found:
        return "whoever held it is gone now, so try again"
    sessions = "; ".join(
        f"pid {pid} ({name or 'unnamed'}, {state}, open for {seconds} s)"
        for pid, name, state, seconds in found
    )
    return f"end these transactions first: {sessions}"
