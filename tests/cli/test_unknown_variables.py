"""What real commands say of a mistyped variable, and that they run all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import telemq
from tests.support.services import running_service
from tests.support.up import running_up, wait_until_gone

#: A mistyped variable may well hold a password.
_SECRET = "hunter2"
_BROKER = (
    *("broker", "--log-format=json", "--ops-address=127.0.0.1:0"),
    *("--producer-bind=tcp://127.0.0.1:*", "--consumer-bind=tcp://127.0.0.1:*"),
)


def _broker(**env: str) -> list[dict[str, Any]]:
    """Run a broker until it listens; give what it logged."""
    command = [sys.executable, "-P", "-m", "telemq_cli", *_BROKER]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **env},
    ) as process:
        assert process.stdout is not None
        text = ""
        try:
            for line in process.stdout:
                text += line
                if "broker listening" in line:
                    process.terminate()
        finally:
            process.kill()
    assert "broker stopped" in text
    assert _SECRET not in text
    return [json.loads(line) for line in text.splitlines()]


def _warnings(lines: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    told = [line for line in lines if line["event"] == "variable not known"]
    assert {"warning"} >= {line["level"] for line in told}
    return [(line["variable"], line["nearest"]) for line in told]


def test_service_warns_once_without_the_value() -> None:
    """A unit file sets TELEMQ_LINGER_MS, and nothing becomes faster."""
    lines = _broker(TELEMQ_LINGER_MS=_SECRET, TELEMQ_DNS=f"postgresql://u:{_SECRET}@db/t")
    assert [
        ("TELEMQ_DNS", ["TELEMQ_DSN"]),
        ("TELEMQ_LINGER_MS", ["TELEMQ_STREAMER_LINGER_MS"]),
    ] == _warnings(lines)


def test_service_counts_what_it_does_not_name() -> None:
    """Somebody else's program has the same prefix."""
    lines = _broker(**{f"TELEMQ_ELSE_{n}": _SECRET for n in range(25)})
    assert 20 == len(_warnings(lines))
    assert [5] == [line["count"] for line in lines if line["event"].startswith("more variables")]


def test_service_is_silent_when_all_is_known() -> None:
    """One file of variables for all services, in a pod with the links of Kubernetes."""
    lines = _broker(
        TELEMQ_BROKER_HEARTBEAT_S="2",
        TELEMQ_STREAMER_LINGER_MS="7",
        TELEMQ_CSV="/x.csv",
        TELEMQ_BROKER_SERVICE_HOST="10.0.0.1",
        TELEMQ_BROKER_SERVICE_PORT="5601",
        TELEMQ_BROKER_PORT="tcp://10.0.0.1:5601",
    )
    assert [] == [line for line in lines if line["level"] != "info"]


def test_process_of_a_supervisor_leaves_it_to_the_supervisor() -> None:
    """`telemq collect --workers 8`: nobody reads the same line nine times."""
    with running_service(*_BROKER, TELEMQ_LINGER_MS=_SECRET) as service:
        service.event("broker listening")
        assert [] == service.events("variable not known")


@pytest.mark.e2e
def test_up_warns_once_for_all_of_its_parts(tmp_path: Path) -> None:
    """Each part has the environment of `telemq up`, and a log of its own."""
    data_dir = tmp_path / "data"
    with running_up(data_dir, "--rows=100", TELEMQ_LINGER_MS=_SECRET) as up:
        assert 0 == up.wait()
        assert [("TELEMQ_LINGER_MS", ["TELEMQ_STREAMER_LINGER_MS"])] == _warnings(
            up.events("variable not known")
        )
    logs = [path.read_text() for path in (data_dir / "log").glob("*.log")]
    assert len(logs) >= 5
    assert "TELEMQ_LINGER_MS" not in "".join(logs)
    wait_until_gone(data_dir)


def test_command_with_an_answer_tells_on_standard_error(tmp_path: Path) -> None:
    """A script reads the answer: nothing else may stand in it."""
    words = ("verify", "--json", f"--data-dir={tmp_path / 'none'}")
    got = telemq(*words, TELEMQ_DNS=_SECRET, TELEMQ_FOO=_SECRET)
    assert [
        "telemq: TELEMQ_DNS: no setting has this variable; the nearest: TELEMQ_DSN",
        "telemq: TELEMQ_FOO: no setting has this variable",
    ] == got.stderr.splitlines()[:-1]
    assert (2, "") == (got.returncode, got.stdout)
    got = telemq(*words, "--log-level=error", TELEMQ_DNS=_SECRET)
    assert 1 == got.stderr.count("\n")
