"""Values to render the chart with: combinations that people have, and any that are accepted."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from telemq.setting import SettingInfo
from telemq.settings import table
from tests.support.chart import Values, at, overlay

__all__ = ["COMBINATIONS", "accepted", "settings_entries", "values"]

_PEER: dict[str, Any] = {"podSelector": {"matchLabels": {"app": "other"}}}
EXTERNAL: Values = {"postgres": {"enabled": False, "external": {"dsnSecret": {"name": "prod-app"}}}}
NATS: Values = {"engine": "nats", "nats": {"enabled": True}}
GIVEN_KEYS: Values = {
    "broker": {"keys": {"existingSecrets": {"broker": "kb", "streamer": "ks", "collector": "kc"}}}
}
#: Layers that go with each other and with everything else.
COMBINATIONS: dict[str, Values] = {
    "defaults": {},
    "external Postgres": EXTERNAL,
    "NATS of the chart": NATS,
    "NATS elsewhere": {"engine": "nats", "nats": {"url": "nats://n1,n2/telemetry"}},
    "NATS elsewhere with a password": {"engine": "nats", "nats": {"urlSecret": {"name": "url"}}},
    "brokers elsewhere": {
        "broker": {"enabled": False, "keys": {"enabled": False}},
        "streamer": {"brokers": "tcp://a:5601,tcp://b:5701"},
        "collector": {"brokers": "tcp://a:5602"},
    },
    "brokers elsewhere with keys": overlay(
        GIVEN_KEYS,
        {
            "broker": {"enabled": False},
            "streamer": {"brokers": "tcp://a:5601"},
            "collector": {"brokers": "tcp://a:5602"},
        },
    ),
    "no keys": at("broker.keys.enabled", False),
    "keys given": GIVEN_KEYS,
    "more peers allowed": at("broker.keys.allow", {"secret": "peers", "files": ["node-7.key"]}),
    "journal": {
        "broker": {
            "replicas": 3,
            "journal": {"enabled": True, "storageClass": "fast", "annotations": {"a": "b"}},
        }
    },
    "ways": {
        "broker": {
            "http": {"enabled": True},
            "pull": {"enabled": True},
            "push": {"enabled": True},
        }
    },
    "way with a token given": {
        "broker": {"http": {"enabled": True, "tokenSecret": {"name": "tok", "key": "t"}}}
    },
    "DaemonSet": {
        "streamer": {
            "kind": "DaemonSet",
            "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        }
    },
    "a file of its own": at("streamer.csv", {"configMap": "metrics", "file": "m.csv"}),
    "a claim": at("streamer.csv", {"existingClaim": "metrics", "file": "/deep/m.csv"}),
    "autoscaling by CPU": at("collector.autoscaling", {"enabled": True, "by": "cpu"}),
    "autoscaling by KEDA": overlay(
        at("collector.autoscaling", {"enabled": True, "by": "keda"}), at("broker.replicas", 2)
    ),
    "autoscaling by Prometheus": at(
        "collector.autoscaling",
        {"enabled": True, "by": "keda", "keda": {"prometheusAddress": "http://prometheus:9090"}},
    ),
    "workers": {"collector": {"workers": 5, "replicas": 3}},
    "kubectl scale": {
        "broker": {"replicas": None},
        "streamer": {"replicas": None},
        "collector": {"replicas": None},
        "api": {"replicas": None},
    },
    "Ingress": at("api.ingress", {"enabled": True, "className": "nginx", "hosts": ["a.b", "c.d"]}),
    "Ingress without TLS": at(
        "api.ingress", {"enabled": True, "hosts": ["a.b"], "tls": {"enabled": False}}
    ),
    "Gateway API": {
        "api": {
            "httpRoute": {"enabled": True, "hostnames": ["a.b", "c.d"]},
            "gateway": {"enabled": True, "className": "cilium"},
        }
    },
    "Gateway of others": at(
        "api.httpRoute", {"enabled": True, "parentRefs": [{"name": "g", "namespace": "edge"}]}
    ),
    "LoadBalancer": at("api.service", {"type": "LoadBalancer", "annotations": {"a": "b"}}),
    "NodePort": at("api.service", {"type": "NodePort", "nodePort": 30080, "port": 80}),
    "monitoring": {
        "monitoring": {
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True, "alertLabels": {"team": "gpu"}},
            "dashboard": {"enabled": True},
        }
    },
    "no policies": at("networkPolicy.enabled", False),
    "policies of one's own": {
        "networkPolicy": {
            "apiFrom": [_PEER],
            "producersFrom": [_PEER],
            "consumersFrom": [_PEER],
            "waysFrom": [_PEER],
            "prometheusFrom": [],
            "dnsTo": [],
            "postgresTo": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
            "apiServerTo": [{"ipBlock": {"cidr": "198.51.100.1/32"}}],
            "apiServerPorts": [6443],
        }
    },
    "other ports": {
        "broker": {"ports": {"producers": 7001, "consumers": 7002, "ops": 7003}},
        "streamer": {"ports": {"ops": 7004}},
        "collector": {"ports": {"ops": 7005}, "workers": 2},
        "api": {"ports": {"http": 7100}},
        "postgres": {"port": 7432},
    },
    "IPv6": {"listen": "[::]"},
    "OpenShift": at("podSecurity", {"runAsUser": None, "fsGroup": None}),
    "no accounts": {
        name: {"serviceAccount": {"create": False}}
        for name in ("broker", "streamer", "collector", "api", "postgres")
    },
    "accounts of one's own": {
        name: {"serviceAccount": {"create": False, "name": f"{name}-sa"}}
        for name in ("broker", "streamer", "collector", "api", "postgres")
    },
    "no migrations": at("migrate.enabled", False),
    "no tests": at("tests.enabled", False),
    "no budgets": {
        name: {"podDisruptionBudget": {"enabled": False}}
        for name in ("broker", "streamer", "collector", "api")
    },
    "only streamers": {
        "broker": {"enabled": False, "keys": {"enabled": False}},
        "streamer": {"brokers": "tcp://a:5601"},
        "collector": {"enabled": False},
        "api": {"enabled": False},
        **EXTERNAL,
    },
    "only the gateway": {
        "broker": {"enabled": False, "keys": {"enabled": False}},
        "streamer": {"enabled": False},
        "collector": {"enabled": False},
        **EXTERNAL,
    },
    "Postgres without a volume": at("postgres.persistence.enabled", False),
    "Postgres with a secret": at("postgres.existingSecret", "pg"),
    "other names": {"fullnameOverride": "", "nameOverride": "dcgm"},
    "digest": at("image", {"repository": "r.example.org/t", "digest": "sha256:" + "ab" * 32}),
    "pull secrets": at("image.pullSecrets", ["one", "two"]),
    "labels": {"commonLabels": {"team": "gpu"}, "commonAnnotations": {"owner": "me"}},
}


def settings_entries() -> dict[str, SettingInfo]:
    """Give the rows of the table that an entry of a map called ``settings`` sets, by its path."""
    found = {info.helm_value: info for info in table()}
    return {path: info for path, info in found.items() if "settings." in path}


def accepted(info: SettingInfo) -> st.SearchStrategy[Any]:
    """Any value that a setting takes, the ends of its range among them."""
    if info.choices:
        return st.sampled_from(info.choices)
    if info.type is bool:
        return st.booleans()
    if info.type is str:
        return st.text("aZ09 .:/#\"'{}$\\-é", min_size=1, max_size=20)
    low, high = info.low or 0, info.high or 10**6
    if info.type is int:
        return st.sampled_from([int(low), int(high)]) | st.integers(int(low), int(high))
    whole = st.integers(int(low) + 1, int(high)) if high > low + 1 else st.just(low)
    return st.sampled_from([low, high]) | whole | st.floats(low, high, allow_subnormal=False)


@st.composite
def values(draw: st.DrawFn) -> Values:
    """Several combinations over each other, settings anywhere in their ranges, and details."""
    names = draw(st.lists(st.sampled_from(sorted(COMBINATIONS)), max_size=4, unique=True))
    entries = settings_entries()
    layers = [COMBINATIONS[name] for name in names]
    for path in draw(st.lists(st.sampled_from(sorted(entries)), max_size=6, unique=True)):
        layers.append(at(path, draw(accepted(entries[path]))))
    layers += draw(st.lists(_details(), max_size=6))
    return overlay(*layers)


def _details() -> st.SearchStrategy[Values]:
    services = st.sampled_from(["broker", "streamer", "collector", "api"])
    pods = services | st.just("postgres")
    quantity = st.integers(1, 64).map(lambda n: f"{n * 64}Mi")
    cpu = st.integers(1, 64).map(lambda n: f"{n * 50}m") | st.sampled_from(["1", "2.5", 4])
    resources = st.builds(
        lambda c, m: {"requests": {"cpu": c, "memory": m}, "limits": {"cpu": c, "memory": m}},
        cpu,
        quantity,
    )
    return st.one_of(
        st.builds(lambda w, n: at(f"{w}.replicas", n), services, st.integers(0, 200)),
        st.builds(lambda w, r: at(f"{w}.resources", r), pods, resources),
        st.builds(lambda w, n: at(f"{w}.drainSeconds", n), services,
                  st.sampled_from([0, 0.5, 3600]) | st.integers(0, 3600)),
        st.builds(lambda w, e: at(f"{w}.extraEnv", e), pods, _environment()),
        st.builds(lambda w, k: at(f"{w}.nodeSelector", {k: "yes"}), pods, _word()),
        st.builds(lambda w, k: at(f"{w}.tolerations", [{"key": k, "operator": "Exists"}]),
                  pods, _word()),
        st.builds(lambda w, k: at(f"{w}.podLabels", {k: "x"}), pods, _word()),
        st.builds(lambda w, k: at(f"{w}.podAnnotations", {k: "1.0"}), pods, _word()),
        st.builds(lambda w, k: at(f"{w}.priorityClassName", k), pods, _word()),
        st.builds(lambda w, k: overlay(at(f"{w}.extraVolumes", [{"name": k, "emptyDir": {}}]),
                                       at(f"{w}.extraVolumeMounts",
                                          [{"name": k, "mountPath": f"/mnt/{k}"}])),
                  pods, _word()),
        st.builds(lambda n: at("streamer.rate", n),
                  st.sampled_from([0, 1_000_000, 1e9, 0.25]) | st.integers(0, 10**9)),
        st.builds(lambda n: at("broker.queueCapacity", n), st.integers(1, 10**9)),
        st.builds(lambda n: at("broker.queueBytes", n), st.integers(1024, 2**40)),
        st.builds(lambda n: at("collector.workers", n), st.integers(1, 256)),
        st.builds(lambda n: at("migrate.waitSeconds", n), st.integers(0, 3600)),
        st.builds(lambda n: at("fullnameOverride", n), _word()),
    )  # fmt: skip


def _word() -> st.SearchStrategy[str]:
    return st.from_regex(r"[a-z][a-z0-9]{0,11}", fullmatch=True)


def _environment() -> st.SearchStrategy[list[dict[str, Any]]]:
    names = st.from_regex(r"[A-Z]{3,8}", fullmatch=True).filter(lambda n: n != "PGDATA")
    entry = st.builds(
        lambda name, value: {"name": f"X_{name}", "value": value},
        names,
        st.text("ab \"':{}$#", max_size=10),
    )
    return st.lists(entry, max_size=3, unique_by=lambda found: found["name"])
