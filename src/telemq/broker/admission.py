"""Who may connect where: the allow-list as the broker holds it.

Pure: the keys come in, decisions come out. Whatever is not in the list is denied.
"""

from __future__ import annotations

from collections.abc import Iterable

from telemq.broker.peers import PeerId
from telemq.keys import AllowedKey
from telemq.protocol import Role

__all__ = ["DENIALS", "Admission"]

#: Why a handshake fails, as metrics and logs call it.
DENIALS = {
    "unknown_key": "its key is not allowed here",
    "wrong_role": "its key is for the other endpoint",
    "no_key": "it uses no key, or not CURVE",
    "wrong_broker_key": "it takes this broker for another: its --broker-key is not this one's",
    "handshake": "its handshake was cut off, took too long or made no sense",
}
_ROLES: tuple[Role, ...] = ("producer", "consumer")


class Admission:
    """The allow-list, by public key and by what libzmq attaches to messages.

    Args:
        keys: who is allowed, to begin with.
    """

    def __init__(self, keys: Iterable[AllowedKey]) -> None:
        self._by_public: dict[bytes, AllowedKey] = {}
        self._admitted: frozenset[tuple[str, str]] = frozenset()
        self.replace(keys)

    def __len__(self) -> int:
        return len(self._by_public)

    def user_of(self, domain: str, public: bytes) -> tuple[str, str]:
        """Decide on a handshake.

        Args:
            domain: the endpoint's role.
            public: the peer's key, in Z85.

        Returns:
            The user id and an empty text; or an empty user id and the denial, one of `DENIALS`.
        """
        key = self._by_public.get(public)
        if key is None:
            return "", "unknown_key"
        if (domain, key.user_id) not in self._admitted:
            return "", "wrong_role"
        return key.user_id, ""

    def admits(self, peer: PeerId) -> bool:
        """Tell whether a message of this connection is to be heard."""
        return (peer.role, peer.key) in self._admitted

    def replace(self, keys: Iterable[AllowedKey]) -> list[tuple[Role, str]]:
        """Take another list; gives each role and user id that was admitted and is no more."""
        before = self._admitted
        self._by_public = {key.public: key for key in keys}
        self._admitted = frozenset(
            (role, key.user_id)
            for key in self._by_public.values()
            for role in _ROLES
            if key.role in (role, "admin")
        )
        gone = before - self._admitted
        return sorted((role, user) for role in _ROLES for was, user in gone if was == role)
