"""What must hold between objects: whatever refers to another refers to one that is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.support.chart import SELECTORS, Rendered, Workload, selects
from tests.support.chart_checks_pods import port_of

__all__ = ["budgets", "monitors", "references", "routes", "scalers", "selectors", "services"]

Problems = Iterator[str]


def services(rendered: Rendered) -> Problems:
    """Services select the pods of one workload, and their ports are open there."""
    for service in rendered.of("Service"):
        spec, name = service["spec"], service["metadata"]["name"]
        chosen = [
            w for w in rendered.workloads if selects({"matchLabels": spec["selector"]}, w.labels)
        ]
        if len(chosen) != 1:
            yield f"Service {name}: selects {[w.name for w in chosen]}"
            continue
        if chosen[0].component != service["metadata"]["labels"]["app.kubernetes.io/component"]:
            yield f"Service {name}: selects {chosen[0].name}"
        for port in spec["ports"]:
            if port_of(chosen[0], port.get("targetPort", port["port"])) is None:
                yield f"Service {name}: port {port.get('name')} is not open at {chosen[0].name}"
        headed = chosen[0].object["kind"] == "StatefulSet"
        if headed and chosen[0].object["spec"]["serviceName"] != name:
            yield f"Service {name}: is not that of {chosen[0].name}"


def budgets(rendered: Rendered) -> Problems:
    """A PodDisruptionBudget is of one service, and has one limit."""
    for budget in rendered.of("PodDisruptionBudget"):
        name = budget["metadata"]["name"]
        chosen = [w for w in rendered.workloads if selects(budget["spec"]["selector"], w.labels)]
        if len(chosen) != 1 or not chosen[0].is_service:
            yield f"PodDisruptionBudget {name}: selects {[w.name for w in chosen]}"
        if ("minAvailable" in budget["spec"]) == ("maxUnavailable" in budget["spec"]):
            yield f"PodDisruptionBudget {name}: neither or both limits"


def scalers(rendered: Rendered) -> Problems:
    """Autoscalers scale a workload that is rendered, and nobody else says its replicas."""
    kinds = {(w.object["kind"], w.object["metadata"]["name"]): w for w in rendered.workloads}
    for scaler in rendered.of("HorizontalPodAutoscaler", "ScaledObject"):
        reference = scaler["spec"]["scaleTargetRef"]
        target = kinds.get((reference.get("kind", "Deployment"), reference["name"]))
        if target is None:
            yield f"{scaler['kind']} {scaler['metadata']['name']}: no {reference}"
        elif "replicas" in target.object["spec"]:
            yield f"{target.name}: replicas and an autoscaler, which an upgrade would undo"


def monitors(rendered: Rendered) -> Problems:
    """What is scraped is rendered, and has the port."""
    for monitor in rendered.of("PodMonitor", "ServiceMonitor"):
        where = f"{monitor['kind']} {monitor['metadata']['name']}"
        spec = monitor["spec"]
        pods = [w for w in rendered.workloads if selects(spec["selector"], w.labels)]
        if not any(w.is_service for w in pods):
            yield f"{where}: selects nothing"
        for end in spec.get("podMetricsEndpoints") or spec.get("endpoints") or []:
            wanted = end.get("port", end.get("portNumber"))
            if not any(port_of(w, wanted) for w in pods if w.is_service):
                yield f"{where}: no pod has the port {wanted}"


def routes(rendered: Rendered) -> Problems:
    """An Ingress or HTTPRoute leads to a Service and port that are rendered."""
    for ingress in rendered.of("Ingress"):
        for rule in ingress["spec"].get("rules") or []:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                yield from _backend(rendered, backend["name"], backend["port"])
    for route in rendered.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule.get("backendRefs") or []:
                yield from _backend(rendered, backend["name"], {"number": backend["port"]})


def _backend(rendered: Rendered, name: str, port: dict[str, Any]) -> Problems:
    found = [s for s in rendered.of("Service") if s["metadata"]["name"] == name]
    ports = [p for s in found for p in s["spec"]["ports"]]
    if not any(port in ({"number": p["port"]}, {"name": p.get("name")}) for p in ports):
        yield f"no Service {name} with port {port}"


def selectors(rendered: Rendered) -> Problems:
    """Selectors choose their own pods only, and have no label that an upgrade changes."""
    for workload in rendered.workloads:
        if not workload.is_service:
            continue
        spec = workload.object["spec"]
        chosen = [w.name for w in rendered.workloads if selects(spec["selector"], w.labels)]
        if chosen != [workload.name]:
            yield f"{workload.name}: selects {chosen}"
        if set(spec["selector"]["matchLabels"]) != SELECTORS:
            yield f"{workload.name}: selector {spec['selector']}"
        for claim in spec.get("volumeClaimTemplates") or []:
            if not claim["metadata"].get("labels", {}).keys() <= SELECTORS:
                yield f"{workload.name}: labels of {claim['metadata']['name']} change"
        for rule in workload.pod.get("topologySpreadConstraints") or []:
            if not selects(rule.get("labelSelector"), workload.labels):
                yield f"{workload.name}: is spread by pods that are not its own"


def references(rendered: Rendered) -> Problems:
    """Secrets, ConfigMaps, accounts and claims that pods need are rendered or come from values."""
    given = str(rendered.values)
    made = {("Secret", name) for name in _keys_job(rendered)}
    there = {(one["kind"], one["metadata"]["name"]) for one in rendered.objects} | made
    for workload in rendered.workloads:
        for kind, name in _needs(workload):
            if (kind, name) not in there and f"'{name}'" not in given:
                yield f"{workload.name}: no {kind} {name}"
    for binding in rendered.of("RoleBinding"):
        wanted = [(binding["roleRef"]["kind"], binding["roleRef"]["name"])]
        wanted += [(subject["kind"], subject["name"]) for subject in binding["subjects"]]
        for kind, name in wanted:
            if (kind, name) not in there:
                yield f"RoleBinding {binding['metadata']['name']}: no {kind} {name}"


def _needs(workload: Workload) -> Iterator[tuple[str, str]]:
    """The objects that a pod cannot start without."""
    account = workload.pod.get("serviceAccountName", "default")
    if account != "default":
        yield "ServiceAccount", account
    for volume in workload.pod.get("volumes") or []:
        sources = (volume.get("projected") or {}).get("sources") or []
        for key, kind, name in (
            ("secret", "Secret", "secretName"),
            ("configMap", "ConfigMap", "name"),
            ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
        ):
            if key in volume:
                yield kind, volume[key][name]
            yield from ((kind, source[key]["name"]) for source in sources if key in source)
    for container in workload.containers:
        for entry in container.spec.get("env") or []:
            source = entry.get("valueFrom") or {}
            for key, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if key in source:
                    yield kind, source[key]["name"]


def _keys_job(rendered: Rendered) -> set[str]:
    """The Secrets that the keys Job of this rendering makes."""
    return {
        word.partition("=")[2]
        for container in rendered.containers
        for word in container.spec.get("args") or []
        if str(word).startswith(("--broker-secret=", "--streamer-secret=", "--collector-secret="))
    }
