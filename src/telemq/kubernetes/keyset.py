"""The keys of a chart's pods, made once: three Secrets that must fit together.

::

    broker's       broker.key, broker.key_secret, streamer.key, collector.key: what is mounted;
                   streamer.key_secret, collector.key_secret: where the other two come from
    streamer's     streamer.key_secret, broker.key
    collector's    collector.key_secret, broker.key

The API has no transactions, and whoever makes the Secrets can die after any call or run twice at
once. So one Secret, the broker's, is *the set*: a single ``create`` makes all three pairs at once,
or none. The other two Secrets are copies of its parts. That gives every case an answer:

- Dead before the set: nothing is there. Dead after it: the next run copies what is missing.
- Two at once: one ``create`` of the set wins; the other is told 409, reads the winner's, and
  forgets its own pairs, which nobody has seen. Copies of one set are equal, whoever makes them.
- No answer to a ``create``: it is asked again; 409 then, and the set is read, whoever made it.
- A copy without a set: somebody deleted the set, and new keys would lock the copy's pods out. It
  is refused. Copies are read *before* the set: as the set always comes first, a copy that was seen
  with no set afterwards is no run of ours that is under way.
- A copy that is there is left as it is, and compared: its key must be the one that the set allows,
  and its broker key the set's. What does not fit is refused, not repaired.

The peers' secret keys lie in the broker's Secret but are not mounted into its pod, so whoever takes
the broker over does not have them. Who can read that Secret by the API has the whole set; that is
who can be the broker, which sees every message anyway.
An operator may add public keys to the broker's Secret, or replace a peer's key in both Secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import zmq

from telemq.certificate import PUBLIC, SECRET, certificate, is_key, parse
from telemq.errors import KubernetesError, SettingError

__all__ = ["SecretNames", "Secrets", "make_key_secrets"]

#: Whose pairs there are, and in which role.
_ROLES = {"broker": "broker", "streamer": "producer", "collector": "consumer"}
_BROKER = "broker"
_NAME_BYTES_MAX = 253


class Secrets(Protocol):
    """Where Secrets are; see `telemq.kubernetes.api.SecretsApi`."""

    def get(self, name: str) -> dict[str, bytes] | None:
        """Give a Secret's data; None when there is none."""

    def create(self, name: str, data: dict[str, str]) -> bool:
        """Create a Secret; False when there is one."""


@dataclass(frozen=True, slots=True)
class SecretNames:
    """What the three Secrets are called.

    Attributes:
        broker: the set.
        streamer: what streamers mount.
        collector: what collectors mount.

    Raises:
        SettingError: a name is not one that Kubernetes accepts, or two are the same.
    """

    broker: str
    streamer: str
    collector: str

    def __post_init__(self) -> None:
        """Check what comes from the command line."""
        names = {"broker": self.broker, "streamer": self.streamer, "collector": self.collector}
        for whose, name in names.items():
            if not _is_name(name):
                accepted = "a Secret's name: lower-case letters, digits, '-' and '.'"
                raise SettingError(f"--{whose}-secret", name, accepted)
            if list(names.values()).count(name) > 1:
                raise SettingError(f"--{whose}-secret", name, "another name than the others")


def make_key_secrets(secrets: Secrets, names: SecretNames) -> dict[str, bool]:
    """Make what is missing of the three Secrets; leave what is there, and check that it fits.

    Returns:
        By the Secret's name, in the order of the calls: whether it was made now.

    Raises:
        SettingError: what is there does not fit together; nothing of it was changed, and pods of
            the Secrets that do fit can run.
        KubernetesError: from `secrets`; the next run completes what this one began.
    """
    peers = {"streamer": names.streamer, "collector": names.collector}
    found = {whose: secrets.get(name) for whose, name in peers.items()}
    keys = secrets.get(names.broker)
    made = {names.broker: False}
    if keys is None:
        orphans = [name for whose, name in peers.items() if found[whose] is not None]
        if orphans:
            raise _unfit(names, f"there, because {' and '.join(orphans)} hold keys for it")
        fresh = _new_set()
        made[names.broker] = secrets.create(names.broker, fresh)
        if made[names.broker]:
            keys = {entry: text.encode() for entry, text in fresh.items()}
        else:
            keys = _get(secrets, names.broker)
    _check_set(keys, names)
    for whose, name in peers.items():
        copy = found[whose]
        made[name] = False
        if copy is None:
            fresh = _copy(keys, whose, names)
            made[name] = secrets.create(name, fresh)
            # Also when it was made now by somebody else: it may have been put there by hand.
            copy = None if made[name] else _get(secrets, name)
        if copy is not None:
            _check_copy(keys, copy, whose, names, name)
    return made


def _new_set() -> dict[str, str]:
    entries = {}
    for whose, role in _ROLES.items():
        public, secret = zmq.curve_keypair()
        entries[whose + PUBLIC] = certificate(whose, role, public)
        entries[whose + SECRET] = certificate(whose, role, public, secret)
    return entries


def _copy(keys: Mapping[str, bytes], whose: str, names: SecretNames) -> dict[str, str]:
    """Give the data of a peer's Secret, from the set."""
    if _pair(keys, whose) != _public(keys, whose):
        accepted = (
            f"one whose {whose}{SECRET} belongs to its {whose}{PUBLIC}, "
            f"because Secret {getattr(names, whose)} is missing and comes from it"
        )
        raise _unfit(names, accepted)
    entries = (whose + SECRET, _BROKER + PUBLIC)
    return {entry: keys[entry].decode() for entry in entries}


def _check_set(keys: Mapping[str, bytes], names: SecretNames) -> None:
    """Refuse a set that no broker could start with, or that does not let the peers in."""
    for whose in _ROLES:
        if _public(keys, whose) is None:
            raise _unfit(names, f"one with a public key in its entry {whose}{PUBLIC}")
    if _pair(keys, _BROKER) != _public(keys, _BROKER):
        raise _unfit(names, f"one whose {_BROKER}{SECRET} belongs to its {_BROKER}{PUBLIC}")


def _check_copy(
    keys: Mapping[str, bytes], copy: Mapping[str, bytes], whose: str, names: SecretNames, name: str
) -> None:
    """Refuse a peer's Secret with which its pods would not get in."""
    why = ""
    if (pair := _pair(copy, whose)) is None:
        why = f"one with a secret key in its entry {whose}{SECRET}"
    elif pair != _public(keys, whose):
        why = f"one whose {whose}{SECRET} is the key that Secret {names.broker} allows"
    elif _public(copy, _BROKER) != _public(keys, _BROKER):
        why = f"one whose {_BROKER}{PUBLIC} is that of Secret {names.broker}"
    if why:
        raise SettingError(f"--{whose}-secret", name, f"{why}; {_REMEDY.format(names=names)}")


#: Deleting one alone would leave keys that do not fit the others.
_REMEDY = (
    "restore it, or begin anew: kubectl delete secret "
    "{names.broker} {names.streamer} {names.collector}"
)


def _unfit(names: SecretNames, accepted: str) -> SettingError:
    return SettingError(
        "--broker-secret", names.broker, f"{accepted}; {_REMEDY.format(names=names)}"
    )


def _get(secrets: Secrets, name: str) -> dict[str, bytes]:
    found = secrets.get(name)
    if found is None:
        raise KubernetesError(f"Secret {name} was there, and is not any more; try again")
    return found


def _public(entries: Mapping[str, bytes], whose: str) -> bytes | None:
    """The key of a public entry, unless there is none or a secret lies in its place."""
    found = parse(entries.get(whose + PUBLIC, b""))
    key = found.get("public-key", b"")
    return key if is_key(key) and "secret-key" not in found else None


def _pair(entries: Mapping[str, bytes], whose: str) -> bytes | None:
    """The public key of a secret entry, if its two keys belong together."""
    found = parse(entries.get(whose + SECRET, b""))
    public, secret = found.get("public-key", b""), found.get("secret-key", b"")
    return public if is_key(secret) and zmq.curve_public(secret) == public else None


def _is_name(name: str) -> bool:
    """Whether it is a DNS subdomain (RFC 1123), as Kubernetes wants it."""
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    parts = name.split(".")
    return (
        len(name) <= _NAME_BYTES_MAX
        and set(name) <= allowed
        and all(part and part[0] != "-" and part[-1] != "-" for part in parts)
    )
