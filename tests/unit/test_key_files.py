"""Key files: who may read them, what is refused, and that no secret is told."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
import zmq
import zmq.auth

from telemq.errors import SettingError
from telemq.keys import (
    AllowedKey,
    KeyDirectory,
    KeyPair,
    LinkKeys,
    load_link_keys,
    load_pair,
    load_public,
    write_pair,
)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def directory(tmp_path: Path) -> KeyDirectory:
    """A broker's directory."""
    directory = KeyDirectory(tmp_path / "broker")
    directory.create()
    return directory


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    """The public file of a producer."""
    return write_pair(tmp_path, "node-7", "producer")


def test_pair_is_read_back_and_other_tools_read_it(tmp_path: Path) -> None:
    """A peer in another language reads the same files."""
    public = write_pair(tmp_path, "node-7", "producer")
    pair = load_pair(tmp_path / "node-7.key_secret", "--key")
    assert pair.public == load_public(public, "--broker-key")
    assert pair.public == zmq.curve_public(pair.secret)
    assert (pair.public, pair.secret) == zmq.auth.load_certificate(tmp_path / "node-7.key_secret")
    assert (pair.public, None) == zmq.auth.load_certificate(public)


def test_secret_file_is_closed_to_others_from_its_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else on the machine watches the directory, and the umask is careless."""
    seen: list[int] = []
    link = os.link

    def spy(source: str, target: Path) -> None:
        seen.append(mode_of(Path(source)))
        link(source, target)

    monkeypatch.setattr(os, "link", spy)
    before = os.umask(0)
    try:
        KeyDirectory(tmp_path / "broker").create()
        write_pair(tmp_path / "new", "a", "admin")
    finally:
        os.umask(before)
    assert [0o600, 0o644] * 2 == seen
    assert 0o600 == mode_of(tmp_path / "broker" / "broker.key_secret")
    assert 0o700 == mode_of(tmp_path / "broker")
    assert 0o700 == mode_of(tmp_path / "broker" / "allowed")
    assert 0o700 == mode_of(tmp_path / "new")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-a", "a b", "é", "a\n", "x" * 65])
def test_name_that_is_no_name_is_refused(
    tmp_path: Path, directory: KeyDirectory, name: str
) -> None:
    """A name becomes a file name and a word in logs."""
    with pytest.raises(SettingError, match="1 to 64 letters"):
        write_pair(tmp_path / "none", name, "producer")
    with pytest.raises(SettingError, match="1 to 64 letters"):
        directory.revoke(name)
    assert not (tmp_path / "none").exists()


def test_nothing_is_overwritten(tmp_path: Path, peer: Path, directory: KeyDirectory) -> None:
    """The same command is given twice; the key in use must not be lost."""
    before = peer.read_bytes()
    with pytest.raises(SettingError, match="is there already"):
        write_pair(tmp_path, "node-7", "consumer")
    with pytest.raises(SettingError, match="is there already"):
        directory.create()
    assert before == peer.read_bytes()
    assert [] == list(tmp_path.glob(".new-*"))


def test_unknown_role_is_refused(tmp_path: Path, peer: Path, directory: KeyDirectory) -> None:
    """A typing error."""
    with pytest.raises(SettingError, match="producer, consumer, admin"):
        write_pair(tmp_path, "a", "produce")
    for role in ("produce", "broker"):
        with pytest.raises(SettingError, match="producer, consumer, admin"):
            directory.allow(peer, role)


def test_allow_list_says_who_is_in(peer: Path, directory: KeyDirectory) -> None:
    """Keys are allowed, given another role, and revoked."""
    public = load_public(peer, "")
    empty = directory.state()
    assert AllowedKey("node-7", "producer", public) == directory.allow(peer)
    allowed = directory.state()
    assert AllowedKey("node-7", "admin", public) == directory.allow(peer, "admin")
    assert ([AllowedKey("node-7", "admin", public)], []) == directory.entries()
    changed = directory.state()
    assert 3 == len({empty, allowed, changed})
    directory.revoke("node-7")
    assert ([], []) == directory.entries()
    assert empty == directory.state()
    with pytest.raises(SettingError, match="one that is allowed: nobody"):
        directory.revoke("node-7")


def test_name_and_key_belong_together(tmp_path: Path, peer: Path, directory: KeyDirectory) -> None:
    """A key is replaced, or allowed under a second name: revoking one would not be enough."""
    directory.allow(peer)
    other = write_pair(tmp_path / "other", "node-7", "producer")
    with pytest.raises(SettingError, match="revoke node-7 first"):
        directory.allow(other)
    twin = tmp_path / "twin.key"
    twin.write_bytes(peer.read_bytes())
    with pytest.raises(SettingError, match="another key than that of node-7"):
        directory.allow(twin)
    (directory.allowed / "twin.key").write_bytes(peer.read_bytes())
    allowed, wrong = directory.entries()
    assert ["node-7"] == [key.name for key in allowed]
    assert "the same key as node-7" in wrong[0]


def test_name_with_another_key_is_somebody_else() -> None:
    """A connection made with the key before must not pass for one with the new key."""
    old = AllowedKey("a", "producer", b"1" * 40)
    assert old.user_id != AllowedKey("a", "producer", b"2" * 40).user_id
    assert old.user_id == AllowedKey("a", "consumer", b"1" * 40).user_id
    assert "1" * 40 not in old.user_id


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"\xff\xfe",
        b'curve\n    public-key = "short"\n',
        b'curve\n    public-key = "' + b"#" * 40 + b'"\n',  # Z85 of more than 32 bits
        b'curve\n    public-key = "' + b"~" * 40 + b'"\n',
        b"x" * 5000,
    ],
)
def test_corrupt_files_let_nobody_in_and_stop_nobody(
    tmp_path: Path, peer: Path, directory: KeyDirectory, content: bytes
) -> None:
    """A file was half copied, or is something else."""
    directory.allow(peer)
    (directory.allowed / "bad.key").write_bytes(content)
    allowed, wrong = directory.entries()
    assert ["node-7"] == [key.name for key in allowed]
    assert "bad.key" in wrong[0]
    path = tmp_path / "bad.key"
    path.write_bytes(content)
    for load in (load_pair, load_public):
        with pytest.raises(SettingError, match=r"--key.*bad\.key"):
            load(path, "--key")


def test_errors_hold_nothing_of_a_file(tmp_path: Path, peer: Path) -> None:
    """A secret file is given where a public one belongs, and keys do not belong together."""
    secret = tmp_path / "node-7.key_secret"
    text = load_pair(secret, "").secret.decode()
    with pytest.raises(SettingError, match="public key file") as refused:
        load_public(secret, "--broker-key")
    assert text not in str(refused.value)
    other, _ = zmq.curve_keypair()
    lines = secret.read_text().replace(load_public(peer, "").decode(), other.decode())
    secret.write_text(lines)
    with pytest.raises(SettingError, match="secret key file") as refused:
        load_pair(secret, "--key")
    assert text not in repr(refused.value) + str(refused.value)


def test_repr_shows_no_secret() -> None:
    """A key pair gets into a log or an error by accident."""
    keys = LinkKeys(KeyPair(b"canary", b"canary"), b"canary")
    assert "canary" not in f"{keys!r} {keys} {[keys]}"


@pytest.mark.parametrize(("mode", "word"), [(0o604, "0604"), (0o620, "0620"), (0o666, "0666")])
def test_secret_that_is_open_to_others_is_refused(
    tmp_path: Path, peer: Path, mode: int, word: str
) -> None:
    """It was copied with a careless umask."""
    secret = tmp_path / "node-7.key_secret"
    secret.chmod(mode)
    with pytest.raises(SettingError, match=f"it has mode {word}; chmod 06[04]0 it"):
        load_pair(secret, "--key")
    secret.chmod(0o440)  # as containers mount secrets
    load_pair(secret, "--key")


def test_directory_that_is_not_usable_is_refused(directory: KeyDirectory) -> None:
    """The broker must not start with an allow-list that anybody can write, or with none."""
    directory.allowed.chmod(0o777)
    with pytest.raises(SettingError, match="chmod 0775"):
        directory.own_pair()
    directory.allowed.rmdir()
    with pytest.raises(SettingError, match="telemq keys init"):
        directory.own_pair()
    with pytest.raises(SettingError, match="--keys"):
        KeyDirectory(directory.path / "none").own_pair()
    with pytest.raises(SettingError, match="readable directory"):
        directory.entries()


def test_key_and_broker_key_go_together(tmp_path: Path, peer: Path) -> None:
    """One of two flags is forgotten: a link without encryption would be made."""
    assert load_link_keys("", "") is None
    with pytest.raises(SettingError, match="--broker-key"):
        load_link_keys(str(tmp_path / "node-7.key_secret"), "")
    with pytest.raises(SettingError, match="--key"):
        load_link_keys("", str(peer))
    for key in ("none", "nul\0", str(tmp_path)):
        with pytest.raises(SettingError, match="a file that can be read"):
            load_link_keys(key, str(peer))


def test_reader_never_sees_half_of_a_file(peer: Path, directory: KeyDirectory) -> None:
    """The broker reads the list while an operator changes a role again and again."""
    directory.allow(peer)
    done = threading.Event()

    def change() -> None:
        for _ in range(100):
            for role in ("consumer", "producer"):
                directory.allow(peer, role)
        done.set()

    changer = threading.Thread(target=change)
    changer.start()
    while not done.is_set():
        allowed, wrong = directory.entries()
        assert [] == wrong
        assert ["node-7"] == [key.name for key in allowed]
    changer.join()
