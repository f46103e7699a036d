"""What NetworkPolicies allow, worked out as their specification says it.

A connection needs both ends: the policies that select the source must allow it as egress, those
that select the destination as ingress; a pod that no policy of a direction selects is open in it.
Ports are those of containers; where many ports are open at an end, numbers stand for all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.chart import Rendered, selects

__all__ = ["Arrow", "End", "allowed", "ends_of"]

#: From whom, to whom, to which port.
Arrow = tuple[str, str, int]


@dataclass(frozen=True)
class End:
    """A pod, or an address outside of the cluster.

    Attributes:
        name: in arrows.
        namespace: where it is; empty is outside of the cluster.
        labels: of the pod.
        address: its IP address.
        ports: that it listens on, by name.
        udp: those of the ports that are UDP too.
        ours: it is one of the chart's.
    """

    name: str
    namespace: str
    labels: dict[str, str]
    address: str
    ports: dict[str, int]
    udp: frozenset[int] = field(default=frozenset())
    ours: bool = False


def ends_of(rendered: Rendered, namespace: str) -> list[End]:
    """Give one pod of each workload, by its component."""
    found = []
    for number, workload in enumerate(rendered.workloads, 1):
        ports: dict[str, int] = {}
        for container in workload.containers:
            for port in container.spec.get("ports", []):
                ports[port.get("name", str(port["containerPort"]))] = port["containerPort"]
        address = f"10.244.0.{number}"
        found.append(End(workload.component, namespace, workload.labels, address, ports, ours=True))
    return found


def allowed(rendered: Rendered, ends: list[End]) -> Iterator[Arrow]:
    """Yield every connection that may be made between two ends, one of which is the chart's."""
    policies = rendered.of("NetworkPolicy")
    for source in ends:
        for destination in ends:
            if source is destination or not (source.ours or destination.ours):
                continue
            for port in sorted(set(destination.ports.values())):
                protocols = ["TCP", "UDP"] if port in destination.udp else ["TCP"]
                found = [
                    _allows(policies, "Egress", source, destination, port, protocol)
                    and _allows(policies, "Ingress", destination, source, port, protocol)
                    for protocol in protocols
                ]
                assert len(set(found)) == 1, f"{port}: TCP and UDP differ"
                if found[0]:
                    yield source.name, destination.name, port


def _allows(
    policies: list[dict[str, Any]], way: str, here: End, there: End, port: int, protocol: str
) -> bool:
    """Whether the policies of one direction that select `here` let `there` be the other end."""
    if not here.ours:
        return True
    mine = [
        policy["spec"]
        for policy in policies
        if selects(policy["spec"].get("podSelector"), here.labels) and way in _types(policy["spec"])
    ]
    if not mine:
        return True
    end = there if way == "Egress" else here
    return any(
        _peer(rule.get("to" if way == "Egress" else "from"), here, there)
        and _port(rule.get("ports"), end, port, protocol)
        for spec in mine
        for rule in spec.get(way.lower()) or []
    )


def _types(spec: dict[str, Any]) -> list[str]:
    given: list[str] | None = spec.get("policyTypes")
    return given or ["Ingress", *(["Egress"] if "egress" in spec else [])]


def _peer(peers: list[dict[str, Any]] | None, here: End, there: End) -> bool:
    if not peers:
        return True
    for peer in peers:
        if "ipBlock" in peer:
            # Many network plugins hold pods' addresses against blocks, too.
            address = ipaddress.ip_address(there.address)
            block = peer["ipBlock"]
            if address in ipaddress.ip_network(block["cidr"]) and not any(
                address in ipaddress.ip_network(hole) for hole in block.get("except") or []
            ):
                return True
            continue
        if not there.namespace:
            continue
        in_namespace = (
            selects(peer["namespaceSelector"], _namespace_labels(there.namespace))
            if "namespaceSelector" in peer
            else there.namespace == here.namespace
        )
        if in_namespace and (
            "podSelector" not in peer or selects(peer["podSelector"], there.labels)
        ):
            return True
    return False


def _namespace_labels(namespace: str) -> dict[str, str]:
    return {"kubernetes.io/metadata.name": namespace}


def _port(ports: list[dict[str, Any]] | None, end: End, port: int, protocol: str) -> bool:
    if not ports:
        return True
    for rule in ports:
        if rule.get("protocol", "TCP") != protocol:
            continue
        wanted = rule.get("port")
        if wanted is None:
            return True
        number = end.ports.get(wanted) if isinstance(wanted, str) else wanted
        if number is not None and number <= port <= rule.get("endPort", number):
            return True
    return False
