"""Passwords and tokens that the chart makes: once, and the same at every upgrade.

Helm's own engine renders against an API server of a few lines, which knows nothing but Secrets:
that is what ``lookup`` asks.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml
from helm_python import Chart, Config

from tests.support.chart import CHART, NAMESPACE, RELEASE

_VALUES = {"broker": {"http": {"enabled": True}}}
_SECRETS = ("templates/postgres/secret.yaml", "templates/broker/secret.yaml")


@contextmanager
def cluster(secrets: dict[str, dict[str, str]]) -> Iterator[str]:
    """Serve the API of a cluster that has these Secrets in the namespace; yields its URL."""
    kinds = [{"name": "secrets", "kind": "Secret", "namespaced": True, "verbs": ["get"]}]
    documents: dict[str, Any] = {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": kinds},
    }
    for name, data in secrets.items():
        metadata = {"name": name, "namespace": NAMESPACE}
        documents[f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}"] = {
            **{"kind": "Secret", "apiVersion": "v1"},
            **{"metadata": metadata, "data": data},
        }

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = documents.get(self.path.partition("?")[0])
            missing = {"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404}
            body = json.dumps(found or missing).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def made(secrets: dict[str, dict[str, str]]) -> tuple[dict[str, dict[str, str]], str]:
    """Render in a cluster that has these Secrets; give the chart's, and the brokers' checksum."""
    with (
        cluster(secrets) as url,
        Config(namespace=NAMESPACE, kube_apiserver=url, storage_driver="memory") as config,
        Chart.load(CHART) as chart,
    ):
        texts = config.render(chart, _VALUES, name=RELEASE, namespace=NAMESPACE)
    documents = [yaml.safe_load(texts[f"telemq/{path}"]) for path in _SECRETS]
    brokers = yaml.safe_load(texts["telemq/templates/broker/statefulset.yaml"])
    annotations = brokers["spec"]["template"]["metadata"]["annotations"]
    return {d["metadata"]["name"]: d["data"] for d in documents}, annotations["checksum/http-token"]


def test_first_install_makes_words_that_nobody_knows() -> None:
    """`helm install` in an empty namespace."""
    secrets, _ = made({})
    assert {"telemetry-postgres", "telemetry-mq-http"} == set(secrets)
    password, token = (
        secrets["telemetry-postgres"]["password"],
        secrets["telemetry-mq-http"]["token"],
    )
    assert all(re.fullmatch(rb"[A-Za-z0-9]{40}", base64.b64decode(t)) for t in (password, token))
    assert password != token
    assert b":" + base64.b64decode(password) + b"@" in base64.b64decode(
        secrets["telemetry-postgres"]["dsn"]
    )
    assert made({})[0]["telemetry-postgres"]["password"] != password


def test_upgrade_keeps_them_and_replaces_no_pod() -> None:
    """`helm upgrade` a year later: a new password would lock everybody out."""
    before = made({})
    assert before == made(before[0])


def test_one_that_was_deleted_is_made_anew_and_replaces_brokers() -> None:
    """An operator deletes the token because it leaked."""
    secrets, checksum = made({})
    kept = {"telemetry-postgres": secrets["telemetry-postgres"]}
    again, other = made(kept)
    assert kept["telemetry-postgres"] == again["telemetry-postgres"]
    assert secrets["telemetry-mq-http"] != again["telemetry-mq-http"]
    assert checksum != other
