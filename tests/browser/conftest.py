"""A gateway with a fleet, and a browser that looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser

from telemq.settings import ApiSettings
from tests.support.browser import Visit, chromium
from tests.support.gateway import serving
from tests.support.shown_fleet import Fleet, make_fleet, now


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of one module; a page of it is each test's own."""
    with chromium() as running:
        yield running


@pytest.fixture
def fleet(conn: psycopg.Connection) -> Fleet:
    """Three hosts of eight GPUs, measured every 10 s in the last five minutes."""
    fleet = make_fleet(conn)
    end = now()
    fleet.measure(conn, *(end - timedelta(seconds=since) for since in range(300, -1, -10)))
    return fleet


@pytest.fixture
def gateway(dsn: str) -> Iterator[httpx.Client]:
    """A gateway on the test's database that looks for new samples five times a second."""
    with serving(ApiSettings(dsn=dsn, follow_s=0.2)) as client:
        yield client


@pytest.fixture
def visit(browser: Browser, gateway: httpx.Client) -> Iterator[Visit]:
    """A fresh page, which must not have complained nor asked anybody else at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        visit = Visit(context.new_page(), str(gateway.base_url).rstrip("/"))
        yield visit
        assert ([], []) == (visit.complaints, visit.elsewhere)
    finally:
        context.close()
