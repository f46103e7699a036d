"""What the chart repeats from elsewhere is up to date; its dashboard reads metrics that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.helm.generate import dashboard, readme
from deploy.helm.generate.__main__ import main
from deploy.helm.generate.comments import Value, described
from deploy.helm.generate.outputs import CHART, outputs
from telemq.helm_values import CHART_COMPONENTS, CHART_SETS, STRUCTURED
from telemq.settings import table
from tests.docs.test_alerts import known_metrics

_VALUES = (CHART / "values.yaml").read_text()


@pytest.mark.parametrize("path", outputs(), ids=lambda path: path.name)
def test_file_is_what_the_generator_makes(path: Path) -> None:
    """A setting, a value or an alert was changed: ``python -m deploy.helm.generate``."""
    assert outputs()[path] == path.read_text()


def test_generator_says_that_all_is_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody asks before a commit."""
    assert 0 == main(["--check"])
    assert "" == capsys.readouterr().err


@pytest.mark.parametrize("value", readme.rows(described(_VALUES)), ids=lambda value: value.name)
def test_every_value_is_explained(value: Value) -> None:
    """Somebody adds a value without a word."""
    assert value.comment.endswith("."), "a comment above it, of whole sentences"


def test_comments_are_found_as_they_stand() -> None:
    """The test of the test: a value in a list or in a line belongs to the value above it."""
    text = "# One.\na: 1\n# Two,\n# still.\nb:\n  # Three.\n  c: [x]\n  d: {e: 1}\nf: null\n"
    found = {value.name: (value.comment, value.shown) for value in described(text)}
    assert {
        "a": ("One.", "1"),
        "b": ("Two, still.", '{"c": ["x"], "d": {"e": 1}}'),
        "b.c": ("Three.", '["x"]'),
        "b.d": ("", '{"e": 1}'),
        "f": ("", "null"),
    } == found


@pytest.mark.parametrize("expression", dashboard.expressions())
def test_panel_reads_metrics_that_exist(expression: str) -> None:
    """A metric is renamed, and its panel would stay empty."""
    names = set(re.findall(r"(?:telemq|process)_[a-z_]+", expression))
    assert names, "it reads nothing"
    assert names <= known_metrics() | {"process_cpu_seconds_total", "process_resident_memory_bytes"}
    assert expression.count("(") == expression.count(")")
    for name in names:
        assert f'{name}{{namespace=~"$namespace"' in expression, f"{name} of any namespace"


def test_panels_do_not_overlap() -> None:
    """Somebody adds a panel, and Grafana pushes the others about."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard.dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_settings_and_values_name_each_other() -> None:
    """A setting is renamed, and a value of the chart would set nothing."""
    variables = {info.variable for info in table() if info.component in CHART_COMPONENTS}
    assert set() == (set(STRUCTURED) | set(CHART_SETS)) - variables
    names = {value.name for value in described(_VALUES)}
    told = {info.helm_value for info in table() if info.helm_value}
    assert set() == told - names
    untold = {info.variable for info in table() if not info.helm_value}
    outside = {info.variable for info in table() if info.component not in CHART_COMPONENTS}
    assert set(CHART_SETS) == untold - outside
