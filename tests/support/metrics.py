"""Every metric that a part of telemq shows, from the tables that the code itself reads."""

from __future__ import annotations

from telemq.broker.metrics import METRICS as BROKER
from telemq.collector.stats import METRICS as COLLECTOR
from telemq.gateway.metrics import METRICS as API
from telemq.streamer.metrics import METRICS as STREAMER

__all__ = ["HISTOGRAMS", "LABELLED", "helps"]

#: Those of the broker that have labels, and so no row in its table.
LABELLED = {
    "telemq_broker_peers": "Open sessions.",
    "telemq_broker_refused_total": "Errors sent to peers.",
}
#: Histogram of the collector, which observes instead of reading a snapshot.
HISTOGRAMS = {
    "telemq_collector_commit_seconds": "Time of one store, from resolving series to after the "
    "commit."
}


def helps() -> dict[str, str]:
    """Give the help text of every metric by its name as Prometheus shows it."""
    found = LABELLED | HISTOGRAMS
    for part, table in (("broker", BROKER), ("collector", COLLECTOR), ("streamer", STREAMER)):
        for row in table:
            suffix = "_total" if row.kind == "counter" else ""
            found[f"telemq_{part}_{row.name}{suffix}"] = row.help
    return found | {metric.name: metric.help for metric in API}
