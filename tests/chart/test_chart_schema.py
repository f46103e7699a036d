"""What values.schema.json refuses: the name of what is wrong is in the message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import helm_python as helm
import pytest

from tests.support.chart import Values, at, counts, load, render
from tests.support.chart_values import settings_entries

#: Values, and what the message must name.
WRONG: dict[str, tuple[Values, str]] = {
    "a key at the top": ({"brokers": {}}, "brokers"),
    "a key of a component": (at("streamer.replica", 4), "replica"),
    "a setting": (at("broker.settings.lease", 30), "lease"),
    "a key deep inside": (at("broker.journal.retention.whenScale", "Delete"), "whenScale"),
    "a key of a probe": (at("api.livenessProbe.period", 1), "period"),
    "replicas as text": (at("collector.replicas", "4"), "/collector/replicas"),
    "replicas below zero": (at("streamer.replicas", -1), "/streamer/replicas"),
    "half a replica": (at("api.replicas", 1.5), "/api/replicas"),
    "an engine that is none": ({"engine": "kafka"}, "/engine"),
    "no capacity": (at("broker.queueCapacity", 0), "/broker/queueCapacity"),
    "too many workers": (at("collector.workers", 257), "/collector/workers"),
    "a port that is none": (at("broker.ports.ops", 65_536), "/broker/ports/ops"),
    "yes as text": (at("broker.keys.enabled", "false"), "/broker/keys/enabled"),
    "a size that is none": (at("postgres.persistence.size", "20 gigs"), "/persistence/size"),
    "a digest that is none": (at("image.digest", "latest"), "/image/digest"),
    "a variable of telemq": (
        at("broker.extraEnv", [{"name": "TELEMQ_BROKER_LEASE_S", "value": "1"}]),
        "/broker/extraEnv/0",
    ),
    "a service of an unknown type": (at("api.service.type", "Public"), "/api/service/type"),
    "an annotation that is a number": (at("commonAnnotations", {"a": 1}), "/commonAnnotations/a"),
    "null for what must be": (at("broker.queueBytes", None), "/broker"),
    "a broker without a port": (at("streamer.brokers", "tcp://mq"), "/streamer/brokers"),
}


@pytest.mark.parametrize(("values", "named"), WRONG.values(), ids=list(WRONG))
def test_value_that_is_wrong_is_refused_by_its_name(values: Values, named: str) -> None:
    """A typing error in a file of values must not be a default silently."""
    _assert_refused(values, named)


def _assert_refused(values: Values, named: str) -> None:
    with pytest.raises(helm.HelmValuesError) as caught:
        load().validate_schema(values)
    assert named.replace("/", ".").lstrip(".") in str(caught.value).replace("/", ".")
    counts.refused += 1


def _beyond() -> Iterator[tuple[str, Any]]:
    for path, info in settings_entries().items():
        if info.choices:
            yield path, "verbose"
        elif info.type is str:
            yield path, 5
        else:
            yield path, "many"
            if info.type is int:
                yield path, 1.5
            for bound, step in ((info.low, -1), (info.high, 1)):
                assert bound is not None, f"{path} has no bound"
                # Beyond 2**53 the next number is two away: JSON has doubles.
                yield path, bound + step * (1 if abs(bound) < 2**53 else 2)


@pytest.mark.parametrize(("path", "value"), list(_beyond()), ids=str)
def test_setting_beyond_its_range_is_refused(path: str, value: Any) -> None:
    """One zero too many, before anything starts."""
    _assert_refused(at(path, value), path)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (at("postgres.enabled", False), "postgres.external.dsnSecret.name is needed"),
        ({"engine": "nats"}, "nats.enabled"),
        (at("broker", {"enabled": False, "keys": {"enabled": False}}), "brokers is needed"),
        (at("broker.keys.existingSecrets.broker", "kb"), "existingSecrets"),
        (at("api.httpRoute.enabled", True), "parentRefs"),
        (at("streamer", {"rate": 1, "sleepMillis": 1}), "/streamer/sleepMillis"),
        (
            at("streamer.csv", {"configMap": "a", "existingClaim": "b", "file": "c"}),
            "existingClaim",
        ),
        (
            {
                "broker": {"replicas": None},
                "collector": {"autoscaling": {"enabled": True, "by": "keda"}},
            },
            "broker.replicas",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused_with_the_remedy(
    values: Values, told: str
) -> None:
    """Each is right, and the chart could not run."""
    with pytest.raises(helm.HelmError, match=told):
        render(values)
    counts.refused += 1


def test_every_value_is_in_the_schema_and_the_defaults_pass() -> None:
    """Somebody adds a value, and the schema would refuse it, or not know it."""
    chart = load()
    chart.validate_schema({})
    schema = chart.schema
    assert schema is not None

    def walk(value: Any, shape: dict[str, Any], where: str) -> Iterator[str]:
        if isinstance(value, dict) and shape.get("additionalProperties") is False:
            for key, below in value.items():
                if key not in shape["properties"]:
                    yield f"{where}.{key}"
                else:
                    yield from walk(below, shape["properties"][key], f"{where}.{key}")

    assert [] == list(walk(chart.values, schema, ""))
