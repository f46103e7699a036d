"""deploy/compose.yaml: valid, closed to the outside, and run for real by podman-compose."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.images import ROOT
from tests.support.podman import Container, Podman
from tests.support.ports import free_port
from tests.support.running import eventually
from tests.support.sample import sample_gpus

pytestmark = pytest.mark.image

COMPOSE = ROOT / "deploy" / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]


class Project:
    """The file, as a project of its own in a directory of its own."""

    def __init__(self, podman: Podman, directory: Path, images: dict[str, str]) -> None:
        directory.mkdir()
        self.podman = podman
        for file in (COMPOSE, COMPOSE.with_name("compose-secrets")):
            shutil.copy(file, directory)
        subprocess.run([directory / "compose-secrets"], check=True, capture_output=True)
        self.port = free_port()
        self._file = directory / COMPOSE.name
        self._env = {**podman.env, **images, "TELEMQ_PORT": str(self.port)}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command of podman-compose."""
        got = subprocess.run(
            [Path(sys.executable).with_name("podman-compose"), f"--file={self._file}",
             f"--project-name={self.podman.prefix}", *words],
            env=self._env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert got.returncode == 0, got.stdout + got.stderr
        return got

    def container(self, service: str) -> Container:
        """Give the first container of a service."""
        return Container(self.podman, f"{self.podman.prefix}_{service}_1")


@pytest.fixture
def project(podman: Podman, image: str, postgres_image: str, tmp_path: Path) -> Iterator[Project]:
    images = {"TELEMQ_IMAGE": image, "POSTGRES_IMAGE": postgres_image}
    project = Project(podman, tmp_path / "deploy", images)
    yield project
    project.run("down", "--volumes")


def test_file_is_valid() -> None:
    """Docker Compose would refuse it, or not know a word of it."""
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema=vendor.compose-spec"]
    got = subprocess.run([*checker, COMPOSE], capture_output=True, text=True, check=False)
    assert 0 == got.returncode, got.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_service_may_do_nothing_that_it_need_not(service: str) -> None:
    """A hole in one of them is no hole in the machine."""
    spec = SERVICES[service]
    assert spec["read_only"]
    assert ["ALL"] == spec["cap_drop"]
    assert ["no-new-privileges:true"] == spec["security_opt"]
    assert "privileged" not in spec
    assert spec["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in spec.get("ports", []))
    assert ("ports" in spec) == (service == "api")
    assert ("outside" in spec["networks"]) == (service == "api")
    assert all(
        wait["condition"] == "service_healthy" for wait in spec.get("depends_on", {}).values()
    )
    secret = ("password", "postgresql://")
    assert not any(word in str(value) for value in spec["environment"].values() for word in secret
                   if not str(value).startswith("/run/secrets/"))  # fmt: skip


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """A second start must not lock the first one's database."""
    shutil.copy(COMPOSE.with_name("compose-secrets"), tmp_path)
    made = []
    for _ in range(2):
        subprocess.run([tmp_path / "compose-secrets"], check=True, capture_output=True)
        made.append({f.name: f.read_text() for f in (tmp_path / "secrets").iterdir()})
    assert made[0] == made[1]
    password = made[0]["postgres-password"].strip()
    assert len(password) == 48
    assert f"[telemq]\npassword={password}\n" == made[0]["postgres-service"]
    assert 0o700 == (tmp_path / "secrets").stat().st_mode & 0o777


def test_pipeline_of_the_file_runs_and_verifies(project: Project) -> None:
    """The commands at the head of the file. podman 4.3 waits for nobody's health: all at once."""
    project.run("up", "--detach", "--no-build")
    for service in SERVICES:
        eventually(project.container(service).healthy, f"{service} is healthy", 90)
    api = f"http://127.0.0.1:{project.port}/api/v1/gpus"

    def complete() -> bool:
        return bool(sample_gpus() == httpx.get(api, timeout=20, trust_env=False).json())

    eventually(complete, "the gateway has all GPUs", 60)
    project.run("stop", "streamer")
    assert 0 == project.container("streamer").state["ExitCode"]
    verdict = project.run("run", "-T", "--rm", "--no-deps", "collector", "verify").stdout
    print(f"compose: {verdict.splitlines()[-1]}")
    # Rows that it had leased and not published stay for the next streamer: in flight.
    assert verdict.splitlines()[-1].startswith("complete: ")
