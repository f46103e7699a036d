"""The test's own reading of NetworkPolicies, on cases that Kubernetes documents."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.chart import Rendered
from tests.support.chart_network import End, allowed

HERE = End("here", "gpu", {"app": "a"}, "10.0.0.1", {"web": 80, "high": 8080}, ours=True)
NEAR = End("near", "gpu", {"app": "b"}, "10.0.0.2", {"web": 80})
FAR = End("far", "other", {"app": "b"}, "10.0.0.3", {"web": 80})
OUT = End("out", "", {}, "203.0.113.7", {"web": 80})
_ALL = {"near", "far", "out"}
_B = {"podSelector": {"matchLabels": {"app": "b"}}}
_OTHER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}


def _rendered(*specs: dict[str, Any]) -> Rendered:
    rendered = Rendered({}, {})
    rendered.objects = [{"kind": "NetworkPolicy", "metadata": {}, "spec": spec} for spec in specs]
    return rendered


def _ingress(*rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": list(rules), **spec}


def _into(*specs: dict[str, Any]) -> set[tuple[str, int]]:
    found = allowed(_rendered(*specs), [HERE, NEAR, FAR, OUT])
    return {(source, port) for source, destination, port in found if destination == "here"}


def _to(names: set[str], *ports: int) -> set[tuple[str, int]]:
    return {(name, port) for name in names for port in ports}


@pytest.mark.parametrize(
    ("specs", "into"),
    [
        ([], _to(_ALL, 80, 8080)),
        ([_ingress()], set()),
        ([_ingress({})], _to(_ALL, 80, 8080)),
        ([_ingress({"from": [_B]})], _to({"near"}, 80, 8080)),
        ([_ingress({"from": [_OTHER]})], _to({"far"}, 80, 8080)),
        ([_ingress({"from": [{**_B, **_OTHER}]})], _to({"far"}, 80, 8080)),
        ([_ingress({"from": [_B, _OTHER]})], _to({"near", "far"}, 80, 8080)),
        ([_ingress({"from": [{"namespaceSelector": {}}]})], _to({"near", "far"}, 80, 8080)),
        ([_ingress({"ports": [{"port": "web"}]})], _to(_ALL, 80)),
        ([_ingress({"ports": [{"port": "absent"}]})], set()),
        ([_ingress({"ports": [{"port": 80, "endPort": 9000}]})], _to(_ALL, 80, 8080)),
        ([_ingress({"ports": [{"port": 80, "protocol": "UDP"}]})], set()),
        (
            [_ingress({"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]})],
            _to({"out"}, 80, 8080),
        ),
        ([_ingress(), _ingress({"from": [_B]})], _to({"near"}, 80, 8080)),
        ([_ingress(podSelector={"matchLabels": {"app": "z"}})], _to(_ALL, 80, 8080)),
        ([{"podSelector": {}, "policyTypes": ["Egress"]}], _to(_ALL, 80, 8080)),
    ],
)
def test_case_of_the_documentation(specs: list[dict[str, Any]], into: set[tuple[str, int]]) -> None:
    """A mistake in the test would hide one in the chart."""
    assert into == _into(*specs)


def test_both_ends_must_allow() -> None:
    """The source may go out, and the destination lets nobody in; or the other way round."""
    two = End("two", "gpu", {"app": "two"}, "10.0.0.9", {"web": 80}, ours=True)
    out = {
        "podSelector": {"matchLabels": {"app": "a"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "two"}}}]}],
    }
    shut = _ingress(podSelector={"matchLabels": {"app": "two"}})
    arrow = ("here", "two", 80)
    assert arrow in set(allowed(_rendered(out), [HERE, two]))
    assert arrow not in set(allowed(_rendered(out, shut), [HERE, two]))
    assert arrow not in set(allowed(_rendered({**out, "egress": []}), [HERE, two]))
