"""Key files: who a broker is, who a peer is, and whom a broker lets in.

The format of the files is in `telemq.certificate`. A broker's key directory (`--keys DIR`), of mode
0700::

    DIR/broker.key            its public key: copied to every peer (--broker-key)
    DIR/broker.key_secret     its secret key, mode 0600
    DIR/allowed/NAME.key      one public key a peer, with its role in the metadata

A peer has ``NAME.key`` and ``NAME.key_secret``; only the public one ever leaves its machine.
Files appear whole or not at all (written beside, then renamed), because a running broker reads them
whenever they change. The directory may be a volume of a Kubernetes Secret: ``broker.key`` and
``allowed`` are then links through ``..data``, which the kubelet points to another directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import zmq

from telemq.certificate import PUBLIC, SECRET, certificate, check_name, is_key, read, write
from telemq.errors import SettingError

__all__ = [
    "SECRET",
    "AllowedKey",
    "KeyDirectory",
    "KeyPair",
    "KeyRole",
    "LinkKeys",
    "ListState",
    "load_link_keys",
    "load_pair",
    "load_public",
    "write_pair",
]

KeyRole = Literal["producer", "consumer", "admin"]
#: Of each file of an allow-list: name, inode, time of change in ns, size.
ListState: TypeAlias = tuple[tuple[str, int, int, int], ...]
_ROLES: tuple[KeyRole, ...] = ("producer", "consumer", "admin")
#: Files in `allowed/` that are read. They are listed once a second: 10,000 take some 20 ms.
_FILES_MAX = 10_000
#: A list that changes faster than it can be read so often is not waited for.
_READINGS_MAX = 5
_ACCEPTED = f"a public key file (NAME{PUBLIC})"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key pair in Z85; neither key is ever shown.

    Attributes:
        public: 40 characters.
        secret: 40 characters.
    """

    public: bytes = field(repr=False)
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LinkKeys:
    """What a peer needs to connect to a broker with keys.

    Attributes:
        own: the peer's pair.
        broker: the broker's public key, by which the peer knows that it is the right one.
    """

    own: KeyPair
    broker: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AllowedKey:
    """One entry of a broker's allow-list.

    Attributes:
        name: of the peer.
        role: where it may connect; an admin may to both endpoints.
        public: its public key, in Z85.
    """

    name: str
    role: KeyRole
    public: bytes = field(repr=False)

    @property
    def user_id(self) -> str:
        """What libzmq attaches to every message of a connection with this key.

        Not the name alone: when a name gets another key, connections made with the key before it
        must not be taken for it.
        """
        return f"{self.name}/{hashlib.sha256(self.public).hexdigest()[:16]}"


def load_pair(path: Path, flag: str) -> KeyPair:
    """Read a secret file, which holds both keys.

    Raises:
        SettingError: it cannot be read, is no secret certificate, its keys do not belong
            together, or it is open to others.
    """
    accepted = f"a secret key file of one's own (NAME{SECRET}), made by telemq keys new"
    entries = read(path, flag, accepted)
    public, secret = entries.get("public-key", b""), entries.get("secret-key", b"")
    if not is_key(secret) or zmq.curve_public(secret) != public:
        raise SettingError(flag, str(path), accepted)
    # A group may read it: that is how secrets are mounted into containers.
    _check_closed(path, flag, stat.S_IRWXO | stat.S_IWGRP)
    return KeyPair(public, secret)


def load_public(path: Path, flag: str) -> bytes:
    """Read a public key.

    Raises:
        SettingError: it cannot be read, is no certificate, or is one with a secret key in it.
    """
    entries = read(path, flag, _ACCEPTED)
    public = entries.get("public-key", b"")
    # A secret file in its place means that a secret key lies where it should not be.
    if not is_key(public) or "secret-key" in entries:
        raise SettingError(flag, str(path), _ACCEPTED)
    return public


def load_link_keys(key: str, broker_key: str) -> LinkKeys | None:
    """Read what ``--key`` and ``--broker-key`` name; gives None when neither is set.

    Raises:
        SettingError: only one is set, or a file is not what it must be.
    """
    if not key and not broker_key:
        return None
    if not broker_key:
        raise SettingError("--broker-key", "", "the broker's public key file, with --key")
    if not key:
        raise SettingError("--key", "", "this peer's secret key file, with --broker-key")
    own = load_pair(Path(key), "--key")
    return LinkKeys(own, load_public(Path(broker_key), "--broker-key"))


def write_pair(directory: Path, name: str, role: str) -> Path:
    """Make a key pair in a directory, and the directory if need be; gives the public file.

    Args:
        directory: gets ``NAME.key`` and ``NAME.key_secret``.
        name: of the peer.
        role: ``producer``, ``consumer``, ``admin``, or ``broker``.

    Raises:
        SettingError: the name or the role is not accepted, the files are there already, or the
            directory cannot be written.
    """
    check_name(name)
    accepted = (*_ROLES, "broker")
    if role not in accepted:
        raise SettingError("--role", role, "one of " + ", ".join(accepted))
    public, secret = zmq.curve_keypair()
    with _writing(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The secret file first: without it the public one is of no use.
        for path, content in (
            (directory / (name + SECRET), certificate(name, role, public, secret)),
            (directory / (name + PUBLIC), certificate(name, role, public)),
        ):
            if not write(path, content, 0o600 if path.suffix == SECRET else 0o644):
                raise SettingError("NAME", name, f"a new name: {path} is there already")
    return directory / (name + PUBLIC)


class KeyDirectory:
    """A broker's key directory.

    Args:
        path: the directory; see the module for what is in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.allowed = path / "allowed"

    def create(self) -> Path:
        """Make the directory, the broker's own pair and an empty allow-list; gives the public file.

        Raises:
            SettingError: there is a pair already, or it cannot be written.
        """
        with _writing(self.path):
            self.allowed.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
        return write_pair(self.path, "broker", "broker")

    def own_pair(self) -> KeyPair:
        """Read the broker's own pair.

        Raises:
            SettingError: there is none, or others may write the directory.
        """
        pair = load_pair(self.path / f"broker{SECRET}", "--keys")
        if not self.allowed.is_dir():
            accepted = f"a directory made by telemq keys init: {self.allowed} is missing"
            raise SettingError("--keys", str(self.path), accepted)
        for directory in (self.path, self.allowed):
            # The kubelet mounts Secrets with mode 0777, and read-only: nobody writes them.
            if not _is_read_only(directory):
                _check_closed(directory, "--keys", stat.S_IWOTH)
        return pair

    def allow(self, file: Path, role: str = "") -> AllowedKey:
        """Let the key of a public file in, under the file's name; in another role than before, too.

        Args:
            file: ``NAME.key``.
            role: overrules the one that the file says.

        Raises:
            SettingError: the file is no public key, the name or the role is not accepted, or the
                name or the key belongs to another.
        """
        name = file.name.removesuffix(PUBLIC)
        check_name(name)
        public = load_public(file, "FILE")
        role = role or read(file, "FILE", _ACCEPTED).get("role", b"").decode()
        if role not in _ROLES:
            raise SettingError("--role", role, "one of " + ", ".join(_ROLES))
        for other in self.entries()[0]:
            if other.public == public and other.name != name:
                raise SettingError("FILE", str(file), f"another key than that of {other.name}")
            if other.public != public and other.name == name:
                accepted = f"a name that is free: revoke {name} first, to give it another key"
                raise SettingError("FILE", str(file), accepted)
        with _writing(self.allowed):
            self.allowed.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self.allowed / (name + PUBLIC)
            write(path, certificate(name, role, public), 0o644, replace=True)
        return AllowedKey(name, role, public)

    def revoke(self, name: str) -> None:
        """Let a key in no more.

        Raises:
            SettingError: there is none of that name.
        """
        check_name(name)
        try:
            with _writing(self.allowed, but=FileNotFoundError):
                (self.allowed / (name + PUBLIC)).unlink()
        except FileNotFoundError:
            names = ", ".join(key.name for key in self.entries()[0][:20]) or "nobody"
            raise SettingError("NAME", name, f"one that is allowed: {names}") from None

    def entries(self) -> tuple[list[AllowedKey], list[str]]:
        """Read the allow-list; gives its keys by name, and what is wrong with the other files.

        Whoever's file cannot be read, or is a second one for the same key, is not let in.

        Raises:
            SettingError: the directory cannot be read.
        """
        keys: dict[bytes, AllowedKey] = {}
        wrong = []
        for name in self._files():
            path = self.allowed / name
            try:
                key = _allowed(path)
            except SettingError as error:
                wrong.append(str(error))
                continue
            if key.public in keys:
                wrong.append(f"{path}: the same key as {keys[key.public].name}")
            else:
                keys[key.public] = key
        return list(keys.values()), wrong

    def state(self) -> ListState:
        """Give what changes whenever the allow-list does: names, inodes, times and sizes.

        Raises:
            SettingError: the directory cannot be read.
        """
        found = []
        for name in self._files():
            with contextlib.suppress(OSError):
                info = (self.allowed / name).stat()
                found.append((name, info.st_ino, info.st_mtime_ns, info.st_size))
        return tuple(found)

    def read(self) -> tuple[ListState, list[AllowedKey], list[str]]:
        """Give `state` and `entries` that belong together.

        A volume of Kubernetes is swapped as a whole, and what it was is removed at once: a list
        that is read just then may be a part of the old one, and every key that is not in it would
        lose its sessions. So it is read again when it has changed meanwhile; what changes all the
        time is taken as it was read last, because a key that is revoked must not stay.

        Raises:
            SettingError: the directory cannot be read.
        """
        state = self.state()
        for _ in range(_READINGS_MAX):
            keys, wrong = self.entries()
            before, state = state, self.state()
            if before == state:
                break
        return before, keys, wrong

    def _files(self) -> list[str]:
        try:
            names = [name for name in os.listdir(self.allowed) if name.endswith(PUBLIC)]
        except OSError as error:
            accepted = f"a readable directory: {error.strerror}"
            raise SettingError("--keys", str(self.allowed), accepted) from error
        return sorted(names)[:_FILES_MAX]


def _allowed(path: Path) -> AllowedKey:
    name = path.name.removesuffix(PUBLIC)
    check_name(name)
    public = load_public(path, "--keys")
    role = read(path, "--keys", _ACCEPTED).get("role", b"").decode()
    for known in _ROLES:
        if role == known:
            return AllowedKey(name, known, public)
    raise SettingError("--keys", str(path), "a key whose role is one of " + ", ".join(_ROLES))


@contextlib.contextmanager
def _writing(path: Path, but: type[OSError] | tuple[type[OSError], ...] = ()) -> Iterator[None]:
    try:
        yield
    except but:
        raise
    except OSError as error:
        accepted = f"a directory that can be written: {error.strerror}"
        raise SettingError("--dir", str(path), accepted) from None


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _check_closed(path: Path, flag: str, open_bits: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & open_bits:
        accepted = f"closed to others: it has mode {mode:04o}; chmod {mode & ~open_bits:04o} it"
        raise SettingError(flag, str(path), accepted)
