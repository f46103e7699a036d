"""What is in the bundled sample, read without telemq's own reader."""

from __future__ import annotations

import csv

from telemq.sources.csv_replay import bundled_sample

__all__ = ["sample_gpus"]


def sample_gpus() -> list[str]:
    """Give the UUIDs of its GPUs, sorted."""
    with bundled_sample().open(newline="") as file:
        return sorted({row["uuid"] for row in csv.DictReader(file)})
