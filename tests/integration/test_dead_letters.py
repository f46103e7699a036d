"""Dead letters: found, shown, dropped and retried, and the database balanced after each."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from telemq.codec import Decoder, Encoder
from telemq.record import BatchId, Rejection, reject_times
from telemq.store import dead_retry
from telemq.store.dead import DeadLetter, Selection, count, drop, find, payload_of
from telemq.store.dead_retry import Outcome, Retrier
from telemq.store.verify import verify
from telemq.store.writer import StoredBatch, Writer
from tests.support.batches import NOW_US, record_batch, stored_batch

Conn = psycopg.Connection[Any]
ALL = Selection()
_DAY_US = 86_400_000_000


def retrier(conn: Conn, fail_point: Callable[[str], None] = lambda _: None) -> Retrier:
    """One that accepts times of ten days before and after now."""
    return Retrier(
        conn,
        oldest_us=NOW_US - 10 * _DAY_US,
        latest_us=NOW_US + 10 * _DAY_US,
        fail_point=fail_point,
    )


def whole(first_row: int, payload: bytes | None = None, *, stream: str = "s") -> StoredBatch:
    """A batch of ten rows that was kept whole; its payload is good unless one is given."""
    batch = stored_batch(first_row, stream=stream)
    return StoredBatch(batch.id, 10, batch.payload if payload is None else payload, None, "hung")


def letters(conn: Conn, selection: Selection = ALL) -> list[DeadLetter]:
    return find(conn, selection, limit=1000)


def values(conn: Conn) -> list[float]:
    return [v for (v,) in conn.execute("SELECT value FROM sample ORDER BY value")]


def balanced(conn: Conn, *, stored: int, rejected: int) -> None:
    """The ledger, the samples and the dead letters agree, and hold so many."""
    report = verify(conn)
    assert report.complete, [s.problems for s in report.streams]
    got = (report.stored, report.samples, sum(s.rejected for s in report.streams))
    assert (stored, stored, rejected) == got


# ---- finding -----------------------------------------------------------------------------------


def test_letters_are_found_by_stream_reason_and_time(conn: Conn) -> None:
    """An operator narrows down what happened."""
    Writer(conn).store(
        [whole(0), whole(0, b"?", stream="t"), stored_batch(10, bad=(2, 5), stream="s")]
    )
    conn.execute("UPDATE dead_letter SET at = at - interval '1 day' WHERE stream_id = 't'")
    assert (4, 22) == count(conn, ALL)
    assert [0, 12, 15] == sorted(x.first_row for x in letters(conn, Selection(stream="s")))
    assert [12, 15] == sorted(x.first_row for x in letters(conn, Selection(reason="Is EMPTY")))
    since = datetime.now(UTC) - timedelta(hours=1)
    assert {"s"} == {x.stream_id for x in letters(conn, Selection(since=since))}
    (newest,) = find(conn, ALL, limit=1, newest=True)
    assert max(x.id for x in letters(conn)) == newest.id
    assert b"?" == payload_of(conn, letters(conn, Selection(stream="t"))[0].id)
    assert payload_of(conn, 10**9) is None


def test_reason_is_text_and_no_pattern(conn: Conn) -> None:
    """A reason has a percent sign in it, or the operator types one."""
    Writer(conn).store([whole(0)])
    assert [] == letters(conn, Selection(reason="%"))
    assert [] == letters(conn, Selection(reason="h_ng"))


# ---- dropping ----------------------------------------------------------------------------------


def test_dropped_letters_lose_their_payload_and_still_count(conn: Conn) -> None:
    """They are known to be worthless, and take up room."""
    Writer(conn).store([whole(0), stored_batch(10, bad=(1,))])
    first, second = letters(conn)
    assert [first.id] == drop(conn, Selection(ids=(first.id, 10**9)))
    assert [second] == letters(conn)
    (_, kept) = sorted(letters(conn, Selection(dropped=True)), key=lambda x: x.id == first.id)
    assert (first.id, 0, 10) == (kept.id, kept.payload_bytes, kept.row_count)
    assert kept.dropped_at is not None
    balanced(conn, stored=9, rejected=11)
    assert [] == drop(conn, Selection(ids=(first.id,), dropped=True))


def test_dropped_letter_is_not_retried(conn: Conn) -> None:
    """An operator drops one and then retries all."""
    Writer(conn).store([whole(0), whole(10)])
    first, second = letters(conn)
    drop(conn, Selection(ids=(first.id,)))
    assert [Outcome(second.id, 10, 0)] == list(retrier(conn).retry(ALL))
    assert [] == list(retrier(conn).retry(Selection(ids=(first.id,))))
    balanced(conn, stored=10, rejected=10)


# ---- retrying ----------------------------------------------------------------------------------


def test_good_batches_become_samples(conn: Conn) -> None:
    """A collector failed where nothing was wrong with the messages; it is mended."""
    Writer(conn).store([whole(0), stored_batch(10), whole(20)])
    assert [10, 10] == [o.stored for o in retrier(conn).retry(ALL)]
    assert list(range(30)) == values(conn)
    assert [] == letters(conn)
    balanced(conn, stored=30, rejected=0)
    assert [] == list(retrier(conn).retry(ALL))
    balanced(conn, stored=30, rejected=0)


def test_batch_that_is_redelivered_after_a_retry_is_a_duplicate(conn: Conn) -> None:
    """A producer that heard no confirm publishes it again."""
    Writer(conn).store([whole(0)])
    list(retrier(conn).retry(ALL))
    assert 1 == Writer(conn).store([stored_batch(0)]).duplicates
    balanced(conn, stored=10, rejected=0)


def test_bad_rows_of_a_batch_stay_as_letters_of_their_own(conn: Conn) -> None:
    """A batch was refused whole for one row of it; the others are good."""
    batch = record_batch(10, bad=(3, 7))
    payload = Encoder().encode(batch)
    Writer(conn).store([StoredBatch(BatchId("s", 100), 10, payload, None, "refused")])
    (before,) = letters(conn)
    (outcome,) = retrier(conn).retry(ALL)
    assert Outcome(before.id, 8, 2, "value is empty") == outcome
    rest = letters(conn)
    assert [(103, 1), (107, 1)] == [(x.first_row, x.row_count) for x in rest]
    assert [before.at] * 2 == [x.at for x in rest]
    assert b"row 3" == payload_of(conn, rest[0].id)
    balanced(conn, stored=8, rejected=2)


def record(**changed: object) -> bytes:
    """A `telemq.record`."""
    moment = datetime.fromtimestamp(NOW_US / 1e6, UTC).isoformat()
    fields = {"timestamp": moment, "metric_name": "m", "uuid": "GPU-1", "value": 0.5}
    return json.dumps(fields | changed).encode()


def test_plain_records_and_arrays_of_them_are_read(conn: Conn) -> None:
    """A foreign producer's messages came while a consumer failed."""
    array = b"[" + b",".join(record(value=n) for n in range(10)) + b"]"
    one = StoredBatch(BatchId("x", 0), 1, record(), None, "hung")
    Writer(conn).store([whole(0, array), one])
    assert [10, 1] == [o.stored for o in retrier(conn).retry(ALL)]
    balanced(conn, stored=11, rejected=0)


def test_row_with_a_time_out_of_bounds_is_stored_once_the_bounds_allow_it(conn: Conn) -> None:
    """A host's clock was wrong by a month, or the limit was too narrow."""
    early = record_batch(3, time_us=NOW_US - 30 * _DAY_US)
    batch = reject_times(early, NOW_US - _DAY_US, NOW_US)
    Writer(conn).store([StoredBatch(BatchId("s", 0), 3, b"", batch)])
    balanced(conn, stored=0, rejected=3)
    assert [(0, 1)] * 3 == [(o.stored, o.left) for o in retrier(conn).retry(ALL)]
    assert all("time is before" in o.reason for o in retrier(conn).retry(ALL))
    wide = Retrier(conn, oldest_us=NOW_US - 40 * _DAY_US, latest_us=NOW_US)
    assert [1, 1, 1] == [o.stored for o in wide.retry(ALL)]
    assert [0, 1, 2] == values(conn)
    balanced(conn, stored=3, rejected=0)


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"2025-07-18,DCGM_FI_DEV_GPU_UTIL,0", "neither a telemq.batch nor a telemq.record"),
        (b"\xff\xfe", "neither"),
        (b'"text"', "neither"),
        (b"", "payload is empty"),
        (b"[1, 2", "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b'{"series": 1}', "series, s, t and v"),
        (record(), "the header counts 10 rows, the payload holds 1"),
        (record()[:-30], "neither"),
    ],
    # The payloads hold the time of day, and a test's name is to stay the same.
    ids=["csv", "binary", "text", "empty", "cut", "nested", "batch", "one of ten", "cut record"],
)
def test_what_cannot_be_read_stays_and_says_why(conn: Conn, payload: bytes, told: str) -> None:
    """A row of a CSV, somebody else's bytes, a payload that was cut."""
    Writer(conn).store([whole(0, payload)])
    (outcome,) = retrier(conn).retry(ALL)
    assert (0, 10) == (outcome.stored, outcome.left)
    assert told in outcome.reason
    assert payload == payload_of(conn, outcome.id)
    balanced(conn, stored=0, rejected=10)


def test_batch_of_bad_rows_only_stays_whole(conn: Conn) -> None:
    """Nothing is won by taking it apart."""
    bad = record_batch(2, bad=(0, 1))
    Writer(conn).store([StoredBatch(BatchId("s", 0), 2, Encoder().encode(bad), None, "hung")])
    (outcome,) = retrier(conn).retry(ALL)
    assert (0, 2, "value is empty") == (outcome.stored, outcome.left, outcome.reason)
    assert 1 == len(letters(conn))


def test_only_what_is_selected_is_retried(conn: Conn) -> None:
    """One stream at a time; a number that there is not is no error."""
    Writer(conn).store([whole(0), whole(0, stream="t")])
    assert [10] == [o.stored for o in retrier(conn).retry(Selection(stream="t"))]
    assert [] == list(retrier(conn).retry(Selection(ids=(10**9,))))
    assert ["s"] == [x.stream_id for x in letters(conn)]
    balanced(conn, stored=10, rejected=10)


def test_letter_that_postgres_refuses_does_not_hold_up_the_others(conn: Conn) -> None:
    """The constraint that made the dead letter is still there."""
    Writer(conn).store([whole(10 * n) for n in range(5)])
    conn.execute("ALTER TABLE sample ADD CONSTRAINT odd CHECK (value <> 24)")
    outcomes = list(retrier(conn).retry(ALL))
    assert [10, 10, 0, 10, 10] == [o.stored for o in sorted(outcomes, key=lambda o: o.id)]
    (refused,) = [o for o in outcomes if o.left]
    assert "Postgres refused it: new row for relation" in refused.reason
    balanced(conn, stored=40, rejected=10)


def test_letter_whose_batch_is_not_in_the_ledger_stays(conn: Conn) -> None:
    """Somebody has deleted from the ledger: a retry must not make it worse."""
    Writer(conn).store([whole(0)])
    conn.execute("DELETE FROM ledger")
    (outcome,) = retrier(conn).retry(ALL)
    assert (0, 10) == (outcome.stored, outcome.left)
    assert "the ledger has no batch" in outcome.reason
    assert [] == values(conn)


def test_ledger_that_counts_too_few_rejected_refuses(conn: Conn) -> None:
    """Somebody has copied a dead letter: its rows must not be stored a second time."""
    Writer(conn).store([whole(0)])
    conn.execute(
        """
        INSERT INTO dead_letter (stream_id, first_row, row_count, reason, payload)
        SELECT stream_id, first_row, row_count, reason, payload FROM dead_letter
        """
    )
    assert [0, 10] == sorted(o.stored for o in retrier(conn).retry(ALL))
    assert list(range(10)) == values(conn)


def test_more_letters_than_one_transaction_holds(
    conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long outage left many; memory stays bounded in letters and in bytes."""
    monkeypatch.setattr(dead_retry, "_LETTERS_MAX", 7)
    monkeypatch.setattr(dead_retry, "_BYTES_MAX", 2500)
    Writer(conn).store([whole(10 * n) for n in range(30)])
    commits: list[str] = []
    assert 300 == sum(o.stored for o in retrier(conn, commits.append).retry(ALL))
    assert 5 < len(commits) < 30
    balanced(conn, stored=300, rejected=0)


# ---- together ----------------------------------------------------------------------------------


def test_operators_at_the_same_time_store_each_row_once(dsn: str, conn: Conn) -> None:
    """Two scripts retry everything, a third drops some, and nobody knows of the others."""
    Writer(conn).store([whole(10 * n, stream=f"s{n % 3}") for n in range(60)])
    start = threading.Barrier(4)
    outcomes: list[Outcome] = []
    dropped: list[int] = []
    some = tuple(x.id for x in letters(conn))[::7]

    def work(number: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            start.wait(10)
            if number == 0:
                dropped.extend(drop(own, Selection(ids=some)))
            else:
                outcomes.extend(retrier(own).retry(ALL))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    stored = sum(o.stored for o in outcomes)
    assert 600 == stored + 10 * len(dropped)
    assert len(set(values(conn))) == stored
    balanced(conn, stored=stored, rejected=10 * len(dropped))


def test_second_operator_waits_and_finds_the_letters_gone(dsn: str, conn: Conn) -> None:
    """The first is in its transaction when the second has read the same letters."""
    Writer(conn).store([whole(0)])
    entered, go_on = threading.Event(), threading.Event()

    def stand_still(_: str) -> None:
        entered.set()
        assert go_on.wait(30)

    results: dict[str, list[Outcome]] = {}

    def work(name: str, fail_point: Callable[[str], None]) -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            results[name] = list(retrier(own, fail_point).retry(ALL))

    first = threading.Thread(target=work, args=("first", stand_still))
    second = threading.Thread(target=work, args=("second", lambda _: None))
    first.start()
    assert entered.wait(30)
    second.start()
    conn.execute(
        """
        DO $$ BEGIN
            FOR i IN 1..3000 LOOP
                EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE NOT granted);
                PERFORM pg_sleep(0.01);
            END LOOP;
        END $$
        """
    )
    go_on.set()
    first.join(30)
    second.join(30)
    assert [10] == [o.stored for o in results["first"]]
    assert ["somebody else has retried or dropped it"] == [o.reason for o in results["second"]]
    balanced(conn, stored=10, rejected=0)


def test_operator_who_dies_before_the_commit_changes_nothing(conn: Conn) -> None:
    """Ctrl-C in the middle; the next try does all of it."""

    def die(moment: str) -> None:
        raise KeyboardInterrupt(moment)

    Writer(conn).store([whole(0)])
    with pytest.raises(KeyboardInterrupt):
        list(retrier(conn, die).retry(ALL))
    balanced(conn, stored=0, rejected=10)
    list(retrier(conn).retry(ALL))
    balanced(conn, stored=10, rejected=0)


def test_rejected_record_is_kept_as_it_can_be_read_again() -> None:
    """What decoded, and was rejected for its time or its labels, is spelt as a record."""
    batch = reject_times(record_batch(1), NOW_US + 1, NOW_US + 2)
    (rejection,) = batch.rejected
    assert isinstance(rejection, Rejection)
    again = Decoder().decode(rejection.payload.encode(), "telemq.record", 1)
    assert record_batch(1, gpus=1).series == again.series
    assert [NOW_US] == again.time_us.tolist()
