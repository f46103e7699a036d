"""Every generated file, with what it must hold now."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from deploy.helm.generate import dashboard, readme, schema, settings_map
from deploy.helm.generate.comments import described
from telemq import __version__

__all__ = ["CHART", "outputs"]

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "telemq"


def outputs() -> dict[Path, str]:
    """Give the text of each file by its path; made from the others as they are now."""
    values = settings_map.fill_in((CHART / "values.yaml").read_text())
    told = described(values)
    chart = (CHART / "Chart.yaml").read_text()
    return {
        CHART / "values.yaml": values,
        CHART / "Chart.yaml": re.sub(
            r"^(appVersion): .*", rf"\1: {__version__}", chart, flags=re.M
        ),
        CHART / "values.schema.json": _json(schema.schema(yaml.safe_load(values), told)),
        CHART / "templates" / "_settings.tpl": settings_map.template(),
        CHART / "README.md": readme.fill_in((CHART / "README.md").read_text(), told),
        # A chart reads files in its own directory only.
        CHART / "files" / "alerts.yaml": (ROOT / "deploy/prometheus/alerts.yaml").read_text(),
        CHART / "files" / "dashboard.json": _json(dashboard.dashboard()),
    }


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
