"""docs/ways.md names what there is, and all of it."""

import dataclasses
import re
from collections import Counter
from pathlib import Path

from telemq.broker.ways_metrics import WaysMetrics
from telemq.setting import rows
from telemq.settings import BrokerSettings
from telemq.settings_ways import WaysSettings
from tests.support.http import http_broker

PAGE = (Path(__file__).parents[2] / "docs" / "ways.md").read_text()


def test_every_setting_of_the_ways_is_told_and_no_other_flag() -> None:
    """A setting is renamed, and the page still tells of the old one."""
    own = {info.name: info for info in rows(BrokerSettings)}
    told = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert set() == told - {info.flag for info in own.values()}
    for name in (field.name for field in dataclasses.fields(WaysSettings)):
        assert own[name].flag in told or own[name].variable in PAGE, name


def test_every_metric_of_the_ways_is_told() -> None:
    """A metric is added, and an operator does not find what it means."""
    with http_broker(pull="tcp://127.0.0.1:*", push="tcp://127.0.0.1:*") as (broker, _):
        names = set()
        for metric in WaysMetrics(broker.ways, Counter()).collect():
            names.add(metric.name + ("_total" if metric.type == "counter" else ""))
    told = set(re.findall(r"`(telemq_broker_\w+)(?:\{.*?\})?` \|", PAGE))
    assert names == told
