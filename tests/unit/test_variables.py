"""Mistyped variables: which are told, what is suggested, and what is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemq.setting import SettingInfo
from telemq.settings import table
from telemq.variables import OTHERS, unknown_variables

SETTINGS = sorted(info.variable for info in table())
#: What Kubernetes sets for Services "telemq-api" and "telemq", and Docker for a link.
INJECTED = [
    "TELEMQ_API_SERVICE_HOST",
    "TELEMQ_API_SERVICE_PORT",
    "TELEMQ_API_SERVICE_PORT_HTTP",
    "TELEMQ_API_PORT",
    "TELEMQ_API_PORT_8080_TCP",
    "TELEMQ_API_PORT_8080_TCP_ADDR",
    "TELEMQ_API_PORT_8080_TCP_PORT",
    "TELEMQ_API_PORT_8080_TCP_PROTO",
    "TELEMQ_SERVICE_HOST",
    "TELEMQ_SERVICE_PORT",
    "TELEMQ_PORT",
    "TELEMQ_PORT_80_TCP",
    "TELEMQ_BROKER_PORT",
    "TELEMQ_BROKER_PORT_5555_TCP",
    "TELEMQ_BROKER_PORT_5555_TCP_ADDR",
    "TELEMQ_BROKER_PORT_5555_TCP_PORT",
    "TELEMQ_BROKER_PORT_5555_TCP_PROTO",
    "TELEMQ_BROKER_PORT_5601_TCP_PORT_START",
    "TELEMQ_BROKER_NAME",
    "TELEMQ_BROKER_ENV_PATH",
]


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        ("TELEMQ_LINGER_MS", ["TELEMQ_STREAMER_LINGER_MS"]),
        ("TELEMQ_LINGR_MS", ["TELEMQ_STREAMER_LINGER_MS"]),
        ("TELEMQ_STREAM_LINGER_MS", ["TELEMQ_STREAMER_LINGER_MS"]),
        ("TELEMQ_API_LINGER_MS", ["TELEMQ_STREAMER_LINGER_MS"]),
        ("TELEMQ_SYNC_MS", ["TELEMQ_BROKER_JOURNAL_SYNC_MS"]),
        ("TELEMQ_DNS", ["TELEMQ_DSN"]),
        ("TELEMQ_API_DSN", ["TELEMQ_DSN"]),
        ("TELEMQ_API_PORT", ["TELEMQ_UP_API_PORT"]),
        ("TELEMQ_broker_lease_s", ["TELEMQ_BROKER_LEASE_S"]),
        ("TELEMQ_RATE", ["TELEMQ_STREAMER_RATE", "TELEMQ_UP_RATE"]),
        ("TELEMQ_MAX", []),
        ("TELEMQ_FOO", []),
        ("TELEMQ_", []),
    ],
)
def test_nearest_settings_are_suggested(mistyped: str, meant: list[str]) -> None:
    """The part is forgotten or wrong, a letter is missing, or it is somebody's own name."""
    assert ({mistyped: meant}, 0) == unknown_variables(["PATH", mistyped, "XTELEMQ_DSN"])


@pytest.mark.parametrize("name", [*SETTINGS, *sorted(OTHERS), "_TELEMQ_COMPLETE"])
def test_what_is_read_is_not_told(name: str) -> None:
    """One file of variables serves several parts, and Grafana beside them."""
    assert ({}, 0) == unknown_variables([name])


@pytest.mark.parametrize("info", table(), ids=lambda info: info.variable)
def test_setting_without_its_part_is_suggested(info: SettingInfo) -> None:
    """Somebody takes the flag's name for the variable's."""
    short = "TELEMQ_" + info.name.rstrip("_").upper()
    told, _ = unknown_variables([short])
    assert short in {*SETTINGS, *OTHERS} or info.variable in told[short]


@given(st.sampled_from(SETTINGS), st.data())
def test_setting_with_a_letter_dropped_is_suggested(variable: str, data: st.DataObject) -> None:
    """A key was not pressed hard enough, anywhere behind the prefix."""
    at = data.draw(st.integers(len("TELEMQ_"), len(variable) - 1))
    mistyped = variable[:at] + variable[at + 1 :]
    told, _ = unknown_variables([mistyped, variable])
    assert mistyped in SETTINGS or variable in told[mistyped]


@given(st.sets(st.sampled_from([*SETTINGS, *sorted(OTHERS)])), st.sets(st.text()))
def test_whatever_else_is_there_settings_are_not_told(read: set[str], others: set[str]) -> None:
    """An environment holds anything; all of ours that is not read is told or counted."""
    mistyped = {f"TELEMQ_0{name}" for name in others}
    told, more = unknown_variables(read | others | mistyped)
    assert not read & told.keys()
    assert len(mistyped) == len(told) + more
    assert all(set(nearest) <= set(SETTINGS) and len(nearest) <= 5 for nearest in told.values())


def test_what_kubernetes_and_docker_set_is_left_alone() -> None:
    """A pod without the chart's enableServiceLinks: false, or a container with --link."""
    assert ({}, 0) == unknown_variables(INJECTED)
    assert ["TELEMQ_LINGER_MS"] == list(unknown_variables([*INJECTED, "TELEMQ_LINGER_MS"])[0])


def test_only_some_are_told_and_the_rest_counted() -> None:
    """Somebody else's program has the same prefix, and hundreds of variables."""
    told, more = unknown_variables(f"TELEMQ_ELSE_{n:03}" for n in range(120))
    assert ([f"TELEMQ_ELSE_{n:03}" for n in range(20)], 100) == (list(told), more)


def test_name_is_cut_and_cannot_change_the_terminal() -> None:
    """Names hold whatever the kernel lets through."""
    told, _ = unknown_variables(["TELEMQ_\x1b[2J\udcff\N{CYRILLIC CAPITAL LETTER ES}" + "A" * 500])
    (name,) = told
    assert name.startswith(r"TELEMQ_\x1b[2J\udcff\u0421AAA")
    assert len(name) < 120
