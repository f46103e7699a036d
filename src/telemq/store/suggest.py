"""Names that begin with what somebody has typed, for shell completion: at once, or not at all.

Bounded whatever the size of the database: tables of names are small, and of the series only the
newest are looked at.
"""

from __future__ import annotations

from typing import Literal, LiteralString

import psycopg

__all__ = ["Kind", "suggest"]

Kind = Literal["gpu", "host", "model", "metric", "namespace"]

#: More than anybody reads; a shell asks before it shows more than a hundred.
_MOST = 200
_STATEMENT_MS = 1000
_NEWEST: LiteralString = "(SELECT * FROM series ORDER BY id DESC LIMIT 20000) AS s"
_NAMES: dict[Kind, LiteralString] = {
    # As people name them; a UUID only when one was begun.
    "gpu": "SELECT hostname || '/' || gpu_id AS name FROM gpu"
    " UNION SELECT uuid FROM gpu WHERE %(typed)s <> ''",
    "host": "SELECT hostname AS name FROM gpu",
    "model": "SELECT model_name AS name FROM gpu",
    "metric": f"SELECT metric_name AS name FROM {_NEWEST}",
    "namespace": f"SELECT namespace AS name FROM {_NEWEST}",
}


def suggest(dsn: str, kind: Kind, typed: str) -> list[str]:
    """Give names that begin with `typed`, sorted.

    Raises:
        psycopg.Error: the database does not answer at once.
    """
    with psycopg.connect(
        dsn, autocommit=True, application_name="telemq completion", connect_timeout=2
    ) as conn:
        conn.execute(f"SET statement_timeout = {_STATEMENT_MS}")
        rows = conn.execute(
            f'SELECT DISTINCT name COLLATE "C" FROM ({_NAMES[kind]}) AS names'
            " WHERE name <> '' AND starts_with(name, %(typed)s) ORDER BY 1 LIMIT %(most)s",
            {"typed": typed, "most": _MOST},
        )
        return [name for (name,) in rows]
