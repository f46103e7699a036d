"""docs/sizing.md is what `telemq size` computes."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from telemq.sizing import MEASURED
from telemq_cli.main import app
from telemq_cli.sizing import sizing_table

_PAGE = Path(__file__).parents[2] / "docs" / "sizing.md"


def test_table_and_figures_are_those_of_the_code() -> None:
    """A figure was measured anew, and the page forgotten."""
    page = _PAGE.read_text()
    assert sizing_table() in page
    for figure in (
        f"| streamer | {MEASURED.streamer_s:.2f} |",
        f"| broker | {MEASURED.broker_s:.2f} |",
        f"| collector | {MEASURED.collector_s:.2f} |",
        f"| Postgres, storing | {MEASURED.postgres_s:.2f} |",
        f"| a sample, its index included | {MEASURED.sample_bytes:.1f} bytes |",
        f"| a sample in a chunk | {MEASURED.chunked_bytes:.1f} bytes |",
        f"| a chunk beside its samples | {MEASURED.chunk_bytes:.0f} bytes |",
        f"| a series with its labels | {MEASURED.series_bytes:.0f} bytes |",
    ):
        assert figure in page


def test_command_prints_what_the_page_says() -> None:
    """The page's example."""
    words = ["size", "--gpus", "1000", "--metrics", "40", "--interval-s", "10"]
    result = CliRunner().invoke(app, words)
    assert 0 == result.exit_code
    assert result.output in _PAGE.read_text()
    assert '"records_per_s": 4000.0' in CliRunner().invoke(app, [*words, "--json"]).output


def test_wrong_number_is_explained() -> None:
    """A typing error."""
    result = CliRunner().invoke(app, ["size", "--gpus", "0"])
    assert 2 == result.exit_code
    assert "--gpus" in result.output
