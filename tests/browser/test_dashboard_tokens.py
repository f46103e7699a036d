"""The dashboard of a gateway that asks for tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Browser, expect

from telemq.settings import ApiSettings
from telemq.store import tokens
from tests.support.browser import Visit
from tests.support.gateway import serving
from tests.support.shown_fleet import Fleet

pytestmark = pytest.mark.browser


@pytest.fixture
def guarded(browser: Browser, dsn: str, fleet: Fleet) -> Iterator[Visit]:
    """A fresh page of a gateway that needs tokens."""
    given: dict[str, Any] = {"tokens": "on"}
    settings = dataclasses.replace(ApiSettings(dsn=dsn, follow_s=0.2), **given)
    with serving(settings) as client:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        visit = Visit(context.new_page(), str(client.base_url).rstrip("/"))
        try:
            yield visit
            assert [] == visit.elsewhere
            told = [text for text in visit.complaints if "401" not in text and "403" not in text]
            assert [] == told
        finally:
            context.close()


def _use(visit: Visit, text: str) -> None:
    visit.page.get_by_role("textbox", name="Token").fill(text)
    visit.page.get_by_role("button", name="Use this token").click()


def test_a_token_is_asked_for_once_and_kept_in_the_tab(
    guarded: Visit, conn: psycopg.Connection
) -> None:
    """Somebody mistypes the token first; then every page works, the live stream too."""
    _, secret = tokens.new_token(conn, "dashboard", "read")
    guarded.open("/")
    dialog = guarded.page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    _use(guarded, "telemq_wrong")
    expect(dialog).to_contain_text("not accepted")
    _use(guarded, secret)
    expect(dialog).to_be_hidden()
    expect(guarded.page.locator("#totals .tile b").first).to_have_text("24")
    expect(guarded.page.locator("#live")).to_have_text("Live")
    guarded.open("/usage")
    expect(guarded.page.locator("#usage tbody tr").first).to_be_visible()
    expect(dialog).to_be_hidden()
    assert secret not in guarded.page.content() + guarded.page.url
    guarded.page.get_by_role("button", name="Forget token").click()
    expect(dialog).to_be_visible()
