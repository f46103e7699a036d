"""docs/terminal.md and docs/grafana.md tell all that there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from telemq.setting import rows
from telemq.settings import GpusSettings, QuerySettings, StoreSettings
from telemq_cli.main import app

ROOT = Path(__file__).parents[2]
SHARED = {info.flag for info in rows(StoreSettings)} | {"--help"}


@pytest.mark.parametrize(("name", "settings"), [("gpus", GpusSettings), ("query", QuerySettings)])
def test_every_flag_is_on_the_page(name: str, settings: type[StoreSettings]) -> None:
    """A flag was added, and nobody hears of it."""
    page = (ROOT / "docs/terminal.md").read_text()
    group = typer.main.get_group(app)
    flags = {o for p in group.commands[name].params for o in p.opts if o.startswith("--")}
    limits = {"--statement-s-max", "--chunk-rows"}  # of docs/settings.md
    assert [] == sorted(flag for flag in flags - SHARED - limits if flag not in page)
    sorts = next((info.choices for info in rows(settings) if info.name == "sort"), ())
    assert all(f"`{sort}`" in page for sort in sorts)


def test_every_dashboard_is_on_the_page() -> None:
    """A dashboard was added."""
    page = (ROOT / "docs/grafana.md").read_text()
    files = [path.name for path in (ROOT / "deploy/grafana/dashboards").iterdir()]
    assert files
    assert all(f"`{name}`" in page for name in files)
    variables = (ROOT / "deploy/grafana/provisioning/datasources/telemq.yaml").read_text()
    for word in variables.split():
        if word.startswith("${"):
            assert f"--env {word[2:-1]}=" in page
