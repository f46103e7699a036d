"""The browser assets of Swagger UI and Redoc, and where they lie.

In a wheel they lie beside this file in ``static/``, put there by hatch_build.py when the wheel was
built; in an editable install they are read from the package ``drf-spectacular-sidecar``. The build
hook runs this file for `FILES`, so it imports nothing but the standard library.
"""

import importlib.util
from pathlib import Path

__all__ = ["FILES", "MEDIA_TYPES", "find", "sidecar"]

#: Paths in ``static/``, and below the static directory of the package they come from.
FILES: tuple[str, ...] = (
    "swagger-ui-dist/LICENSE",
    "swagger-ui-dist/favicon-32x32.png",
    "swagger-ui-dist/swagger-ui-bundle.js",
    "swagger-ui-dist/swagger-ui.css",
    "redoc/LICENSE",
    "redoc/bundles/redoc.standalone.js",
    "redoc/bundles/redoc.standalone.js.LICENSE.txt",
)

MEDIA_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".png": "image/png",
}

_PACKAGE = "drf_spectacular_sidecar"


def sidecar() -> Path | None:
    """Find the assets of the installed package, without importing it: that would need Django."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "static" / _PACKAGE


def find(name: str) -> Path | None:
    """Find one of `FILES`; None when neither the wheel nor the package has it."""
    for directory in (Path(__file__).with_name("static"), sidecar()):
        if directory is not None and (directory / name).is_file():
            return directory / name
    return None
