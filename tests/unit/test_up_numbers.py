"""What `telemq up` reads and how it shows it, from made-up moments."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from telemq import log
from telemq.up.numbers import Growth, Numbers, Rate, Totals, broker_numbers, read_metrics
from telemq.up.panel import Lines, View, render
from telemq.up.report import Report, tell
from telemq.up.supervisor import ChildState

_METRICS = """\
# HELP telemq_broker_ready_records Records waiting.
# TYPE telemq_broker_ready_records gauge
telemq_broker_ready_records 1200.0
telemq_broker_leased_records 300.0
telemq_broker_granted_records 5000.0
telemq_broker_capacity_records 2e+06
telemq_broker_oldest_message_seconds 0.25
telemq_broker_peers{role="producer"} 2.0
telemq_broker_peers{role="consumer"} 3.0
"""


def _numbers() -> Numbers:
    known = Numbers(totals=Totals(123_456, 7), stored_per_s=9876.5)
    return broker_numbers(read_metrics(_METRICS), known)


def _view(numbers: Numbers) -> View:
    return View(
        phase="running",
        lived_s=65.0,
        left_s=3600.0,
        children=[
            ChildState("broker", "broker", "running", 4711, 0, 64.0),
            ChildState("collector-1", "collector", "waiting", 0, 3, 0.0),
        ],
        numbers=numbers,
        stored_before=3456,
        api="127.0.0.1:8080",
        broker_ops="127.0.0.1:9601",
        store="/data/telemq",
    )


def _shown(numbers: Numbers, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(render(_view(numbers)))
    return capture.get()


def test_broker_numbers_come_from_its_metrics() -> None:
    """The broker is scraped."""
    assert Numbers(1200, 300, 5000, 2_000_000, 0.25, 2, 3, Totals(123_456, 7), 9876.5) == _numbers()


def test_broker_that_does_not_answer_leaves_no_old_numbers() -> None:
    """The broker was just killed; what it held is not known."""
    gone = broker_numbers({}, _numbers())
    assert gone.ready_records is None
    assert Totals(123_456, 7) == gone.totals


def test_rate_is_over_the_last_seconds() -> None:
    """Storing stalls after a fast start."""
    rate = Rate(over_s=5)
    assert rate.add(0, 1000) is None
    assert 500 == rate.add(1, 1500)
    assert 600 == rate.add(5, 4000)
    assert 0 == rate.add(10, 4000)


def test_growth_counts_on_over_restarts() -> None:
    """A collector is killed, and its counters begin at 0 again."""
    growth = Growth()
    for value in (3.0, None, 5.0, 2.0, 2.0, 4.0):
        growth.read(value)
    assert 9 == growth.total


def test_panel_shows_processes_flow_and_links() -> None:
    """Somebody watches `telemq up`."""
    shown = _shown(_numbers())
    for text in (
        "running for 1 min 05 s, 1 h 00 min left",
        "4711",
        "collector-1   waiting",
        "123,456   120,000 since the start",
        "9,876",
        "of 2,000,000 in use",
        "to 3 collectors",
        "with 2 streamers",
        "0.2 s",
        "http://127.0.0.1:8080/swagger",
        "http://127.0.0.1:8080/redoc",
        "http://127.0.0.1:9601/metrics",
        "/data/telemq",
    ):
        assert text in shown


def test_panel_before_anything_is_known() -> None:
    """The first moments of a start."""
    assert "stored         -" in _shown(Numbers())


def test_panel_tells_why_the_database_cannot_be_read() -> None:
    """Postgres is restarting."""
    assert "connection refused" in _shown(Numbers(fault="connection refused"))


def test_panel_fits_a_narrow_terminal() -> None:
    """A window that shares the screen."""
    assert max(len(line) for line in _shown(_numbers(), width=60).splitlines()) <= 60


def test_without_terminal_there_is_a_line_every_five_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`telemq up` runs under systemd."""
    log.configure(format="json")
    lines = Lines()
    for lived_s in (4.9, 5.0, 5.1, 9.9, 10.2):
        lines.show(View("running", lived_s, None, [], _numbers(), 0, "a", "b", "c"))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["running", "running"] == [line["phase"] for line in told]
    assert 123_456 == told[0]["stored"]
    assert 1200 == told[0]["ready_records"]


@pytest.mark.parametrize(
    ("complete", "fault", "verdict"),
    [
        (True, "", "complete"),
        (False, "rows 3 to 5 are in no batch", "incomplete: rows 3 to 5 are in no batch"),
        (None, "connection refused", "cannot tell: connection refused"),
    ],
)
def test_report_says_the_verdict(complete: bool | None, fault: str, verdict: str) -> None:
    """The run has ended."""
    report = Report("rows stored", 10.0, 500, 900, 1, 1, 2, 3, complete, fault)
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with console.capture() as capture:
        tell(report, console, again=" --data-dir x")
    shown = capture.get()
    assert verdict in shown
    assert "500 records, 50 a second" in shown
    assert "telemq verify --data-dir x" in shown
