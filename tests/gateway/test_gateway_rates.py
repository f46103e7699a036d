"""How often a client may ask the gateway."""

from __future__ import annotations

import httpx
import psycopg

from telemq.settings import ApiSettings
from tests.support.gateway import serving
from tests.support.tokens import bearer_of

_PATH = "/api/v1/gpus"


def test_a_flood_is_told_when_to_come_again_and_probes_are_not(dsn: str) -> None:
    """A script in a loop without a pause: others, and probes, do not feel it."""
    with serving(ApiSettings(dsn=dsn, rate_per_s=0.01, rate_burst=3)) as api:
        statuses = [api.get(_PATH).status_code for _ in range(5)]
        assert [200, 200, 200, 429, 429] == statuses
        response = api.get(_PATH)
        assert 0 < int(response.headers["retry-after"]) <= 100
        assert "application/problem+json" == response.headers["content-type"]
        assert "--rate-per-s" in response.json()["detail"]
        for path in ("/healthz", "/readyz", "/swagger", "/openapi.json"):
            assert 200 == api.get(path).status_code


def test_each_token_has_its_own_rate(dsn: str, conn: psycopg.Connection) -> None:
    """Two people behind one address: one floods, the other works."""
    flood, other = bearer_of(conn, "flood"), bearer_of(conn, "other")
    settings = ApiSettings(dsn=dsn, tokens="on", rate_per_s=0.01, rate_burst=4)
    with serving(settings) as api:
        assert [200] * 4 + [429] == [api.get(_PATH, headers=flood).status_code for _ in range(5)]
        assert 200 == api.get(_PATH, headers=other).status_code


def test_guessing_is_as_slow_as_asking(dsn: str, conn: psycopg.Connection) -> None:
    """Somebody tries tokens; whoever has one goes on, as long as it is remembered."""
    good = bearer_of(conn)
    settings = ApiSettings(dsn=dsn, tokens="on", token_cache_s=300, rate_per_s=0.01, rate_burst=5)
    with serving(settings) as api:
        assert 200 == api.get(_PATH, headers=good).status_code
        assert [401] * 4 + [429] == [_guess(api, n) for n in range(5)]
        assert 429 == api.get(_PATH).status_code
        assert 200 == api.get(_PATH, headers=good).status_code


def _guess(api: httpx.Client, number: int) -> int:
    header = f"Bearer telemq_{number % 2 + 1}_{str(number).zfill(43)}"
    return api.get(_PATH, headers={"Authorization": header}).status_code
