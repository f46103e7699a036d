"""Which id a series has in the database; new series get one, in a handful of statements.

A series' identity is the fingerprint of its labels, so that two collectors that meet the same new
series at the same time end up with one row and one id. Each statement is a transaction of its own
and touches its rows in a fixed order: what is inserted here is true whether or not the batch that
brought it is stored, and collectors never wait for each other's commits, nor in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import psycopg

from telemq.record import RecordBatch, SeriesGroup, SeriesLabels

__all__ = ["SeriesIds", "fingerprint"]

#: Series of one statement. Labels are 500 bytes as a rule and 650 KB at most, and a message to
#: Postgres holds 1 GB.
_STATEMENT_SERIES = 1000


def fingerprint(labels: SeriesLabels) -> bytes:
    """Give the identity of a series: blake2b-128 over its labels, each after its length.

    The length (4 bytes, big-endian, of the UTF-8 text) keeps ``("ab", "c")`` from ``("a", "bc")``.
    """
    digest = blake2b(digest_size=16)
    for label in labels:
        text = label.encode()
        digest.update(len(text).to_bytes(4) + text)
    return digest.digest()


class SeriesIds:
    """Looks up series ids in memory, else in the database, where it adds what is new.

    Args:
        conn: in autocommit mode, outside a transaction.
        series_max: ids remembered; beyond it all are forgotten and looked up again.
    """

    def __init__(self, conn: psycopg.Connection[Any], series_max: int = 1_000_000) -> None:
        self._conn = conn
        self._max = series_max
        self._ids: dict[SeriesLabels, int] = {}
        # As many as whoever made the groups remembers.
        self._of_group: WeakKeyDictionary[SeriesGroup, npt.NDArray[np.int32]] = WeakKeyDictionary()

    def of(self, batches: Sequence[RecordBatch]) -> list[npt.NDArray[np.int32]]:
        """Give the ids of each batch's series, in the batch's order.

        Raises:
            psycopg.Error: as it comes. What was added stays, and does no harm.
        """
        of_batch = [batch.groups or (SeriesGroup(batch.series),) for batch in batches]
        new = [group for group in dict.fromkeys(chain(*of_batch)) if group not in self._of_group]
        resolved = self.resolve([group.labels for group in new])
        self._of_group.update(zip(new, resolved, strict=True))
        return [np.concatenate([self._of_group[g] for g in groups]) for groups in of_batch]

    def resolve(self, series: Sequence[tuple[SeriesLabels, ...]]) -> list[npt.NDArray[np.int32]]:
        """Give the ids of some tuples of series, each in its order; see `of`."""
        found = self._known(series)
        unknown = {
            labels
            for some, ids in zip(series, found, strict=True)
            if None in ids
            for labels, id in zip(some, ids, strict=True)
            if id is None
        }
        if unknown:
            if len(self._ids) + len(unknown) > self._max:
                self._ids.clear()
                unknown.update(*series)
            wanted = list(unknown)
            for start in range(0, len(wanted), _STATEMENT_SERIES):
                self._learn(wanted[start : start + _STATEMENT_SERIES])
            found = self._known(series)
        return [np.array(ids, np.int32) for ids in found]

    def forget(self) -> None:
        """Forget all ids: somebody may have changed the table."""
        self._ids.clear()
        self._of_group.clear()

    def _known(self, series: Sequence[tuple[SeriesLabels, ...]]) -> list[list[int | None]]:
        return [list(map(self._ids.get, some)) for some in series]

    def _learn(self, wanted: list[SeriesLabels]) -> None:
        prints = {fingerprint(labels): labels for labels in wanted}
        self._look_up(prints)
        missing = {key: labels for key, labels in prints.items() if labels not in self._ids}
        if missing:
            _insert_gpus(self._conn, missing.values())
            _insert_series(self._conn, missing)
            self._look_up(missing)

    def _look_up(self, prints: dict[bytes, SeriesLabels]) -> None:
        rows = self._conn.execute(
            "SELECT fingerprint, id FROM series WHERE fingerprint = ANY(%b)",
            (list(prints),),
            binary=True,
        )
        self._ids.update((prints[key], series_id) for key, series_id in rows)


def _insert_gpus(conn: psycopg.Connection[Any], series: Iterable[SeriesLabels]) -> None:
    # The anti-join keeps the identity sequence from being spent on GPUs that are known.
    gpus = {s.uuid: (s.uuid, s.gpu_id, s.device, s.model_name, s.hostname) for s in series}
    conn.execute(
        """
        INSERT INTO gpu (uuid, gpu_id, device, model_name, hostname)
        SELECT n.* FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[])
            AS n (uuid, gpu_id, device, model_name, hostname)
        WHERE NOT EXISTS (
            SELECT FROM gpu AS g
            WHERE (g.uuid, g.gpu_id, g.device, g.model_name, g.hostname)
                = (n.uuid, n.gpu_id, n.device, n.model_name, n.hostname))
        ORDER BY n.uuid
        ON CONFLICT (uuid) DO UPDATE
        SET (gpu_id, device, model_name, hostname)
            = (excluded.gpu_id, excluded.device, excluded.model_name, excluded.hostname)
        """,
        [list(column) for column in zip(*gpus.values(), strict=True)],
    )


def _insert_series(conn: psycopg.Connection[Any], series: dict[bytes, SeriesLabels]) -> None:
    columns = [list(column) for column in zip(*series.values(), strict=True)]
    conn.execute(
        """
        INSERT INTO series (fingerprint, gpu, metric_name, gpu_id, device, model_name, hostname,
                            container, pod, namespace, labels_raw)
        SELECT n.fingerprint, gpu.id, n.metric_name, n.gpu_id, n.device, n.model_name, n.hostname,
               n.container, n.pod, n.namespace, n.labels_raw
        FROM unnest(%b::bytea[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
                    %b::text[], %b::text[], %b::text[], %b::text[], %b::text[])
            AS n (fingerprint, metric_name, gpu_id, device, uuid, model_name, hostname,
                  container, pod, namespace, labels_raw)
        JOIN gpu ON gpu.uuid = n.uuid
        ORDER BY n.fingerprint
        ON CONFLICT (fingerprint) DO NOTHING
        """,
        [list(series), *columns],
    )
