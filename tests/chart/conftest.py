"""What the chart's tests share: their mark, and the figures of what they tried."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

#: The other sessions of nox install no Helm, and leave this folder alone.
collect_ignore_glob = [] if find_spec("helm_python") else ["*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("chart")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how much was tried."""
    if not find_spec("helm_python"):
        return
    from tests.support.chart import counts

    terminalreporter.write_line(
        f"chart: {counts.renders:,} renders tried, {len(counts.distinct):,} different outcomes, "
        f"{counts.refused:,} refused as they should be, "
        f"{counts.validated:,} schema checks of different objects"
    )
