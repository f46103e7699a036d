"""Swagger UI and Redoc in a real browser that can reach nothing but the gateway.

Set ``SCREENSHOTS`` to a directory to keep what the browser showed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from telemq.settings import ApiSettings
from tests.support.gateway import add_samples, add_series, at, serving

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import ConsoleMessage, Page, Request, sync_playwright

pytestmark = pytest.mark.browser

_CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_ARGUMENTS = [
    "--no-sandbox",  # it cannot be had as root, and the only pages are our own
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]


class Visit:
    """One page of a browser, with what it complained of and whom it asked.

    Attributes:
        page: the page.
        complaints: console errors and warnings, exceptions, failed requests.
        elsewhere: URLs outside the gateway that it tried to load.
    """

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self._origin = origin
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("requestfailed", lambda request: self.complaints.append(request.url))
        page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self._origin, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def open(self, path: str) -> None:
        """Load a page and wait until its network is quiet."""
        self.page.goto(self._origin + path, wait_until="networkidle")

    def show(self, name: str, tmp_path: Path) -> None:
        """Keep a picture of what is seen now."""
        directory = Path(os.environ.get("SCREENSHOTS") or tmp_path)
        directory.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=directory / f"{name}.png")


@pytest.fixture
def api(dsn: str, conn: psycopg.Connection) -> Iterator[httpx.Client]:
    """A gateway with one sample of one GPU."""
    add_samples(conn, add_series(conn, "GPU-aaaa"), [(at(0), 97)])
    with serving(ApiSettings(dsn=dsn)) as client:
        yield client


@pytest.fixture
def visit(api: httpx.Client) -> Iterator[Visit]:
    """A fresh browser page; without Chromium the test is skipped."""
    if _CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            yield Visit(page, str(api.base_url).rstrip("/"))
        finally:
            browser.close()


def test_swagger_shows_every_operation_and_tries_one_out(visit: Visit, tmp_path: Path) -> None:
    """Somebody explores the API on a machine without Internet."""
    visit.open("/swagger")
    for path in ("/api/v1/gpus", "/api/v1/gpus/{id}/telemetry", "/healthz", "/readyz"):
        assert visit.page.locator(f'[data-path="{path}"]').is_visible()
    visit.page.locator("#operations-telemetry-get_telemetry .opblock-summary-control").click()
    visit.page.get_by_role("button", name="Try it out").click()
    visit.page.get_by_placeholder("id").fill("GPU-aaaa")
    visit.page.get_by_placeholder("start_time").fill("2025-07-18T02:00:00+02:00")
    visit.page.get_by_role("button", name="Execute").click()
    answer = visit.page.locator(".live-responses-table .response-col_description")
    answer.get_by_text("DCGM_FI_DEV_GPU_UTIL").wait_for()
    visit.show("swagger", tmp_path)
    assert ([], []) == (visit.complaints, visit.elsewhere)


def test_redoc_shows_every_operation(visit: Visit, tmp_path: Path) -> None:
    """Somebody reads the reference; its bundle must not ask a CDN for a logo."""
    visit.open("/redoc")
    for title in ("List GPUs", "Telemetry of a GPU", "Is the process alive?"):
        assert visit.page.get_by_role("heading", name=title).is_visible()
    visit.page.get_by_role("heading", name="Telemetry of a GPU").scroll_into_view_if_needed()
    visit.show("redoc", tmp_path)
    assert ([], []) == (visit.complaints, visit.elsewhere)
