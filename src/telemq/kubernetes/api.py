"""Two calls of the Kubernetes API, with nothing but the standard library: get and create a Secret.

There is deliberately no way here to change or delete one, so nothing that exists is overwritten,
and the Role needs ``create`` and ``get`` only.

Tried again, with pauses, until `wait_s` is over: no connection, a connection that breaks or hangs,
and the answers 429, 500, 502, 503 and 504. Whether a request that got no answer was carried out is
not known; that is safe, because a second ``create`` is answered with 409 by what the first made.
Everything else ends at once with what has to be changed. No error tells any of a Secret's data.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import random
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telemq import log
from telemq.errors import KubernetesError, SettingError
from telemq.terminal import printable

__all__ = ["ClusterAccess", "SecretsApi"]

#: Longest wait for one answer; etcd's own limit is shorter.
_REQUEST_S = 10.0
_PAUSE_S, _PAUSE_S_MAX = 0.2, 5.0
#: A Secret has at most 1 MiB, a third more in base64; what is longer is not the API's.
_ANSWER_BYTES_MAX = 4 * 2**20
_SAID_MAX = 300
_AGAIN = frozenset({429, 500, 502, 503, 504})
#: A file with a key in base64, or a key; a name of Kubernetes, as long by chance, has no capitals.
_KEYLIKE = re.compile(r'[A-Za-z0-9+/=]{60,}|(?<=")(?=[^"]*[A-Z])[^"\s]{40}(?=")')
_LABELS = {"app.kubernetes.io/part-of": "telemq", "app.kubernetes.io/managed-by": "telemq-keys"}


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """Where a pod finds the API, and as whom it goes there.

    Attributes:
        host: name or address of the API (``KUBERNETES_SERVICE_HOST``).
        port: its port (``KUBERNETES_SERVICE_PORT``).
        account: directory with ``token``, ``ca.crt`` and ``namespace``, as it is mounted into a
            pod with a service account.
    """

    host: str
    port: str
    account: Path

    def read(self, name: str) -> str:
        """Read one of the account's files; at each use, because tokens are renewed.

        Raises:
            SettingError: it cannot be read, or is empty.
        """
        path = self.account / name
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise SettingError("--account", str(path), f"readable: {why}") from None
        if not text:
            raise SettingError("--account", str(path), "a file that is not empty")
        return text


class SecretsApi:
    """Gets and creates Secrets in the pod's namespace.

    Args:
        access: how to reach the API.
        wait_s: how long, over all calls, requests are tried again.

    Raises:
        SettingError: what a pod has is not there: this is no pod, or one without an account.
    """

    def __init__(self, access: ClusterAccess, wait_s: float) -> None:
        accepted = "set, as it is in every pod of Kubernetes"
        if not access.host:
            raise SettingError("KUBERNETES_SERVICE_HOST", access.host, accepted)
        if not access.port.isdecimal() or not 0 < int(access.port) < 2**16:
            raise SettingError("KUBERNETES_SERVICE_PORT", access.port, "a port")
        self._access = access
        self.namespace = access.read("namespace")
        access.read("token")
        try:
            self._tls = ssl.create_default_context(cadata=access.read("ca.crt"))
        except ssl.SSLError:
            path = access.account / "ca.crt"
            raise SettingError("--account", str(path), "a certificate authority in PEM") from None
        self._deadline = time.monotonic() + wait_s

    def get(self, name: str) -> dict[str, bytes] | None:
        """Give a Secret's data, or None when there is no such Secret.

        Raises:
            KubernetesError: the API refuses, or did not answer in time.
        """
        status, answer = self._ask("GET", name, None)
        if status == http.client.NOT_FOUND:
            return None
        if status != http.client.OK:
            raise self._refused("get", name, status, answer)
        try:
            if answer.get("kind") != "Secret":
                raise TypeError
            data = answer.get("data") or {}
            return {key: base64.b64decode(value, validate=True) for key, value in data.items()}
        except (AttributeError, TypeError, binascii.Error):
            text = f"Secret {self.namespace}/{name}: what the API answers is no Secret"
            raise KubernetesError(text) from None

    def create(self, name: str, data: dict[str, str]) -> bool:
        """Create a Secret; gives False, and changes nothing, when there is one of that name.

        Raises:
            KubernetesError: the API refuses, or did not answer in time.
        """
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": self.namespace, "labels": _LABELS},
            "type": "Opaque",
            "data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()},
        }
        status, answer = self._ask("POST", name, json.dumps(body).encode())
        if status == http.client.CREATED:
            return True
        if status == http.client.CONFLICT and answer.get("reason") == "AlreadyExists":
            return False
        raise self._refused("create", name, status, answer)

    def _ask(self, method: str, name: str, body: bytes | None) -> tuple[int, dict[str, Any]]:
        """Ask until there is an answer that is not for another try."""
        pause_s = _PAUSE_S
        while True:
            try:
                status, answer = self._once(method, name, body)
                if status not in _AGAIN:
                    return status, answer
                why = f"it answers {status} {_said(answer)}".rstrip()
            except ssl.SSLCertVerificationError as error:
                raise KubernetesError(
                    f"{self._where}: its certificate is not of the authority in "
                    f"{self._access.account / 'ca.crt'}: {error.verify_message}"
                ) from None
            except (OSError, http.client.HTTPException) as error:
                why = str(error) or type(error).__name__
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                raise KubernetesError(
                    f"{self._where}: {method} of Secret {self.namespace}/{name} was given up: "
                    f"{why}; what was made until now stays, and is completed by the next run"
                )
            log.get().warning("waiting for the Kubernetes API", why=why, left_s=round(left_s))
            time.sleep(min(random.uniform(0.5, 1.0) * pause_s, left_s))
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)

    def _once(self, method: str, name: str, body: bytes | None) -> tuple[int, dict[str, Any]]:
        path = f"/api/v1/namespaces/{self.namespace}/secrets"
        headers = {
            "Authorization": f"Bearer {self._access.read('token')}",
            "Accept": "application/json",
        }
        if body is None:
            path += f"/{name}"
        else:
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPSConnection(
            self._access.host, int(self._access.port), timeout=_REQUEST_S, context=self._tls
        )
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read(_ANSWER_BYTES_MAX)
        finally:
            connection.close()
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        return response.status, answer if isinstance(answer, dict) else {}

    @property
    def _where(self) -> str:
        return f"the Kubernetes API at {self._access.host} port {self._access.port}"

    def _refused(self, verb: str, name: str, status: int, answer: dict[str, Any]) -> Exception:
        text = f"{self._where} refuses to {verb} Secret {self.namespace}/{name} ({status})"
        if status == http.client.FORBIDDEN:
            of = "" if verb == "create" else f', resourceNames: ["{name}"]'
            text += (
                "; the Role of this service account must have the rule "
                f'{{apiGroups: [""], resources: ["secrets"], verbs: ["{verb}"]{of}}}'
            )
        elif status == http.client.UNAUTHORIZED:
            text += f"; the token in {self._access.account} is not accepted"
        return KubernetesError(f"{text}: {_said(answer)}".removesuffix(": "))


def _said(answer: dict[str, Any]) -> str:
    """What the API says for people; without what looks like a key, though it does not repeat any.

    An admission webhook's words stand there, too, and nobody knows what those repeat.
    """
    text = str(answer.get("message") or answer.get("reason") or "")
    return printable(_KEYLIKE.sub("(not shown)", text))[:_SAID_MAX]
