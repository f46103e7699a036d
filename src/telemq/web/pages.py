"""``/swagger``, ``/redoc`` and ``/openapi.json``: the API's documentation.

Everything comes from this server: the pages' policy (CSP) lets the browser load from nowhere else,
run no script that is written into a page, and be framed by nobody.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path, PurePosixPath

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from telemq.web import assets
from telemq.web.access import OPEN
from telemq.web.problems import ProblemError

__all__ = ["ROUTES", "asset", "openapi", "redoc", "swagger"]

_CSP = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # both bundles write style elements as they go
        "img-src 'self' data:",
        "connect-src 'self'",
        "worker-src blob:",  # Redoc searches in a worker that it makes from its own text
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_MISSING = (
    "the browser assets of this page are not installed: install telemq from a wheel, or "
    "drf-spectacular-sidecar beside an editable install; /openapi.json works without"
)
_CACHE = {"Cache-Control": "max-age=3600"}

_SWAGGER_JS, _SWAGGER_CSS = "swagger-ui-dist/swagger-ui-bundle.js", "swagger-ui-dist/swagger-ui.css"
_REDOC_JS = "redoc/bundles/redoc.standalone.js"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>telemq API</title>
<link rel="icon" href="assets/swagger-ui-dist/favicon-32x32.png">
{}</head>
<body>
<noscript>This page needs JavaScript; <a href="openapi.json">openapi.json</a> does not.</noscript>
{}</body>
</html>
"""
_SWAGGER = _PAGE.format(
    f'<link rel="stylesheet" href="assets/{_SWAGGER_CSS}">\n',
    f'<div id="swagger"></div>\n<script src="assets/{_SWAGGER_JS}"></script>\n'
    '<script src="assets/swagger-start.js"></script>\n',
)
_REDOC = _PAGE.format(
    "", f'<redoc spec-url="openapi.json"></redoc>\n<script src="assets/{_REDOC_JS}"></script>\n'
)
# validatorUrl: null keeps the document from being sent to a validator elsewhere.
_START = """window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: "openapi.json", dom_id: "#swagger", deepLinking: true, validatorUrl: null,
    displayRequestDuration: true
  });
});
"""
# Redoc asks a CDN for the logo in its corner; the policy would stop that, and report it.
_REDOC_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_NO_LOGO = b"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"


@get("/swagger", include_in_schema=False, opt=OPEN, sync_to_thread=False)
def swagger() -> Response[str]:
    """Answer Swagger UI."""
    return _page(_SWAGGER, _SWAGGER_JS, _SWAGGER_CSS)


@get("/redoc", include_in_schema=False, opt=OPEN, sync_to_thread=False)
def redoc() -> Response[str]:
    """Answer Redoc."""
    return _page(_REDOC, _REDOC_JS)


@get("/openapi.json", include_in_schema=False, opt=OPEN, sync_to_thread=False)
def openapi(document: NamedDependency[bytes]) -> Response[bytes]:
    """Answer the OpenAPI document."""
    return Response(document, media_type="application/json")


@get("/assets/{name:path}", include_in_schema=False, opt=OPEN, sync_to_thread=True)
def asset(name: FromPath[str]) -> Response[bytes]:
    """Answer a file that a page needs; no other file can be reached."""
    name = name.removeprefix("/")
    content = _START.encode() if name == "swagger-start.js" else _read(name)
    if content is None:
        raise ProblemError(404, "there is no such asset")
    media_type = assets.MEDIA_TYPES.get(PurePosixPath(name).suffix, "text/plain")
    return Response(content, media_type=media_type, headers=_CACHE)


def _page(html: str, *needed: str) -> Response[str]:
    if not all(assets.find(name) for name in needed):
        raise ProblemError(503, _MISSING)
    return Response(html, media_type="text/html", headers={"Content-Security-Policy": _CSP})


def _read(name: str) -> bytes | None:
    path = assets.find(name) if name in assets.FILES else None
    if path is None:
        return None
    return _redoc_bundle(path) if name == _REDOC_JS else path.read_bytes()


@cache
def _redoc_bundle(path: Path) -> bytes:
    return path.read_bytes().replace(_REDOC_LOGO, _NO_LOGO)


ROUTES: tuple[HTTPRouteHandler, ...] = (swagger, redoc, openapi, asset)
