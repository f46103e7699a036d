"""NetworkPolicies against the picture: every arrow may be made, and nothing else.

The table of arrows is the one of docs/kubernetes.md and ARCHITECTURE.md, written down here by hand.
"""

from __future__ import annotations

import pytest

from tests.support.chart import NAMESPACE, RELEASE, Rendered, Values, at, overlay, render
from tests.support.chart_network import Arrow, End, allowed, ends_of
from tests.support.chart_values import EXTERNAL, NATS

#: What the outside listens on: that it is reached there, and not at what nobody meant (12345).
_PORTS = {"dns": 53, "postgres": 5432, "nats": 4222, "api-server": 6443, "https": 443, "odd": 12345}
_DNS_UDP = frozenset({53})


def _outside(name: str, namespace: str, address: str, **labels: str) -> End:
    named = {key.replace("_", "-"): value for key, value in labels.items()}
    return End(name, namespace, named, address, _PORTS, _DNS_UDP)


#: Who else there is in a cluster, and outside of it.
OUTSIDE = [
    _outside("prometheus", "monitoring", "10.244.1.1", app="prometheus"),
    _outside("keda", "keda", "10.244.1.2", app="keda-operator"),
    _outside("dns", "kube-system", "10.244.1.3", k8s_app="kube-dns"),
    _outside("neighbour", NAMESPACE, "10.244.1.4", app="other"),
    _outside("stranger", "default", "10.244.1.5", app="other"),
    # The pods of another release of this chart, in the same namespace.
    End(
        "other release",
        NAMESPACE,
        {
            "app.kubernetes.io/name": "telemq",
            "app.kubernetes.io/instance": "staging",
            "app.kubernetes.io/component": "streamer",
        },
        "10.244.1.6",
        _PORTS,
        _DNS_UDP,
    ),
    End(
        "nats",
        NAMESPACE,
        {"app.kubernetes.io/name": "nats", "app.kubernetes.io/instance": RELEASE},
        "10.244.1.7",
        {"nats": 4222, "monitor": 8222},
    ),
    _outside("internet", "", "203.0.113.7"),
]
_EVERYONE = {end.name for end in OUTSIDE}
_OTHER = {end.name for end in OUTSIDE if end.name != "nats"}


def arrows(rendered: Rendered) -> set[Arrow]:
    """What the policies allow."""
    return set(allowed(rendered, [*ends_of(rendered, NAMESPACE), *OUTSIDE]))


def _dns(rendered: Rendered) -> set[Arrow]:
    return {(workload.component, "dns", 53) for workload in rendered.workloads}


#: From the chart's pods to the API server, wherever that is.
_KEYS: set[Arrow] = {("keys", name, port) for name in _OTHER for port in (443, 6443)}
_SCRAPED: set[Arrow] = {
    ("prometheus", "streamer", 9602),
    ("prometheus", "collector", 9603),
    ("prometheus", "api", 9600),
}
#: Who uses Postgres.
_CLIENTS = ("streamer", "collector", "api", "maintain", "verify")
_TO_BROKER: set[Arrow] = {
    ("streamer", "broker", 5601),
    ("collector", "broker", 5602),
    ("api", "broker", 9601),
}
_TO_POSTGRES: set[Arrow] = {(name, "postgres", 5432) for name in _CLIENTS}
_TO_EXTERNAL: set[Arrow] = {(name, other, 5432) for name in _CLIENTS for other in _OTHER}
#: Anyone may use the gateway, the chart's own pods only if they may go out there: none may.
_TO_API: set[Arrow] = {(name, "api", 8080) for name in _EVERYONE}
_OURS: set[Arrow] = {*_TO_BROKER, ("prometheus", "broker", 9601), *_KEYS}
_TO_NATS: set[Arrow] = {("streamer", "nats", 4222), ("collector", "nats", 4222)}
_TO_NATS_ELSEWHERE: set[Arrow] = {
    (name, other, 4222) for name in ("streamer", "collector") for other in _EVERYONE
}

#: The picture, for each shape that the chart has.
PICTURE: dict[str, tuple[Values, set[Arrow]]] = {
    "as it is": ({}, {*_OURS, *_TO_POSTGRES, *_TO_API, *_SCRAPED}),
    "Postgres elsewhere": (EXTERNAL, {*_OURS, *_TO_EXTERNAL, *_TO_API, *_SCRAPED}),
    "NATS": (NATS, {*_TO_NATS, *_TO_POSTGRES, *_TO_API, *_SCRAPED}),
    "NATS and Postgres elsewhere": (
        overlay({"engine": "nats", "nats": {"url": "nats://n1/s"}}, EXTERNAL),
        {*_TO_NATS_ELSEWHERE, *_TO_EXTERNAL, *_TO_API, *_SCRAPED},
    ),
    "KEDA": (
        at("collector.autoscaling", {"enabled": True, "by": "keda"}),
        {*_OURS, *_TO_POSTGRES, *_TO_API, *_SCRAPED, ("keda", "broker", 9601)},
    ),
    "KEDA by Prometheus": (
        at(
            "collector.autoscaling",
            {"enabled": True, "by": "keda", "keda": {"prometheusAddress": "http://p:9090"}},
        ),
        {*_OURS, *_TO_POSTGRES, *_TO_API, *_SCRAPED},
    ),
    "workers": (
        at("collector.workers", 3),
        {
            *(_OURS | _TO_POSTGRES | _TO_API | _SCRAPED),
            ("prometheus", "collector", 9604),
            ("prometheus", "collector", 9605),
        },
    ),
    "the gateway for some": (
        at("networkPolicy.apiFrom", [{"podSelector": {"matchLabels": {"app": "other"}}}]),
        {
            *(_OURS | _TO_POSTGRES | _SCRAPED),
            ("neighbour", "api", 8080),
            ("prometheus", "api", 8080),
        },
    ),
    "no Prometheus": (
        at("networkPolicy.prometheusFrom", []),
        {*_TO_BROKER, *_KEYS, *_TO_POSTGRES, *_TO_API},
    ),
    "more peers of the brokers": (
        {
            "networkPolicy": {
                "producersFrom": [{"ipBlock": {"cidr": "203.0.113.0/24"}}],
                "consumersFrom": [{"namespaceSelector": {"matchLabels": {
                    "kubernetes.io/metadata.name": "default"}}}],
            }
        },
        {
            *(_OURS | _TO_POSTGRES | _TO_API | _SCRAPED),
            ("internet", "broker", 5601),
            ("stranger", "broker", 5602),
        },
    ),
    "ways": (
        at("broker", {"http": {"enabled": True}, "pull": {"enabled": True}}),
        {
            *(_OURS | _TO_POSTGRES | _TO_API | _SCRAPED),
            *((name, "broker", port) for name in _EVERYONE for port in (5680, 5603)),
        },
    ),
    "an API server and a Postgres by address": (
        overlay(
            EXTERNAL,
            at("networkPolicy.apiServerTo", [{"ipBlock": {"cidr": "203.0.113.7/32"}}]),
            at("networkPolicy.postgresTo", [{"ipBlock": {"cidr": "203.0.113.7/32"}}]),
        ),
        {
            *(_TO_BROKER | _TO_API | _SCRAPED),
            ("prometheus", "broker", 9601),
            ("keys", "internet", 443),
            ("keys", "internet", 6443),
            *((name, "internet", 5432) for name in _CLIENTS),
        },
    ),
    "brokers of others in the gateway's status": (
        at("api.brokerOps", "http://mq.example.org:9700/, mq2:9701"),
        {
            *((_OURS - {("api", "broker", 9601)}) | _TO_POSTGRES | _TO_API | _SCRAPED),
        },
    ),
    "no keys": (
        at("broker.keys.enabled", False),
        {*(_OURS - _KEYS), *_TO_POSTGRES, *_TO_API, *_SCRAPED},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("values", "picture"), PICTURE.values(), ids=list(PICTURE))
def test_policies_allow_the_arrows_of_the_picture_and_no_others(
    values: Values, picture: set[Arrow]
) -> None:
    """A pod is taken over: it reaches what it needed anyway; and nothing that works is cut off."""
    rendered = render(values)
    found, wanted = arrows(rendered), picture | _dns(rendered)
    assert set() == wanted - found, "missing"
    assert set() == found - wanted, "too many"


def test_without_policies_everything_is_open() -> None:
    """The test of the test: what it finds closed is closed by policies."""
    found = arrows(render(at("networkPolicy.enabled", False)))
    assert ("stranger", "postgres", 5432) in found
    assert ("api", "broker", 5602) in found
    assert ("streamer", "internet", 12345) in found


def test_services_lead_where_the_arrows_do() -> None:
    """A Service's port is not the container's: policies look at the container's."""
    rendered = render({"api": {"ports": {"http": 7100}, "service": {"port": 80}}})
    assert ("internet", "api", 7100) in arrows(rendered)
    assert {7100, 9600} == {a[2] for a in arrows(rendered) if a[1] == "api"}
