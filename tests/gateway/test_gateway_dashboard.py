"""The dashboard as files: what is served, by which policy, and what a missing package costs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from telemq.dashboard import pages
from telemq.settings import ApiSettings
from telemq.web import assets
from tests.support.gateway import serving

_PAGES = ("/", "/gpu", "/pipeline", "/usage")
_STATIC = Path(pages.__file__).with_name("static")


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    """A gateway without a database: the pages need none."""
    with serving(ApiSettings(dsn="host=127.0.0.1 port=1")) as client:
        yield client


@pytest.mark.parametrize("path", _PAGES)
def test_a_page_may_run_nothing_but_this_servers_files(api: httpx.Client, path: str) -> None:
    """The policy holds against what somebody stores as a label; no script or style is inline."""
    page = api.get(path)
    assert 200 == page.status_code
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert not re.search(r"https?:|\*|unsafe", policy)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page.text)
    assert not re.search(r"(src|href)=\"?(https?:)?//", page.text)
    for name in re.findall(r'(?:src|href)="((?:app|assets)/[^"]*)"', page.text):
        assert 200 == api.get(f"/{name}").status_code, name


@pytest.mark.parametrize("path", _PAGES)
def test_a_page_works_below_any_path(api: httpx.Client, path: str) -> None:
    """Behind a proxy that serves it as /telemq/: no link starts at the root."""
    assert not re.search(r'(?:src|href)="/', api.get(path).text)


def test_files_are_kept_for_ever_and_only_those_of_this_build(api: httpx.Client) -> None:
    """An upgrade is seen at once, and nothing is asked for twice until then."""
    url = f"/app/{pages.build()}/fleet.js"
    response = api.get(url)
    assert "text/javascript" in response.headers["content-type"]
    assert "immutable" in response.headers["cache-control"]
    assert "no-store" == api.get("/app/older/fleet.js").headers["cache-control"]
    assert "no-cache" == api.get("/").headers["cache-control"]


@pytest.mark.parametrize("name", ["shell.html", "..%2fpages.py", "%2e%2e", "x.js", "fleet.js/"])
def test_no_other_file_can_be_had(api: httpx.Client, name: str) -> None:
    """Somebody tries to climb out of the directory."""
    response = api.get(f"/app/{pages.build()}/{name}")
    assert response.status_code == 404 or "fleet.js" in name
    assert response.status_code == 200 or "problem+json" in response.headers["content-type"]


def test_every_module_that_is_imported_is_there() -> None:
    """A module was renamed: the page would stay empty."""
    for path in _STATIC.glob("*.js"):
        text = path.read_text("utf-8")
        for name in re.findall(r'from "\./([^"]+)"', text):
            assert (_STATIC / name).is_file(), f"{path.name} imports {name}"
        assert len(text.splitlines()) <= 400, path.name


def test_nothing_makes_html_of_text() -> None:
    """What comes from the database is text, so no module has a way to write it as HTML."""
    for path in _STATIC.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|Function\(",
            path.read_text("utf-8"),
        ), path.name


def test_without_uplot_the_fleet_is_shown_and_charts_are_named(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editable install without the package that has it."""
    monkeypatch.setattr(assets, "find", lambda name: None)
    assert 200 == api.get("/").status_code
    assert 200 == api.get("/usage").status_code
    for path in ("/gpu", "/pipeline"):
        response = api.get(path)
        assert 503 == response.status_code
        assert "youplot" in response.json()["detail"]


@pytest.mark.parametrize("name", assets.SHA256)
def test_uplot_is_what_its_authors_published(name: str) -> None:
    """The package that ships it is not theirs, and may be changed."""
    found = assets.find(name)
    assert found is not None
    assert assets.genuine(name, found.read_bytes())
    assert not assets.genuine(name, found.read_bytes() + b"\n")
