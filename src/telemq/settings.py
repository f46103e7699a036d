"""Every setting of every component, in one table.

A component's settings are a frozen dataclass; each field is made by `setting()`, which holds its
unit, range, default and one line of help. That one place yields the typed value that the code
reads, the flag (``--lease-s``), the environment variable (``TELEMQ_BROKER_LEASE_S``), the Helm
value (``broker.leaseS``) and the line in docs/settings.md.

A value is checked when the dataclass is made, so a bad one stops the start with its name, the
value and the range. Nothing below the command line reads the environment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_type_hints

from telemq.errors import SettingError

__all__ = [
    "COMPONENTS",
    "ApiSettings",
    "BrokerSettings",
    "CollectorSettings",
    "Common",
    "SettingInfo",
    "StreamerSettings",
    "UpSettings",
    "rows",
    "setting",
    "table",
]


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """One row of the table, as flag, variable and documentation need it.

    Attributes:
        component: ``broker``, ``collector`` …; empty for what all share.
        name: field name, such as ``lease_s``.
        type: the Python type of the value.
        default: the value when neither flag nor variable is given.
        help: one sentence.
        unit: ``s``, ``ms``, ``records``, ``bytes`` …, or empty.
        low: least accepted number, or None.
        high: greatest accepted number, or None.
        choices: accepted words, or empty for any.
        secret: never shown.
    """

    component: str
    name: str
    type: type
    default: Any
    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False

    @property
    def flag(self) -> str:
        """The command-line flag, such as ``--lease-s``."""
        return "--" + self.name.rstrip("_").replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable, such as ``TELEMQ_BROKER_LEASE_S``."""
        return "_".join(["TELEMQ", *filter(None, [self.component]), self.name.rstrip("_")]).upper()

    @property
    def helm_value(self) -> str:
        """The Helm value, such as ``broker.leaseS``."""
        first, *rest = self.name.rstrip("_").split("_")
        return ".".join([self.component or "global", first + "".join(w.title() for w in rest)])

    @property
    def accepted(self) -> str:
        """What is accepted, in words: ``1 to 3600 s``."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        unit = f" {self.unit}" if self.unit else ""
        if self.low is not None and self.high is not None:
            return (
                f"{self.low:g} to {self.high:g}{unit}"
                if self.high < 1e6
                else (f"{self.low:.15g} to {self.high:.15g}{unit}")
            )
        return f"at least {self.low:g}{unit}" if self.low is not None else self.type.__name__

    def check(self, value: Any) -> None:
        """Refuse a value outside the range.

        Raises:
            SettingError: with flag, value (masked if secret) and what is accepted.
        """
        shown = "(secret)" if self.secret else value
        if self.choices and value not in self.choices:
            raise SettingError(self.flag, shown, self.accepted)
        if isinstance(value, (int, float)) and not (
            (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
        ):
            raise SettingError(self.flag, shown, self.accepted)


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """Declare one setting as a dataclass field; see `SettingInfo` for the arguments."""
    row = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices}
    return field(default=default, repr=not secret, metadata={**row, "secret": secret})


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every component has."""

    component: ClassVar[str] = ""

    log_level: str = setting(
        "info", "Least important events to log.", choices=("debug", "info", "warning", "error")
    )
    log_format: str = setting(
        "auto",
        "Log lines for people or for machines; auto is console on a terminal, else JSON.",
        choices=("auto", "console", "json"),
    )
    insecure: bool = setting(
        False, "Allow listening on an address other than loopback without keys or tokens."
    )

    def __post_init__(self) -> None:
        """Check every value against its row."""
        for info in rows(type(self)):
            info.check(getattr(self, info.name))


@dataclass(frozen=True, kw_only=True)
class _Store(Common):
    """For what talks to Postgres."""

    dsn: str = setting(
        "",
        "Postgres connection string or URL; empty means the embedded Postgres of --data-dir.",
        secret=True,
    )
    data_dir: str = setting(
        "", "Directory of the embedded Postgres; empty means the user's data directory."
    )


@dataclass(frozen=True, kw_only=True)
class BrokerSettings(Common):
    """`telemq broker`."""

    component: ClassVar[str] = "broker"

    producer_bind: str = setting("tcp://127.0.0.1:5601", "ZeroMQ endpoint for producers.")
    consumer_bind: str = setting("tcp://127.0.0.1:5602", "ZeroMQ endpoint for consumers.")
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
    drain_s: float = setting(
        10.0,
        "Longest wait on SIGTERM for what is queued to be settled.",
        unit="s",
        low=0,
        high=3600,
    )


@dataclass(frozen=True, kw_only=True)
class StreamerSettings(_Store):
    """`telemq stream`."""

    component: ClassVar[str] = "streamer"

    broker: str = setting("tcp://127.0.0.1:5601", "The broker's endpoint for producers.")
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
        1000,
        "Records a batch; with --rate less, so that a batch is never older than a second.",
        unit="records",
        low=1,
        high=65_536,
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
    file_bytes_max: int = setting(2**30, "Largest input file.", unit="bytes", low=1, high=2**40)
    drain_s: float = setting(
        10.0,
        "Longest wait on SIGTERM for confirms of what was published.",
        unit="s",
        low=0,
        high=3600,
    )


@dataclass(frozen=True, kw_only=True)
class CollectorSettings(_Store):
    """`telemq collect`."""

    component: ClassVar[str] = "collector"

    broker: str = setting("tcp://127.0.0.1:5602", "The broker's endpoint for consumers.")
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
        16 * 2**20,
        "Most payload bytes delivered to one worker and not yet settled.",
        unit="bytes",
        low=1024,
        high=2**34,
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
class ApiSettings(_Store):
    """`telemq api`."""

    component: ClassVar[str] = "api"

    address: str = setting("127.0.0.1:8080", "HTTP address of the gateway; port 0 picks one.")
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


@dataclass(frozen=True, kw_only=True)
class UpSettings(_Store):
    """`telemq up`."""

    component: ClassVar[str] = "up"

    csv: str = setting("", "DCGM CSV file to replay; empty means the bundled sample.")
    streamers: int = setting(1, "Streamer processes.", unit="processes", low=0, high=256)
    collectors: int = setting(1, "Collector processes.", unit="processes", low=0, high=256)
    rate: float = setting(
        0.0,
        "Records a second of all streamers together; 0 is 1,000 on the bundled sample for ever, "
        "and as fast as it goes with --rows.",
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


COMPONENTS: tuple[type[Common], ...] = (
    Common,
    BrokerSettings,
    StreamerSettings,
    CollectorSettings,
    ApiSettings,
    UpSettings,
)

_SHARED = {f.name: "" for c in (Common, _Store) for f in dataclasses.fields(c)}


def rows(component: type[Common]) -> Iterator[SettingInfo]:
    """Yield the table's rows for one settings class, what all share first."""
    hints = get_type_hints(component)
    for f in dataclasses.fields(component):
        owner = _SHARED.get(f.name, component.component)
        name = f.name
        yield SettingInfo(owner, name, hints[name], f.default, **f.metadata)


def table() -> list[SettingInfo]:
    """Give every setting once: what all share, then each component's own."""
    seen: dict[str, SettingInfo] = {}
    for component in COMPONENTS:
        for info in rows(component):
            seen.setdefault(info.variable, info)
    return list(seen.values())
