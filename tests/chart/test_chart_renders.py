"""The chart with the values that people have: it renders, and everything holds that must."""

from __future__ import annotations

import helm_python as helm
import pytest

from tests.support.chart import CHART, NAMESPACE, Values, at, overlay, render
from tests.support.chart_checks import problems
from tests.support.chart_schemas import VERSIONS
from tests.support.chart_values import COMBINATIONS


def test_lint_has_nothing_to_say() -> None:
    """`helm lint --strict`, in the oldest and the newest Kubernetes that is supported."""
    for version in VERSIONS:
        report = helm.lint(CHART, strict=True, kube_version=f"v{version}")
        said = [message for message in report["messages"] if message["severity"] > 1]
        # NATS is not vendored: `helm dependency build` brings it, and then this is silent.
        assert [] == [m for m in said if "chart directory is missing these dependencies" not in
                      m["error"]]  # fmt: skip
        assert 1 == report["total_charts_linted"]


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=list(COMBINATIONS))
def test_combination_is_sound(values: Values) -> None:
    """Somebody installs it so."""
    assert [] == problems(render(values))


def test_default_names_are_those_that_people_type() -> None:
    """Kubectl scale deploy/telemetry-streamer --replicas=4, whatever the release is called."""
    for release in ("prod", "telemq", "x"):
        rendered = render(name=release)
        for kind, names in {
            "Deployment": {"telemetry-streamer", "telemetry-collector", "telemetry-api"},
            "StatefulSet": {"telemetry-mq", "telemetry-postgres"},
            "Service": {"telemetry-api", "telemetry-mq", "telemetry-postgres"},
            "Job": {"telemetry-keys"},
        }.items():
            assert names == {one["metadata"]["name"] for one in rendered.of(kind)}


def test_peers_find_the_brokers_by_the_service() -> None:
    """The address in a streamer's variable is a Service, its name, and its port."""
    rendered = render()
    service = rendered.get("Service", "telemetry-mq")
    assert "None" == service["spec"]["clusterIP"]
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    for component, name in (("streamer", "producers"), ("collector", "consumers")):
        variables = rendered.workload(component).main.variables
        wanted = f"tcp://telemetry-mq:{ports[name]}"
        assert wanted == variables[f"TELEMQ_{component.upper()}_BROKER"]


def test_the_gateway_asks_every_broker_by_its_pod() -> None:
    """A Service's name leads to one of several brokers, and `/api/v1/status` shows them all."""

    def asked(values: Values) -> str | None:
        variables = render(values).workload("api").main.variables
        found: str | None = variables.get("TELEMQ_API_BROKER_OPS")
        return found

    first, second = (asked(at("broker.replicas", 2)) or "").split(",")
    assert f"http://telemetry-mq-0.telemetry-mq.{NAMESPACE}.svc.cluster.local:9601" == first
    assert "telemetry-mq-1." in second
    assert 64 == len((asked(at("broker.replicas", 99)) or "").split(","))
    assert asked(at("broker.replicas", None)) is None
    assert asked(overlay(at("engine", "nats"), at("nats.enabled", True))) is None


def test_two_renders_differ_in_nothing_but_what_is_made_once() -> None:
    """A template that depends on the moment would replace pods with every upgrade."""
    first, second = render(), render()
    assert first.texts.keys() == second.texts.keys()
    changed = {path for path, text in first.texts.items() if text != second.texts[path]}
    assert changed <= {"templates/postgres/secret.yaml"}


def test_notes_tell_what_to_type_next() -> None:
    """`helm install` is done: how to reach the gateway, and how to scale."""
    notes = render().notes
    assert "kubectl port-forward" in notes
    assert "telemetry-api" in notes
    assert "/swagger" in notes
