"""Write what the chart renders into a directory, for tools that read files: one file a shape."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.support.chart import Values, overlay, render
from tests.support.chart_values import COMBINATIONS

__all__ = ["SHAPES", "write"]

#: Between them everything that the chart can render, as it is run in earnest: by digests.
SHAPES = {
    "defaults": (),
    "everything": (
        *("journal", "ways", "Ingress", "Gateway API", "monitoring", "autoscaling by KEDA"),
        *("a claim", "more peers allowed"),
    ),
    "external": ("external Postgres", "NATS elsewhere with a password", "autoscaling by CPU"),
}
_DIGEST = "sha256:" + "0123456789abcdef" * 4
_PINNED: Values = {"image": {"digest": _DIGEST}, "postgres": {"image": {"digest": _DIGEST}}}


def write(directory: Path) -> None:
    """Make the directory anew."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for shape, names in SHAPES.items():
        rendered = render(overlay(*(COMBINATIONS[name] for name in names), _PINNED))
        text = "\n---\n".join(rendered.texts.values())
        (directory / f"{shape}.yaml").write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
