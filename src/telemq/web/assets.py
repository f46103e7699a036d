"""The browser assets that others wrote, and where they lie: Swagger UI, Redoc and uPlot.

In a wheel they lie beside this file in ``static/``, put there by hatch_build.py when the wheel was
built; in an editable install they are read from the packages that ship them. The build hook runs
this file, so it imports nothing but the standard library.
"""

import hashlib
import importlib.util
from pathlib import Path

__all__ = ["FILES", "MEDIA_TYPES", "SHA256", "find", "genuine", "source"]

_SIDECAR = ("drf_spectacular_sidecar", "static/drf_spectacular_sidecar/")

#: Names in ``static/``: the package that ships the file, and the file's path in it.
FILES: dict[str, tuple[str, str]] = {
    **{
        name: (_SIDECAR[0], _SIDECAR[1] + name)
        for name in (
            "swagger-ui-dist/LICENSE",
            "swagger-ui-dist/favicon-32x32.png",
            "swagger-ui-dist/swagger-ui-bundle.js",
            "swagger-ui-dist/swagger-ui.css",
            "redoc/LICENSE",
            "redoc/bundles/redoc.standalone.js",
            "redoc/bundles/redoc.standalone.js.LICENSE.txt",
        )
    },
    "uplot/uPlot.iife.min.js": ("youplot", "vendor/uplot.iife.min.js"),
    "uplot/uPlot.min.css": ("youplot", "vendor/uplot.min.css"),
}

#: Of files that are only taken as their authors published them, since the package that ships them
#: is not the authors': docs/decisions/0007-dashboard.md. Those of uPlot 1.6.31.
SHA256 = {
    "uplot/uPlot.iife.min.js": "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
    "uplot/uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}

MEDIA_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}


def source(name: str) -> Path | None:
    """Find one of `FILES` in its package, without importing that: one of them would need Django."""
    package, path = FILES[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    found = Path(spec.submodule_search_locations[0]) / path
    return found if found.is_file() else None


def genuine(name: str, content: bytes) -> bool:
    """Say whether this is the file that its authors published, as far as `SHA256` knows."""
    return SHA256.get(name) in {None, hashlib.sha256(content).hexdigest()}


def find(name: str) -> Path | None:
    """Find one of `FILES`; None when neither the wheel nor its package has it."""
    built = Path(__file__).with_name("static") / name
    return built if built.is_file() else source(name)
