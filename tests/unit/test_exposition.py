"""The latest values in Prometheus' text format, read back by Prometheus' own parser."""

from __future__ import annotations

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from telemq.gateway.exposition import Exposition, metric_name
from tests.unit.test_board import NOW, found
from tests.unit.test_devices import TEMP, UTIL, board, row

STALE_US = 300_000_000


def families(exposition: Exposition) -> dict[str, Metric]:
    text = b"".join(exposition.pieces(STALE_US)).decode()
    assert not text or text.endswith("\n")
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_a_series_has_the_names_and_labels_of_dcgm() -> None:
    """Queries that people have for dcgm-exporter go on to work."""
    labels = row(1, pod="train-0", namespace="research", container="train")
    made = families(Exposition(board([labels, row(2, TEMP)], (1, NOW, 97.5), (2, NOW, -3.0))))
    assert {UTIL, TEMP} == made.keys()
    util = made[UTIL]
    assert "gauge" == util.type
    assert "Share of time in which a kernel ran. In %." == util.documentation
    (sample,) = util.samples
    assert (UTIL, 97.5, None) == (sample.name, sample.value, sample.timestamp)
    assert {
        "gpu": "0", "UUID": "GPU-1", "device": "nvidia0", "modelName": "H100",
        "Hostname": "host-1", "container": "train", "pod": "train-0", "namespace": "research",
    } == sample.labels  # fmt: skip


@pytest.mark.parametrize("text", ['<script>alert("x")</script>', "a\\b", "a\nb", "\\n", 'é"\\'])
def test_label_values_come_back_as_they_were(text: str) -> None:
    """A pod's name is whatever somebody sent."""
    (family,) = families(Exposition(board([row(1, pod=text)], (1, NOW, 1.0)))).values()
    assert text == family.samples[0].labels["pod"]


@pytest.mark.parametrize("value", [0.0, 1e22, -1.5, 1e-300, 123456789012.25])
def test_values_come_back_as_they_were(value: float) -> None:
    """Counters of millijoules are large."""
    (family,) = families(Exposition(board([row(1)], (1, NOW, value)))).values()
    assert value == family.samples[0].value


def test_a_series_that_is_stale_or_has_no_sample_is_left_out() -> None:
    """A GPU is gone: in Prometheus it ends as if its exporter had."""
    rows = [row(1), row(2, pod="gone"), row(3, pod="none"), row(4, TEMP)]
    samples = [(1, NOW - STALE_US, 1.0), (2, NOW - STALE_US - 1, 2.0), (4, NOW - 10**12, 3.0)]
    made = families(Exposition(board(rows, *samples)))
    assert {UTIL} == made.keys()
    assert [1.0] == [sample.value for sample in made[UTIL].samples]


def test_series_that_look_the_same_are_one_and_the_newest_counts() -> None:
    """The driver was updated: the same labels, but for labels_raw. Prometheus refuses doubles."""
    made = board([row(1), row(2, driver="550")], (1, NOW, 1.0), (2, NOW - 9, 2.0))
    (family,) = families(Exposition(made)).values()
    assert [1.0] == [sample.value for sample in family.samples]


@pytest.mark.parametrize(
    ("name", "accepted"),
    [(UTIL, UTIL), ("my.metric-1", "my_metric_1"), ("1st", "_1st"), ("é <b>", "___b_")],
)
def test_a_name_that_prometheus_refuses_is_made_one_that_it_accepts(
    name: str, accepted: str
) -> None:
    """One bad name must not cost the whole scrape."""
    assert accepted == metric_name(name)
    (family,) = families(Exposition(board([row(1, name)], (1, NOW, 1.0)))).values()
    assert accepted == family.name


def test_names_that_become_the_same_are_one_family() -> None:
    """Two families of one name are refused."""
    made = families(Exposition(board([row(1, "a.b"), row(2, "a-b")], (1, NOW, 1.0), (2, NOW, 2.0))))
    assert {"a_b"} == made.keys()
    assert 1 == len(made["a_b"].samples)


def test_counters_are_counters() -> None:
    """Energy only grows: `rate()` is right for it."""
    made = families(
        Exposition(board([row(1, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION")], (1, NOW, 1.0)))
    )
    (family,) = made.values()
    assert "counter" == family.type


def test_what_comes_later_is_there_in_the_next_scrape() -> None:
    """A pod starts between two scrapes."""
    made = board([row(1)], (1, NOW, 1.0))
    exposition = Exposition(made)
    assert 1 == len(families(exposition)[UTIL].samples)
    made.add([row(2, pod="new")], now_ns=0)
    made.take(found((2, NOW, 7.0), (1, NOW + 1, 3.0)), made.due(1), now_ns=1, at_us=NOW)
    assert {3.0, 7.0} == {sample.value for sample in families(exposition)[UTIL].samples}
