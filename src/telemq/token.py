"""What a token is, and what it may; pure.

A token is text that a client sends as ``Authorization: Bearer telemq_ID_SECRET``. ID is the number
of its line in the store, so that a line is found without comparing secrets; SECRET is 256 random
bits in base64url, of which only the SHA-256 is kept. It is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias, get_args

__all__ = ["SCOPES", "Presented", "Scope", "Token", "allows", "bearer", "digest_of", "spell"]

Scope: TypeAlias = Literal["read", "write", "admin"]
#: Each scope may what those before it may.
SCOPES: tuple[Scope, ...] = get_args(Scope)

_TOKEN = re.compile(r"telemq_([1-9][0-9]{0,17})_([A-Za-z0-9_-]{43})", re.ASCII)
_BEARER = re.compile(r"bearer +(\S+) *", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Presented:
    """A token as a client sends it.

    Attributes:
        id: of the line that it claims.
        digest: of its secret; the secret itself is kept nowhere.
    """

    id: int
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the store has it.

    Attributes:
        id: its number.
        name: who has it.
        scope: what it may.
        digest: SHA-256 of its secret.
        made_at: when.
        expires_at: None is never.
        revoked_at: None while it is not.
        used_at: when it was used last, to the minute.
    """

    id: int
    name: str
    scope: Scope
    digest: bytes = field(repr=False)
    made_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None

    def is_of(self, presented: Presented) -> bool:
        """Whether the client has this token's secret; takes as long either way."""
        return hmac.compare_digest(self.digest, presented.digest)

    def state(self, now: datetime) -> Literal["live", "expired", "revoked"]:
        """Give whether it opens anything at a moment."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "live"


def bearer(header: str) -> Presented | None:
    """Read an ``Authorization`` header; None if it holds no token of telemq's."""
    found = _BEARER.fullmatch(header)
    parts = _TOKEN.fullmatch(found[1]) if found else None
    return Presented(int(parts[1]), digest_of(parts[2])) if parts else None


def digest_of(secret: str) -> bytes:
    """Give what is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def spell(id: int, secret: str) -> str:
    """Give the token's text."""
    return f"telemq_{id}_{secret}"


def allows(scope: Scope, needed: Scope) -> bool:
    """Whether a token of this scope may do what needs that one."""
    return SCOPES.index(scope) >= SCOPES.index(needed)
