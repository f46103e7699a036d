"""``/``, ``/gpu``, ``/pipeline`` and ``/usage``: the pages, and ``/app/…``: what they load.

A page is a shell round its own part of HTML; all that moves is in JavaScript modules, which ask the
API as any other client does. So a page needs neither a token nor the database.

Everything comes from this server: the policy (CSP) lets the browser load from nowhere else, and run
no script and no style that is written into a page.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from string import Template
from types import MappingProxyType

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from telemq import __version__
from telemq.web import assets
from telemq.web.problems import ProblemError

__all__ = ["ROUTES", "asset", "build", "fleet", "gpu", "pipeline", "usage"]

_CSP = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # a URL of the dashboard may name a pod
    "Cache-Control": "no-cache",  # it names the build that its modules are of
}
#: For everybody, tokens or not: a page shows nothing that it has not asked the API for.
_OPEN = {"open": True}
#: A build's files never change; those of another build are another's business.
_KEPT = {"Cache-Control": "public, max-age=31536000, immutable"}
_NOT_KEPT = {"Cache-Control": "no-store"}
_UPLOT = ("uplot/uPlot.iife.min.js", "uplot/uPlot.min.css")
_MISSING = (
    "uPlot is not installed, which draws this page's charts: install telemq from a wheel, or "
    "youplot beside an editable install; / and /swagger work without"
)


@dataclass(frozen=True, slots=True)
class _Page:
    """A page: its name in ``static/``, its title, and whether it draws charts with uPlot."""

    name: str
    title: str
    charts: bool = False


_FLEET = _Page("fleet", "Fleet")
_GPU = _Page("gpu", "GPU", charts=True)
_PIPELINE = _Page("pipeline", "Pipeline", charts=True)
_USAGE = _Page("usage", "Usage")
#: What the navigation shows: a page, and the URL that leads there from each of them.
_NAVIGATION = ((_FLEET, "."), (_PIPELINE, "pipeline"), (_USAGE, "usage"))


@get("/", include_in_schema=False, opt=_OPEN, sync_to_thread=False)
def fleet() -> Response[str]:
    """Answer the page of the whole fleet."""
    return _answer(_FLEET)


@get("/gpu", include_in_schema=False, opt=_OPEN, sync_to_thread=False)
def gpu() -> Response[str]:
    """Answer the page of one GPU."""
    return _answer(_GPU)


@get("/pipeline", include_in_schema=False, opt=_OPEN, sync_to_thread=False)
def pipeline() -> Response[str]:
    """Answer the page of streams and brokers."""
    return _answer(_PIPELINE)


@get("/usage", include_in_schema=False, opt=_OPEN, sync_to_thread=False)
def usage() -> Response[str]:
    """Answer the page of who used how much."""
    return _answer(_USAGE)


@get("/app/{of:str}/{name:str}", include_in_schema=False, opt=_OPEN, sync_to_thread=False)
def asset(of: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """Answer a file of the dashboard; no other file can be reached."""
    content = _files().get(name)
    if content is None:
        raise ProblemError(404, "there is no such file in the dashboard")
    return Response(
        content,
        media_type=assets.MEDIA_TYPES.get(PurePosixPath(name).suffix, "text/plain"),
        headers=_KEPT if of == build() else _NOT_KEPT,
    )


@cache
def build() -> str:
    """Give the name of this build of the dashboard, which changes with any of its files."""
    digest = hashlib.blake2b(digest_size=6)
    for name, content in sorted(_files().items()):
        digest.update(name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()


@cache
def _files() -> MappingProxyType[str, bytes]:
    return MappingProxyType(
        {
            file.name: file.read_bytes()
            for file in files("telemq.dashboard").joinpath("static").iterdir()
            if file.is_file() and not file.name.endswith(".html")
        }
    )


def _answer(page: _Page) -> Response[str]:
    if page.charts and not all(assets.find(name) for name in _UPLOT):
        raise ProblemError(503, _MISSING)
    return Response(_html(page), media_type="text/html", headers=_HEADERS)


@cache
def _html(page: _Page) -> str:
    static = files("telemq.dashboard").joinpath("static")
    current = ' aria-current="page"'
    script, style = _UPLOT
    return Template(static.joinpath("shell.html").read_text("utf-8")).substitute(
        page=page.name,
        title=page.title,
        app=f"app/{build()}",
        version=__version__,
        navigation="\n".join(
            f'<a href="{url}"{current if other == page else ""}>{other.title}</a>'
            for other, url in _NAVIGATION
        ),
        charts=f'<link rel="stylesheet" href="assets/{style}">\n'
        f'<script src="assets/{script}" defer></script>\n'
        if page.charts
        else "",
        content=static.joinpath(f"{page.name}.html").read_text("utf-8"),
    )


ROUTES: tuple[HTTPRouteHandler, ...] = (fleet, gpu, pipeline, usage, asset)
