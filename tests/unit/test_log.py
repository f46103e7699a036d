"""Log lines: their keys, their form, and what never stands in them."""

from __future__ import annotations

import json
import threading

import pytest

from telemq import log


def _failing(secret: str) -> None:
    dsn = f"postgresql://telemq:{secret}@db/telemq"
    raise ConnectionError(f"cannot connect after {len(dsn)} characters")


def test_json_line_has_event_level_time_and_fixed_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """A log shipper reads the lines of a service that runs in a container."""
    log.configure(format="json", component="broker")
    log.get(peer=7).info("session opened", records=3)
    line = json.loads(capsys.readouterr().out)
    timestamp = line.pop("timestamp")
    assert timestamp.endswith("Z")
    assert {
        "component": "broker",
        "peer": 7,
        "event": "session opened",
        "records": 3,
        "level": "info",
    } == line


def test_less_important_events_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """An operator runs with --log-level warning."""
    log.configure(level="warning", format="json")
    log.get().info("batch stored")
    log.get().warning("broker lost")
    assert ["broker lost"] == [
        json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()
    ]


def test_fixed_keys_stand_in_lines_of_other_threads(capsys: pytest.CaptureFixture[str]) -> None:
    """The collector's writer thread logs too."""
    log.configure(format="json", component="collector")
    thread = threading.Thread(target=lambda: log.get().info("batch stored"))
    thread.start()
    thread.join()
    assert "collector" == json.loads(capsys.readouterr().out)["component"]


@pytest.mark.parametrize("format", ["json", "console"])
def test_exception_shows_no_local_variables(
    format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A connection fails in a function that holds the DSN with its password."""
    log.configure(format=format)
    try:
        _failing("-".join(["hunter", "2"]))
    except ConnectionError:
        log.get().exception("store lost")
    shown = capsys.readouterr().out
    assert "cannot connect" in shown
    assert "_failing" in shown
    assert "hunter-2" not in shown


def test_auto_is_json_when_output_is_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Output goes into a file or a pipe."""
    log.configure()
    log.get().info("started")
    assert "started" == json.loads(capsys.readouterr().out)["event"]


def test_console_line_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """A developer asks for console lines through a pipe."""
    log.configure(format="console")
    log.get().info("started", port=1)
    shown = capsys.readouterr().out
    assert "started" in shown
    assert "port=1" in shown
    assert "{" not in shown
