"""Who may ask the gateway: tokens, scopes, and how soon a change is known."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest
from litestar.routes import HTTPRoute

from telemq.errors import SettingError
from telemq.gateway.access import scope_of, tokens_needed
from telemq.gateway.app import create_app, openapi_json
from telemq.settings import ApiSettings
from telemq.store.tokens import list_tokens, new_token, revoke_token
from telemq.web.access import is_own_host
from tests.support.gateway import serving
from tests.support.running import eventually
from tests.support.tokens import bearer_of

_PATH = "/api/v1/gpus"


@pytest.fixture
def api(dsn: str) -> Iterator[httpx.Client]:
    """A client of a gateway that needs tokens and forgets them at once."""
    with serving(ApiSettings(dsn=dsn, tokens="on", token_cache_s=0)) as client:
        yield client


def _problem(response: httpx.Response) -> dict[str, Any]:
    assert "application/problem+json" == response.headers["content-type"]
    problem: dict[str, Any] = response.json()
    assert response.status_code == problem["status"]
    return problem


def test_without_a_token_nothing_is_told_and_what_to_do_is(api: httpx.Client) -> None:
    """Somebody finds the address."""
    response = api.get(_PATH)
    assert 401 == response.status_code
    assert 'Bearer realm="telemq"' == response.headers["www-authenticate"]
    assert "telemq tokens new" in _problem(response)["detail"]


@pytest.mark.parametrize("scope", ["read", "write", "admin"])
def test_a_token_opens_what_its_scope_may(
    api: httpx.Client, conn: psycopg.Connection, scope: str
) -> None:
    """Each scope may read."""
    assert 200 == api.get(_PATH, headers=bearer_of(conn, scope=scope)).status_code


def test_a_wrong_secret_is_refused_and_not_repeated(
    api: httpx.Client, conn: psycopg.Connection
) -> None:
    """One letter is missing in a configuration, or somebody counts through the numbers."""
    headers = bearer_of(conn)
    wrong = headers["Authorization"][:-1] + ("A" if headers["Authorization"][-1] != "A" else "B")
    for header in (wrong, wrong.replace("telemq_1_", "telemq_2_"), "Bearer abc", "Basic dTpw"):
        response = api.get(_PATH, headers={"Authorization": header})
        assert 401 == response.status_code
        assert 'error="invalid_token"' in response.headers["www-authenticate"]
        assert header.split()[1] not in response.text
    assert 200 == api.get(_PATH, headers=headers).status_code


def test_a_token_that_ended_says_so(api: httpx.Client, conn: psycopg.Connection) -> None:
    """After --days, and after telemq tokens revoke."""
    expired, revoked = bearer_of(conn, "short", days=1), bearer_of(conn, "gone")
    assert 200 == api.get(_PATH, headers=expired).status_code
    conn.execute("UPDATE api_token SET expires_at = now() WHERE name = 'short'")
    revoke_token(conn, "gone")
    for headers, word in ((expired, "token short is expired"), (revoked, "token gone is revoked")):
        response = api.get(_PATH, headers=headers)
        assert 401 == response.status_code
        assert word in _problem(response)["detail"]


def test_pages_and_health_are_open_and_everything_else_is_not() -> None:
    """A page is added and nobody thinks of the gate; or a question is, and somebody thinks of it.

    A route that is not in the document is a page or what one needs.
    """
    app = create_app(ApiSettings(dsn="host=/nonexistent"))
    guarded = set(json.loads(openapi_json())["paths"]) - {"/healthz", "/readyz"}
    found = set()
    for route in app.routes:
        assert isinstance(route, HTTPRoute)
        handler, _ = route.route_handler_map["GET"]
        assert handler.resolve_guards(), route.path
        if scope_of(handler) is not None:
            found.add(route.path_format)
    assert _PATH in found
    assert guarded == found


def test_open_paths_need_none_and_unknown_ones_tell_nothing(api: httpx.Client) -> None:
    """Probes have no tokens; a scanner learns what the public document says anyway."""
    for path in ("/healthz", "/readyz", "/swagger", "/openapi.json"):
        assert 200 == api.get(path).status_code
    assert 404 == api.get("/api/v1/nothing").status_code
    assert 405 == api.post(_PATH).status_code


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True),
        ("localhost:9600", True),
        ("LocalHost:9600", True),
        ("127.0.0.1", True),
        ("127.0.0.1:9600", True),
        ("[::1]:9600", True),
        ("[::1]", True),
        ("10.0.0.7:9600", False),
        ("rebound.example", False),
        ("rebound.example:9600", False),
        ("127.0.0.1.example:9600", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_names_that_nobody_else_can_point_to_this_machine(host: str, is_ours: bool) -> None:
    """DNS gives out names, and neither loopback's addresses nor localhost."""
    assert is_ours == is_own_host(host)


def test_page_whose_name_points_here_learns_nothing(dsn: str) -> None:
    """A page rebinds its own name to 127.0.0.1, and the browser takes us for its origin."""
    rebound = {"Host": "rebound.example:9600"}
    with serving(ApiSettings(dsn=dsn)) as api:
        assert 200 == api.get(_PATH).status_code
        assert 200 == api.get("/healthz", headers=rebound).status_code
        response = api.get(_PATH, headers=rebound)
        assert 403 == response.status_code
        assert "rebound.example:9600" in _problem(response)["detail"]
    with serving(ApiSettings(dsn=dsn, insecure=True)) as api:
        assert 200 == api.get(_PATH, headers=rebound).status_code


def test_token_is_enough_by_any_name(api: httpx.Client, conn: psycopg.Connection) -> None:
    """Behind a proxy; a page that rebinds its name has no token."""
    headers = bearer_of(conn) | {"Host": "telemetry.example"}
    assert 200 == api.get(_PATH, headers=headers).status_code


def test_a_revoked_token_is_known_for_a_short_time_only(dsn: str, conn: psycopg.Connection) -> None:
    """Somebody leaves: their token must be worth nothing within seconds, on a busy gateway."""
    headers = bearer_of(conn)
    with serving(ApiSettings(dsn=dsn, tokens="on", token_cache_s=0.5)) as api:
        assert 200 == api.get(_PATH, headers=headers).status_code
        revoke_token(conn, "tester")
        eventually(lambda: api.get(_PATH, headers=headers).status_code == 401, "it is refused", 5)


def test_a_token_is_looked_up_once_however_many_ask(dsn: str, conn: psycopg.Connection) -> None:
    """A dashboard opens twenty requests at once; and then one a second."""
    headers = bearer_of(conn)
    with (
        serving(ApiSettings(dsn=dsn, tokens="on", token_cache_s=300)) as api,
        ThreadPoolExecutor(8) as pool,
    ):
        assert {200} == {
            *pool.map(lambda _: api.get(_PATH, headers=headers).status_code, range(40))
        }
        conn.execute("UPDATE api_token SET digest = sha256('another')")
        assert 200 == api.get(_PATH, headers=headers).status_code


def test_the_last_use_is_noted_to_the_minute(api: httpx.Client, conn: psycopg.Connection) -> None:
    """Which tokens are still needed? A minute has one UPDATE, however much one is used."""
    headers = bearer_of(conn)
    assert list_tokens(conn)[0].used_at is None
    api.get(_PATH, headers=headers)
    used_at = list_tokens(conn)[0].used_at
    assert used_at is not None
    api.get(_PATH, headers=headers)
    assert used_at == list_tokens(conn)[0].used_at
    wrong = {"Authorization": headers["Authorization"][:-4] + "AAAA"}
    conn.execute("UPDATE api_token SET used_at = NULL")
    api.get(_PATH, headers=wrong)
    assert list_tokens(conn)[0].used_at is None


def test_without_the_database_a_token_cannot_be_judged(dsn: str, conn: psycopg.Connection) -> None:
    """Postgres is down: that is not the client's fault, and nobody is let in for it."""
    headers = bearer_of(conn)
    settings = ApiSettings(dsn="host=/nonexistent", tokens="on", pool_wait_s=0.2)
    with serving(settings) as api:
        response = api.get(_PATH, headers=headers)
        assert 503 == response.status_code
        assert "5" == response.headers["retry-after"]


def test_a_full_pool_keeps_nobody_from_being_known(dsn: str, conn: psycopg.Connection) -> None:
    """All connections are in long answers: a wrong token is refused at once all the same."""
    settings = ApiSettings(dsn=dsn, tokens="on", pool_connections=1, pool_wait_s=20)
    headers = bearer_of(conn)
    wrong = {"Authorization": headers["Authorization"][:-4] + "AAAA"}
    with serving(settings) as api, psycopg.connect(dsn) as locker:
        locker.execute("LOCK TABLE gpu")
        stuck = threading.Thread(target=api.get, args=(_PATH,), kwargs={"headers": headers})
        stuck.start()
        eventually(lambda: _waiting(conn) == 1, "the only connection waits for the lock")
        assert 401 == api.get(_PATH, headers=wrong).status_code
        locker.rollback()
        stuck.join(20)


def _waiting(conn: psycopg.Connection) -> int:
    row = conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'telemq gateway' AND wait_event_type = 'Lock'"
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    ("address", "tokens", "insecure", "needed"),
    [
        ("127.0.0.1:1", "auto", False, False),
        ("[::1]:1", "auto", False, False),
        ("localhost:1", "off", False, False),
        ("127.0.0.1:1", "on", False, True),
        ("0.0.0.0:1", "auto", False, True),
        ("[::]:1", "on", True, True),
        ("10.0.0.1:1", "auto", True, False),
        ("10.0.0.1:1", "off", True, False),
    ],
)
def test_who_can_be_reached_needs_tokens_unless_told_otherwise(
    address: str, tokens: str, insecure: bool, needed: bool
) -> None:
    """The table of docs/api.md."""
    settings = ApiSettings(dsn="", address=address, tokens=tokens, insecure=insecure)
    assert needed == tokens_needed(settings)


def test_open_to_others_without_tokens_is_refused() -> None:
    """Somebody exposes it and forgets."""
    settings = ApiSettings(dsn="", address="10.0.0.1:1", tokens="off")
    with pytest.raises(SettingError, match="--insecure"):
        tokens_needed(settings)


@pytest.mark.parametrize(
    ("name", "scope", "days", "says"),
    [
        ("a b", "read", None, "NAME"),
        ("a", "root", None, "read, write, admin"),
        ("a", "read", 0, "--days"),
        ("a", "read", 40_000, "--days"),
        ("a", "read", float("nan"), "--days"),
        ("taken", "read", None, "free"),
    ],
)
def test_what_cannot_be_a_token_is_refused(
    conn: psycopg.Connection, name: str, scope: str, days: float | None, says: str
) -> None:
    """Slips on the command line."""
    new_token(conn, "taken", "read")
    with pytest.raises(SettingError, match=says):
        new_token(conn, name, scope, days=days)


def test_a_name_is_free_again_when_its_token_is_revoked(conn: psycopg.Connection) -> None:
    """A token leaked: its owner gets another, and the list tells of both."""
    _, first = new_token(conn, "me", "read")
    revoke_token(conn, "me")
    _, second = new_token(conn, "me", "read")
    assert first != second
    assert 2 == len(list_tokens(conn))
    with pytest.raises(SettingError, match="list shows: me"):
        revoke_token(conn, "you")
