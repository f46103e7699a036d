"""What stands on every answer of the gateway, and what never does."""

from __future__ import annotations

import httpx
import pytest

_PATHS = (
    "/api/v1/gpus", "/api/v1/gpus/GPU-none/telemetry", "/api/v1/gpus?by=name", "/nothing",
    "/healthz", "/readyz", "/swagger", "/redoc", "/openapi.json",
    "/assets/swagger-ui-dist/swagger-ui.css", "/assets/none",
)  # fmt: skip


@pytest.mark.parametrize("path", _PATHS)
def test_every_answer_limits_what_a_browser_may_make_of_it(api: httpx.Client, path: str) -> None:
    """A link to an answer is opened in a browser, or framed by another page."""
    headers = api.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "nosniff" == headers["x-content-type-options"]
    assert "no-referrer" == headers["referrer-policy"]
    kept = path.startswith("/assets/") and not path.endswith("none")
    assert ("max-age=3600" if kept else "no-store") == headers["cache-control"]
    assert "server" not in headers


@pytest.mark.parametrize("path", _PATHS)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_no_other_origin_is_let_in(api: httpx.Client, path: str, method: str) -> None:
    """A page elsewhere asks with somebody's browser."""
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    headers = api.request(method, path, headers=asked).headers
    assert not [name for name in headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/gpus/x/metrics", 404),
        ("GET", "/%00", 404),
        ("GET", "/%ff%fe", 404),
        ("GET", "/api/v1/gpus/..%2f..%2fetc/telemetry", 404),
        ("POST", "/nothing", 404),
        ("POST", "/api/v1/gpus", 405),
        ("DELETE", "/healthz", 405),
        ("HEAD", "/api/v1/gpus", 405),
        ("TRACE", "/api/v1/gpus", 405),
        ("GET", "/api/v1/gpus?by=%ff", 400),
        ("GET", "/api/v1/gpus?by=uuid&by=uuid", 400),
    ],
)
def test_every_error_is_a_problem_document(
    api: httpx.Client, method: str, path: str, status: int
) -> None:
    """A scanner, or a slip."""
    response = api.request(method, path)
    assert status == response.status_code
    assert "application/problem+json" == response.headers["content-type"]
    if status == 405:
        assert "GET" in response.headers["allow"].split(", ")
    if method != "HEAD":
        problem = response.json()
        assert {"type", "title", "status", "detail"} == problem.keys()
        assert status == problem["status"]
