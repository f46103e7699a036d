"""``telemq tokens``, as a person or a script runs it."""

from __future__ import annotations

import json
import re

import psycopg

from tests.support.commands import telemq


def test_a_token_is_made_listed_and_revoked(dsn: str) -> None:
    """A colleague wants to look: the token is on standard output alone, for a pipe."""
    env = {"TELEMQ_DSN": dsn}
    made = telemq("tokens", "new", "me", "--scope", "read", "--days", "30", **env)
    assert 0 == made.returncode, made.stderr
    assert re.fullmatch(r"telemq_1_[A-Za-z0-9_-]{43}\n", made.stdout)
    assert "not shown again" in made.stderr
    assert made.stdout.strip() not in made.stderr

    listed = telemq("tokens", "list", **env)
    assert re.search(r"me +read +live ", listed.stdout)
    assert 0 == telemq("tokens", "revoke", "me", **env).returncode
    listed = telemq("tokens", "list", "--json", **env)
    (token,) = json.loads(listed.stdout)["tokens"]
    assert ("me", "revoked", None) == (token["name"], token["state"], token["used_at"])
    assert not {"digest", "token"} & token.keys()

    again = telemq("tokens", "revoke", "me", **env)
    assert 2 == again.returncode
    assert "there is none" in again.stderr


def test_a_script_gets_json(dsn: str) -> None:
    """Provisioning."""
    made = telemq("tokens", "new", "ci", "--scope", "admin", "--json", TELEMQ_DSN=dsn)
    values = json.loads(made.stdout)
    assert values["token"].startswith("telemq_1_")
    assert ("admin", "live", None) == (values["scope"], values["state"], values["expires_at"])
    assert "" == made.stderr


def test_a_slip_is_named(dsn: str, conn: psycopg.Connection) -> None:
    """A scope that there is not; a database without the table."""
    slip = telemq("tokens", "new", "me", "--scope", "all", TELEMQ_DSN=dsn)
    assert 2 == slip.returncode
    assert "read, write, admin" in slip.stderr
    conn.execute("DROP TABLE api_token")
    old = telemq("tokens", "list", TELEMQ_DSN=dsn)
    assert 1 == old.returncode
    assert "telemq migrate" in old.stderr
