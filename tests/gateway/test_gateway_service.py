"""The gateway as a service: its address, its end, its metrics, its documentation."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from telemq.errors import BusyError, SettingError
from telemq.gateway.app import openapi_json, run
from telemq.gateway.formats import FORMATS
from telemq.gateway.metrics import METRICS
from telemq.settings import ApiSettings
from telemq.web import assets
from telemq.web.server import listen
from tests.support.gateway import serving
from tests.support.postgres import Databases
from tests.support.running import eventually

#: Nothing listens there.
_NO_DSN = "host=127.0.0.1 port=1 connect_timeout=2"


def _stopped() -> threading.Event:
    stop = threading.Event()
    stop.set()
    return stop


def test_it_names_its_url_and_ends_when_told(capsys: pytest.CaptureFixture[str]) -> None:
    """SIGTERM came while it started, and there is no database."""
    assert 0 == run(ApiSettings(dsn=_NO_DSN, address="127.0.0.1:0"), _stopped())
    assert re.search(r"http://127\.0\.0\.1:\d+/swagger", capsys.readouterr().out)


def test_it_makes_the_schema_when_it_is_the_first(postgres: Databases) -> None:
    """Somebody starts the gateway on an empty database, before any collector."""
    stop = threading.Event()
    with postgres.fresh(migrated=False) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        settings = ApiSettings(dsn=dsn, address="127.0.0.1:0")
        gateway = threading.Thread(target=run, args=(settings, stop))
        gateway.start()
        try:
            eventually(
                lambda: conn.execute("SELECT to_regclass('telemetry')").fetchone() != (None,),
                "the view is there",
            )
        finally:
            stop.set()
            gateway.join(20)


def test_it_refuses_an_open_address() -> None:
    """There are no tokens yet, so the API is for this machine only."""
    with pytest.raises(SettingError, match="--insecure"):
        run(ApiSettings(dsn=_NO_DSN, address="0.0.0.0:0"), _stopped())
    assert 0 == run(ApiSettings(dsn=_NO_DSN, address="0.0.0.0:0", insecure=True), _stopped())


def test_it_names_a_busy_port() -> None:
    """A second gateway is started."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(BusyError, match=address):
            run(ApiSettings(dsn=_NO_DSN, address=address), _stopped())


def test_small_answers_do_not_wait_for_an_acknowledgement() -> None:
    """A client that asks one question after the other on one connection: 40 ms each otherwise."""
    with listen("127.0.0.1", 0) as sock, socket.create_connection(sock.getsockname()):
        accepted, _ = sock.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_every_declared_metric_is_there_and_no_path_becomes_a_label(api: httpx.Client) -> None:
    """A scanner asks for a thousand paths: they are one series."""
    for path in ("/api/v1/gpus", "/api/v1/gpus/GPU-1/telemetry", "/a", "/b"):
        api.get(path)
    text = api.get("/metrics").text
    for metric in METRICS:
        assert f"# HELP {metric.name} {metric.help}" in text
        assert f"# TYPE {metric.name} {metric.type}" in text
    routes = set(re.findall(r'requests_total{route="(.*?)"', text))
    assert {"/api/v1/gpus", "/api/v1/gpus/{id}/telemetry", "(unknown)"} == routes


def test_the_document_is_served_and_is_the_same_bytes_in_every_process(api: httpx.Client) -> None:
    """`telemq openapi > openapi.json` is committed somewhere and compared."""
    program = (
        "import sys; from telemq.gateway.app import openapi_json;"
        "sys.stdout.buffer.write(openapi_json())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert openapi_json() == other.stdout
    response = api.get("/openapi.json")
    assert openapi_json() == response.content
    assert "application/json" == response.headers["content-type"]


def test_the_document_describes_every_answer() -> None:
    """What a client generator reads."""
    document = json.loads(openapi_json())
    assert document["openapi"].startswith("3.1.")
    paths = document["paths"]
    assert {
        "/api/v1/gpus",
        "/api/v1/gpus/{id}/telemetry",
        "/api/v1/fleet/idle",
        "/api/v1/fleet/usage",
        "/api/v1/fleet/health",
        "/healthz",
        "/readyz",
        "/metrics",
    } == paths.keys()
    operations: dict[str, Any] = {path: item["get"] for path, item in paths.items()}
    assert len(operations) == len({operation["operationId"] for operation in operations.values()})
    for operation in operations.values():
        assert operation["summary"]
        for parameter in operation.get("parameters", []):
            assert parameter["description"]
            assert parameter["examples"]
        for status, response in operation["responses"].items():
            assert response["description"]
            for media_type in response["content"]:
                assert (media_type == "application/problem+json") == (int(status) >= 400)
    telemetry = operations["/api/v1/gpus/{id}/telemetry"]
    assert {"200", "400", "404", "406", "500", "503"} == telemetry["responses"].keys()
    content = telemetry["responses"]["200"]["content"]["application/json"]["schema"]
    assert {"type": "array", "items": {"$ref": "#/components/schemas/Record"}} == content
    assert {known.media_type for known in FORMATS} == telemetry["responses"]["200"][
        "content"
    ].keys()
    assert "Link" in telemetry["responses"]["200"]["headers"]
    assert [
        "id", "start_time", "end_time", "metric", "step", "agg", "order", "limit", "cursor",
        "format",
    ] == [parameter["name"] for parameter in telemetry["parameters"]]  # fmt: skip


def test_every_reference_in_the_document_leads_somewhere() -> None:
    """A dangling `$ref` breaks every client generator."""
    document = json.loads(openapi_json())
    references = set(re.findall(r'"\$ref": "#/(.*?)"', openapi_json().decode()))
    assert references
    for reference in references:
        target: Any = document
        for part in reference.split("/"):
            target = target[part]
        for field in target["properties"].values():
            assert field["description"]
            assert field["examples"]


@pytest.mark.parametrize("page", ["/swagger", "/redoc"])
def test_a_page_loads_only_from_this_server(page: str) -> None:
    """The policy holds even if a bundle would ask a CDN, and each file it names is there."""
    with serving(ApiSettings(dsn=_NO_DSN)) as api:
        response = api.get(page)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert not re.search(r"https?:|\*|unsafe-eval", policy)
        assert not re.search(r"(src|href)=\"?(https?:)?//", response.text)
        for name in re.findall(r'(?:src|href)="(assets/.*?)"', response.text):
            asset = api.get(f"/{name}")
            assert 200 == asset.status_code, name
            assert 1 == asset.headers["content-type"].count("charset") or name.endswith(".png")
            assert "nosniff" == asset.headers["x-content-type-options"]
            assert b"cdn.redoc.ly" not in asset.content


@pytest.mark.parametrize(
    "name", ["../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd", "redoc", "", "x.js"]
)
def test_no_other_file_can_be_had(name: str) -> None:
    """Somebody tries to climb out of the directory."""
    with serving(ApiSettings(dsn=_NO_DSN)) as api:
        response = api.get(f"/assets/{name}")
        assert 404 == response.status_code
        assert "application/problem+json" == response.headers["content-type"]


def test_missing_assets_are_named_and_nothing_else_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable install without the package that has them."""
    monkeypatch.setattr(assets, "find", lambda name: None)
    with serving(ApiSettings(dsn=_NO_DSN)) as api:
        for page in ("/swagger", "/redoc"):
            response = api.get(page)
            assert 503 == response.status_code
            assert "drf-spectacular-sidecar" in response.json()["detail"]
        assert 200 == api.get("/openapi.json").status_code


def test_a_wheel_holds_the_assets_and_their_licences(tmp_path: Path) -> None:
    """What `pip install telemq` brings: no package beside it, no download at run time."""
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
    root = Path(__file__).parents[2]
    (path,) = wheel.WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        prefix = "telemq/web/static/"
        held = {name.removeprefix(prefix) for name in archive.namelist() if name.startswith(prefix)}
        assert set(assets.FILES) == held
        for name in assets.FILES:
            found = assets.find(name)
            assert found is not None
            assert found.read_bytes() == archive.read(prefix + name)
