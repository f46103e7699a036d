"""Images built once for all container tests; the tests are skipped where containers cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import images
from tests.support.podman import Podman, why_not

#: The other sessions of nox install no Helm, which renders what is run here.
collect_ignore_glob = [] if find_spec("helm_python") else ["*.py"]


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for what the images are made of."""
    return tmp_path_factory.mktemp("image")


@pytest.fixture(scope="session")
def bare_podman(scratch: Path) -> Iterator[Podman]:
    """podman, before it is known whether it can run anything."""
    if reason := why_not():
        pytest.skip(f"no containers: {reason}")
    podman = Podman(scratch)
    yield podman
    podman.remove_all()


@pytest.fixture(scope="session")
def python_base(bare_podman: Podman, scratch: Path) -> str:
    """What stands in for python:3-slim."""
    return images.python_base(bare_podman, scratch / "python")


@pytest.fixture(scope="session")
def podman(bare_podman: Podman, python_base: str) -> Podman:
    """Podman that runs containers."""
    if reason := bare_podman.settle(python_base):
        pytest.skip(f"no containers: podman cannot run one here: {reason}")
    return bare_podman


@pytest.fixture(scope="session")
def wheels(scratch: Path) -> Path:
    """The wheels of the lock file, for the Python of the base and this machine."""
    directory = scratch / "wheels"
    images.download_wheels(directory, python=images.PYTHON, machine=images.MACHINE)
    return directory


@pytest.fixture(scope="session")
def image(podman: Podman, python_base: str, wheels: Path) -> str:
    """deploy/Dockerfile, built."""
    return images.build(
        podman, "image", python_base, wheels,
        "--build-arg=VERSION=1.2.3", "--build-arg=REVISION=abcdef",
    )  # fmt: skip


@pytest.fixture(scope="session")
def debian(podman: Podman, scratch: Path) -> str:
    """A Debian with Postgres and systemd."""
    return images.debian_machine(podman, scratch / "debian")


@pytest.fixture(scope="session")
def postgres_image(podman: Podman, debian: str) -> str:
    """What stands in for the official Postgres image."""
    return images.stand_in(podman, debian)
