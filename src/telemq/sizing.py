"""What a fleet needs: processes, cores, memory and disk, computed from measured figures.

Pure arithmetic. A fleet yields ``gpus * metrics / interval_s`` records a second; each part costs so
much CPU a record; what is kept costs so many bytes a record. The figures, `MEASURED`, were taken
with the whole pipeline on one machine (docs/sizing.md says how); another machine has others.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from telemq.errors import SettingError

__all__ = ["MEASURED", "Figures", "Fleet", "Sizing", "size"]

_DAY_S = 86_400
#: What is not yet dropped comes on top of the days kept.
_EXTRA_DAYS = 1
#: Today's partition, and yesterday's until its disk is given back.
_RAW_DAYS = 2
#: GPUs of a usual host.
_HOST_GPUS = 8
#: The largest batches that a broker has room for, whatever the fleet.
_QUEUED_BATCHES = 12


@dataclass(frozen=True, slots=True)
class Figures:
    """What one machine needed, a core being one virtual core of it.

    Attributes:
        streamer_s: CPU seconds of streamers per million records.
        broker_s: the same of the broker, and so on.
        collector_s: of collectors.
        postgres_s: of Postgres while it stores; queries come on top.
        sample_bytes: on disk, a record in its partition and index.
        chunked_bytes: on disk, a record in a chunk.
        chunk_bytes: on disk, a chunk (a series' hour) beside its records.
        series_bytes: on disk, a series with its labels and indexes.
        ledger_bytes: on disk, a batch.
        batch_records: most records a batch; a host's scrape has fewer, and is one.
        wire_bytes: a record while it waits in a broker, each of a series of its own.
        process_bytes: resident size of a streamer or collector under load.
        broker_bytes: resident size of an idle broker.
        peer_bytes: what each peer adds to it.
        wal_bytes: what Postgres keeps of its log under load.
    """

    streamer_s: float
    broker_s: float
    collector_s: float
    postgres_s: float
    sample_bytes: float
    chunked_bytes: float
    chunk_bytes: float
    series_bytes: float
    ledger_bytes: float
    batch_records: int
    wire_bytes: float
    process_bytes: int
    broker_bytes: int
    peer_bytes: int
    wal_bytes: int


#: 4.94 million records of a real scrape (2,470 series), one process of each kind, two cores.
MEASURED = Figures(
    streamer_s=0.34,
    broker_s=0.20,
    collector_s=0.49,
    postgres_s=1.70,
    sample_bytes=86.6,
    chunked_bytes=6.0,
    chunk_bytes=260,
    series_bytes=560,
    ledger_bytes=197,
    batch_records=8192,
    wire_bytes=448,
    process_bytes=200 * 2**20,
    broker_bytes=44 * 2**20,
    peer_bytes=30 * 2**10,
    wal_bytes=4 * 2**30,
)


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is to be carried and kept.

    Attributes:
        gpus: of all hosts.
        metrics: series of each GPU.
        interval_s: between two records of a series.
        days: for how long records are kept.
        outage_s: how long Postgres may be away before streamers have to wait.
        load: share of a core that a process is to be busy at most; the rest is for bursts.
    """

    gpus: int
    metrics: int = 40
    interval_s: float = 10.0
    days: float = 30.0
    outage_s: float = 60.0
    load: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            SettingError: a value is outside of its range.
        """
        for name, low, high in (
            ("gpus", 1, 10_000_000),
            ("metrics", 1, 10_000),
            ("interval_s", 0.001, _DAY_S),
            ("days", 0, 36_500),
            ("outage_s", 0, _DAY_S),
            ("load", 0.05, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingError("--" + name.replace("_", "-"), value, f"{low:g} to {high:,g}")


@dataclass(frozen=True, slots=True)
class Sizing:
    """What the fleet needs.

    Attributes:
        records_per_s: that the fleet yields.
        series: that it has.
        streamers: processes that replay as fast; a host's own streamer has far less to do.
        brokers: one carries it, a second one is for the loss of the first.
        collectors: worker processes; two at least, so that one may be lost.
        postgres_cores: for storing alone.
        broker_queue_records: ``broker.queueCapacity``, for the outage.
        broker_queue_bytes: ``broker.queueBytes``, for the outage.
        broker_memory_bytes: limit of a broker's memory, all its peers and a full queue included.
        process_memory_bytes: of one streamer, and of one collector.
        disk_bytes: of Postgres: samples, ledger, series and log, with `telemq maintain`.
        disk_bytes_per_day: by which it grows until the oldest day is dropped.
    """

    records_per_s: float
    series: int
    streamers: int
    brokers: int
    collectors: int
    postgres_cores: float
    broker_queue_records: int
    broker_queue_bytes: int
    broker_memory_bytes: int
    process_memory_bytes: int
    disk_bytes: int
    disk_bytes_per_day: int

    def to_dict(self) -> dict[str, float]:
        """Give it as JSON has it."""
        return asdict(self)


def size(fleet: Fleet, figures: Figures = MEASURED) -> Sizing:
    """Compute what a fleet needs."""
    rate = fleet.gpus * fleet.metrics / fleet.interval_s
    series = fleet.gpus * fleet.metrics

    def processes(cpu_s: float, least: int) -> int:
        return max(least, math.ceil(rate * cpu_s / 1e6 / fleet.load))

    brokers = processes(figures.broker_s, 2)
    streamers = processes(figures.streamer_s, 1)
    collectors = processes(figures.collector_s, 2)
    # What comes during the outage, and never so little that a replay has to wait for each batch.
    waiting = math.ceil(rate * fleet.outage_s / brokers)
    queue_records = max(waiting, _QUEUED_BATCHES * figures.batch_records)
    queue_bytes = math.ceil(queue_records * figures.wire_bytes)
    # Once streamers read their own host, there is one a host.
    peers = max(streamers, math.ceil(fleet.gpus / _HOST_GPUS)) + collectors
    scrape_records = min(fleet.gpus, _HOST_GPUS) * fleet.metrics
    ledger = figures.ledger_bytes / min(scrape_records, figures.batch_records)
    days = fleet.days + _EXTRA_DAYS
    raw_days = min(days, _RAW_DAYS)
    raw_per_day = rate * _DAY_S * (figures.sample_bytes + ledger)
    # A chunk holds an hour of a series, and one sample at least.
    overhead = figures.chunk_bytes * min(1, fleet.interval_s / 3600)
    per_day = rate * _DAY_S * (figures.chunked_bytes + overhead + ledger)
    return Sizing(
        records_per_s=rate,
        series=series,
        streamers=streamers,
        brokers=brokers,
        collectors=collectors,
        postgres_cores=rate * figures.postgres_s / 1e6 / fleet.load,
        broker_queue_records=queue_records,
        broker_queue_bytes=queue_bytes,
        # Python and libzmq hold a fifth more than the payloads.
        broker_memory_bytes=math.ceil(
            figures.broker_bytes + peers * figures.peer_bytes + 1.2 * queue_bytes
        ),
        process_memory_bytes=figures.process_bytes,
        disk_bytes=math.ceil(
            raw_per_day * raw_days
            + per_day * (days - raw_days)
            + series * figures.series_bytes
            + figures.wal_bytes
        ),
        disk_bytes_per_day=math.ceil(per_day),
    )
