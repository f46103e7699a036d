"""docs/performance.md is what the figures of the last run say."""

from __future__ import annotations

import json
from pathlib import Path

from telemq_cli.bench import bench
from tests.bench.page import insert, render

_DOCS = Path(__file__).parents[2] / "docs"


def test_tables_are_made_from_the_figures() -> None:
    """Somebody edits a figure by hand, or measures anew and forgets the page."""
    page = (_DOCS / "performance.md").read_text()
    figures = json.loads((_DOCS / "performance.json").read_text())
    assert insert(page, render(figures)) == page
    assert {} == figures["failed"]


def test_page_names_every_benchmark() -> None:
    """A benchmark was added, and nobody hears of it."""
    page = (_DOCS / "performance.md").read_text()
    for command in bench.registered_commands:
        assert command.callback is not None
        assert f"`telemq bench {command.callback.__name__}" in page
