"""A Kubernetes API server as far as Secrets go: HTTPS, tokens, namespaces, and ways to fail.

What it answers is what the API's documentation and a real one say: 201 with the object, 409 with
reason AlreadyExists, 404, 403 with the words of RBAC, and objects of kind Status.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

from telemq.kubernetes import ClusterAccess, SecretNames

__all__ = ["NAMES", "KubeApi", "Plan", "kube_api"]

NAMES = SecretNames("telemetry-mq-keys", "telemetry-streamer-key", "telemetry-collector-key")
_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}

#: What Helm asks for before it looks a Secret up.
_RESOURCES = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": "v1",
    "resources": [
        {"name": "secrets", "namespaced": True, "kind": "Secret", "verbs": ["get", "create"]}
    ],
}
#: Asked at each request with its number (from 1), method and the Secret's name. Gives a status to
#: answer without doing anything, or "hang", "cut" (close without doing anything) or "lost" (do it,
#: and close without an answer); None is as usual.
Plan = Callable[[int, str, str], int | str | None]


class KubeApi:
    """Its state and where it is.

    Attributes:
        access: how a pod would reach it.
        secrets: the objects, by name.
        calls: method and name of every request.
        plan: how requests fail.
        message: what a refusal says, unless it has words of its own.
        release: set when hanging requests are to end.
    """

    def __init__(self, scratch: Path) -> None:
        self.secrets: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.plan: Plan = lambda number, method, name: None
        self.message = ""
        self.release = threading.Event()
        self.lock = threading.Lock()
        self.token = "a-token-of-the-pod"
        authority = trustme.CA()
        account = scratch / "account"
        account.mkdir()
        (account / "token").write_text(self.token + "\n")
        (account / "namespace").write_text("gpu")
        authority.cert_pem.write_to_path(str(account / "ca.crt"))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        self.server = _Server(self)
        self.server.socket = tls.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.access = ClusterAccess("127.0.0.1", str(self.server.server_port), account)

    def data(self, name: str) -> dict[str, bytes]:
        """The decoded data of a Secret."""
        data = self.secrets[name]["data"]
        return {key: base64.b64decode(value) for key, value in data.items()}

    def put(self, name: str, data: dict[str, bytes]) -> None:
        """Put a Secret there, as somebody with kubectl does."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        head = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
        self.secrets[name] = {**head, "data": encoded}

    def kubeconfig(self) -> str:
        """What kubectl and Helm read to get in."""
        authority = base64.b64encode((self.access.account / "ca.crt").read_bytes()).decode()
        server = f"https://{self.access.host}:{self.access.port}"
        cluster = {"server": server, "certificate-authority-data": authority}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        return json.dumps(config)

    def mount(self, name: str, directory: Path, items: dict[str, str] | None = None) -> Path:
        """Lay a Secret's entries out as files, as a volume does; gives the directory.

        Args:
            name: of the Secret.
            directory: to be made.
            items: path of each entry to be mounted; all of them unless given.
        """
        for entry, content in self.data(name).items():
            if items is None or entry in items:
                path = directory / (items[entry] if items else entry)
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                path.write_bytes(content)
                path.chmod(0o440)
        return directory


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    #: As many at once as a test starts, and a backlog for them.
    request_queue_size = 64

    def __init__(self, api: KubeApi) -> None:
        self.api = api
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what some tests are about."""


@contextmanager
def kube_api(scratch: Path) -> Iterator[KubeApi]:
    """Serve until the test is over."""
    api = KubeApi(scratch)
    thread = threading.Thread(target=api.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.release.set()
        api.server.shutdown()
        api.server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        api = self.server.api
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        base = "/api/v1/namespaces/gpu/secrets"
        name = body["metadata"]["name"] if body else self.path.removeprefix(base + "/")
        with api.lock:
            api.calls.append((self.command, name))
            number = len(api.calls)
        fault = api.plan(number, self.command, name)
        if fault == "hang":
            api.release.wait(60)
        if fault in ("hang", "cut"):
            self.close_connection = True
            return
        if isinstance(fault, int):
            self._answer(fault, _status(fault, api.message or f"planned for {name}"))
            return
        status, answer = self._do(base, name, body)
        if fault == "lost":
            self.close_connection = True
            return
        self._answer(status, answer)

    def _do(self, base: str, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        api = self.server.api
        if self.headers.get("Authorization") != f"Bearer {api.token}":
            return 401, _status(401, "Unauthorized")
        if self.path.partition("?")[0] == "/api/v1":
            return 200, _RESOURCES
        if self.path != (base if body else f"{base}/{name}"):
            return 404, _status(404, f"the server could not find {self.path}")
        with api.lock:
            there = api.secrets.get(name)
            if not body:
                missing = _status(404, f'secrets "{name}" not found')
                return (200, there) if there else (404, missing)
            if there:
                return 409, _status(409, f'secrets "{name}" already exists')
            assert ("v1", "Secret") == (body["apiVersion"], body["kind"])
            api.secrets[name] = body
            return 201, body

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _status(code: int, message: str) -> dict[str, Any]:
    reason = _REASONS.get(code, "")
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason,
            "message": message, "metadata": {"creationTimestamp": time.time()}}  # fmt: skip
