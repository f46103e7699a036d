"""Write the dashboards of deploy/grafana."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.generate.boards import BOARDS
from deploy.grafana.generate.dashboard import dashboard

__all__ = ["files", "main"]

_FOLDER = Path(__file__).parents[1] / "dashboards"


def files() -> dict[Path, str]:
    """Give every file and what is in it."""
    return {
        _FOLDER / f"{board.uid.removeprefix('telemq-')}.json": json.dumps(
            dashboard(board), indent=2, ensure_ascii=False
        )
        + "\n"
        for board in BOARDS
    }


def main() -> None:
    """Write them."""
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
