"""What must hold of objects by themselves: names, secrets, hooks, policies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.support.chart import NAMESPACE, SELECTORS, Rendered, selects

__all__ = ["hooks", "names", "policies", "secrets"]

Problems = Iterator[str]
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_NO_NAMESPACE = {"ClusterRole", "ClusterRoleBinding", "Namespace"}


def names(rendered: Rendered) -> Problems:
    """Objects have names that Kubernetes takes, once each, and the release's namespace."""
    seen = Counter((one["kind"], one["metadata"]["name"]) for one in rendered.objects)
    for (kind, name), count in seen.items():
        if count > 1:
            yield f"{kind} {name} {count} times"
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", name):
            yield f"{kind} {name}: not a DNS label"
    for one in rendered.objects:
        where = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] not in _NO_NAMESPACE and one["metadata"].get("namespace") != NAMESPACE:
            yield f"{where}: namespace {one['metadata'].get('namespace')}"
        for key, value in one["metadata"].get("labels", {}).items():
            if not isinstance(value, str) or not _LABEL.fullmatch(value):
                yield f"{where}: label {key}={value!r}"
        for key, value in one["metadata"].get("annotations", {}).items():
            if not isinstance(value, str):
                yield f"{where}: annotation {key}={value!r} is no text"
        missing = SELECTORS - one["metadata"].get("labels", {}).keys()
        if missing:
            yield f"{where}: without {sorted(missing)}"


def secrets(rendered: Rendered) -> Problems:
    """Secrets are in Secrets only, and those that are made outlive upgrades and the release."""
    for secret in rendered.of("Secret"):
        name = secret["metadata"]["name"]
        if secret["metadata"].get("annotations", {}).get("helm.sh/resource-policy") != "keep":
            yield f"Secret {name}: is not kept"
        if secret.get("stringData"):
            yield f"Secret {name}: stringData is shown by kubectl"
    hidden = {"TELEMQ_DSN", "TELEMQ_BROKER_HTTP_TOKEN", "POSTGRES_PASSWORD", "PGPASSWORD"}
    for container in rendered.containers:
        for name, value in container.variables.items():
            if name in hidden and (not isinstance(value, dict) or "secretKeyRef" not in value):
                yield f"{container.where}: {name} does not come from a Secret"
            if isinstance(value, str) and re.search(r"://[^/@\s]+:[^/@\s]+@", value):
                yield f"{container.where}: {name} has a password in it"
    for one in rendered.of("ConfigMap"):
        if re.search(r"(?i)password\s*[:=]|secret-key|://[^/@\s]+:[^/@\s]+@", str(one.get("data"))):
            yield f"ConfigMap {one['metadata']['name']}: has a secret in it"


def hooks(rendered: Rendered) -> Problems:
    """What a hook's Job needs is made before it, and made again by the next upgrade."""
    weights = {
        (one["kind"], one["metadata"]["name"]): int(_annotation(one, "helm.sh/hook-weight") or 0)
        for one in rendered.objects
        if _annotation(one, "helm.sh/hook")
    }
    for workload in rendered.workloads:
        kinds = set(filter(None, (_annotation(workload.object, "helm.sh/hook") or "").split(",")))
        if not kinds & {"pre-install", "pre-upgrade"}:
            continue
        if kinds != {"pre-install", "pre-upgrade"}:
            yield f"{workload.name}: hook {kinds}"
        mine = (workload.object["kind"], workload.object["metadata"]["name"])
        account = ("ServiceAccount", workload.pod.get("serviceAccountName", "default"))
        needed = [account, *weights.keys() & {("Role", account[1]), ("RoleBinding", account[1])}]
        for other in needed:
            if (
                other != ("ServiceAccount", "default")
                and not weights.get(other, 99) < weights[mine]
            ):
                yield f"{workload.name}: {other} is not made before it"
        if "before-hook-creation" not in (
            _annotation(workload.object, "helm.sh/hook-delete-policy") or ""
        ):
            yield f"{workload.name}: the next upgrade finds it there"
    for workload in rendered.workloads:
        if workload.object["kind"] == "Job":
            spec = workload.object["spec"]
            if "activeDeadlineSeconds" not in spec or "backoffLimit" not in spec:
                yield f"{workload.name}: no limits"
            if workload.pod.get("restartPolicy") not in ("Never", "OnFailure"):
                yield f"{workload.name}: restartPolicy"


def _annotation(one: dict[str, Any], key: str) -> str | None:
    value: str | None = (one["metadata"].get("annotations") or {}).get(key)
    return value


def policies(rendered: Rendered) -> Problems:
    """Every pod is denied all that is not allowed, and policies select pods that there are."""
    found = rendered.of("NetworkPolicy")
    if not rendered.values["networkPolicy"]["enabled"]:
        if found:
            yield "NetworkPolicies, though they are switched off"
        return
    for workload in rendered.workloads:
        covered = {
            way
            for policy in found
            if selects(policy["spec"]["podSelector"], workload.labels)
            for way in policy["spec"].get("policyTypes") or []
        }
        if covered != {"Ingress", "Egress"}:
            yield f"{workload.name}: only {sorted(covered)} is denied by default"
    for policy in found:
        spec, name = policy["spec"], policy["metadata"]["name"]
        if not any(selects(spec["podSelector"], w.labels) for w in rendered.workloads):
            yield f"NetworkPolicy {name}: selects nothing"
        if not SELECTORS - {"app.kubernetes.io/component"} <= set(
            spec["podSelector"].get("matchLabels") or {}
        ):
            yield f"NetworkPolicy {name}: selects pods of others"
