"""The chart, rendered by Helm's own engine, and what is in it: objects, workloads, containers."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

__all__ = [
    "CHART",
    "NAMESPACE",
    "RELEASE",
    "SELECTORS",
    "Container",
    "Counts",
    "Rendered",
    "Workload",
    "at",
    "counts",
    "load",
    "overlay",
    "render",
    "selects",
]

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "telemq"
#: Other words than the chart's own names, so that one cannot be taken for the other.
RELEASE, NAMESPACE = "prod", "gpu"
#: Labels by which the chart's objects find each other; none of them changes with a version.
SELECTORS = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}

Values = dict[str, Any]


@dataclass
class Counts:
    """What was tried in this run.

    Attributes:
        renders: charts rendered.
        distinct: outcomes that differ from each other.
        refused: values that the schema or a template refused, as they should.
        validated: objects held against a schema of Kubernetes, each once for each version.
    """

    renders: int = 0
    distinct: set[int] = field(default_factory=set)
    refused: int = 0
    validated: int = 0


counts = Counts()


@dataclass(frozen=True)
class Container:
    """One container of a workload.

    Attributes:
        where: words that name it, for messages.
        spec: the container.
        kind: ``main``, ``init`` or ``sidecar`` (an init container that stays).
    """

    where: str
    spec: dict[str, Any]
    kind: str

    @property
    def variables(self) -> dict[str, Any]:
        """Literal values by name; what comes from a Secret or a field is its source."""
        return {e["name"]: e.get("value", e.get("valueFrom")) for e in self.spec.get("env", [])}

    @property
    def is_telemq(self) -> bool:
        """Whether it runs the image of telemq, whose entry point is the command."""
        return "command" not in self.spec and not re.search(
            r"(^|/)(postgres|nats)[:@]", str(self.spec["image"])
        )


@dataclass(frozen=True)
class Workload:
    """Something with pods.

    Attributes:
        object: as rendered.
        template: metadata and spec of its pods.
    """

    object: dict[str, Any]
    template: dict[str, Any]

    @property
    def name(self) -> str:
        """Kind and name."""
        return f"{self.object['kind']} {self.object['metadata']['name']}"

    @property
    def component(self) -> str:
        """What the label says."""
        return str(self.labels.get("app.kubernetes.io/component", ""))

    @property
    def labels(self) -> dict[str, str]:
        """Of its pods."""
        labels: dict[str, str] = self.template.get("metadata", {}).get("labels", {})
        return labels

    @property
    def pod(self) -> dict[str, Any]:
        """Spec of its pods."""
        spec: dict[str, Any] = self.template["spec"]
        return spec

    @property
    def is_service(self) -> bool:
        """Whether it runs for ever."""
        return self.object["kind"] in ("Deployment", "StatefulSet", "DaemonSet")

    @property
    def containers(self) -> list[Container]:
        """All of them, in the order of their start."""
        found = []
        for key, kind in (("initContainers", "init"), ("containers", "main")):
            for spec in self.pod.get(key, []):
                stays = spec.get("restartPolicy") == "Always"
                where = f"{self.name}, container {spec['name']}"
                found.append(Container(where, spec, "sidecar" if stays else kind))
        return found

    @property
    def main(self) -> Container:
        """The first that is no init container."""
        return next(c for c in self.containers if c.kind == "main")


class Rendered:
    """The chart with some values.

    Attributes:
        values: all of them, the chart's defaults included.
        texts: of each template with an outcome, by its path in the chart.
        objects: everything but notes.
    """

    def __init__(self, values: Values, texts: dict[str, str]) -> None:
        self.values = values
        self.texts = {path.partition("/")[2]: text for path, text in texts.items() if text.strip()}
        self.notes = self.texts.pop("templates/NOTES.txt", "")
        self.objects: list[dict[str, Any]] = []
        for path, text in self.texts.items():
            for found in yaml.load_all(text, Loader=_Strict):
                if found:
                    assert isinstance(found, dict), f"{path}: no object: {found!r}"
                    self.objects.append(found)

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """The objects of some kinds."""
        return [found for found in self.objects if found["kind"] in kinds]

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """One object, which must be there."""
        return next(o for o in self.of(kind) if o["metadata"]["name"] == name)

    @functools.cached_property
    def workloads(self) -> list[Workload]:
        """Everything that has pods."""
        found = []
        for one in self.objects:
            spec = one.get("spec") or {}
            if one["kind"] == "Pod":
                found.append(Workload(one, one))
            elif one["kind"] == "CronJob":
                found.append(Workload(one, spec["jobTemplate"]["spec"]["template"]))
            elif "template" in spec and "containers" in spec["template"].get("spec", {}):
                found.append(Workload(one, spec["template"]))
        return found

    def workload(self, component: str) -> Workload:
        """The only workload of a component."""
        (found,) = [w for w in self.workloads if w.component == component]
        return found

    @property
    def containers(self) -> Iterator[Container]:
        """Every container of every workload."""
        for workload in self.workloads:
            yield from workload.containers


class _Strict(yaml.CSafeLoader):
    """YAML as a strict API server takes it: no key twice."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in found:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} twice", key_node.start_mark
            )
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


@functools.cache
def load(path: Path = CHART) -> helm.Chart:
    """Load a chart, once."""
    return helm.Chart.load(path)


def render(values: Values | None = None, path: Path = CHART, **options: Any) -> Rendered:
    """Render the chart as `helm install` does, for a release of its own name.

    Args:
        values: that overrule the chart's.
        path: of the chart.
        options: of `helm_python.Chart.render`.

    Raises:
        helm.HelmError: the values or a template refuse.
    """
    values = values or {}
    chart = load(path)
    # As helm does, and as Chart.render does not: the schema comes first.
    chart.validate_schema(values)
    texts = chart.render(values, **{"name": RELEASE, "namespace": NAMESPACE, **options})
    counts.renders += 1
    counts.distinct.add(hash(json.dumps(texts, sort_keys=True)))
    return Rendered(chart.merge_values(values), texts)


def overlay(*layers: Values) -> Values:
    """Give values that are laid over each other, as several -f of helm are."""
    result: Values = {}
    for layer in layers:
        for key, value in layer.items():
            if isinstance(value, dict) and isinstance(result.get(key), dict):
                result[key] = overlay(result[key], value)
            else:
                result[key] = copy.deepcopy(value)
    return result


def at(path: str, value: Any) -> Values:
    """Give the values that set one by its path, such as ``broker.settings.leaseS``."""
    for key in reversed(path.split(".")):
        value = {key: value}
    result: Values = value
    return result


def selects(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    """Tell whether a label selector selects; an empty one selects everything, none nothing."""
    if selector is None:
        return False
    wanted: dict[str, str] = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    for rule in selector.get("matchExpressions") or []:
        value, values = labels.get(rule["key"]), rule.get("values") or []
        if not {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[rule["operator"]]:
            return False
    return True
