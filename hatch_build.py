"""Build hook: puts the browser assets of Swagger UI and Redoc into the wheel.

They come from ``drf-spectacular-sidecar``, which is needed to build and never to run. Nothing is
copied into ``src/``: an editable install reads them from that package.
"""

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class AssetsHook(BuildHookInterface[Any]):
    """Adds what telemq/web/assets.py lists to a wheel, as ``telemq/web/static/``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files, unless this is an editable install."""
        if version == "editable":
            return
        assets = runpy.run_path(str(Path(self.root, "src", "telemq", "web", "assets.py")))
        source = assets["sidecar"]()
        if source is None:
            raise RuntimeError("building telemq needs drf-spectacular-sidecar; it is not installed")
        for name in assets["FILES"]:
            build_data["force_include"][str(source / name)] = f"telemq/web/static/{name}"
