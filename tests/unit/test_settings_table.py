"""The settings table: names, ranges, refusals, and that secrets stay secret."""

from __future__ import annotations

import dataclasses

import pytest

from telemq.errors import SettingError
from telemq.setting import rows
from telemq.settings import (
    COMPONENTS,
    ApiSettings,
    BrokerSettings,
    CollectorSettings,
    StreamerSettings,
    UpSettings,
    table,
)


def test_a_row_yields_flag_variable_and_helm_value() -> None:
    """Somebody looks for the same setting in a shell, in a pod and in a values file."""
    info = next(i for i in table() if i.component == "broker" and i.name == "lease_s")
    assert ("--lease-s", "TELEMQ_BROKER_LEASE_S", "broker.settings.leaseS") == (
        info.flag,
        info.variable,
        info.helm_value,
    )
    assert "0.1 to 86,400 s" == info.accepted


def test_what_all_share_has_no_component_in_its_variable() -> None:
    """One TELEMQ_DSN serves streamer, collector and gateway."""
    shared = {i.variable for i in table() if not i.component}
    assert {
        "TELEMQ_LOG_LEVEL",
        "TELEMQ_LOG_FORMAT",
        "TELEMQ_INSECURE",
        "TELEMQ_DSN",
        "TELEMQ_DATA_DIR",
        "TELEMQ_ENGINE",
        "TELEMQ_RESOLVE_S",
        "TELEMQ_REPLICAS",
        "TELEMQ_STREAM_MESSAGES_MAX",
        "TELEMQ_STREAM_BYTES_MAX",
    } == shared


def test_every_variable_is_there_once() -> None:
    """Two settings with one variable could not be set apart."""
    variables = [i.variable for i in table()]
    assert len(set(variables)) == len(variables)


@pytest.mark.parametrize("component", COMPONENTS)
def test_defaults_are_accepted(component: type) -> None:
    """A service starts without any setting."""
    settings = component()
    for info in rows(component):
        assert isinstance(getattr(settings, info.name), info.type)


@pytest.mark.parametrize("component", COMPONENTS)
def test_bounds_are_accepted_and_what_lies_beyond_is_not(component: type) -> None:
    """A typing error of one zero too many."""
    for info in rows(component):
        for bound, step in ((info.low, -1), (info.high, 1)):
            if bound is None or (component is UpSettings and info.name == "streamers"):
                continue
            assert bound == getattr(component(**{info.name: bound}), info.name)
            with pytest.raises(SettingError) as caught:
                component(**{info.name: bound + step})
            assert info.flag == caught.value.name
            assert str(info.accepted) in str(caught.value)


def test_word_outside_the_choices_is_refused_with_the_choices() -> None:
    """--log-level verbose."""
    with pytest.raises(SettingError, match=r"'verbose'.*debug, info, warning, error"):
        BrokerSettings(log_level="verbose")


def test_not_a_number_is_refused() -> None:
    """--rate nan, which is neither above nor below anything."""
    with pytest.raises(SettingError, match="--rate"):
        StreamerSettings(rate=float("nan"))


@pytest.mark.parametrize(
    "component", [StreamerSettings, CollectorSettings, ApiSettings, UpSettings]
)
def test_secret_is_not_in_repr(component: type) -> None:
    """Settings are logged at level debug."""
    assert "hunter2" not in repr(component(dsn="postgresql://u:hunter2@db/t"))


def test_settings_cannot_be_changed() -> None:
    """Nothing below the entry point changes what was asked for."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        UpSettings().rows = 1  # type: ignore[misc] # that it is refused is the point


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600), ("1.5h", 5400), ("0s", 0)]
)
def test_duration_is_read(text: str, seconds: float) -> None:
    """Somebody types `telemq up --for 5m`."""
    assert seconds == UpSettings(for_=text).for_s


def test_no_duration_is_for_ever() -> None:
    """Somebody types `telemq up`."""
    assert UpSettings().for_s is None


@pytest.mark.parametrize("text", ["30", "s", "-5s", "1d", "5 m", "1e3s", "٣s", "1.s", "infs"])
def test_other_durations_are_refused_with_examples(text: str) -> None:
    """Somebody types `telemq up --for 30`."""
    with pytest.raises(SettingError, match=r"--for.*30s, 5m or 1h"):
        UpSettings(for_=text)


def test_rate_of_up_is_modest_unless_rows_end_it() -> None:
    """Somebody leaves `telemq up` running on a laptop overnight."""
    assert 1000 == UpSettings().rate_or_default
    assert 1000 == UpSettings(for_="1h").rate_or_default
    assert 0 == UpSettings(rows=5).rate_or_default
    assert 7 == UpSettings(rows=5, rate=7).rate_or_default


def test_rows_need_a_streamer() -> None:
    """Without streamers, rows that nobody reads would never be stored."""
    with pytest.raises(SettingError, match="--rows"):
        UpSettings(rows=5, streamers=0)
