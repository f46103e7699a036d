"""Tokens in the store: made, listed and revoked by people, looked up by gateways."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, LiteralString, TypeAlias

import psycopg
from psycopg.rows import class_row

from telemq import log
from telemq.certificate import check_name
from telemq.errors import SettingError
from telemq.token import SCOPES, Presented, Token, digest_of, spell

__all__ = ["Connect", "find_token", "list_tokens", "new_token", "revoke_token"]

#: How a gateway gets a connection that may write.
Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]]

_SECRET_BYTES = 32
_DAYS_MAX = 36_500
_COLUMNS: LiteralString = "id, name, scope, digest, made_at, expires_at, revoked_at, used_at"
#: One statement a minute of each token that is used, and only if it would change something.
_USED: LiteralString = (
    "UPDATE api_token SET used_at = now() WHERE id = %s"
    " AND (used_at IS NULL OR used_at < now() - interval '1 minute')"
)


def new_token(
    conn: psycopg.Connection[Any], name: str, scope: str, *, days: float | None = None
) -> tuple[Token, str]:
    """Make a token; gives its line, and its text, which nobody can find out afterwards.

    Args:
        conn: to the store.
        name: who gets it; one that no token has that is not revoked.
        scope: one of `SCOPES`.
        days: until it expires; None is never.

    Raises:
        SettingError: name, scope or days are not accepted.
    """
    check_name(name)
    if scope not in SCOPES:
        raise SettingError("--scope", scope, "one of " + ", ".join(SCOPES))
    if days is not None and not 0 < days <= _DAYS_MAX:
        raise SettingError("--days", days, f"more than 0, {_DAYS_MAX:,} at most")
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    lasts = None if days is None else timedelta(days=days)
    with conn.cursor(row_factory=class_row(Token)) as cursor:
        cursor.execute(
            "INSERT INTO api_token (name, scope, digest, expires_at)"
            " VALUES (%s, %s, %s, now() + %s::interval)"
            " ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING RETURNING " + _COLUMNS,
            [name, scope, digest_of(secret), lasts],
        )
        token = cursor.fetchone()
    if token is None:
        raise SettingError("NAME", name, f"a name that is free: telemq tokens revoke {name} first")
    return token, spell(token.id, secret)


def list_tokens(conn: psycopg.Connection[Any]) -> list[Token]:
    """Give every token that was ever made, the oldest first."""
    with conn.cursor(row_factory=class_row(Token)) as cursor:
        return cursor.execute(f"SELECT {_COLUMNS} FROM api_token ORDER BY id").fetchall()


def revoke_token(conn: psycopg.Connection[Any], name: str) -> None:
    """Let a token open nothing any more; gateways that know it forget it within seconds.

    Raises:
        SettingError: no token of that name is left to be revoked.
    """
    gone = conn.execute(
        "UPDATE api_token SET revoked_at = now() WHERE name = %s AND revoked_at IS NULL", [name]
    )
    if not gone.rowcount:
        rows = conn.execute(
            "SELECT name FROM api_token WHERE revoked_at IS NULL ORDER BY name LIMIT 20"
        )
        names = ", ".join(name for (name,) in rows) or "there is none"
        raise SettingError("NAME", name[:80], f"one that telemq tokens list shows: {names}")


async def find_token(connect: Connect, presented: Presented) -> Token | None:
    """Look up the line that a client claims, and note that it is used if it is the client's.

    Raises:
        StoreError: from `connect`: the database cannot be used.
    """
    async with connect() as conn:
        async with conn.cursor(row_factory=class_row(Token)) as cursor:
            await cursor.execute(f"SELECT {_COLUMNS} FROM api_token WHERE id = %s", [presented.id])
            token = await cursor.fetchone()
        if token is not None and token.is_of(presented):
            await _note_use(conn, token)
    return token


async def _note_use(conn: psycopg.AsyncConnection[Any], token: Token) -> None:
    try:
        await conn.execute(_USED, [token.id])
    except psycopg.errors.ReadOnlySqlTransaction:
        # A gateway may ask a standby: then nobody knows when it was used.
        log.get().debug("use of a token not noted: the database is read-only", token=token.name)
