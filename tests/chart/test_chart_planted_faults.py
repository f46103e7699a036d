"""Faults that are planted into copies of the chart: each is caught, and by the check that should.

"Must show" of issue 4: a broken template, value and policy each make `nox -s chart` red.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import helm_python as helm
import pytest

from tests.chart.test_chart_network import PICTURE, _dns, arrows
from tests.support.chart import CHART, Rendered, at, overlay, render
from tests.support.chart_checks import CHECKS

#: Where the fault is: a file of the chart, what stands there, and what shall stand there. Then who
#: catches it: a check by its name, or "yaml", "values" or "picture"; and what it says.
FAULTS: dict[str, tuple[str, str, str, str, str]] = {
    "broken YAML": (
        "api/service.yaml", "  ports:\n", "  ports: [\n", "yaml", "YAML",
    ),
    "a template that calls what is not there": (
        "api/service.yaml", "telemq.selectorLabels", "telemq.selectorLabel", "yaml", "no template",
    ),
    "a field that does not exist": (
        "streamer/workload.yaml", "      containers:", "      container:", "schemas",
        "'containers' is a required",
    ),
    "a field of another object": (
        "api/service.yaml", "  type: {{", "  kind: {{", "schemas", "'kind' was unexpected",
    ),
    "a number as text": (
        "collector/deployment.yaml", "{{ int64 .Values.revisionHistoryLimit }}",
        "{{ .Values.revisionHistoryLimit | quote }}", "schemas", "revisionHistoryLimit",
    ),
    "a pod that may be root": (
        "_pod.tpl", "  runAsNonRoot: true\n", "", "restricted", "runAsNonRoot",
    ),
    "an image that can be written": (
        "_pod.tpl", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "restricted",
        "can write its image",
    ),
    "a host's network": (
        "_pod.tpl", "enableServiceLinks: false", "enableServiceLinks: false\nhostNetwork: true",
        "restricted", "hostNetwork",
    ),
    "no limits": (
        "_pod.tpl", "resources:\n  {{- toYaml .resources | nindent 2 }}", "resources: {}",
        "resources", "no limits of memory",
    ),
    "a token of the API": (
        "_pod.tpl", "automountServiceAccountToken: false", "automountServiceAccountToken: true",
        "tokens", "automountServiceAccountToken is not False",
    ),
    "a Role that reads every Secret": (
        "keys/job.yaml", "    verbs: [create]", "    verbs: [create, get]", "tokens",
        "reads Secrets that are not named",
    ),
    "a variable misspelt": (
        "broker/_broker.tpl", "TELEMQ_BROKER_CAPACITY_BYTES", "TELEMQ_BROKER_CAPACITY_BYTE",
        "starts", "reads no TELEMQ_BROKER_CAPACITY_BYTE",
    ),
    "a sub-command that does not exist": (
        "collector/deployment.yaml", "args: [collect]", "args: [collector]", "starts",
        "no command collector",
    ),
    "a flag that does not exist": (
        "keys/job.yaml", "--broker-secret=", "--brokers-secret=", "starts", "--brokers-secret",
    ),
    "a number in another notation": (
        "_helpers.tpl", "ternary . (toJson .)", "ternary . (print .)", "starts",
        "unable to parse string as an integer",
    ),
    "a value below the range": (
        "streamer/workload.yaml", "(include \"telemq.streamerRate\" .)", "-1", "starts", "--rate",
    ),
    "a service that listens on loopback": (
        "streamer/workload.yaml", "(printf \"%s:%v\" .Values.listen", "(printf \"127.0.0.1:%v\"",
        "starts", "nobody could probe it",
    ),
    "a variable twice": (
        "api/deployment.yaml", "          env:\n",
        "          env:\n            - name: TELEMQ_INSECURE\n              value: \"true\"\n",
        "variables", "TELEMQ_INSECURE 2 times",
    ),
    "a wrong selector of a Service": (
        "broker/service.yaml", "  selector:\n", "  selector:\n    tier: queue\n", "services",
        "selects []",
    ),
    "a port that nobody has open": (
        "broker/service.yaml", "targetPort: consumers", "targetPort: consumer", "services",
        "port consumers is not open",
    ),
    "a probe of another port": (
        "_pod.tpl", ".port | default \"ops\"", ".port | default \"health\"", "probes", "not open",
    ),
    "a pod that is ready while Postgres is not": (
        "_pod.tpl", "\"readinessProbe\" \"/readyz\"", "\"readinessProbe\" \"/healthz\"", "probes",
        "readinessProbe asks for /healthz",
    ),
    "a budget of nothing": (
        "poddisruptionbudgets.yaml", "    matchLabels:\n", "    matchLabels:\n      tier: queue\n",
        "budgets", "selects []",
    ),
    "an autoscaler of another name": (
        "collector/autoscaling.yaml", "    name: {{ $name }}", "    name: {{ $name }}s", "scalers",
        "no {",
    ),
    "replicas beside an autoscaler": (
        "collector/deployment.yaml", "or $collector.autoscaling.enabled", "or false", "scalers",
        "replicas and an autoscaler",
    ),
    "a port that Prometheus does not find": (
        "monitoring/podmonitor.yaml", "append $ports \"ops\"", "append $ports \"web\"", "monitors",
        "no pod has the port web",
    ),
    "an Ingress to another port": (
        "api/ingress.yaml", "                  name: http\n", "                  name: https\n",
        "routes", "no Service telemetry-api with port {'name': 'https'}",
    ),
    "a port's name that is too long": (
        "streamer/workload.yaml", "- name: ops\n", "- name: health-and-metrics\n", "ports",
        "health-and-metrics",
    ),
    "a namespace of its own": (
        "_helpers.tpl", "namespace: {{ .root.Release.Namespace | quote }}",
        "namespace: telemetry", "names", "namespace telemetry",
    ),
    "a version in a selector": (
        "_helpers.tpl", "app.kubernetes.io/component: {{ .component }}\n",
        "app.kubernetes.io/component: {{ .component }}\nv: {{ .root.Chart.Version | quote }}\n",
        "selectors", "selector",
    ),
    "a volume that is not there": (
        "_pod.tpl", "- name: tmp\n  mountPath: /tmp", "- name: temp\n  mountPath: /tmp", "volumes",
        "no volume temp",
    ),
    "a Secret's files open to others": (
        "broker/_broker.tpl", "defaultMode: 0440", "defaultMode: 0444", "volumes",
        "open to others",
    ),
    "a Secret of another name": (
        "_pod.tpl", "{{ include \"telemq.peerKeySecret\" . | quote }}",
        "{{ include \"telemq.peerKeySecret\" . }}s", "references",
        "no Secret telemetry-streamer-keys",
    ),
    "the password in plain": (
        "_pod.tpl",
        "  valueFrom:\n    secretKeyRef:\n      {{- include \"telemq.dsnRef\" .root | nindent 6 }}",
        "  value: postgresql://telemq:hunter2@telemetry-postgres/telemq", "secrets", "TELEMQ_DSN",
    ),
    "a Secret that an uninstall deletes": (
        "postgres/secret.yaml", "\"keep\"", "\"delete\"", "secrets", "is not kept",
    ),
    "an account that is made after its Job": (
        "keys/job.yaml", "\"-10\"", "\"10\"", "hooks",
        "is not made before it",
    ),
    "too little time to drain": (
        "_helpers.tpl", "{{- add (ceil .) 20 }}", "{{- add 0 5 }}", "stopping", "draining takes",
    ),
    "pods that no policy denies anything": (
        "networkpolicies/all.yaml", "policyTypes: [Ingress, Egress]", "policyTypes: [Egress]",
        "policies", "is denied by default",
    ),
    "an arrow too many": (
        "networkpolicies/streamer.yaml", "  egress:\n",
        "  egress:\n    - ports: [{port: 443, protocol: TCP}]\n", "picture", "too many",
    ),
    "an arrow too few": (
        "networkpolicies/_policy.tpl", "(list $values.postgres.port)", "(list 5433)", "picture",
        "missing",
    ),
    "anybody at the database": (
        "networkpolicies/postgres.yaml", "\"peers\" $peers", "\"peers\" list", "picture",
        "too many",
    ),
    "a default that its own schema refuses": (
        "values.yaml", "engine: telemq", "engine: kafka", "values", "engine",
    ),
    "a default that its schema does not know": (
        "values.yaml", "commonLabels: {}", "commonLabel: {}", "values", "commonLabel",
    ),
}  # fmt: skip

#: So that every check has something to look at.
_VALUES = overlay(
    at("collector.autoscaling", {"enabled": True, "by": "cpu"}),
    at("api.ingress", {"enabled": True, "hosts": ["a.b"]}),
    at("monitoring.podMonitor.enabled", True),
)


def _copy(directory: Path) -> Path:
    return Path(shutil.copytree(CHART, directory / "telemq"))


def _found(chart: Path) -> dict[str, str]:
    """Who finds what in a chart."""
    try:
        rendered = render(_VALUES, chart)
        plain = render({}, chart)
    except helm.HelmValuesError as error:
        return {"values": str(error)}
    except Exception as error:  # noqa: BLE001 - Helm's, YAML's, or a shape that is no object
        return {"yaml": f"YAML {error}"}
    found = {
        name: text
        for name, check in CHECKS.items()
        if (text := "; ".join(_safely(check, rendered)))
    }
    wanted = PICTURE["as it is"][1] | _dns(plain)
    if differ := {
        word: arrows_
        for word, arrows_ in (
            ("missing", wanted - arrows(plain)),
            ("too many", arrows(plain) - wanted),
        )
        if arrows_
    }:
        found["picture"] = str(differ)
    return found


def _safely(check: Callable[[Rendered], object], rendered: Rendered) -> list[str]:
    try:
        return list(check(rendered))  # type: ignore[call-overload, no-any-return] # an iterator
    except (KeyError, StopIteration, TypeError, AssertionError) as error:
        return [repr(error)]


def test_copy_without_a_fault_is_sound(tmp_path: Path) -> None:
    """The control: it is the fault that is found, not the copying."""
    assert {} == _found(_copy(tmp_path))


@pytest.mark.parametrize(("file", "old", "new", "by", "says"), FAULTS.values(), ids=list(FAULTS))
def test_fault_is_caught(tmp_path: Path, file: str, old: str, new: str, by: str, says: str) -> None:
    """Somebody breaks the chart like this, and `nox -s chart` is red."""
    chart = _copy(tmp_path)
    path = chart / file if (chart / file).exists() else chart / "templates" / file
    text = path.read_text()
    assert old in text, "the fault cannot be planted any more: write it anew"
    path.write_text(text.replace(old, new))
    found = _found(chart)
    assert by in found, found
    assert says in found[by]


def test_every_check_has_a_fault_that_it_catches() -> None:
    """A check that never finds anything would be no check."""
    assert set() == CHECKS.keys() - {by for _, _, _, by, _ in FAULTS.values()}
