"""What the image, the compose file and the units repeat from elsewhere is true."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from telemq.settings import (
    ApiSettings,
    BrokerSettings,
    CollectorSettings,
    StreamerSettings,
    table,
)
from telemq.variables import OTHERS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: Where variables of ours stand; in the chart, they come from the settings.
VARIABLES = [
    DEPLOY / "compose.yaml",
    *UNITS,
    DEPLOY / "systemd" / "telemq.env",
    DEPLOY / "grafana" / "provisioning" / "datasources" / "telemq.yaml",
]


def instructions(name: str) -> list[str]:
    """Give the arguments of every instruction of a name in the Dockerfile."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} +(.*)$", joined, re.MULTILINE)


def test_build_tools_of_the_image_are_those_of_the_project() -> None:
    """The build requires something new; the image would be built without it."""
    assert PROJECT["build-system"]["requires"] == PROJECT["dependency-groups"]["build"]


def test_context_of_the_image_has_what_is_copied_and_no_more() -> None:
    """A folder is renamed, or a key lies about in the clone."""
    copied = {
        word
        for line in instructions("COPY")
        if not line.startswith("--from=")
        for word in line.split()[:-1]
    }
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert {word.partition("/")[0] for word in copied} == allowed
    assert "*" in lines
    assert all((ROOT / word).exists() for word in copied)


def test_image_runs_no_shell() -> None:
    """A shell as first process would keep SIGTERM for itself."""
    (check,) = instructions("HEALTHCHECK")
    forms = [*instructions("ENTRYPOINT"), *instructions("CMD"), check.partition("CMD ")[2]]
    assert [["telemq"], ["--help"], ["telemq", "health"]] == [json.loads(form) for form in forms]
    assert ["10001:10001"] == instructions("USER")


def test_image_exposes_the_ports_of_the_settings() -> None:
    """A default port changes."""
    addresses = [
        BrokerSettings().producer_bind,
        BrokerSettings().consumer_bind,
        ApiSettings().address,
        BrokerSettings().ops_address,
        StreamerSettings().ops_address,
        CollectorSettings().ops_address,
        ApiSettings().ops_address,
    ]
    ports = [address.rpartition(":")[2] for address in addresses]
    assert [" ".join(ports)] == instructions("EXPOSE")


@pytest.mark.parametrize("path", VARIABLES, ids=lambda path: path.name)
def test_variables_exist(path: Path) -> None:
    """A setting is renamed."""
    known = {info.variable for info in table()} | OTHERS
    assert _variables(path) <= known


def test_variables_that_are_no_settings_are_read() -> None:
    """One of them is renamed: services would warn of the new one, and not of the old."""
    assert set(OTHERS) <= set().union(*map(_variables, VARIABLES))


def _variables(path: Path) -> set[str]:
    return set(re.findall(r"\bTELEMQ_[A-Z_]+[A-Z]\b", path.read_text()))


def test_nothing_is_killed_while_it_drains() -> None:
    """A default drain grows."""
    longest = max(
        settings.drain_s
        for settings in (BrokerSettings(), StreamerSettings(), CollectorSettings(), ApiSettings())
    )
    for name, service in COMPOSE["services"].items():
        assert float(service["stop_grace_period"].removesuffix("s")) > longest + 2, name
    for unit in UNITS:
        found = re.search(r"^TimeoutStopSec=(\d+)s$", unit.read_text(), re.MULTILINE)
        assert found, unit
        assert float(found[1]) > longest + 2, unit


def test_units_differ_only_where_they_must() -> None:
    """A wall is put up for one of them and forgotten for another."""
    walls = set()
    for unit in UNITS:
        section = unit.read_text().partition("# What it may do")[2].partition("[Install]")[0]
        kept = [line for line in section.splitlines() if not line.startswith(("#", "RestrictAdd"))]
        walls.add("\n".join(kept))
    assert 4 == len(UNITS)
    assert 1 == len(walls)
