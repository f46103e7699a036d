"""Every number that a collector counts is shown, under its own name."""

from __future__ import annotations

import dataclasses

from prometheus_client import generate_latest

from telemq.collector.stats import METRICS, CollectorMetrics, CollectorStats, StorerStats


def test_every_metric_shows_its_own_number() -> None:
    """A row that reads a neighbour's field would go unnoticed on a dashboard."""
    storer = StorerStats(*range(1, 1 + len(dataclasses.fields(StorerStats))))
    stats = CollectorStats(storer, 11, 12, 13, 14, 15, 16, connected=True, store_fault="")
    shown = generate_latest(CollectorMetrics(stats).registry).decode()
    expected = {
        "stored_records_total": storer.records,
        "rejected_records_total": storer.rejected,
        "stored_batches_total": storer.batches,
        "duplicate_batches_total": storer.duplicates,
        "disputed_batches_total": storer.disputed,
        "refused_batches_total": storer.refused,
        "undecoded_batches_total": 11,
        "commits_total": storer.commits,
        "postgres_retries_total": storer.retries,
        "sessions_lost_total": 12,
        "held_batches": 13,
        "held_records": 14,
        "backlog_records": 15,
        "credit_records": 16,
        "broker_connected": 1,
        "postgres_available": 1,
    }
    assert len(METRICS) == len(expected)
    for name, value in expected.items():
        assert f"\ntelemq_collector_{name} {float(value)}\n" in shown
    assert "\ntelemq_collector_commit_seconds_count 0.0\n" in shown


def test_readiness_names_what_is_missing() -> None:
    """The database's fault comes first: without it, a session is of no use."""
    metrics = CollectorMetrics(CollectorStats(StorerStats(), store_fault="disk full"))
    assert "postgres: disk full" == metrics.not_ready()
    metrics.snapshot = CollectorStats(StorerStats(), store_fault="")
    assert "no session with the broker" == metrics.not_ready()
    metrics.snapshot = CollectorStats(StorerStats(), store_fault="", connected=True)
    assert metrics.not_ready() is None
