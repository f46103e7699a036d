"""Fault 37: what nobody was told to open is on loopback; anything else needs keys or tokens."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from telemq.sources.csv_replay import bundled_sample
from tests.support.commands import telemq

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

#: By default each has ports of its own; in a namespace nobody else has any.
_DEFAULTS = {
    "broker": (("broker",), {5601, 5602, 9601}),
    "collector": (("collect",), {9603}),
    "streamer": (("stream", "csv", str(bundled_sample())), {9602}),
    "api": (("api",), {8080, 9600}),
}
_LISTENING = "0A"


@contextlib.contextmanager
def namespace() -> Iterator[int]:
    """Make a network of its own, with nothing but loopback; yields the pid to enter it by."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare on this system")
    holder = subprocess.Popen(
        ["unshare", "--map-root-user", "--net", "sh", "-c", "ip link set lo up && echo up && cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"up\n":
            pytest.skip("no network namespaces here, or no ip")
        yield holder.pid
    finally:
        holder.kill()
        holder.communicate()


def listening(pid: int) -> set[tuple[str, int]]:
    """Give address and port of all that listens in a process' network."""
    found = set()
    for name, width in (("tcp", 8), ("tcp6", 32)):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == _LISTENING:
                host, port = local.split(":")
                words = [bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, width, 8)]
                found.add((str(ipaddress.ip_address(b"".join(words))), int(port, 16)))
    return found


@pytest.mark.parametrize("component", _DEFAULTS)
def test_fault_37_by_default_a_service_listens_on_loopback_only(dsn: str, component: str) -> None:
    """A port scan of the machine finds nothing of telemq's."""
    words, ports = _DEFAULTS[component]
    with namespace() as pid:
        process = subprocess.Popen(
            ["nsenter", f"--target={pid}", "--user", "--net", "--preserve-credentials",
             sys.executable, "-P", "-m", "telemq_cli", *words],
            env={**os.environ, "TELEMQ_DSN": dsn},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until = time.monotonic() + 30
            while not ports <= {port for _, port in listening(pid)}:
                assert time.monotonic() < until, listening(pid)
                assert process.poll() is None, "it ended"
                time.sleep(0.05)
            found = listening(pid)
        finally:
            process.kill()
            process.wait()
    print(component, sorted(found))
    assert ports == {port for _, port in found}
    assert all(ipaddress.ip_address(host).is_loopback for host, _ in found)


@pytest.mark.parametrize(
    "words",
    [
        ("broker", "--producer-bind=tcp://*:5601"),
        ("broker", "--consumer-bind=tcp://0.0.0.0:5602"),
        ("broker", "--ops-address=0.0.0.0:9601"),
        ("broker", "--http=0.0.0.0:5680"),
        ("broker", "--pull=tcp://*:5603"),
        ("broker", "--push=tcp://*:5604"),
        ("collect", "--ops-address=[::]:9603"),
        ("stream", "csv", str(bundled_sample()), "--ops-address=0.0.0.0:9602"),
        ("api", "--address=0.0.0.0:8080", "--tokens=off", "--ops-address=127.0.0.1:0"),
        ("api", "--address=127.0.0.1:0", "--ops-address=0.0.0.0:9600"),
    ],
    ids=" ".join,
)
def test_fault_37_an_address_that_others_reach_is_refused_without_keys_or_tokens(
    dsn: str, words: tuple[str, ...]
) -> None:
    """Somebody opens a port to try something, and forgets what it opens."""
    got = telemq(*words, TELEMQ_DSN=dsn)
    assert 2 == got.returncode, got.stdout + got.stderr
    assert "--insecure" in got.stderr
    children = psutil.Process().children()
    assert not [child for child in children if "telemq_cli" in " ".join(child.cmdline())]
