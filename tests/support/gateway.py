"""A real gateway on a loopback port for the time of a test, and rows for it to show."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import httpx
import psycopg

from telemq.gateway.app import create_app
from telemq.settings import ApiSettings
from telemq.web.server import listen, serve

__all__ = ["DAY", "add_partition", "add_samples", "add_series", "at", "serving"]

#: The day of which the tests' samples are.
DAY = datetime(2025, 7, 18, tzinfo=UTC)
_END_S = 15


@contextlib.contextmanager
def serving(settings: ApiSettings) -> Iterator[httpx.Client]:
    """Run the gateway on a free port; yields a client whose base URL is its address."""
    stop = threading.Event()
    sock = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    thread = threading.Thread(
        target=serve,
        args=(create_app(settings), sock, stop),
        kwargs={"drain_s": settings.drain_s},
        daemon=True,
    )
    thread.start()
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            yield client
    finally:
        stop.set()
        thread.join(_END_S)
        assert not thread.is_alive()


def at(seconds: float) -> datetime:
    """Give the moment so many seconds after the start of `DAY`."""
    return DAY + timedelta(seconds=seconds)


def add_partition(conn: psycopg.Connection, day: datetime = DAY) -> None:
    """Make the partition of one day, unless it is there."""
    following = day + timedelta(days=1)
    conn.execute(
        f"CREATE TABLE IF NOT EXISTS sample_test_{day:%Y%m%d} PARTITION OF sample"
        f" FOR VALUES FROM ('{day.isoformat()}') TO ('{following.isoformat()}')"
    )


def add_series(
    conn: psycopg.Connection,
    uuid: str,
    *,
    metric_name: str = "DCGM_FI_DEV_GPU_UTIL",
    gpu_id: str = "0",
    hostname: str = "host-1",
    pod: str = "",
    namespace: str = "",
    model_name: str = "NVIDIA H100 80GB HBM3",
) -> int:
    """Insert a GPU, unless it is there, and a series of it; gives the series id."""
    device = f"nvidia{gpu_id}"
    row = conn.execute(
        "INSERT INTO gpu (uuid, gpu_id, device, model_name, hostname) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (uuid) DO UPDATE SET hostname = excluded.hostname RETURNING id",
        [uuid, gpu_id, device, model_name, hostname],
    ).fetchone()
    assert row is not None
    labels = [
        metric_name, gpu_id, device, model_name, hostname, "", pod, namespace, f'uuid="{uuid}"'
    ]  # fmt: skip
    fingerprint = hashlib.blake2b(repr([uuid, *labels]).encode(), digest_size=16).digest()
    row = conn.execute(
        "INSERT INTO series (fingerprint, gpu, metric_name, gpu_id, device, model_name, hostname,"
        " container, pod, namespace, labels_raw)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        [fingerprint, row[0], *labels],
    ).fetchone()
    assert row is not None
    return int(row[0])


def add_samples(
    conn: psycopg.Connection, series: int, samples: Sequence[tuple[datetime, float]]
) -> None:
    """Insert samples of one series in the order given, and the partitions they need."""
    for day in {moment.replace(hour=0, minute=0, second=0, microsecond=0) for moment, _ in samples}:
        add_partition(conn, day)
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO sample (series_id, ts, value) VALUES (%s, %s, %s)",
            [(series, moment, value) for moment, value in samples],
        )
