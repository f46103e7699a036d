"""docs/settings.md is what the settings table says."""

from __future__ import annotations

from pathlib import Path

from telemq_cli.render import settings_page

_PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_page_is_printed_from_the_table() -> None:
    """A setting was added, and the page forgotten: ``telemq settings --markdown`` makes it."""
    assert settings_page() == _PAGE.read_text()
