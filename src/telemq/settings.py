"""Every setting of every component, in one table.

A component's settings are a frozen dataclass; each field is made by `setting`, which holds its
unit, range, default and one line of help. That one place yields the typed value that the code
reads, the flag (``--lease-s``), the environment variable (``TELEMQ_BROKER_LEASE_S``), the Helm
value (``broker.settings.leaseS``) and the line in docs/settings.md.

A value is checked when the dataclass is made, so a bad one stops the start with its name, the
value and the range. Nothing below the command line reads the environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from telemq.engine_settings import EngineSettings
from telemq.errors import SettingError
from telemq.setting import SettingInfo, rows, setting
from telemq.settings_broker import BrokerSettings
from telemq.settings_common import Common, StoreSettings
from telemq.settings_fleet import FleetSettings
from telemq.settings_latest import LatestSettings
from telemq.settings_look import GpusSettings, QuerySettings
from telemq.settings_once import KeysSettings, MigrateSettings
from telemq.settings_protect import ProtectSettings
from telemq.settings_store import KeepSettings, MaintainSettings, PartitionSettings

__all__ = [
    "COMPONENTS",
    "ApiSettings",
    "BrokerSettings",
    "CollectorSettings",
    "Common",
    "EngineSettings",
    "GpusSettings",
    "KeepSettings",
    "KeysSettings",
    "MaintainSettings",
    "MigrateSettings",
    "PartitionSettings",
    "QuerySettings",
    "StoreSettings",
    "StreamerSettings",
    "TopSettings",
    "UpSettings",
    "table",
]


@dataclass(frozen=True, kw_only=True)
class StreamerSettings(StoreSettings, EngineSettings):
    """`telemq stream`."""

    component: ClassVar[str] = "streamer"

    broker: str = setting(
        "tcp://127.0.0.1:5601", "Brokers' endpoints for producers, comma-separated."
    )
    key: str = setting("", "File with this streamer's secret key; empty is without keys.")
    broker_key: str = setting("", "File with the broker's public key, with --key.")
    ops_address: str = setting(
        "127.0.0.1:9602", "HTTP address for /healthz, /readyz and /metrics; port 0 picks one."
    )
    stream: str = setting(
        "",
        "Stream id; empty makes one from the file's name and content.",
    )
    rows: int = setting(
        0,
        "Stop when the stream has this many rows, counted from its beginning; 0 is for ever.",
        unit="records",
        low=0,
        high=2**53,
    )
    rate: float = setting(
        0.0,
        "Records a second of this streamer; 0 is as fast as the broker grants.",
        unit="records/s",
        low=0,
        high=1e9,
    )
    clock: str = setting(
        "processed",
        "Time of a record: when it is processed, or as recorded in the file.",
        choices=("processed", "recorded"),
    )
    batch_records: int = setting(
        8192,
        "Most records a batch; with --rate as many as come within --linger-ms, "
        "and more only to catch up.",
        unit="records",
        low=1,
        high=65_536,
    )
    linger_ms: float = setting(
        5.0,
        "Longest wait of a record for its batch to fill, with --rate; "
        "each batch costs 197 bytes in the ledger.",
        unit="ms",
        low=0,
        high=60_000,
    )
    lease_s: float = setting(
        15.0,
        "How long a row range stays with this streamer unless renewed.",
        unit="s",
        low=1,
        high=3600,
    )
    window_records: int = setting(
        200_000,
        "Most records published and not yet confirmed.",
        unit="records",
        low=1,
        high=100_000_000,
    )
    window_bytes: int = setting(
        128 * 2**20,
        "Most payload bytes published and not yet confirmed.",
        unit="bytes",
        low=1024,
        high=2**36,
    )
    file_bytes_max: int = setting(2**30, "Largest input file.", unit="bytes", low=1, high=2**40)
    drain_s: float = setting(
        10.0,
        "Longest wait on SIGTERM for confirms of what was published.",
        unit="s",
        low=0,
        high=3600,
    )


@dataclass(frozen=True, kw_only=True)
class CollectorSettings(PartitionSettings, EngineSettings):
    """`telemq collect`."""

    component: ClassVar[str] = "collector"

    broker: str = setting(
        "tcp://127.0.0.1:5602", "Brokers' endpoints for consumers, comma-separated."
    )
    key: str = setting("", "File with this collector's secret key; empty is without keys.")
    broker_key: str = setting("", "File with the broker's public key, with --key.")
    ops_address: str = setting(
        "127.0.0.1:9603", "HTTP address for /healthz, /readyz and /metrics; port 0 picks one."
    )
    workers: int = setting(1, "Worker processes.", unit="processes", low=1, high=256)
    credit_records: int = setting(
        200_000,
        "Most records delivered to one worker and not yet settled.",
        unit="records",
        low=1,
        high=100_000_000,
    )
    credit_bytes: int = setting(
        32 * 2**20,
        "Most payload bytes delivered to one worker and not yet settled.",
        unit="bytes",
        low=1024,
        high=2**34,
    )
    lease_s: float = setting(
        30.0,
        "How long a collector may hold a message of JetStream before it goes to another.",
        unit="s",
        low=0.1,
        high=86_400,
    )
    attempts_max: int = setting(
        20,
        "Deliveries of one message of JetStream before it becomes a dead letter.",
        low=1,
        high=10_000,
    )
    commit_records: int = setting(
        50_000,
        "Most records in one transaction, unless one batch has more; "
        "a writer commits whatever has piled up, so a slow stream is not kept waiting.",
        unit="records",
        low=1,
        high=10_000_000,
    )
    record_age_days_max: int = setting(
        3650, "Oldest record time accepted, before now.", unit="days", low=1, high=36_500
    )
    record_ahead_s_max: int = setting(
        3600, "Latest record time accepted, after now.", unit="s", low=0, high=31_536_000
    )
    series_cache_max: int = setting(
        1_000_000,
        "Series ids remembered by one worker.",
        unit="series",
        low=1,
        high=100_000_000,
    )
    drain_s: float = setting(
        10.0,
        "Longest wait on SIGTERM for what was delivered to be stored.",
        unit="s",
        low=0,
        high=3600,
    )


@dataclass(frozen=True, kw_only=True)
class ApiSettings(LatestSettings, FleetSettings, ProtectSettings, StoreSettings):
    """`telemq api`."""

    component: ClassVar[str] = "api"

    address: str = setting("127.0.0.1:8080", "HTTP address of the gateway; port 0 picks one.")
    ops_address: str = setting(
        "127.0.0.1:9600", "HTTP address for /healthz, /readyz and /metrics; port 0 picks one."
    )
    pool_connections: int = setting(
        8, "Most Postgres connections.", unit="connections", low=1, high=1000
    )
    pool_wait_s: float = setting(
        5.0, "Longest wait for a Postgres connection before 503.", unit="s", low=0.1, high=300
    )
    statement_s_max: float = setting(
        300.0, "Longest run of one query.", unit="s", low=0.1, high=86_400
    )
    chunk_rows: int = setting(
        5000, "Rows read and sent at a time.", unit="rows", low=1, high=1_000_000
    )
    drain_s: float = setting(
        10.0,
        "Longest wait on SIGTERM for answers that are being sent.",
        unit="s",
        low=0,
        high=3600,
    )


@dataclass(frozen=True, kw_only=True)
class UpSettings(KeepSettings):
    """`telemq up`."""

    component: ClassVar[str] = "up"

    csv: str = setting("", "DCGM CSV file to replay; empty means the bundled sample.")
    streamers: int = setting(1, "Streamer processes.", unit="processes", low=0, high=256)
    collectors: int = setting(1, "Collector processes.", unit="processes", low=0, high=256)
    rate: float = setting(
        0.0,
        "Records a second of all streamers together; 0 is as fast as it goes with --rows, "
        "and 1,000 without, so that nobody's disk fills up unasked.",
        unit="records/s",
        low=0,
        high=1e9,
    )
    rows: int = setting(
        0,
        "Store this many rows, counted from the stream's beginning, then end; 0 is for ever.",
        unit="records",
        low=0,
        high=2**53,
    )
    for_: str = setting("", "Run this long, such as 30s, 5m or 1h, then drain, report and end.")
    clock: str = setting(
        "processed",
        "Time of a record: when it is processed, or as recorded in the file.",
        choices=("processed", "recorded"),
    )
    api_port: int = setting(
        8080, "Port of the gateway on 127.0.0.1; 0 picks one.", low=0, high=65_535
    )
    broker_port: int = setting(
        0,
        "Producers' port of the broker on 127.0.0.1; the consumers' is the next; 0 picks both.",
        low=0,
        high=65_534,
    )
    drain_s: float = setting(
        30.0, "Longest drain on Ctrl-C before everything is stopped.", unit="s", low=0, high=3600
    )

    def __post_init__(self) -> None:
        """Check what no single row of the table can.

        Raises:
            SettingError: a value is outside its range, or two do not go together.
        """
        super().__post_init__()
        if self.for_ and not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?[smh]", self.for_):
            raise SettingError("--for", self.for_, "a number and s, m or h, such as 30s, 5m or 1h")
        if self.rows and not self.streamers:
            raise SettingError("--rows", self.rows, "0 when --streamers is 0")

    @property
    def for_s(self) -> float | None:
        """`for_` in seconds; None is for ever."""
        return (
            float(self.for_[:-1]) * {"s": 1, "m": 60, "h": 3600}[self.for_[-1]]
            if self.for_
            else None
        )

    @property
    def rate_or_default(self) -> float:
        """Records a second of all streamers together; 0 is as fast as it goes."""
        return self.rate or (0.0 if self.rows else _RATE)


@dataclass(frozen=True, kw_only=True)
class TopSettings(StoreSettings):
    """`telemq top`."""

    component: ClassVar[str] = "top"

    broker: str = setting(
        "",
        "Ops addresses of brokers, separated by commas, such as http://127.0.0.1:9601; "
        "empty means that of the telemq up of --data-dir, else http://127.0.0.1:9601.",
    )
    interval_s: float = setting(2.0, "Time between two readings.", unit="s", low=1, high=3600)
    wait_s: float = setting(3.0, "Longest wait for a broker's answer.", unit="s", low=0.1, high=300)
    sort: str = setting(
        "trouble",
        "Which peers come first: those in trouble, then the fastest; or the fastest.",
        choices=("trouble", "rate"),
    )


#: What a bundled fleet of some dozen GPUs yields at one scrape a second, or nearly so.
_RATE = 1000.0

COMPONENTS: tuple[type[Common], ...] = (
    Common,
    BrokerSettings,
    StreamerSettings,
    CollectorSettings,
    ApiSettings,
    MaintainSettings,
    UpSettings,
    TopSettings,
    GpusSettings,
    QuerySettings,
    MigrateSettings,
    KeysSettings,
)


def table() -> list[SettingInfo]:
    """Give every setting once: what all share, then each component's own."""
    seen: dict[str, SettingInfo] = {}
    for component in COMPONENTS:
        for info in rows(component):
            seen.setdefault(info.variable, info)
    return list(seen.values())
