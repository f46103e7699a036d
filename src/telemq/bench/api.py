"""What the gateway makes of the store: large answers in every format, and questions of the fleet.

The gateway is a process of its own, as in life, and is asked over HTTP. Every answer is checked to
be as large as it must be.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
import psycopg

from telemq.bench.fleet import METRICS, START_US, Fleet
from telemq.bench.layouts import fill_store
from telemq.bench.measure import Part, Quantiles, Run, process_usage
from telemq.bench.postgres import ServerUsage
from telemq.bench.query import QueryLoad
from telemq.errors import TelemqError
from telemq.gateway.formats import offered
from telemq.store.migrate import migrate

__all__ = ["QUESTIONS", "DcgmFleet", "bench_api"]

QUESTIONS = ("idle", "usage", "health")
_NAMES = (
    "GPU_UTIL", "POWER_USAGE", "GPU_TEMP", "XID_ERRORS", "ECC_DBE_VOL_TOTAL", "FB_USED", "FB_FREE",
    "SM_CLOCK", "MEM_CLOCK", "MEM_COPY_UTIL",
)  # fmt: skip
_START = datetime.fromtimestamp(START_US / 1e6, UTC)
_ASK_S = 600.0


@dataclass(frozen=True, slots=True)
class DcgmFleet(Fleet):
    """A fleet whose metrics are DCGM's: one GPU in 50 is idle, one in 200 is hot."""

    def metric(self, number: int) -> str:
        """Give the name of a metric, 0 to `METRICS` - 1."""
        return f"DCGM_FI_DEV_{_NAMES[number]}"

    def values(
        self, scrape: npt.NDArray[np.int64], number: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        """Give values such as these metrics have."""
        gpu, metric = np.divmod(number, METRICS)
        some = (scrape * 7919 + number * 104_729) % 1000
        idle, hot, bad = gpu % 50 == 7, gpu % 200 == 3, (gpu % 300 == 5) & (scrape % 100 == 50)
        of = {
            0: np.where(idle, 0, 20 + some % 81),
            1: np.where(idle, 70, 300) + some / 7,
            2: np.where(hot, 88, 40) + some % 10,
            3: np.where(bad, 79, 0),
            4: np.zeros_like(some),
        }
        values: npt.NDArray[Any] = np.select(
            [metric == place for place in of], list(of.values()), some
        )
        return values


def bench_api(load: QueryLoad, dsn: str, runs: int) -> Iterator[Run]:
    """Fill an empty database; ask a gateway for telemetry in each format, and about the fleet.

    Times of telemetry are those of the first byte; of the fleet, of answers that are searched for
    each time, and of answers that are kept (`--fleet-keep-s`).

    Args:
        load: what is stored and asked; `concurrency` and `questions` are those about the fleet.
        dsn: of an empty database.
        runs: of everything.

    Raises:
        TelemqError: an answer is not what it must be.
        psycopg.Error: the database cannot be used.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        migrate(conn)
        fill_store(conn, load.fleet, load.scrapes)
    for _ in range(runs):
        for format in offered():
            yield _download(load, dsn, format.name)
        for name in QUESTIONS:
            for keep_s, kept in ((0, "searched"), (3600, "kept")):
                yield _fleet(load, dsn, name, keep_s, f"fleet/{name}, {kept}")


def _download(load: QueryLoad, dsn: str, name: str) -> Run:
    """Ask for all of the first GPU of every host, of four metrics."""
    metrics = [("metric", load.fleet.metric(number)) for number in range(4)]
    path = f"/api/v1/gpus/0/telemetry?{urlencode([*metrics, ('format', name)])}"
    rows = -(-load.fleet.gpus // 8) * len(metrics) * load.scrapes
    with (
        _gateway(dsn) as running,
        psycopg.connect(dsn, autocommit=True) as conn,
        contextlib.closing(HTTPConnection(running.host, timeout=_ASK_S)) as client,
        contextlib.closing(HTTPConnection(running.ops, timeout=_ASK_S)) as ops,
    ):
        before, server = process_usage("gateway", running.pid), ServerUsage(conn)
        began = time.monotonic()
        client.request("GET", path)
        answer = client.getresponse()
        first_ms = 0.0
        while answer.read(65_536):
            first_ms = first_ms or (time.monotonic() - began) * 1000
        seconds = time.monotonic() - began
        parts = (_since(before, running.pid), *server.part())
        ops.request("GET", "/metrics")
        told = ops.getresponse().read().decode()
    found = re.search(r"(?m)^telemq_api_rows_sent_total (\S+)", told)
    if answer.status != 200 or found is None or float(found[1]) != rows:
        raise TelemqError(f"{path}: status {answer.status}, {found and found[1]} rows of {rows}")
    return Run(f"telemetry, {name}", rows, seconds, parts, Quantiles.of([first_ms]))


def _fleet(load: QueryLoad, dsn: str, name: str, keep_s: float, subject: str) -> Run:
    """Ask about the day that ends with the last sample, several at a time."""
    end = _START + timedelta(seconds=(load.scrapes - 1) * load.fleet.interval_s)

    def ask(host: str, number: int) -> float:
        # Each search its own window, or they would be one.
        start = end - timedelta(days=1, microseconds=0 if keep_s else number)
        window = {"start_time": start.isoformat(), "end_time": end.isoformat()}
        with contextlib.closing(HTTPConnection(host, timeout=_ASK_S)) as client:
            began = time.monotonic()
            client.request("GET", f"/api/v1/fleet/{name}?{urlencode(window)}")
            answer = client.getresponse()
            body = answer.read()
            if answer.status != 200 or (name == "usage" and b'"gpu_hours"' not in body):
                raise TelemqError(f"fleet/{name}: status {answer.status}: {body[:200]!r}")
            return (time.monotonic() - began) * 1000

    with (
        _gateway(dsn, "--fleet-keep-s", str(keep_s)) as running,
        psycopg.connect(dsn, autocommit=True) as conn,
        ThreadPoolExecutor(load.concurrency) as asking,
    ):
        ask(running.host, 0)
        before, server = process_usage("gateway", running.pid), ServerUsage(conn)
        began = time.monotonic()
        took_ms: Sequence[float] = list(
            asking.map(lambda number: ask(running.host, number), range(1, load.questions + 1))
        )
        seconds = time.monotonic() - began
        parts = (_since(before, running.pid), *server.part())
    return Run(subject, load.questions, seconds, parts, Quantiles.of(took_ms))


def _since(before: Part, pid: int) -> Part:
    now = process_usage(before.name, pid)
    return Part(before.name, now.cpu_s - before.cpu_s, now.peak_bytes)


class _Running(NamedTuple):
    """A gateway: where it is asked, where its metrics are, and its process."""

    host: str
    ops: str
    pid: int


@contextlib.contextmanager
def _gateway(dsn: str, *flags: str) -> Iterator[_Running]:
    """Run a gateway that lets everybody ask as often as they like."""
    command = [
        *(sys.executable, "-P", "-m", "telemq_cli", "api", "--rate-per-s", "0"),
        *("--address", "127.0.0.1:0", "--ops-address", "127.0.0.1:0", *flags),
    ]
    environment = {**os.environ, "TELEMQ_DSN": dsn, "TELEMQ_LOG_FORMAT": "json"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            lines = (json.loads(line) for line in process.stdout)
            told = next((line for line in lines if "ops" in line), None)
            if told is None:
                raise TelemqError(f"the gateway ended with exit code {process.wait()}")
            # Nobody else would empty the pipe, and a log that cannot be written stops a process.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield _Running(told["url"].removeprefix("http://"), told["ops"], process.pid)
        finally:
            process.terminate()
