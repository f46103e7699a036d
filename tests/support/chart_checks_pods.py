"""What must hold of every pod: what it may do, what it is given, how it starts and ends."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.support.chart import Container, Rendered, Workload
from tests.support.chart_commands import start_problems

__all__ = [
    "port_of",
    "ports",
    "probes",
    "resources",
    "restricted",
    "starts",
    "stopping",
    "tokens",
    "variables",
    "volumes",
]

Problems = Iterator[str]


def restricted(rendered: Rendered) -> Problems:
    """Pods meet the Pod Security Standard "restricted", and cannot write their image."""
    for workload in rendered.workloads:
        pod = workload.pod
        context = pod.get("securityContext") or {}
        for key in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
            if pod.get(key):
                yield f"{workload.name}: {key}"
        seccomp = (context.get("seccompProfile") or {}).get("type")
        for volume in pod.get("volumes") or []:
            kinds = set(volume) - {"name"}
            if not kinds <= {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral",
                             "persistentVolumeClaim", "projected", "secret"}:  # fmt: skip
                yield f"{workload.name}: volume {volume['name']} of kind {kinds}"
        if context.get("sysctls"):
            yield f"{workload.name}: sysctls"
        for container in workload.containers:
            for problem in _open(container, context, seccomp):
                yield f"{container.where}: {problem}"


def _open(container: Container, context: dict[str, Any], seccomp: str | None) -> Problems:
    own = container.spec.get("securityContext") or {}
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "can write its image"
    if not own.get("runAsNonRoot", context.get("runAsNonRoot")):
        yield "runAsNonRoot is not set"
    if own.get("runAsUser", context.get("runAsUser")) == 0:
        yield "runs as root"
    capabilities = own.get("capabilities") or {}
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield f"capabilities {capabilities}"
    if (own.get("seccompProfile") or {}).get("type", seccomp) not in (
        "RuntimeDefault",
        "Localhost",
    ):
        yield "no seccomp profile"
    for port in container.spec.get("ports") or []:
        if port.get("hostPort"):
            yield f"host port {port['hostPort']}"
    for key in ("procMount", "seLinuxOptions", "windowsOptions"):
        if own.get(key):
            yield key


def resources(rendered: Rendered) -> Problems:
    """Every container has requests and limits of CPU and memory."""
    for container in rendered.containers:
        found = container.spec.get("resources") or {}
        for kind in ("requests", "limits"):
            for what in ("cpu", "memory"):
                if what not in (found.get(kind) or {}):
                    yield f"{container.where}: no {kind} of {what}"


def tokens(rendered: Rendered) -> Problems:
    """No pod has a token of the API but the keys Job's, whose account can make Secrets only."""
    for account in rendered.of("ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {account['metadata']['name']}: hands tokens to pods"
    for workload in rendered.workloads:
        wants = workload.component == "keys"
        if workload.pod.get("automountServiceAccountToken") is not wants:
            yield f"{workload.name}: automountServiceAccountToken is not {wants}"
        for volume in workload.pod.get("volumes") or []:
            sources = (volume.get("projected") or {}).get("sources") or []
            if any("serviceAccountToken" in source for source in sources):
                yield f"{workload.name}: a token in volume {volume['name']}"
    for role in rendered.of("Role", "ClusterRole"):
        for rule in role["rules"]:
            allowed = set(rule["verbs"])
            where = f"{role['kind']} {role['metadata']['name']}"
            if set(rule["resources"]) != {"secrets"} or not allowed <= {"create", "get"}:
                yield f"{where}: {rule}"
            elif "get" in allowed and ("create" in allowed or not rule.get("resourceNames")):
                yield f"{where}: reads Secrets that are not named"
        if role["kind"] == "ClusterRole":
            yield f"{where}: for the whole cluster"


def variables(rendered: Rendered) -> Problems:
    """No container has a variable twice, or one that is no text."""
    for workload in rendered.workloads:
        if workload.pod.get("enableServiceLinks") is not False:
            yield f"{workload.name}: Services become variables, and could be taken for settings"
    for container in rendered.containers:
        found = [entry["name"] for entry in container.spec.get("env") or []]
        for name, count in Counter(found).items():
            if count > 1:
                yield f"{container.where}: {name} {count} times"
        for entry in container.spec.get("env") or []:
            if not isinstance(entry.get("value", ""), str):
                yield f"{container.where}: {entry['name']} is no text: {entry['value']!r}"
            if ("value" in entry) == ("valueFrom" in entry):
                yield f"{container.where}: {entry['name']} has no value, or two"


def starts(rendered: Rendered) -> Problems:
    """Each container of telemq is a command that exists, with variables that it reads."""
    for workload in rendered.workloads:
        for container in workload.containers:
            if container.is_telemq:
                yield from start_problems(container)


def probes(rendered: Rendered) -> Problems:
    """Services are probed in three ways, at ports and paths that they have."""
    for workload in rendered.workloads:
        main = workload.main
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = main.spec.get(name)
            if not probe and workload.is_service:
                yield f"{main.where}: no {name}"
            if not probe or "httpGet" not in probe:
                continue
            asked = probe["httpGet"]
            if port_of(workload, asked["port"]) is None:
                yield f"{main.where}: {name} at a port that is not open: {asked['port']}"
            if asked["path"] != ("/readyz" if name == "readinessProbe" else "/healthz"):
                yield f"{main.where}: {name} asks for {asked['path']}"


def ports(rendered: Rendered) -> Problems:
    """Ports have names and numbers, each once in a pod."""
    for workload in rendered.workloads:
        found = [p for c in workload.containers for p in c.spec.get("ports") or []]
        for key in ("name", "containerPort"):
            for value, count in Counter(port.get(key) for port in found).items():
                if value is None or count > 1:
                    yield f"{workload.name}: a port's {key} {value} {count} times"
        for port in found:
            name = port.get("name") or ""
            if not re.fullmatch(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*", name) or len(name) > 15:
                yield f"{workload.name}: a port called {name!r}"


def port_of(workload: Workload, wanted: int | str | None) -> int | None:
    """Give the number of a container's port by its name or number."""
    for container in workload.containers:
        for port in container.spec.get("ports") or []:
            if wanted in (port["containerPort"], port.get("name")):
                number: int = port["containerPort"]
                return number
    return None


def volumes(rendered: Rendered) -> Problems:
    """What is mounted exists, nowhere twice, and /tmp can be written."""
    for workload in rendered.workloads:
        there = {v["name"] for v in workload.pod.get("volumes") or []}
        claims = workload.object.get("spec", {}).get("volumeClaimTemplates") or []
        there |= {claim["metadata"]["name"] for claim in claims}
        used = set()
        for container in workload.containers:
            mounts = container.spec.get("volumeMounts") or []
            used |= {mount["name"] for mount in mounts}
            paths = Counter(mount["mountPath"] for mount in mounts)
            for path, count in paths.items():
                if count > 1:
                    yield f"{container.where}: {path} {count} times"
            if "/tmp" not in paths:
                yield f"{container.where}: no /tmp"
        for name in used - there:
            yield f"{workload.name}: no volume {name}"
        for name in there - used:
            yield f"{workload.name}: volume {name} is mounted nowhere"
        for volume in workload.pod.get("volumes") or []:
            mode = (volume.get("secret") or {}).get("defaultMode", 0o440)
            if "secret" in volume and mode & 0o007:
                yield f"{workload.name}: Secret {volume['name']} is open to others"


def stopping(rendered: Rendered) -> Problems:
    """Pods have the time that draining takes before they are killed."""
    for workload in rendered.workloads:
        if not workload.is_service:
            continue
        grace = workload.pod.get("terminationGracePeriodSeconds", 30)
        needs = 0.0
        for name, value in workload.main.variables.items():
            if name.endswith("_DRAIN_S"):
                needs += float(value)
        pre = (workload.main.spec.get("lifecycle") or {}).get("preStop") or {}
        needs += (pre.get("sleep") or {}).get("seconds", 0)
        if grace < needs + 5:
            yield f"{workload.name}: {grace} s to stop, and draining takes {needs:g} s"
