"""A broker's key directory that is a volume of a Kubernetes Secret."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from telemq.client.link import ProducerLink
from telemq.keys import KeyDirectory, LinkKeys
from tests.support.brokers import running_broker, until
from tests.support.keys import Keys, fault_of, producer_link
from tests.support.secretvolume import SecretVolume


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """Pairs of a broker and two producers."""
    keys = Keys(tmp_path)
    for name in ("streamer", "node-7"):
        keys.peer(name, "producer")
    return keys


@pytest.fixture
def volume(tmp_path: Path) -> SecretVolume:
    """Where the broker finds them."""
    return SecretVolume(tmp_path / "mounted" / "keys")


def files(keys: Keys, *allowed: str) -> dict[str, bytes]:
    """What is in the Secret when these peers are allowed."""
    names = ["broker.key", "broker.key_secret", *(f"allowed/{name}.key" for name in allowed)]
    return {name: (keys.directory.path / name).read_bytes() for name in names}


def lose(link: ProducerLink) -> bool:
    """Poll it; tell whether it has no session."""
    link.poll(0.05)
    return not link.connected


def test_running_broker_follows_a_secret_that_changes(keys: Keys, volume: SecretVolume) -> None:
    """`kubectl edit secret`: one peer comes, one goes, and the third does not notice."""
    keys.peer("stays", "producer")
    volume.write(files(keys, "stays", "streamer"))
    links: list[ProducerLink] = []

    def link(own: LinkKeys) -> ProducerLink:
        links.append(producer_link(broker.producers, own))
        return links[-1]

    with running_broker(keys=str(volume.directory)) as broker:
        stays, streamer = link(keys.own("stays")), link(keys.own("streamer"))
        until(lambda: not lose(stays), "one gets in")
        until(lambda: not lose(streamer), "another gets in")
        late = link(keys.own("node-7"))
        fault_of(late, "refuses this key")
        volume.write(files(keys, "stays", "node-7"))
        until(lambda: late.connected, "the new peer gets in", lambda: late.poll(0.05))
        until(lambda: lose(streamer), "the peer that is gone is told so")
        assert not lose(stays)
        for one in links:
            one.close()


class Swapped(KeyDirectory):
    """A directory whose volume is swapped in the middle of its n-th listing."""

    def __init__(self, volume: SecretVolume, content: dict[str, bytes], listing: int) -> None:
        super().__init__(volume.directory)
        self._volume, self._content, self._left = volume, content, listing

    def _files(self) -> list[str]:
        self._left -= 1
        if self._left:
            return super()._files()
        with os.scandir(self.allowed) as opened:
            self._volume.write(self._content)
            return sorted(entry.name for entry in opened)  # nothing is left of what was opened


@pytest.mark.parametrize("listing", [1, 2, 3])
def test_list_is_whole_when_the_volume_is_swapped_meanwhile(
    keys: Keys, volume: SecretVolume, listing: int
) -> None:
    """The kubelet removes what the volume was while the broker reads it: nobody is locked out."""
    volume.write(files(keys, "streamer"))
    assert ([], []) == Swapped(volume, files(keys, "streamer"), 1).entries()
    directory = Swapped(volume, files(keys, "streamer", "node-7"), listing)
    state, allowed, wrong = directory.read()
    assert ["node-7", "streamer"] == [key.name for key in allowed]
    assert (directory.state(), []) == (state, wrong)


@pytest.fixture
def mountable() -> None:
    """Mounts in a namespace of their own, which end with it."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare (util-linux)")
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip(f"this user cannot mount: {tried.stderr.strip()}")


@pytest.mark.parametrize("read_only", [True, False])
def test_open_mode_matters_only_where_somebody_can_write(
    mountable: None, keys: Keys, volume: SecretVolume, read_only: bool
) -> None:
    """The kubelet makes a Secret's directories 0777 and mounts them read-only."""
    volume.write(files(keys, "streamer"))
    where = volume.directory
    for directory in (where, (where / "allowed").resolve()):
        directory.chmod(0o777)
    quoted = shlex.quote(str(where))
    mount = f"mount --bind {quoted} {quoted} && mount -o remount,bind,ro {quoted}"
    code = (
        "from pathlib import Path; from telemq.keys import KeyDirectory; "
        f"KeyDirectory(Path({str(where)!r})).own_pair(); print('usable')"
    )
    run = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    got = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{mount} && {run}" if read_only else run],
        capture_output=True,
        text=True,
        check=False,
    )
    if read_only:
        assert "usable\n" == got.stdout, got.stderr
    else:
        assert "has mode 0777; chmod 0775" in got.stderr
