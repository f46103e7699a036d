"""Shapes that values of several components have, as JSON schemas."""

from __future__ import annotations

from typing import Any

from telemq.setting import SettingInfo
from telemq.settings import table

__all__ = [
    "ACCESS_MODES",
    "BROKERS",
    "BROKER_OPS",
    "FREE",
    "HOSTS",
    "KEY",
    "LABELS",
    "LIST",
    "NAME",
    "PATHS",
    "PORT",
    "QUANTITY",
    "TEXT",
    "WORDS",
    "YES_NO",
    "Shape",
    "an_object",
    "image",
    "pod",
    "resources",
    "setting_range",
    "strategy",
    "when_enabled",
    "whole",
]

Shape = dict[str, Any]

TEXT: Shape = {"type": "string"}
YES_NO: Shape = {"type": "boolean"}
FREE: Shape = {"type": "object"}
LIST: Shape = {"type": "array", "items": {"type": "object"}}
#: What the chart sets itself has a value of its own; a variable given twice is refused by none.
ENVIRONMENT: Shape = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "not": {"pattern": "^(TELEMQ_|POSTGRES_|PGDATA$|PGPORT$)"}}
        },
    },
}
WORDS: Shape = {"type": "array", "items": {"type": "string", "minLength": 1}}
LABELS: Shape = {"type": "object", "additionalProperties": {"type": "string"}}
PORT: Shape = {"type": "integer", "minimum": 1, "maximum": 65_535}
#: The name of an object, or empty.
NAME: Shape = {
    "type": "string",
    "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$",
    "maxLength": 253,
}
KEY: Shape = {"type": "string", "pattern": "^[-._a-zA-Z0-9]+$"}
QUANTITY: Shape = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(m|[kMGTPE]i?)?$"}
DIGEST: Shape = {"type": "string", "pattern": "^(sha256:[a-f0-9]{64})?$"}
PULL: Shape = {"enum": ["Always", "IfNotPresent", "Never"]}
COUNT_OR_PERCENT: Shape = {
    "oneOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": "^[0-9]+%$"},
    ]
}
ACCESS_MODES: Shape = {
    "type": "array",
    "minItems": 1,
    "items": {"enum": ["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]},
}
PATHS: Shape = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "string", "pattern": "^/[-A-Za-z0-9._~/]*$"},
}
HOSTS: Shape = {
    "type": "array",
    "items": {"type": "string", "pattern": "^(\\*\\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
}
BROKERS: Shape = {
    "type": "string",
    "pattern": "^( *tcp://[^ ,]+:[0-9]+ *(, *tcp://[^ ,]+:[0-9]+ *)*)?$",
}
#: Ops addresses of brokers.
BROKER_OPS: Shape = {
    "type": "string",
    "pattern": "^( *(http://)?[^ ,/]+:[0-9]+/? *(, *(http://)?[^ ,/]+:[0-9]+/? *)*)?$",
}


def whole(low: int, high: int, *, null: bool = False) -> Shape:
    """Give a whole number in a range, or also null."""
    return {"type": ["integer", "null"] if null else "integer", "minimum": low, "maximum": high}


def an_object(**properties: Shape) -> Shape:
    """Give a map that has these keys and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def setting_range(variable: str, *, null: bool = False) -> Shape:
    """Give the shape of a value of its own name that sets a variable: the table's range."""
    info: SettingInfo = next(i for i in table() if i.variable == variable)
    kind = {int: "integer", float: "number"}[info.type]
    return {"type": [kind, "null"] if null else kind, "minimum": info.low, "maximum": info.high}


def probe() -> Shape:
    return an_object(
        periodSeconds=whole(1, 3600),
        timeoutSeconds=whole(1, 3600),
        failureThreshold=whole(1, 100_000),
        successThreshold=whole(1, 1000),
        initialDelaySeconds=whole(0, 3600),
    )


def resources() -> Shape:
    """Give a container's resources."""
    amounts = {
        "type": ["object", "null"],
        "additionalProperties": {"oneOf": [QUANTITY, {"type": "number", "minimum": 0}]},
    }
    return an_object(requests=amounts, limits=amounts, claims=LIST)


def image(*, secrets: bool) -> Shape:
    """Give which image is run, and with which secrets it is pulled."""
    more = {"pullSecrets": WORDS} if secrets else {}
    tag = {"type": "string", "pattern": "^([A-Za-z0-9_][-A-Za-z0-9._]{0,127})?$"}
    name = {"type": "string", "minLength": 1}
    return an_object(repository=name, tag=tag, digest=DIGEST, pullPolicy=PULL, **more)


def pod(*, spread: bool = True, budget: bool = True, probes: bool = True) -> dict[str, Shape]:
    """Give what every component's pods can be told."""
    found: dict[str, Shape] = {
        "enabled": YES_NO,
        "resources": resources(),
        "nodeSelector": LABELS,
        "tolerations": LIST,
        "affinity": FREE,
        "priorityClassName": NAME,
        "serviceAccount": an_object(create=YES_NO, name=NAME, annotations=LABELS),
        "annotations": LABELS,
        "podAnnotations": LABELS,
        "podLabels": LABELS,
        "extraEnv": ENVIRONMENT,
        "extraEnvFrom": LIST,
        "extraVolumes": LIST,
        "extraVolumeMounts": LIST,
    }
    if probes:
        found |= {f"{kind}Probe": probe() for kind in ("startup", "liveness", "readiness")}
    if spread:
        found["topologySpreadConstraints"] = LIST
    if budget:
        found["podDisruptionBudget"] = an_object(enabled=YES_NO, maxUnavailable=COUNT_OR_PERCENT)
    return found


def strategy(*others: str) -> Shape:
    """Give how pods are replaced: rolling, or in another way, which has no parameters."""
    rolling = an_object(maxSurge=COUNT_OR_PERCENT, maxUnavailable=COUNT_OR_PERCENT)
    found = an_object(
        type={"enum": ["RollingUpdate", *others]},
        rollingUpdate=rolling | {"type": ["object", "null"]},
    )
    found["if"] = {"properties": {"type": {"enum": list(others)}}}
    found["then"] = {"properties": {"rollingUpdate": {"type": "null"}}}
    return found


def when_enabled(**properties: Shape) -> Shape:
    """Give what is wanted besides when ``enabled`` is true."""
    enabled = {"properties": {"enabled": {"const": True}}, "required": ["enabled"]}
    return {"if": enabled, "then": {"properties": properties, "required": list(properties)}}
