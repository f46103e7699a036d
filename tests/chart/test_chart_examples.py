"""Values that the documentation shows are accepted, and do what they are shown for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support.chart import Values, render
from tests.support.chart_checks import problems

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "kubernetes.md").read_text().replace("sha256:…", "sha256:" + "0" * 64)
_EXAMPLES: list[Values] = [
    yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.+?)^```", _PAGE, re.M | re.S)
]
_KIND: Values = yaml.safe_load((_ROOT / "deploy" / "kind" / "values.yaml").read_text())


@pytest.mark.parametrize("values", [*_EXAMPLES, _KIND], ids=",".join)
def test_values_of_the_pages_give_a_sound_chart(values: Values) -> None:
    """Somebody copies them."""
    assert [] == problems(render(values))


def test_pages_have_values() -> None:
    """The test of the test: blocks are found where they stand."""
    assert ["image", "engine"] == [next(iter(values)) for values in _EXAMPLES]


def test_walk_through_names_what_there_is() -> None:
    """Somebody types it line by line."""
    page = (_ROOT / "deploy" / "kind" / "README.md").read_text()
    objects = {
        f"{kind}/{o['metadata']['name']}"
        for o in render(_KIND).objects
        for kind in {"Deployment": ("deploy",), "Service": ("service",)}.get(o["kind"], ())
    }
    named = set(re.findall(r"\b(?:deploy|service)/telemetry-[a-z]+", page))
    assert {"deploy/telemetry-streamer", "deploy/telemetry-collector"} < named
    assert set() == named - objects
    version = yaml.safe_load((_ROOT / "deploy/helm/telemq/Chart.yaml").read_text())["appVersion"]
    assert set(re.findall(r"telemq:(\d[\w.]*)", page)) == {version}
