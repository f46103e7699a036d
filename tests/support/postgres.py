"""Databases for tests: one embedded server a session, a fresh migrated database a test."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from telemq.store.embedded import EmbeddedPostgres
from telemq.store.migrate import migrate

__all__ = ["Databases", "serve"]

#: Tests do not outlive a power cut, and a commit without fsync takes a tenth of the time.
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Databases:
    """Hands out databases of one running server, copies of a migrated one."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._numbers = itertools.count(1)
        with psycopg.connect(dsn, autocommit=True) as conn:
            migrate(conn)

    @contextlib.contextmanager
    def fresh(self, *, migrated: bool = True) -> Iterator[str]:
        """Yield the DSN of a database of its own; dropped afterwards whoever is connected."""
        name = f"test_{next(self._numbers)}"
        template = "telemq" if migrated else "template0"
        admin = make_conninfo(self.dsn, dbname="postgres")
        with psycopg.connect(admin, autocommit=True) as conn:
            conn.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        try:
            yield make_conninfo(self.dsn, dbname=name)
        finally:
            with psycopg.connect(admin, autocommit=True) as conn:
                conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextlib.contextmanager
def serve(data_dir: Path) -> Iterator[Databases]:
    """Run a server in `data_dir` that trades safety for speed."""
    with EmbeddedPostgres(data_dir, options=_FAST) as dsn:
        yield Databases(dsn)
