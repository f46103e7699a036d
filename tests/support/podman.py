"""podman as the image tests use it: containers that may do nothing but what is said, and their end.

Everything that is made has a name with a prefix of its own and is removed in the end; nothing of
anybody else's is touched. No registry is asked for anything.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

__all__ = ["HARDENED", "TMP", "Container", "Podman", "why_not"]

#: What Pod Security "restricted" and a read-only root come to in podman's words. podman's own
#: --read-only would add writable /tmp, /run and /var/tmp unasked.
HARDENED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
TMP = ("--tmpfs=/tmp:rw,noexec,nosuid,size=16m,mode=1777",)

#: Without the capability to raise limits, podman's own defaults are refused; and crun does not
#: know every kind of cgroups.
_MODEST = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
"""


def why_not() -> str:
    """Say why containers cannot be tried on this machine; empty if they can."""
    for program in ("podman", "mmdebstrap"):
        if shutil.which(program) is None:
            return f"no {program} on the PATH; Debian: apt-get install podman runc mmdebstrap"
    return "" if os.geteuid() == 0 else "not root, whom a local base image and its networks need"


class Podman:
    """Runs podman.

    Attributes:
        prefix: of the names of all that is made here.
        env: the environment that podman runs with here.
    """

    def __init__(self, scratch: Path) -> None:
        self.prefix = f"telemq-test-{uuid4().hex[:8]}"
        self._scratch = scratch
        self.env = {name: v for name, v in os.environ.items() if name != "NOTIFY_SOCKET"}

    def run(
        self, *words: str, check: bool = True, within_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run one podman command to its end; fails with what it said unless `check` is False."""
        got = subprocess.run(
            ["podman", *words],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        # Without systemd nobody but the test runs health checks, and podman says so each time.
        told = "\n".join(line for line in got.stderr.splitlines() if "systemd" not in line)
        assert not check or got.returncode == 0, f"podman {' '.join(words)}: {told}"
        return got

    def settle(self, image: str) -> str:
        """Find a way in which containers run here; gives why there is none, or nothing."""
        told = self._try(image)
        if told and shutil.which("runc"):
            modest = self._scratch / "containers.conf"
            modest.write_text(_MODEST)
            self.env["CONTAINERS_CONF"] = str(modest)
            told = self._try(image)
        return told

    def _try(self, image: str) -> str:
        got = self.run("run", "--rm", "--network=none", image, "/bin/true", check=False)
        return got.stderr.strip() if got.returncode else ""

    def inspect(self, name: str) -> dict[str, Any]:
        """Give what podman knows of a container or image."""
        found: list[dict[str, Any]] = json.loads(self.run("inspect", name).stdout)
        return found[0]

    def network(self) -> str:
        """Make a network without a way out, on which containers find each other by name."""
        name = f"{self.prefix}-{uuid4().hex[:4]}"
        self.run("network", "create", "--internal", name)
        return name

    def start(
        self,
        image: str,
        *words: str,
        options: Sequence[str] = (),
        env: dict[str, str] | None = None,
        name: str = "",
        hardened: bool = True,
    ) -> Container:
        """Start a container, hardened; `options` are podman's, `words` are the image's."""
        name = f"{self.prefix}-{name or uuid4().hex[:6]}"
        walls = HARDENED if hardened else ()
        given = [f"--env={key}={value}" for key, value in (env or {}).items()]
        self.run("run", "--detach", f"--name={name}", *walls, *given, *options, image, *words)
        return Container(self, name)

    def remove_all(self) -> None:
        """Remove what was made: pods, containers, volumes, networks, images."""
        named = f"--filter=name={self.prefix}"
        for found, remove in (
            (("pod", "ps", "--quiet", named), ("pod", "rm", "--force", "--time=0")),
            (("ps", "--all", "--quiet", named), ("rm", "--force", "--time=0", "--volumes")),
            (("volume", "ls", "--quiet", named), ("volume", "rm", "--force")),
            (("network", "ls", "--quiet", named), ("network", "rm", "--force")),
            (
                ("images", "--quiet", f"--filter=reference=localhost/{self.prefix}*"),
                ("rmi", "--force"),
            ),
        ):
            if names := set(self.run(*found, check=False).stdout.split()):
                self.run(*remove, *names, check=False)


@dataclass(frozen=True)
class Container:
    """One container that was started.

    Attributes:
        podman: runs it.
        name: its whole name.
    """

    podman: Podman
    name: str

    @property
    def state(self) -> dict[str, Any]:
        """What podman knows of its state."""
        state: dict[str, Any] = self.podman.inspect(self.name)["State"]
        return state

    @property
    def address(self) -> str:
        """Its address on its one network; in a pod, the pod's."""
        known = self.podman.inspect(self.name)
        mode = str(known["HostConfig"]["NetworkMode"])
        if mode.startswith("container:"):
            known = self.podman.inspect(mode.partition(":")[2])
        (network,) = known["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def logs(self) -> str:
        """Give what it wrote."""
        got = self.podman.run("logs", self.name, check=False)
        return got.stdout + got.stderr

    def execute(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        return self.podman.run("exec", self.name, *words, check=check)

    def get(
        self, port: int, path: str, headers: dict[str, str] | None = None
    ) -> httpx.Response | None:
        """Ask it over HTTP; None while nobody listens."""
        url = f"http://{self.address}:{port}{path}"
        try:
            return httpx.get(url, headers=headers, timeout=5, trust_env=False)
        except httpx.TransportError:
            return None

    def answers(self, port: int, path: str = "/readyz") -> bool:
        """Tell whether it answers 200."""
        answer = self.get(port, path)
        return answer is not None and answer.status_code == 200

    def healthy(self) -> bool:
        """Run the image's HEALTHCHECK now, as the engine does every few seconds."""
        return self.podman.run("healthcheck", "run", self.name, check=False).returncode == 0

    def kill(self, signal: str = "KILL") -> None:
        """Send its first process a signal."""
        self.podman.run("kill", f"--signal={signal}", self.name)

    def wait(self, within_s: float = 60) -> int:
        """Give its exit code once it has ended."""
        return int(self.podman.run("wait", self.name, within_s=within_s).stdout)

    def drain(self, within_s: float) -> tuple[int, float]:
        """Send SIGTERM; gives its exit code and how long it took; fails when it takes longer."""
        begin = time.monotonic()
        self.kill("TERM")
        return self.wait(within_s), time.monotonic() - begin
