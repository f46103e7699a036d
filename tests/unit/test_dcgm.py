"""The table of DCGM's fields."""

from __future__ import annotations

from telemq import dcgm
from telemq.sources.synthetic import METRICS


def test_every_field_says_what_it_is() -> None:
    """Dashboards and Prometheus show these words."""
    for name, field in dcgm.FIELDS.items():
        assert name.startswith("DCGM_FI_")
        assert field.kind in {"gauge", "counter"}
        assert field.help.endswith(".")
        assert "\n" not in field.help


def test_the_metrics_of_the_bundled_sample_are_known() -> None:
    """What the first look at telemq shows."""
    assert set(METRICS) <= dcgm.FIELDS.keys()
    assert ("gauge", "%") == dcgm.field(METRICS[0])[:2]
    assert ("gauge", "", "") == dcgm.field("something_else")
