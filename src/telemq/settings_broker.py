"""The settings of `telemq broker`. A part of the table in `telemq.settings`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from telemq.setting import setting
from telemq.settings_common import Common
from telemq.settings_ways import WaysSettings

__all__ = ["BrokerSettings"]


@dataclass(frozen=True, kw_only=True)
class BrokerSettings(WaysSettings, Common):
    """`telemq broker`."""

    component: ClassVar[str] = "broker"

    producer_bind: str = setting(
        "tcp://127.0.0.1:5601", "ZeroMQ endpoint for producers; ipc://PATH is a Unix socket."
    )
    consumer_bind: str = setting(
        "tcp://127.0.0.1:5602", "ZeroMQ endpoint for consumers; ipc://PATH is a Unix socket."
    )
    keys: str = setting(
        "",
        "Directory with the broker's keys and those that it allows (docs/security.md); "
        "empty is without keys.",
    )
    ops_address: str = setting(
        "127.0.0.1:9601", "HTTP address for /healthz, /readyz and /metrics; port 0 picks one."
    )
    capacity_records: int = setting(
        2_000_000,
        "Room for ready, leased and granted records.",
        unit="records",
        low=1,
        high=1_000_000_000,
    )
    capacity_bytes: int = setting(
        512 * 2**20,
        "Room for ready, leased and granted payload bytes.",
        unit="bytes",
        low=1024,
        high=2**40,
    )
    message_bytes_max: int = setting(
        8 * 2**20, "Largest payload of one message.", unit="bytes", low=1024, high=2**30
    )
    credit_bytes_max: int = setting(
        4 * 2**20,
        "Most unspent credit of one producer, unless one message needs more.",
        unit="bytes",
        low=1024,
        high=2**30,
    )
    credit_records_max: int = setting(
        100_000,
        "Most unspent credit of one producer, unless one message needs more.",
        unit="records",
        low=1,
        high=1_000_000_000,
    )
    lease_s: float = setting(
        30.0,
        "How long a consumer may hold a message before it goes to another.",
        unit="s",
        low=0.1,
        high=86_400,
    )
    attempts_max: int = setting(
        20, "Deliveries of one message before it becomes a dead letter.", low=1, high=10_000
    )
    retry_ms: int = setting(
        100,
        "Pause before a message is delivered again that its consumer wants to be tried again; "
        "it doubles with each attempt.",
        unit="ms",
        low=1,
        high=3_600_000,
    )
    retry_ms_max: int = setting(10_000, "Longest such pause.", unit="ms", low=1, high=3_600_000)
    heartbeat_s: float = setting(
        1.0,
        "Interval of heartbeats; a peer silent for five of them is lost.",
        unit="s",
        low=0.05,
        high=300,
    )
    peers_max: int = setting(
        4096, "Most connected producers and consumers.", unit="peers", low=1, high=100_000
    )
    errors_per_s_max: int = setting(
        20,
        "Most errors that one connection is answered in a second, and most sessions it may begin; "
        "beyond that it is not heard.",
        unit="errors/s",
        low=1,
        high=1_000_000,
    )
    drain_s: float = setting(
        10.0,
        "Longest wait on SIGTERM for what is queued to be settled.",
        unit="s",
        low=0,
        high=3600,
    )
    journal: str = setting(
        "",
        "Directory of the journal: messages are confirmed once they are on disk there, and outlive"
        " the broker; empty means none.",
    )
    journal_segment_bytes: int = setting(
        64 * 2**20,
        "Length of a journal file from which on a new one begins.",
        unit="bytes",
        low=64 * 2**10,
        high=2**32,
    )
    journal_bytes_max: int = setting(
        4 * 2**30,
        "Most bytes of all journal files; at least four segments and largest messages.",
        unit="bytes",
        low=2**20,
        high=2**50,
    )
    journal_sync_ms: float = setting(
        10.0,
        "Least time from one fsync of the journal to the next; one serves all that came meanwhile.",
        unit="ms",
        low=0,
        high=10_000,
    )
