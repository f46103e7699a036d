"""Tokens for tests: made as `telemq tokens new` makes them."""

from __future__ import annotations

import psycopg

from telemq.store.tokens import new_token

__all__ = ["bearer_of"]


def bearer_of(
    conn: psycopg.Connection, name: str = "tester", scope: str = "read", days: float | None = None
) -> dict[str, str]:
    """Make a token; gives the headers that a client sends with it."""
    _, text = new_token(conn, name, scope, days=days)
    return {"Authorization": f"Bearer {text}"}
