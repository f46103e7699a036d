"""``values.schema.json``: what each value may be.

Types and ranges are here; descriptions come from the comments of values.yaml, and the maps called
``settings`` from telemq's table. Nothing that is not listed is accepted, so a mistyped value is an
error. What has a default that is not null must not be set to null, which Helm takes for "delete".
"""

from __future__ import annotations

import json
from typing import Any, cast

from deploy.helm.generate import settings_map
from deploy.helm.generate.comments import Value
from telemq.setting import SettingInfo
from telemq.settings import table

__all__ = ["schema"]

Shape = dict[str, Any]

_TEXT: Shape = {"type": "string"}
_YES_NO: Shape = {"type": "boolean"}
_FREE: Shape = {"type": "object"}
_LIST: Shape = {"type": "array", "items": {"type": "object"}}
_WORDS: Shape = {"type": "array", "items": {"type": "string", "minLength": 1}}
_LABELS: Shape = {"type": "object", "additionalProperties": {"type": "string"}}
_PORT: Shape = {"type": "integer", "minimum": 1, "maximum": 65_535}
#: The name of an object, or empty.
_NAME: Shape = {
    "type": "string",
    "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$",
    "maxLength": 253,
}
_KEY: Shape = {"type": "string", "pattern": "^[-._a-zA-Z0-9]+$"}
_QUANTITY: Shape = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(m|[kMGTPE]i?)?$"}
_DIGEST: Shape = {"type": "string", "pattern": "^(sha256:[a-f0-9]{64})?$"}
_PULL: Shape = {"enum": ["Always", "IfNotPresent", "Never"]}
_COUNT_OR_PERCENT: Shape = {
    "oneOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": "^[0-9]+%$"},
    ]
}
_ACCESS_MODES: Shape = {
    "type": "array",
    "minItems": 1,
    "items": {"enum": ["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]},
}
_PATHS: Shape = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "string", "pattern": "^/[-A-Za-z0-9._~/]*$"},
}
_HOSTS: Shape = {
    "type": "array",
    "items": {"type": "string", "pattern": "^(\\*\\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
}
_BROKERS: Shape = {
    "type": "string",
    "pattern": "^( *tcp://[^ ,]+:[0-9]+ *(, *tcp://[^ ,]+:[0-9]+ *)*)?$",
}


def _whole(low: int, high: int, *, null: bool = False) -> Shape:
    return {"type": ["integer", "null"] if null else "integer", "minimum": low, "maximum": high}


def _object(**properties: Shape) -> Shape:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _setting(variable: str, *, null: bool = False) -> Shape:
    """Give the shape of a value of its own name that sets a variable: the table's range."""
    info: SettingInfo = next(i for i in table() if i.variable == variable)
    kind = {int: "integer", float: "number"}[info.type]
    return {"type": [kind, "null"] if null else kind, "minimum": info.low, "maximum": info.high}


def _probe() -> Shape:
    return _object(
        periodSeconds=_whole(1, 3600),
        timeoutSeconds=_whole(1, 3600),
        failureThreshold=_whole(1, 100_000),
        successThreshold=_whole(1, 1000),
        initialDelaySeconds=_whole(0, 3600),
    )


def _resources() -> Shape:
    amounts = {
        "type": ["object", "null"],
        "additionalProperties": {"oneOf": [_QUANTITY, {"type": "number", "minimum": 0}]},
    }
    return _object(requests=amounts, limits=amounts, claims=_LIST)


def _image(*, secrets: bool) -> Shape:
    more = {"pullSecrets": _WORDS} if secrets else {}
    tag = {"type": "string", "pattern": "^([A-Za-z0-9_][-A-Za-z0-9._]{0,127})?$"}
    name = {"type": "string", "minLength": 1}
    return _object(repository=name, tag=tag, digest=_DIGEST, pullPolicy=_PULL, **more)


def _pod(*, spread: bool = True, budget: bool = True) -> dict[str, Shape]:
    """Give what every component's pods can be told."""
    pod: dict[str, Shape] = {
        "enabled": _YES_NO,
        "resources": _resources(),
        "startupProbe": _probe(),
        "livenessProbe": _probe(),
        "readinessProbe": _probe(),
        "nodeSelector": _LABELS,
        "tolerations": _LIST,
        "affinity": _FREE,
        "priorityClassName": _NAME,
        "serviceAccount": _object(create=_YES_NO, name=_NAME, annotations=_LABELS),
        "annotations": _LABELS,
        "podAnnotations": _LABELS,
        "podLabels": _LABELS,
        "extraEnv": _LIST,
        "extraEnvFrom": _LIST,
        "extraVolumes": _LIST,
        "extraVolumeMounts": _LIST,
    }
    if spread:
        pod["topologySpreadConstraints"] = _LIST
    if budget:
        pod["podDisruptionBudget"] = _object(enabled=_YES_NO, maxUnavailable=_COUNT_OR_PERCENT)
    return pod


_REPLICAS: Shape = _whole(0, 10_000, null=True)


def _strategy(*others: str) -> Shape:
    """Give how pods are replaced: rolling, or in another way, which has no parameters."""
    rolling = _object(maxSurge=_COUNT_OR_PERCENT, maxUnavailable=_COUNT_OR_PERCENT)
    found = _object(
        type={"enum": ["RollingUpdate", *others]},
        rollingUpdate=rolling | {"type": ["object", "null"]},
    )
    found["if"] = {"properties": {"type": {"enum": list(others)}}}
    found["then"] = {"properties": {"rollingUpdate": {"type": "null"}}}
    return found


def _broker() -> Shape:
    given = _object(broker=_NAME, streamer=_NAME, collector=_NAME)
    return _object(
        replicas=_REPLICAS,
        queueCapacity=_setting("TELEMQ_BROKER_CAPACITY_RECORDS"),
        queueBytes=_setting("TELEMQ_BROKER_CAPACITY_BYTES"),
        drainSeconds=_setting("TELEMQ_BROKER_DRAIN_S"),
        ports=_object(producers=_PORT, consumers=_PORT, ops=_PORT),
        journal=_object(
            enabled=_YES_NO,
            size=_QUANTITY,
            storageClass=_NAME,
            accessModes=_ACCESS_MODES,
            annotations=_LABELS,
            retention=_object(
                whenDeleted={"enum": ["Retain", "Delete"]},
                whenScaled={"enum": ["Retain", "Delete"]},
            ),
        ),
        keys=_object(
            enabled=_YES_NO,
            existingSecrets=given,
            allow=_object(secret=_NAME, files={"type": "array", "items": _KEY}),
            waitSeconds=_whole(0, 3600),
            resources=_resources(),
        ),
        http=_object(enabled=_YES_NO, port=_PORT, tokenSecret=_object(name=_NAME, key=_KEY)),
        pull=_object(enabled=_YES_NO, port=_PORT),
        push=_object(enabled=_YES_NO, port=_PORT),
        settings=settings_map.schema("broker"),
        minReadySeconds=_whole(0, 3600),
        serviceAnnotations=_LABELS,
        **_pod(),
    )


def _streamer() -> Shape:
    found = _object(
        kind={"enum": ["Deployment", "DaemonSet"]},
        replicas=_REPLICAS,
        rate=_setting("TELEMQ_STREAMER_RATE", null=True),
        sleepMillis={"type": ["number", "null"], "minimum": 0, "maximum": 86_400_000},
        csv=_object(configMap=_NAME, existingClaim=_NAME, file=_TEXT),
        brokers=_BROKERS,
        drainSeconds=_setting("TELEMQ_STREAMER_DRAIN_S"),
        ports=_object(ops=_PORT),
        settings=settings_map.schema("streamer"),
        strategy=_strategy("Recreate", "OnDelete"),
        **_pod(),
    )
    # A Deployment knows one of the other strategies, a DaemonSet the other.
    wrong = {"Deployment": "OnDelete", "DaemonSet": "Recreate"}
    found["allOf"] = [
        {
            "if": {"properties": {"kind": {"const": kind}}},
            "then": {
                "properties": {"strategy": {"properties": {"type": {"not": {"const": type}}}}}
            },
        }
        for kind, type in wrong.items()
    ]
    # That both are given is told by the templates, in words.
    text = {"type": "string", "minLength": 1}
    csv = found["properties"]["csv"]
    csv["if"] = {
        "anyOf": [
            {"properties": {name: text}, "required": [name]}
            for name in ("configMap", "existingClaim")
        ]
    }
    csv["then"] = {"properties": {"file": text}, "required": ["file"]}
    csv["else"] = {"properties": {"file": {"maxLength": 0}}}
    return found


def _collector() -> Shape:
    return _object(
        replicas=_REPLICAS,
        workers=_setting("TELEMQ_COLLECTOR_WORKERS"),
        brokers=_BROKERS,
        drainSeconds=_setting("TELEMQ_COLLECTOR_DRAIN_S"),
        # The last of 256 workers still has a port.
        ports=_object(ops=_whole(1, 65_535 - 255)),
        autoscaling=_object(
            enabled=_YES_NO,
            by={"enum": ["cpu", "keda"]},
            minReplicas=_whole(1, 10_000),
            maxReplicas=_whole(1, 10_000),
            cpuPercent=_whole(1, 1000),
            scaleDownSeconds=_whole(0, 3600),
            keda=_object(
                recordsPerCollector=_whole(1, 1_000_000_000),
                pollingSeconds=_whole(1, 3600),
                prometheusAddress={"type": "string", "pattern": "^(https?://.+)?$"},
            ),
        ),
        settings=settings_map.schema("collector"),
        strategy=_strategy("Recreate"),
        **_pod(),
    )


def _api() -> Shape:
    ingress = _object(
        enabled=_YES_NO,
        className=_NAME,
        hosts=_HOSTS,
        annotations=_LABELS,
        tls=_object(enabled=_YES_NO, secretName=_NAME),
    )
    ingress |= _when_enabled(hosts={"minItems": 1})
    gateway = _object(
        enabled=_YES_NO, className=_NAME, tlsSecretName=_NAME, annotations=_LABELS
    ) | _when_enabled(className={"minLength": 1})
    return _object(
        replicas=_REPLICAS,
        drainSeconds=_setting("TELEMQ_API_DRAIN_S"),
        preStopSeconds=_whole(0, 600),
        ports=_object(http=_PORT),
        service=_object(
            type={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
            port=_PORT,
            nodePort=_whole(1, 65_535, null=True),
            annotations=_LABELS,
        ),
        paths=_PATHS,
        ingress=ingress,
        httpRoute=_object(enabled=_YES_NO, parentRefs=_LIST, hostnames=_HOSTS, annotations=_LABELS),
        gateway=gateway,
        settings=settings_map.schema("api"),
        strategy=_strategy("Recreate"),
        **_pod(),
    )


def _when_enabled(**properties: Shape) -> Shape:
    enabled = {"properties": {"enabled": {"const": True}}, "required": ["enabled"]}
    return {"if": enabled, "then": {"properties": properties, "required": list(properties)}}


def _postgres() -> Shape:
    word = {"type": "string", "pattern": "^[a-z_][a-z0-9_]{0,62}$"}
    return _object(
        external=_object(dsnSecret=_object(name=_NAME, key=_KEY)),
        image=_image(secrets=False),
        runAsUser=_whole(1, 2**31 - 1, null=True),
        port=_whole(1024, 65_535),
        database=word,
        user=word,
        existingSecret=_NAME,
        parameters=_LABELS,
        persistence=_object(
            enabled=_YES_NO,
            size=_QUANTITY,
            storageClass=_NAME,
            accessModes=_ACCESS_MODES,
            annotations=_LABELS,
        ),
        shmSize=_QUANTITY,
        terminationGracePeriodSeconds=_whole(1, 86_400),
        **_pod(spread=False, budget=False),
    )


def _nats() -> Shape:
    found = _object(
        enabled=_YES_NO,
        url={"type": "string", "pattern": "^((nats|tls)://.+/[A-Za-z0-9_-]{1,64})?$"},
        urlSecret=_object(name=_NAME, key=_KEY),
        stream={"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
        fullnameOverride=_NAME,
        **dict.fromkeys(("config", "natsBox", "podTemplate", "container", "reloader"), _FREE),
    )
    # The rest are values of NATS's own chart, which has no schema.
    return found | {"additionalProperties": True}


def _policies() -> Shape:
    peers = (
        *("apiFrom", "producersFrom", "consumersFrom", "waysFrom", "prometheusFrom", "kedaFrom"),
        *("dnsTo", "postgresTo", "natsTo", "brokersTo", "apiServerTo"),
    )
    ports = {"type": "array", "minItems": 1, "items": _PORT}
    return _object(
        enabled=_YES_NO,
        dnsPorts=ports,
        apiServerPorts=ports,
        postgresPort=_PORT,
        natsPort=_PORT,
        **dict.fromkeys(peers, _LIST),
    )


def _monitoring() -> Shape:
    span = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}
    return _object(
        podMonitor=_object(
            enabled=_YES_NO,
            labels=_LABELS,
            interval=span,
            scrapeTimeout=span,
            metricRelabelings=_LIST,
        ),
        prometheusRule=_object(
            enabled=_YES_NO, labels=_LABELS, alertLabels=_LABELS, disabled=_WORDS
        ),
        dashboard=_object(enabled=_YES_NO, labels=_LABELS, annotations=_LABELS),
    )


def schema(values: dict[str, Any], described: list[Value]) -> Shape:
    """Give the whole schema.

    Args:
        values: values.yaml as it is read.
        described: its values with their comments.
    """
    ids = _whole(1, 2**31 - 1, null=True)
    found = _object(
        nameOverride={"type": "string", "pattern": "^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$"},
        # With the longest suffix of a pod's name, it is still a DNS label.
        fullnameOverride={"type": "string", "pattern": "^([a-z]([-a-z0-9]{0,38}[a-z0-9])?)?$"},
        commonLabels=_LABELS,
        commonAnnotations=_LABELS,
        clusterDomain={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
        listen={"enum": ["0.0.0.0", "[::]"]},
        image=_image(secrets=True),
        podSecurity=_object(runAsUser=ids, fsGroup=ids),
        engine={"enum": ["telemq", "nats"]},
        settings=settings_map.schema(""),
        migrate=_object(enabled=_YES_NO, waitSeconds=_whole(0, 3600), resources=_resources()),
        broker=_broker(),
        streamer=_streamer(),
        collector=_collector(),
        api=_api(),
        postgres=_postgres(),
        nats=_nats(),
        networkPolicy=_policies(),
        monitoring=_monitoring(),
        revisionHistoryLimit=_whole(0, 1000),
        tests=_object(enabled=_YES_NO),
        # Helm gives it to every chart that has a sub-chart.
        **{"global": _FREE},
    )
    # Shapes are shared above; what is required and described of one place is not of another. A
    # deep copy would share them again.
    found = cast(Shape, json.loads(json.dumps(found)))
    _require(found, values)
    for value in described:
        _describe(found, value)
    head = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of telemq's chart",
    }
    return head | found


def _require(shape: Shape, values: dict[str, Any]) -> None:
    """Require what has a default, as deep as the schema lists properties."""
    properties = shape.get("properties", {})
    if not properties:
        return
    if unknown := set(values) - set(properties):
        raise ValueError(f"not in the schema: {', '.join(sorted(unknown))}")
    shape["required"] = [
        key
        for key, value in values.items()
        if value is not None and "null" not in properties[key].get("type", ())
    ]
    if not shape["required"]:
        del shape["required"]
    for key, value in values.items():
        if isinstance(value, dict):
            _require(properties[key], value)


def _describe(shape: Shape, value: Value) -> None:
    for key in value.path:
        if key not in shape.get("properties", {}):
            return
        shape = shape["properties"][key]
    if value.comment:
        shape["description"] = value.comment
