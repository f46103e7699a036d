"""Every setting is reached from a value, and sets exactly its variable, to exactly its value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from telemq.helm_values import CHART_COMPONENTS, CHART_SETS, STRUCTURED
from telemq.setting import SettingInfo, rows
from telemq.settings import COMPONENTS, table
from tests.support.chart import Rendered, Values, at, overlay, render
from tests.support.chart_commands import KINDS, settings_of
from tests.support.chart_values import settings_entries

#: How each value of a name and shape of its own sets its variable: the values, and what comes out.
#: A dict is a source: what a Secret gives.
SHAPED: dict[str, tuple[Values, Any]] = {
    "TELEMQ_DSN": (
        {"postgres": {"enabled": False, "external": {"dsnSecret": {"name": "s", "key": "k"}}}},
        {"secretKeyRef": {"name": "s", "key": "k"}},
    ),
    "TELEMQ_ENGINE": (
        {"engine": "nats", "nats": {"url": "nats://a,b/other"}},
        "nats://a,b/other",
    ),
    "TELEMQ_BROKER_PULL": (at("broker.pull", {"enabled": True, "port": 7}), "tcp://0.0.0.0:7"),
    "TELEMQ_BROKER_PUSH": (at("broker.push", {"enabled": True, "port": 7}), "tcp://0.0.0.0:7"),
    "TELEMQ_BROKER_HTTP": (at("broker.http", {"enabled": True, "port": 7}), "0.0.0.0:7"),
    "TELEMQ_BROKER_HTTP_TOKEN": (
        at("broker.http", {"enabled": True, "tokenSecret": {"name": "s", "key": "k"}}),
        {"secretKeyRef": {"name": "s", "key": "k"}},
    ),
    "TELEMQ_BROKER_PRODUCER_BIND": (at("broker.ports.producers", 7), "tcp://0.0.0.0:7"),
    "TELEMQ_BROKER_CONSUMER_BIND": (at("broker.ports.consumers", 7), "tcp://0.0.0.0:7"),
    "TELEMQ_BROKER_OPS_ADDRESS": (at("broker.ports.ops", 7), "0.0.0.0:7"),
    "TELEMQ_BROKER_KEYS": ({}, "/etc/telemq/keys"),
    "TELEMQ_BROKER_CAPACITY_RECORDS": (at("broker.queueCapacity", 10**9), "1000000000"),
    "TELEMQ_BROKER_CAPACITY_BYTES": (at("broker.queueBytes", 2**40), "1099511627776"),
    "TELEMQ_BROKER_DRAIN_S": (at("broker.drainSeconds", 0.5), "0.5"),
    "TELEMQ_BROKER_JOURNAL": (at("broker.journal.enabled", True), "/var/lib/telemq/journal"),
    "TELEMQ_STREAMER_BROKER": (
        at("streamer.brokers", "tcp://a:1,tcp://b:2"),
        "tcp://a:1,tcp://b:2",
    ),
    "TELEMQ_STREAMER_KEY": ({}, "/etc/telemq/key/streamer.key_secret"),
    "TELEMQ_STREAMER_BROKER_KEY": ({}, "/etc/telemq/key/broker.key"),
    "TELEMQ_STREAMER_OPS_ADDRESS": (at("streamer.ports.ops", 7), "0.0.0.0:7"),
    "TELEMQ_STREAMER_RATE": (at("streamer.rate", 10**9), "1000000000"),
    "TELEMQ_STREAMER_DRAIN_S": (at("streamer.drainSeconds", 3600), "3600"),
    "TELEMQ_COLLECTOR_BROKER": (at("collector.brokers", "tcp://a:1"), "tcp://a:1"),
    "TELEMQ_COLLECTOR_KEY": ({}, "/etc/telemq/key/collector.key_secret"),
    "TELEMQ_COLLECTOR_BROKER_KEY": ({}, "/etc/telemq/key/broker.key"),
    "TELEMQ_COLLECTOR_OPS_ADDRESS": (at("collector.ports.ops", 7), "0.0.0.0:7"),
    "TELEMQ_COLLECTOR_WORKERS": (at("collector.workers", 256), "256"),
    "TELEMQ_COLLECTOR_DRAIN_S": (at("collector.drainSeconds", 1), "1"),
    "TELEMQ_API_ADDRESS": (at("api.ports.http", 7), "0.0.0.0:7"),
    "TELEMQ_API_OPS_ADDRESS": (at("api.ports.ops", 7), "0.0.0.0:7"),
    "TELEMQ_API_TOKENS": (at("api.tokens.enabled", False), "off"),
    "TELEMQ_API_DRAIN_S": (at("api.drainSeconds", 1), "1"),
    "TELEMQ_API_BROKER_OPS": (at("api.brokerOps", "http://a:1, b:2"), "http://a:1, b:2"),
    "TELEMQ_MIGRATE_WAIT_S": (at("migrate.waitSeconds", 7), "7"),
    "TELEMQ_KEYS_WAIT_S": (at("broker.keys.waitSeconds", 7), "7"),
}
#: Where a value of each type is written so that nothing is lost: large, small, and odd.
_ENTRIES = settings_entries()


def _samples(info: SettingInfo) -> list[tuple[Any, str]]:
    """Values, and the text that each must become."""
    if info.choices:
        return [(word, word) for word in info.choices]
    if info.type is bool:
        return [(True, "true"), (False, "false")]
    if info.type is str:
        return [("a b:'\"#{{}}$é", "a b:'\"#{{}}$é"), ("1e3", "1e3"), ("true", "true")]
    assert info.low is not None
    assert info.high is not None
    numbers = [info.low, info.high, *([0.5] if info.type is float and info.low <= 0.5 else [])]
    return [(n, str(n).removesuffix(".0")) for n in map(_plain, numbers)]


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number


def _of(rendered: Rendered, variable: str) -> dict[str, Any]:
    """The variable's value in each container that has it, by component and container."""
    return {
        f"{workload.component}/{container.spec['name']}": container.variables[variable]
        for workload in rendered.workloads
        for container in workload.containers
        if variable in container.variables
    }


#: Whose pods bring the schema up to date first.
_MIGRATING = ("streamer", "collector", "api", "maintain")


def _readers(info: SettingInfo) -> set[str]:
    """The containers of the default chart whose command reads the variable."""
    commands = {"broker": "broker/broker", "stream csv": "streamer/streamer",
                "collect": "collector/collector", "api": "api/api", "keys kubernetes": "keys/keys",
                "verify": "verify/verify", "maintain": "maintain/maintain"}  # fmt: skip
    found = {
        where
        for command, where in commands.items()
        if info.variable in {row.variable for row in rows(KINDS[command])}
    }
    if info.variable in {row.variable for row in rows(KINDS["migrate"])}:
        found |= {f"{component}/migrate" for component in _MIGRATING}
    return found


def test_every_setting_has_a_value_or_a_reason() -> None:
    """A setting is added, and nobody thinks of the chart."""
    covered = {info.variable for info in _ENTRIES.values()} | STRUCTURED.keys() | CHART_SETS.keys()
    wanted = {info.variable for info in table() if info.component in CHART_COMPONENTS}
    assert wanted == covered
    assert STRUCTURED.keys() == SHAPED.keys()
    left_out = {c.component for c in COMPONENTS} - set(CHART_COMPONENTS)
    assert {"up", "top", "gpus", "query"} == left_out  # they are for a terminal


@pytest.mark.parametrize("path", _ENTRIES, ids=str)
def test_entry_sets_its_variable_to_its_value(path: str) -> None:
    """`--set broker.settings.journalBytesMax=1125899906842624`: not 1.1258999068426e+15."""
    info = _ENTRIES[path]
    assert {} == _of(render(), info.variable), "null leaves it to telemq"
    for value, text in _samples(info):
        rendered = render(at(path, value))
        found = _of(rendered, info.variable)
        assert {text} == set(found.values())
        # What the chart cannot reach in a container is not set there; in its own it always is.
        assert found.keys() <= _readers(info)
        own = {where for where in _readers(info) if where.startswith(f"{info.component}/")}
        assert own - {"api/migrate", "streamer/migrate", "collector/migrate"} <= found.keys()
        kept = {name: found for name, found in _all(rendered).items() if name[1] != info.variable}
        assert kept == _all(render()), "and nothing else"
        if not info.component:
            assert found


def _all(rendered: Rendered) -> dict[tuple[str, str], str]:
    return {
        (f"{workload.name}/{container.spec['name']}", name): json.dumps(value)
        for workload in rendered.workloads
        for container in workload.containers
        for name, value in container.variables.items()
    }


@pytest.mark.parametrize("variable", SHAPED)
def test_value_of_its_own_name_sets_its_variable(variable: str) -> None:
    """Somebody looks for broker.queueCapacity, and it is TELEMQ_BROKER_CAPACITY_RECORDS."""
    values, wanted = SHAPED[variable]
    found = list(_of(render(values), variable).values())
    assert found
    assert all(wanted == value for value in found)


@pytest.mark.parametrize(
    ("values", "rate"),
    [
        ({}, 1000),
        ({"sleepMillis": 1}, 1000),
        ({"sleepMillis": 0.5}, 2000),
        ({"sleepMillis": 250}, 4),
        ({"sleepMillis": 0}, 0),
        ({"sleepMillis": 86_400_000}, 1000 / 86_400_000),
        ({"rate": 0}, 0),
        ({"rate": 0.25}, 0.25),
    ],
)
def test_pause_between_records_is_a_rate(values: Values, rate: float) -> None:
    """Somebody used to another streamer sets sleepMillis."""
    found = render({"streamer": values}).workload("streamer").main
    _, settings = settings_of(found.spec["args"], _literal(found.variables))
    assert rate == pytest.approx(settings.rate)  # type: ignore[attr-defined] # a streamer's


def _literal(variables: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if isinstance(value, str)}


def test_containers_read_the_values_that_they_are_given() -> None:
    """From values.yaml to the settings object, through telemq's own parser."""
    values = overlay(
        at("broker.settings.leaseS", 0.1),
        at("broker.settings.journalBytesMax", 2**50),
        at("settings.logLevel", "debug"),
    )
    main = render(values).workload("broker").main
    _, settings = settings_of(main.spec["args"], _literal(main.variables))
    assert (0.1, 2**50, "debug", True) == (
        settings.lease_s,  # type: ignore[attr-defined] # a broker's
        settings.journal_bytes_max,  # type: ignore[attr-defined] # a broker's
        settings.log_level,
        settings.insecure,
    )
