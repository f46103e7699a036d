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
from deploy.helm.generate.shapes import (
    ACCESS_MODES,
    BROKER_OPS,
    BROKERS,
    FREE,
    HOSTS,
    KEY,
    LABELS,
    LIST,
    NAME,
    PATHS,
    PORT,
    QUANTITY,
    TEXT,
    WORDS,
    YES_NO,
    Shape,
    an_object,
    image,
    pod,
    resources,
    setting_range,
    strategy,
    when_enabled,
    whole,
)

__all__ = ["schema"]

_REPLICAS: Shape = whole(0, 10_000, null=True)


def _broker() -> Shape:
    given = an_object(broker=NAME, streamer=NAME, collector=NAME)
    return an_object(
        replicas=_REPLICAS,
        queueCapacity=setting_range("TELEMQ_BROKER_CAPACITY_RECORDS"),
        queueBytes=setting_range("TELEMQ_BROKER_CAPACITY_BYTES"),
        drainSeconds=setting_range("TELEMQ_BROKER_DRAIN_S"),
        ports=an_object(producers=PORT, consumers=PORT, ops=PORT),
        journal=an_object(
            enabled=YES_NO,
            size=QUANTITY,
            storageClass=NAME,
            accessModes=ACCESS_MODES,
            annotations=LABELS,
            retention=an_object(
                whenDeleted={"enum": ["Retain", "Delete"]},
                whenScaled={"enum": ["Retain", "Delete"]},
            ),
        ),
        keys=an_object(
            enabled=YES_NO,
            existingSecrets=given,
            allow=an_object(secret=NAME, files={"type": "array", "items": KEY}),
            waitSeconds=whole(0, 3600),
            resources=resources(),
        ),
        http=an_object(enabled=YES_NO, port=PORT, tokenSecret=an_object(name=NAME, key=KEY)),
        pull=an_object(enabled=YES_NO, port=PORT),
        push=an_object(enabled=YES_NO, port=PORT),
        settings=settings_map.schema("broker"),
        minReadySeconds=whole(0, 3600),
        serviceAnnotations=LABELS,
        **pod(),
    )


def _streamer() -> Shape:
    found = an_object(
        kind={"enum": ["Deployment", "DaemonSet"]},
        replicas=_REPLICAS,
        rate=setting_range("TELEMQ_STREAMER_RATE", null=True),
        sleepMillis={"type": ["number", "null"], "minimum": 0, "maximum": 86_400_000},
        csv=an_object(configMap=NAME, existingClaim=NAME, file=TEXT),
        brokers=BROKERS,
        drainSeconds=setting_range("TELEMQ_STREAMER_DRAIN_S"),
        ports=an_object(ops=PORT),
        settings=settings_map.schema("streamer"),
        strategy=strategy("Recreate", "OnDelete"),
        **pod(),
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
    # So, and not by "not", the error names the one that is too much.
    found["if"] = {"properties": {"rate": {"type": "number"}}, "required": ["rate"]}
    found["then"] = {"properties": {"sleepMillis": {"type": "null"}}}
    given, empty = {"type": "string", "minLength": 1}, {"maxLength": 0}
    volumes = {
        name: {"properties": {name: given}, "required": [name]}
        for name in ("configMap", "existingClaim")
    }
    csv = found["properties"]["csv"]
    csv["if"] = {"anyOf": list(volumes.values())}
    csv["then"] = {"properties": {"file": given}, "required": ["file"]}
    csv["else"] = {"properties": {"file": empty}}
    one_volume = {"properties": {"existingClaim": empty}}
    csv["allOf"] = [{"if": volumes["configMap"], "then": one_volume}]
    return found


def _collector() -> Shape:
    return an_object(
        replicas=_REPLICAS,
        workers=setting_range("TELEMQ_COLLECTOR_WORKERS"),
        brokers=BROKERS,
        drainSeconds=setting_range("TELEMQ_COLLECTOR_DRAIN_S"),
        # The last of 256 workers still has a port.
        ports=an_object(ops=whole(1, 65_535 - 255)),
        autoscaling=an_object(
            enabled=YES_NO,
            by={"enum": ["cpu", "keda"]},
            minReplicas=whole(1, 10_000),
            maxReplicas=whole(1, 10_000),
            cpuPercent=whole(1, 1000),
            scaleDownSeconds=whole(0, 3600),
            keda=an_object(
                recordsPerCollector=whole(1, 1_000_000_000),
                pollingSeconds=whole(1, 3600),
                prometheusAddress={"type": "string", "pattern": "^(https?://.+)?$"},
            ),
        ),
        settings=settings_map.schema("collector"),
        strategy=strategy("Recreate"),
        **pod(),
    )


def _api() -> Shape:
    ingress = an_object(
        enabled=YES_NO,
        className=NAME,
        hosts=HOSTS,
        annotations=LABELS,
        tls=an_object(enabled=YES_NO, secretName=NAME),
    )
    ingress |= when_enabled(hosts={"minItems": 1})
    gateway = an_object(
        enabled=YES_NO, className=NAME, tlsSecretName=NAME, annotations=LABELS
    ) | when_enabled(className={"minLength": 1})
    return an_object(
        replicas=_REPLICAS,
        drainSeconds=setting_range("TELEMQ_API_DRAIN_S"),
        preStopSeconds=whole(0, 600),
        brokerOps=BROKER_OPS,
        ports=an_object(http=PORT, ops=PORT),
        tokens=an_object(enabled=YES_NO),
        service=an_object(
            type={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
            port=PORT,
            nodePort=whole(1, 65_535, null=True),
            annotations=LABELS,
        ),
        paths=PATHS,
        ingress=ingress,
        httpRoute=an_object(enabled=YES_NO, parentRefs=LIST, hostnames=HOSTS, annotations=LABELS),
        gateway=gateway,
        settings=settings_map.schema("api"),
        strategy=strategy("Recreate"),
        **pod(),
    )


def _maintain() -> Shape:
    return an_object(
        schedule={"type": "string", "pattern": "^(@[a-z]+|\\S+( +\\S+){4})$"},
        deadlineSeconds=whole(1, 604_800),
        **pod(spread=False, budget=False, probes=False),
    )


def _postgres() -> Shape:
    word = {"type": "string", "pattern": "^[a-z_][a-z0-9_]{0,62}$"}
    return an_object(
        external=an_object(dsnSecret=an_object(name=NAME, key=KEY)),
        image=image(secrets=False),
        runAsUser=whole(1, 2**31 - 1, null=True),
        port=whole(1024, 65_535),
        database=word,
        user=word,
        existingSecret=NAME,
        parameters=LABELS,
        persistence=an_object(
            enabled=YES_NO,
            size=QUANTITY,
            storageClass=NAME,
            accessModes=ACCESS_MODES,
            annotations=LABELS,
        ),
        shmSize=QUANTITY,
        terminationGracePeriodSeconds=whole(1, 86_400),
        **pod(spread=False, budget=False),
    )


def _nats() -> Shape:
    found = an_object(
        enabled=YES_NO,
        url={"type": "string", "pattern": "^((nats|tls)://.+/[A-Za-z0-9_-]{1,64})?$"},
        urlSecret=an_object(name=NAME, key=KEY),
        stream={"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
        fullnameOverride=NAME,
        **dict.fromkeys(("config", "natsBox", "podTemplate", "container", "reloader"), FREE),
    )
    # The rest are values of NATS's own chart, which has no schema.
    return found | {"additionalProperties": True}


def _policies() -> Shape:
    peers = (
        *("apiFrom", "producersFrom", "consumersFrom", "waysFrom", "prometheusFrom", "kedaFrom"),
        *("dnsTo", "postgresTo", "natsTo", "brokersTo", "apiServerTo"),
    )
    ports = {"type": "array", "minItems": 1, "items": PORT}
    return an_object(
        enabled=YES_NO,
        dnsPorts=ports,
        apiServerPorts=ports,
        postgresPort=PORT,
        natsPort=PORT,
        **dict.fromkeys(peers, LIST),
    )


def _monitoring() -> Shape:
    span = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}
    return an_object(
        podMonitor=an_object(
            enabled=YES_NO,
            labels=LABELS,
            interval=span,
            scrapeTimeout=span,
            metricRelabelings=LIST,
        ),
        prometheusRule=an_object(enabled=YES_NO, labels=LABELS, alertLabels=LABELS, disabled=WORDS),
        dashboard=an_object(enabled=YES_NO, labels=LABELS, annotations=LABELS),
    )


def schema(values: dict[str, Any], described: list[Value]) -> Shape:
    """Give the whole schema.

    Args:
        values: values.yaml as it is read.
        described: its values with their comments.
    """
    ids = whole(1, 2**31 - 1, null=True)
    found = an_object(
        nameOverride={"type": "string", "pattern": "^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$"},
        # With the longest suffix of a pod's name, it is still a DNS label.
        fullnameOverride={"type": "string", "pattern": "^([a-z]([-a-z0-9]{0,38}[a-z0-9])?)?$"},
        commonLabels=LABELS,
        commonAnnotations=LABELS,
        clusterDomain={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
        listen={"enum": ["0.0.0.0", "[::]"]},
        image=image(secrets=True),
        podSecurity=an_object(runAsUser=ids, fsGroup=ids),
        engine={"enum": ["telemq", "nats"]},
        settings=settings_map.schema(""),
        migrate=an_object(enabled=YES_NO, waitSeconds=whole(0, 3600), resources=resources()),
        broker=_broker(),
        streamer=_streamer(),
        collector=_collector(),
        api=_api(),
        maintain=_maintain(),
        postgres=_postgres(),
        nats=_nats(),
        networkPolicy=_policies(),
        monitoring=_monitoring(),
        revisionHistoryLimit=whole(0, 1000),
        tests=an_object(enabled=YES_NO),
        # Helm gives it to every chart that has a sub-chart.
        **{"global": FREE},
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
