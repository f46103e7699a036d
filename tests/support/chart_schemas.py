"""Rendered objects held against the schemas of Kubernetes, and of the custom resources in use.

`kubernetes-validate` has the API's own schemas, strict: a field that does not exist is an error.
Custom resources are not among them; for those the schemas here have what the chart may use of each,
after the resource's own reference, and nothing else is accepted.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate import utils

from tests.support.chart import CHART, Rendered, counts

__all__ = ["VERSIONS", "schemas"]

# For each object it lists its versions and parses a file of megabytes, which are always the same.
utils.all_versions = functools.cache(utils.all_versions)
utils.schema_contents = functools.cache(utils.schema_contents)


def _versions() -> tuple[str, str]:
    """Oldest that the chart accepts, newest that there are schemas of."""
    wanted = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    return wanted.removeprefix(">=").removesuffix("-0"), utils.latest_version()


VERSIONS = _versions()

_TEXT = {"type": "string"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_INT = {"type": "integer", "minimum": 0}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65_535}
_DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h|d))+$"}


def _object(required: str, optional: dict[str, Any] | None = None, /, **fields: Any) -> Any:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required.split(),
        "properties": {**fields, **(optional or {})},
    }


def _list(item: Any, least: int = 1) -> Any:
    return {"type": "array", "items": item, "minItems": least}


_SELECTOR = {"type": "object", "required": ["matchLabels"]}
_PARENTS = _list(
    _object("name", group=_TEXT, kind=_TEXT, namespace=_TEXT, name=_TEXT, sectionName=_TEXT,
            port=_PORT)
)  # fmt: skip
_ROUTE_RULE = _object(
    "backendRefs",
    matches=_list(
        _object("path", path=_object("type value", type={"enum": ["PathPrefix", "Exact"]},
                                     value={"type": "string", "pattern": "^/"}))
    ),
    backendRefs=_list(_object("name port", name=_TEXT, port=_PORT)),
    timeouts=_object("", request=_DURATION, backendRequest=_DURATION),
)  # fmt: skip
_LISTENER = _object(
    "name port protocol",
    name=_TEXT,
    port=_PORT,
    protocol={"enum": ["HTTP", "HTTPS"]},
    hostname=_TEXT,
    tls=_object(
        "certificateRefs", mode={"enum": ["Terminate"]},
        certificateRefs=_list(_object("name", kind=_TEXT, name=_TEXT)),
    ),
    allowedRoutes={"type": "object"},
)  # fmt: skip
_RULE = _object(
    "alert expr annotations",
    {"for": _DURATION},
    alert=_TEXT,
    expr={"type": ["string", "number"]},
    keep_firing_for=_DURATION,
    labels=_TEXTS,
    annotations=_TEXTS,
)
#: A PodMonitor's spec, https://prometheus-operator.dev/docs/api-reference/api/, and so on.
CUSTOM: dict[tuple[str, str], Any] = {
    ("monitoring.coreos.com/v1", "PodMonitor"): _object(
        "selector podMetricsEndpoints",
        selector=_SELECTOR,
        namespaceSelector=_object("", matchNames=_list(_TEXT), any={"type": "boolean"}),
        podTargetLabels=_list(_TEXT),
        podMetricsEndpoints=_list(
            _object("", port=_TEXT, portNumber=_PORT, path=_TEXT, interval=_DURATION,
                    scrapeTimeout=_DURATION, honorLabels={"type": "boolean"},
                    relabelings=_list({"type": "object"}),
                    metricRelabelings=_list({"type": "object"}, 0))
        ),
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _object(
        "groups",
        groups=_list(_object("name rules", name=_TEXT, interval=_DURATION, rules=_list(_RULE))),
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): _object(
        "scaleTargetRef triggers",
        scaleTargetRef=_object("name", apiVersion=_TEXT, kind=_TEXT, name=_TEXT),
        minReplicaCount=_INT,
        maxReplicaCount=_INT,
        pollingInterval=_INT,
        cooldownPeriod=_INT,
        fallback=_object("failureThreshold replicas", failureThreshold=_INT, replicas=_INT,
                         behavior=_TEXT),
        advanced={"type": "object"},
        triggers=_list(_object("type metadata", type=_TEXT, name=_TEXT, metadata=_TEXTS,
                               metricType={"enum": ["AverageValue", "Value", "Utilization"]})),
    ),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): _object(
        "parentRefs rules", parentRefs=_PARENTS, hostnames=_list(_TEXT), rules=_list(_ROUTE_RULE)
    ),
    ("gateway.networking.k8s.io/v1", "Gateway"): _object(
        "gatewayClassName listeners", gatewayClassName=_TEXT, listeners=_list(_LISTENER)
    ),
}  # fmt: skip


def schemas(rendered: Rendered) -> Iterator[str]:
    """Each object is valid, in the oldest and the newest Kubernetes that is supported."""
    for one in rendered.objects:
        where = f"{one.get('kind')} {one.get('metadata', {}).get('name')}"
        for problem in _problems(json.dumps(one, sort_keys=True)):
            yield f"{where}: {problem}"


# Most objects do not depend on the values that a test changes.
@functools.lru_cache(20_000)
def _problems(text: str) -> tuple[str, ...]:
    one = json.loads(text)
    found = []
    custom = CUSTOM.get((one.get("apiVersion"), one.get("kind")))
    for version in VERSIONS:
        counts.validated += 1
        try:
            if custom is None:
                kubernetes_validate.validate(one, version, strict=True)
            else:
                jsonschema.Draft202012Validator(custom).validate(one["spec"])
        except jsonschema.ValidationError as error:
            path = ".".join(map(str, error.absolute_path))
            found.append(f"{version}: {path}: {error.message[:300]}")
        except (utils.SchemaNotFoundError, KeyError) as error:
            found.append(f"{version}: no such kind: {error!r}")
    return tuple(found)
