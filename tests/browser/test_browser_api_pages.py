"""Swagger UI and Redoc in a real browser that can reach nothing but the gateway.

Set ``SCREENSHOTS`` to a directory to keep what the browser showed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from telemq.settings import ApiSettings
from tests.support.browser import Visit, chromium
from tests.support.gateway import add_samples, add_series, at, serving

pytestmark = pytest.mark.browser


def _show(visit: Visit, name: str, tmp_path: Path) -> None:
    """Keep a picture of what is seen now."""
    directory = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    directory.mkdir(parents=True, exist_ok=True)
    visit.page.screenshot(path=directory / f"{name}.png")


@pytest.fixture
def api(dsn: str, conn: psycopg.Connection) -> Iterator[httpx.Client]:
    """A gateway with one sample of one GPU."""
    add_samples(conn, add_series(conn, "GPU-aaaa"), [(at(0), 97)])
    with serving(ApiSettings(dsn=dsn)) as client:
        yield client


@pytest.fixture
def visit(api: httpx.Client) -> Iterator[Visit]:
    """A fresh browser page."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        yield Visit(page, str(api.base_url).rstrip("/"))


def test_swagger_shows_every_operation_and_tries_one_out(visit: Visit, tmp_path: Path) -> None:
    """Somebody explores the API on a machine without Internet."""
    visit.open("/swagger", wait_until="networkidle")
    for path in ("/api/v1/gpus", "/api/v1/gpus/{id}/telemetry", "/healthz", "/readyz"):
        visit.page.locator(f'[data-path="{path}"]').wait_for()
    visit.page.locator("#operations-telemetry-get_telemetry .opblock-summary-control").click()
    visit.page.get_by_role("button", name="Try it out").click()
    visit.page.get_by_placeholder("id").fill("GPU-aaaa")
    visit.page.get_by_placeholder("start_time").fill("2025-07-18T02:00:00+02:00")
    visit.page.get_by_role("button", name="Execute").click()
    answer = visit.page.locator(".live-responses-table .response-col_description")
    answer.get_by_text("DCGM_FI_DEV_GPU_UTIL").wait_for()
    _show(visit, "swagger", tmp_path)
    assert ([], []) == (visit.complaints, visit.elsewhere)


def test_redoc_shows_every_operation(visit: Visit, tmp_path: Path) -> None:
    """Somebody reads the reference; its bundle must not ask a CDN for a logo."""
    visit.open("/redoc", wait_until="networkidle")
    for title in ("List GPUs", "Telemetry of a GPU", "Is the process alive?"):
        assert visit.page.get_by_role("heading", name=title).is_visible()
    visit.page.get_by_role("heading", name="Telemetry of a GPU").scroll_into_view_if_needed()
    _show(visit, "redoc", tmp_path)
    assert ([], []) == (visit.complaints, visit.elsewhere)
