"""``telemq bench``: what is shown of measurements, and that its commands reach them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from telemq import log
from telemq.bench.backlog import BacklogRun
from telemq.bench.measure import Part, Quantiles, Run
from telemq.bench.peers import PeerRun
from telemq.bench.query import StoreSize
from telemq_cli import bench_render
from telemq_cli.main import app


def runs(*, latency: bool = False) -> Iterator[Run]:
    """Two turns of two subjects; the first subject is half as fast."""
    times = Quantiles(0.25, 0.5, 9.0) if latency else None
    for seconds in (1.0, 2.0):
        yield Run("ours", 1_000_000, seconds, (Part("broker", 0.9, 50_000_000),), times, times)
        yield Run("theirs", 1_000_000, seconds / 2, (Part("proxy", 0.1, 0),), times, times)


def test_rates_are_shown_with_spread_ratio_and_limit(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody reads the table: how fast, how sure, and what to make faster."""
    assert 0 == bench_render.report(runs(), as_json=False)
    shown = capsys.readouterr()
    line = next(line for line in shown.out.splitlines() if line.startswith(" ours "))
    assert ["750,000", "500,000", "1,000,000", "0.90"] == line.split()[1:5]
    assert "ours against theirs: 0.50" in shown.out
    assert "ours was limited by: broker at 90% of a core" in shown.out
    assert "ours: 500,000 records/s" in shown.err


def test_rates_as_json_have_every_run(capsys: pytest.CaptureFixture[str]) -> None:
    """A script reads them; nothing else is on standard output."""
    bench_render.report(runs(), as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert [1e6, 2e6, 5e5, 1e6] == [run["records_per_s"] for run in shown]
    assert "broker at 90% of a core" == shown[0]["limit"]


def test_latency_is_shown_of_delivery_and_confirm(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody wants to know how late single records come."""
    bench_render.report_latency(runs(latency=True), 5000.0, as_json=False)
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if line.startswith(" ours "))
    assert ["0.25", "0.50", "9.0", "0.25", "0.50"] == line.split()[2:7]
    assert "ours: p50 0.25 to 0.25 ms in 2 runs" in shown
    assert "ours was limited by: broker at 90% of a core" in shown


def test_backlog_is_shown_beside_its_payload(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody sizes a broker's memory."""
    seen = BacklogRun(1000, 10, 400_000_000, 60_000_000, 480_000_000, 70_000_000, 0.5, 0.25)
    bench_render.report_backlog([seen], as_json=False)
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if line.startswith(" run 1 "))
    assert ["5.0%", "2,000", "4,000"] == line.split()[-3:]
    assert "limited by: memory" in shown
    bench_render.report_backlog([seen], as_json=True)
    assert 0.05 == pytest.approx(json.loads(capsys.readouterr().out)[0]["overhead"])


def test_narrow_terminal_cuts_no_name_and_no_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody works in half of a screen; a long subject takes several lines."""
    monkeypatch.setenv("COLUMNS", "80")
    seen = BacklogRun(123_456_789, 10, 400_000_000, 60_000_000, 480_000_000, 70_000_000, 9.0, 9.0)
    bench_render.report_backlog([seen], as_json=False)
    shown = capsys.readouterr().out
    assert "run 1" in " ".join(shown.split())
    assert 2 == shown.count("13,717,421")
    assert "…" not in shown


def test_queries_are_shown_with_what_samples_take(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody compares with the table they have."""
    seen: list[Run | StoreSize] = [StoreSize("ours", 1000, 91_000), *runs(latency=True)]
    bench_render.report_query(seen, as_json=False)
    shown = capsys.readouterr().out
    assert "ours: 91.0 bytes a sample" in shown
    assert "ours: p50 0.25 to 0.25 ms in 2 runs" in shown
    bench_render.report_query(seen, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (91.0, 4) == (document["sizes"][0]["sample_bytes"], len(document["runs"]))


@pytest.mark.parametrize("command", ["query", "backlog", "report"])
def test_json_is_all_that_is_printed_whatever_is_logged(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script asks a Postgres of its own, where the schema is made first."""

    def seen(*measured: Any) -> Iterator[Any]:
        log.get().info("schema migrated")
        yield from measured

    structlog.reset_defaults()
    waited = BacklogRun(1000, 10, 400_000_000, 60_000_000, 480_000_000, 70_000_000, 0.5, 0.25)
    if command == "query":
        size = StoreSize("ours", 1000, 91_000)
        bench_render.report_query(seen(size, *runs(latency=True)), as_json=True)
    elif command == "backlog":
        bench_render.report_backlog(seen(waited), as_json=True)
    else:
        bench_render.report(seen(*runs()), as_json=True)
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("share", "said"), [(0.97, "the broker, at 97% of a core"), (0.4, "not the broker")]
)
def test_many_peers_are_shown_with_what_limited_them(
    share: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody wonders whether another broker would help."""
    run = PeerRun(1.0, 5000.0, (1, 2.0, 3, 0.5), (1, 2.0, 3), (1, 2, 3), 50, share, 0, ())
    bench_render.show_peers(run, as_json=False)
    assert f"limited by: {said}" in capsys.readouterr().out


def test_command_measures_what_its_flags_say() -> None:
    """Somebody measures latency for a moment."""
    words = ["latency", "--rate", "500", "--seconds", "0.1", "--runs", "1", "--json"]
    result = CliRunner().invoke(app, ["bench", *words])
    assert 0 == result.exit_code, result.output
    assert [50, 50] == [run["records"] for run in json.loads(result.stdout.splitlines()[-1])]


def test_server_of_somebody_is_never_restarted() -> None:
    """Somebody asks for cold questions to a Postgres that others work with."""
    words = ["query", "--cold", "1", "--dsn", "host=127.0.0.1 port=1"]
    result = CliRunner().invoke(app, ["bench", *words])
    assert 2 == result.exit_code
    assert "only its own server is restarted" in result.output


@pytest.mark.parametrize(
    "command", ["broker", "latency", "backlog", "ingest", "pipeline", "query", "peers"]
)
def test_every_benchmark_tells_its_flags(command: str) -> None:
    """Somebody asks for help."""
    result = CliRunner().invoke(app, ["bench", command, "--help"])
    assert 0 == result.exit_code
    assert "--json" in result.output
