"""What is a token, and what it may."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from telemq.token import SCOPES, Presented, Token, allows, bearer, digest_of, spell

_SECRET = "aB3-_" + "x" * 38
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_TOKEN = Token(7, "me", "read", digest_of(_SECRET), _NOW, None, None, None)


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER  {} "])
def test_a_token_is_read_as_it_was_printed(header: str) -> None:
    """RFC 9110: the scheme's name is in any case."""
    presented = bearer(header.format(spell(7, _SECRET)))
    assert presented == Presented(7, digest_of(_SECRET))
    assert _TOKEN.is_of(presented)


@pytest.mark.parametrize(
    "header",
    [
        "", "Bearer", "Bearer ", "telemq_7_" + _SECRET, "Basic dTpw", "Bearer telemq_7_short",
        f"Bearer telemq_0_{_SECRET}", f"Bearer telemq_07_{_SECRET}", f"Bearer telemq_7_{_SECRET}x",
        f"Bearer telemq_{'9' * 19}_{_SECRET}", f"Bearer telemq_٧_{_SECRET}",
        f"Bearer telemq_7_{_SECRET[:-1]}é", f"Bearer telemq_7_{_SECRET}\n", f"Bearer a {_SECRET}",
    ],
)  # fmt: skip
def test_anything_else_is_none(header: str) -> None:
    """A header by hand, of another product, or of somebody who tries; never asked of the store."""
    assert bearer(header) is None


def test_another_secret_of_the_same_number_is_not_taken() -> None:
    """Numbers are no secret: they count up from 1."""
    presented = bearer(f"Bearer {spell(7, 'y' * 43)}")
    assert presented is not None
    assert not _TOKEN.is_of(presented)


def test_each_scope_may_what_those_before_it_may() -> None:
    """An admin's token is used to look at the dashboard."""
    found = [(scope, needed) for scope in SCOPES for needed in SCOPES if allows(scope, needed)]
    assert [
        ("read", "read"), ("write", "read"), ("write", "write"),
        ("admin", "read"), ("admin", "write"), ("admin", "admin"),
    ] == found  # fmt: skip


def test_a_token_ends_at_its_moment_or_when_it_is_revoked() -> None:
    """Thirty days are over; somebody left."""
    lasting = replace(_TOKEN, expires_at=_NOW + timedelta(days=30))
    assert "live" == lasting.state(_NOW)
    assert "live" == lasting.state(_NOW + timedelta(days=30) - timedelta(microseconds=1))
    assert "expired" == lasting.state(_NOW + timedelta(days=30))
    assert "revoked" == replace(lasting, revoked_at=_NOW).state(_NOW + timedelta(days=99))


def test_neither_secret_nor_digest_is_ever_shown() -> None:
    """A token in a log line or a traceback."""
    presented = bearer(f"Bearer {spell(7, _SECRET)}")
    shown = f"{_TOKEN!r} {presented!r}"
    assert _SECRET not in shown
    assert repr(digest_of(_SECRET)) not in shown
