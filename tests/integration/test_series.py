"""Series get ids once, however many collectors meet them at the same time."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import psycopg
import pytest

from telemq.record import RecordBatch, SeriesGroup, SeriesLabels
from telemq.store.series import SeriesIds, fingerprint
from tests.support.batches import labels

Conn = psycopg.Connection[Any]


class Statements:
    """Counts the statements of one connection, as the server sees them."""

    def __init__(self, conn: Conn) -> None:
        self._conn = conn
        self.count = 0
        execute = conn.execute

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return execute(*args, **kwargs)

        conn.execute = counted  # type: ignore[method-assign]  # only to count


def test_ids_come_in_the_order_of_the_batch(conn: Conn) -> None:
    """Two batches share a series and name it at different places."""
    a, b, c = (labels(gpu) for gpu in range(3))
    first, second = SeriesIds(conn).resolve([(a, b), (c, a)])
    assert first.dtype == second.dtype == np.int32
    assert first[0] == second[1]
    assert 3 == len({*first.tolist(), *second.tolist()})
    rows = conn.execute("SELECT id, fingerprint FROM series ORDER BY id").fetchall()
    assert {i: fingerprint(s) for i, s in zip(first.tolist(), (a, b), strict=True)}.items() <= dict(
        rows
    ).items()


def test_labels_are_stored_as_they_are(conn: Conn) -> None:
    """Quotes, other scripts and emptiness in labels."""
    odd = labels(3, model_name='H100 "x"\n', pod="ポッド", container="{a,b}", labels_raw="NULL")
    SeriesIds(conn).resolve([(odd,)])
    found = conn.execute(
        """
        SELECT s.metric_name, s.gpu_id, s.device, g.uuid, s.model_name, s.hostname, s.container,
               s.pod, s.namespace, s.labels_raw
        FROM series AS s JOIN gpu AS g ON g.id = s.gpu
        """
    ).fetchall()
    assert [tuple(odd)] == found


def test_known_series_cost_no_statement(conn: Conn) -> None:
    """Every commit but the first."""
    series = tuple(labels(gpu) for gpu in range(10))
    ids = SeriesIds(conn)
    (first,) = ids.resolve([series])
    statements = Statements(conn)
    (second,) = ids.resolve([series])
    assert 0 == statements.count
    assert first.tolist() == second.tolist()


def test_thousands_of_new_series_cost_a_handful_of_statements(conn: Conn) -> None:
    """A collector meets a cluster for the first time: 247 GPUs with 10 metrics."""
    series = tuple(labels(gpu, f"METRIC_{m}") for m in range(10) for gpu in range(247))
    statements = Statements(conn)
    (ids,) = SeriesIds(conn).resolve([series])
    assert 2470 == len(set(ids.tolist()))
    assert statements.count <= 12
    assert [(2470, 247)] == conn.execute(
        "SELECT (SELECT count(*) FROM series), (SELECT count(*) FROM gpu)"
    ).fetchall()


def test_ids_are_not_spent_on_what_is_known(conn: Conn) -> None:
    """Every restart meets all series again; 2^31 ids must last."""
    series = tuple(labels(gpu) for gpu in range(50))
    for _ in range(5):
        SeriesIds(conn).resolve([series])
    (more,) = SeriesIds(conn).resolve([(labels(99),)])
    assert [51] == more.tolist()
    assert [(51,)] == conn.execute("SELECT max(id) FROM gpu").fetchall()


def test_collectors_that_meet_the_same_new_series_agree(dsn: str) -> None:
    """A cluster comes up while six collectors run; each gets batches of all hosts."""
    barrier = threading.Barrier(6)
    found: dict[int, dict[SeriesLabels, int]] = {}

    def collect(number: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            mine: dict[SeriesLabels, int] = {}
            ids = SeriesIds(own)
            barrier.wait(10)
            for start in range(0, 400, 40):
                # Each in an order of its own, so that a fixed order must come from the code.
                series = [labels(gpu) for gpu in range(start, start + 40)]
                series = series[number:] + series[:number]
                (got,) = ids.resolve([tuple(series)])
                mine.update(zip(series, got.tolist(), strict=True))
            found[number] = mine

    threads = [threading.Thread(target=collect, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert 6 == len(found)
    assert 400 == len(set(found[0].values()))
    assert all(mine == found[0] for mine in found.values())


def test_gpu_row_tells_where_it_was_seen_last(conn: Conn) -> None:
    """A GPU was moved to another host: one GPU, a new series, its old history where it was."""
    ids = SeriesIds(conn)
    ids.resolve([(labels(1),)])
    ids.resolve([(labels(1, hostname="host-999", gpu_id="5"),)])
    assert [("host-999", "5")] == conn.execute("SELECT hostname, gpu_id FROM gpu").fetchall()
    assert 2 == len(conn.execute("SELECT FROM series").fetchall())


def test_two_names_for_one_gpu_in_a_batch_are_accepted(conn: Conn) -> None:
    """Two exporters of one host disagree about its name, in one scrape."""
    (ids,) = SeriesIds(conn).resolve([(labels(1), labels(1, hostname="other"))])
    assert 2 == len(set(ids.tolist()))


def test_memory_of_ids_is_bounded(conn: Conn) -> None:
    """Pods come and go for months; what is forgotten is found again with the same id."""
    ids = SeriesIds(conn, series_max=10)
    series = [labels(gpu) for gpu in range(25)]
    first = [ids.resolve([(s,)])[0][0] for s in series]
    assert len(ids._ids) <= 10
    assert first == [ids.resolve([(s,)])[0][0] for s in series]
    (all_at_once,) = ids.resolve([tuple(series)])
    assert first == all_at_once.tolist()


def batch(*groups: SeriesGroup) -> RecordBatch:
    nothing = np.empty(0, np.int64)
    return RecordBatch.grouped(groups, nothing.astype(np.int32), nothing, nothing.astype(float))


def test_groups_are_resolved_once_and_in_order(conn: Conn) -> None:
    """The same series in every batch: their ids are found by the group, without a look at them."""
    ids = SeriesIds(conn)
    a, b = (SeriesGroup(tuple(labels(gpu) for gpu in gpus)) for gpus in ((1, 2), (3,)))
    first, second = ids.of([batch(a, b), batch(b, a, SeriesGroup((labels(4),)))])
    assert first.tolist() == [*second[1:3], second[0]]
    ids._ids.clear()
    conn.execute("TRUNCATE series CASCADE")
    (again,) = ids.of([batch(a, b)])
    assert first.tolist() == again.tolist()
    ids.forget()
    (other,) = ids.of([batch(a, b)])
    assert set(first).isdisjoint(other)


def test_groups_are_forgotten_with_those_who_made_them(conn: Conn) -> None:
    """What the decoder's memory dropped must not stay in the writer's for ever."""
    ids = SeriesIds(conn)
    for gpu in range(5):
        ids.of([batch(SeriesGroup((labels(gpu),)))])
    assert not len(ids._of_group)


@pytest.mark.parametrize("shift", [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", "")])
def test_fingerprint_keeps_labels_apart(shift: tuple[str, str]) -> None:
    """The end of one label looks like the beginning of the next."""
    others = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", "")]
    prints = {fingerprint(labels(container=c, pod=p)) for c, p in others if (c, p) != shift}
    assert fingerprint(labels(container=shift[0], pod=shift[1])) not in prints
    assert 3 == len(prints)


def test_fingerprint_never_changes() -> None:
    """It is in every database: another value would double all series."""
    assert "412924cfffc6bb9306b0ceb5b90b6a71" == fingerprint(labels()).hex()
