"""What a fleet measured in the last minutes: the newest value of each series, and means by time.

For whoever looks at all GPUs at once. Each statement goes from the series to their samples, one
look-up in an index a series, so that it reads the window and nothing else: a partition holds a day.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, LiteralString, NamedTuple

import psycopg

from telemq.errors import SettingError, SlowQueryError, StoreError

__all__ = [
    "Gpu", "Newest", "Slot", "connect", "gpus", "last_seen", "metrics", "newest", "now", "seen",
    "slots",
]  # fmt: skip

#: Longest wait for a connection.
_CONNECT_S = 10
_SESSION = """
SELECT set_config('default_transaction_read_only', 'on', false),
       set_config('default_transaction_isolation', 'repeatable read', false),
       set_config('timezone', 'UTC', false),
       set_config('statement_timeout', %(ms)s, false),
       set_config('jit', 'off', false)  -- many small look-ups: compiling takes longer
"""
_NEWEST: LiteralString = """
SELECT s.gpu, s.metric_name, s.namespace, s.pod, s.container, of.ts, of.value
FROM series s
CROSS JOIN LATERAL (
    SELECT ts, value FROM samples_between(%(since)s, %(until)s)
    WHERE series_id = s.id ORDER BY ts DESC LIMIT 1
) AS of
WHERE s.gpu = ANY(%(gpus)s) AND s.metric_name = ANY(%(metrics)s)
"""
# A GPU that several pods share has as many series of a metric at the same time.
_SLOTS: LiteralString = """
SELECT s.gpu, of.slot, sum(of.total) / sum(of.samples)
FROM series s
CROSS JOIN LATERAL (
    SELECT width_bucket(extract(epoch FROM ts - %(since)s)::float8, 0, %(window_s)s, %(count)s) - 1
               AS slot,
           sum(value) AS total, count(*) AS samples
    FROM samples_between(%(since)s, %(until)s) WHERE series_id = s.id GROUP BY 1
) AS of
WHERE s.gpu = ANY(%(gpus)s) AND s.metric_name = %(metric)s
GROUP BY 1, 2
"""
_SEEN: LiteralString = """
SELECT s.gpu, max(of.ts)
FROM series s
CROSS JOIN LATERAL (
    SELECT max(ts) AS ts FROM samples_between(%(since)s, %(until)s) WHERE series_id = s.id
) AS of
WHERE s.gpu = ANY(%(gpus)s)
GROUP BY 1
"""
# Of a series' chunks the last hour is looked for first: to unpack all would take a long time.
_LAST_SEEN: LiteralString = """
SELECT s.gpu, max(greatest(
    (SELECT max(ts) FROM sample WHERE series_id = s.id),
    (SELECT max(ts) FROM samples_between(last.hour, last.hour + interval '1 hour')
     WHERE series_id = s.id)))
FROM series s
CROSS JOIN LATERAL (SELECT max(hour) AS hour FROM chunk WHERE series_id = s.id) AS last
WHERE s.gpu = ANY(%(gpus)s)
GROUP BY 1
"""


class Gpu(NamedTuple):
    """A GPU where it was seen last.

    Attributes:
        id: its number in this database.
        gpu_id: its index on its host.
    """

    id: int
    uuid: str
    gpu_id: str
    device: str
    model_name: str
    hostname: str


class Newest(NamedTuple):
    """The newest sample of a series; `gpu` is `Gpu.id`."""

    gpu: int
    metric_name: str
    namespace: str
    pod: str
    container: str
    ts: datetime
    value: float


class Slot(NamedTuple):
    """The mean of a metric in a part of a window; `gpu` is `Gpu.id`, slots count from 0."""

    gpu: int
    slot: int
    mean: float


@contextmanager
def connect(
    dsn: str, *, name: str, statement_s_max: float
) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Yield a connection that only reads; each transaction is one snapshot.

    Args:
        dsn: of the database.
        name: shown in pg_stat_activity.
        statement_s_max: longest run of one statement.

    Raises:
        SettingError: the DSN is malformed.
        SlowQueryError: a statement ran into its limit.
        StoreError: the database has no schema of this version.
        psycopg.OperationalError: no connection, or it was lost.
    """
    try:
        conn = psycopg.connect(
            dsn, autocommit=True, application_name=name, connect_timeout=_CONNECT_S
        )
    except psycopg.ProgrammingError as error:
        accepted = "a Postgres connection string or URL"
        raise SettingError("--dsn", "(secret)", accepted) from error
    with conn:
        try:
            conn.execute(_SESSION, {"ms": str(math.ceil(statement_s_max * 1000))})
            yield conn
        except psycopg.errors.QueryCanceled as error:
            raise SlowQueryError(
                f"the query takes longer than the limit of {statement_s_max:g} s "
                "(--statement-s-max); ask for less"
            ) from error
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction) as error:
            raise StoreError(
                "the database has no telemq schema of this version yet; "
                "a streamer or collector makes it when it starts"
            ) from error


def now(conn: psycopg.Connection[Any]) -> datetime:
    """Give the database's clock, which machines share."""
    row = conn.execute("SELECT now()").fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


def gpus(conn: psycopg.Connection[Any]) -> list[Gpu]:
    """Give all GPUs that there ever were, in no order."""
    rows = conn.execute("SELECT id, uuid, gpu_id, device, model_name, hostname FROM gpu")
    return [Gpu(*row) for row in rows]


def metrics(conn: psycopg.Connection[Any], gpus: Collection[int]) -> list[str]:
    """Give the names of the metrics that GPUs have or had, in no order."""
    rows = conn.execute(
        "SELECT DISTINCT metric_name FROM series WHERE gpu = ANY(%(gpus)s)", {"gpus": list(gpus)}
    )
    return [name for (name,) in rows]


def newest(
    conn: psycopg.Connection[Any],
    gpus: Collection[int],
    metrics: Collection[str],
    since: datetime,
    until: datetime,
) -> list[Newest]:
    """Give the newest sample in a window, both ends included, of each series that has one."""
    rows = conn.execute(
        _NEWEST, {"gpus": list(gpus), "metrics": list(metrics), "since": since, "until": until}
    )
    return [Newest(*row) for row in rows]


def slots(
    conn: psycopg.Connection[Any],
    gpus: Collection[int],
    metric: str,
    since: datetime,
    until: datetime,
    *,
    count: int,
) -> list[Slot]:
    """Give a metric's means in `count` equal parts of a window, its end not included."""
    asked = {"gpus": list(gpus), "metric": metric, "since": since, "until": until, "count": count}
    asked["window_s"] = (until - since).total_seconds()
    return [Slot(*row) for row in conn.execute(_SLOTS, asked) if row[1] < count]


def seen(
    conn: psycopg.Connection[Any], gpus: Collection[int], since: datetime, until: datetime
) -> dict[int, datetime]:
    """Give the time of the newest sample of any metric in a window, by `Gpu.id`."""
    rows = conn.execute(_SEEN, {"gpus": list(gpus), "since": since, "until": until})
    return {gpu: ts for gpu, ts in rows if ts is not None}


def last_seen(conn: psycopg.Connection[Any], gpus: Collection[int]) -> dict[int, datetime]:
    """Give the time of the newest sample of GPUs, by `Gpu.id`; reads every partition's index."""
    rows = conn.execute(_LAST_SEEN, {"gpus": list(gpus)})
    return {gpu: ts for gpu, ts in rows if ts is not None}
