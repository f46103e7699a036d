"""Build hook: puts the browser assets of Swagger UI, Redoc and uPlot into the wheel.

They come from packages that are needed to build and never to run. Nothing is copied into ``src/``:
an editable install reads them from those packages.
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
        for name, (package, _) in assets["FILES"].items():
            found = assets["source"](name)
            if found is None:
                raise RuntimeError(f"building telemq needs {package}, which has {name}")
            if not assets["genuine"](name, found.read_bytes()):
                raise RuntimeError(f"{found} is not what its authors published as {name}")
            build_data["force_include"][str(found)] = f"telemq/web/static/{name}"
