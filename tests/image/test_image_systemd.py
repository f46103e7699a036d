"""deploy/systemd on a machine with systemd and Postgres, which is a container."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import images
from tests.support.podman import Container, Podman
from tests.support.running import eventually

pytestmark = pytest.mark.image

UNITS = (
    "telemq-broker.service",
    "telemq-api.service",
    "telemq-streamer@9602.service",
    "telemq-streamer@9612.service",
    "telemq-collector@9603.service",
    "telemq-collector@9613.service",
)
WHERE = ("broker", "api", "streamer", "127.0.0.1:9612", "collector", "127.0.0.1:9613")
#: Of ten, where ten is everything; the services need the network, and no more.
EXPOSURE_MAX = 2.0


@pytest.fixture(scope="module")
def machine(podman: Podman, image: str, debian: str) -> Iterator[Container]:
    """The machine, its database made as docs/containers.md says."""
    tag = images.systemd_machine(podman, image, debian)
    options = ("--privileged", "--systemd=always", "--network=none")
    machine = podman.start(tag, options=options, name="machine", hardened=False)
    try:
        eventually(lambda: state(machine) in ("running", "degraded"), "systemd is up", 60)
    except AssertionError:
        pytest.skip(f"systemd does not start in a container here: {state(machine)}")
    try:
        eventually(
            lambda: machine.execute("pg_isready", check=False).returncode == 0, "Postgres is up", 40
        )
    except AssertionError as error:
        told = machine.execute("journalctl", "--no-pager", "--unit=postgresql*").stdout
        raise AssertionError(f"{error}\n{told}") from None
    for statement in ("create role telemq login", "create database telemq owner telemq"):
        machine.execute("runuser", "-u", "postgres", "--", "psql", "-c", statement)
    machine.execute("systemctl", "start", *UNITS)
    yield machine
    podman.run("rm", "--force", "--time=0", machine.name)


def state(machine: Container) -> str:
    """Say how far systemd is."""
    return machine.execute("systemctl", "is-system-running", check=False).stdout.strip()


def shown(machine: Container, unit: str, value: str) -> str:
    """Give one property of a unit."""
    return machine.execute(
        "systemctl", "show", f"--property={value}", "--value", unit
    ).stdout.strip()


def journal(machine: Container) -> str:
    """Give the end of what the services wrote."""
    return machine.execute("journalctl", "--no-pager", "--lines=30", "--unit=telemq*").stdout


def well(machine: Container) -> bool:
    """Ask all services whether they can work."""
    return machine.execute("/opt/telemq/bin/telemq", "health", *WHERE, check=False).returncode == 0


@pytest.mark.parametrize("unit", UNITS)
def test_unit_is_valid_and_closed(machine: Container, unit: str) -> None:
    """A typing error: systemd ignores the line, and goes on without."""
    got = machine.execute("systemd-analyze", "verify", unit, check=False)
    assert (0, "") == (got.returncode, got.stderr)
    got = machine.execute("systemd-analyze", "security", "--no-pager",
                          f"--threshold={EXPOSURE_MAX * 10:.0f}", unit, check=False)  # fmt: skip
    assert 0 == got.returncode, got.stdout
    print(got.stdout.splitlines()[-1].strip())


def test_services_work_within_their_walls(machine: Container) -> None:
    """`systemctl enable --now` of one broker, one gateway, two streamers, two collectors."""
    try:
        eventually(lambda: well(machine), "all are ready", 40)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{journal(machine)}") from None
    for unit in UNITS:
        pid = shown(machine, unit, "MainPID")
        status = machine.execute("cat", f"/proc/{pid}/status").stdout
        assert "CapEff:\t0000000000000000" in status, unit
        assert "NoNewPrivs:\t1" in status, unit
        assert "Seccomp:\t2" in status, unit
        assert "telemq" == shown(machine, unit, "User"), unit


def test_broker_that_is_killed_comes_back(machine: Container) -> None:
    """The kernel ran out of memory."""
    eventually(lambda: well(machine), "all are ready", 40)
    machine.execute("systemctl", "kill", "--signal=KILL", "telemq-broker")
    eventually(lambda: shown(machine, "telemq-broker", "NRestarts") == "1", "systemd restarts it")
    eventually(lambda: well(machine), "all are ready again", 40)


def test_services_drain_and_nothing_is_lost(machine: Container) -> None:
    """`systemctl stop`, in the order of the flow."""
    eventually(lambda: well(machine), "all are ready", 40)
    for kind in ("telemq-streamer@*", "telemq-collector@*", "telemq-api", "telemq-broker"):
        machine.execute("systemctl", "stop", kind)
    for unit in UNITS:
        ended = (shown(machine, unit, "Result"), shown(machine, unit, "ExecMainStatus"))
        assert ("success", "0") == ended, journal(machine)
    verdict = machine.execute(
        "runuser", "-u", "telemq", "--", "env", "HOME=/tmp", "/opt/telemq/bin/telemq", "verify",
        "--dsn=host=/run/postgresql dbname=telemq",
    ).stdout.splitlines()[-1]  # fmt: skip
    print(f"systemd: {verdict}")
    assert verdict.startswith("complete: ")
    assert not verdict.startswith("complete: 0 ")
