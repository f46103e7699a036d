"""Telemetry as lines for people."""

from __future__ import annotations

from datetime import UTC, datetime

from telemq.look.lines import LineWriter
from telemq.store.samples import Samples
from tests.support.batches import labels

AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def test_columns_stand_under_each_other_whatever_the_chunks() -> None:
    """An answer of a million rows has one head and one width."""
    of = {1: labels(1, pod="train-0", namespace="research"), 2: labels(12, metric="M")}
    writer = LineWriter(of)
    text = writer.chunk(Samples.of([(AT, 1, 96.0), (AT, 2, 0.125)])) + writer.chunk(
        Samples.of([(AT, 1, 1e12)])
    )
    head, *lines = (text + writer.end()).decode().splitlines()
    assert head.startswith("time (UTC)")
    assert 1 == len({len(line) for line in (head, *lines)})
    assert "2026-03-01 12:00:00.250  host-000  1    research/train-0" in lines[0]
    assert ["0.125", "1e+12"] == [line.split()[-1] for line in lines[1:]]
    assert "  -  " in lines[1]


def test_another_gpu_goes_on_without_a_second_head() -> None:
    """Its host has a longer name, which moves its own lines only."""
    writer = LineWriter({1: labels(1)})
    first = writer.chunk(Samples.of([(AT, 1, 1.0)]))
    writer.go_on({2: labels(2, hostname="a-host-with-a-long-name")})
    assert b"time" in first
    assert b"time" not in writer.chunk(Samples.of([(AT, 2, 1.0)]))


def test_nothing_to_print_is_no_head_either() -> None:
    """The reason is told on standard error."""
    assert b"" == LineWriter({}).end()


def test_label_cannot_steer_the_terminal() -> None:
    """A pod was named with care."""
    text = LineWriter({1: labels(1, pod="\x1b]0;x\x07")}, bold=True).chunk(
        Samples.of([(AT, 1, 1.0)])
    )
    head, line = text.decode().splitlines()
    assert head.startswith("\x1b[1m")
    assert "\x1b" not in line
    assert r"\x1b]0;x\x07" in line
