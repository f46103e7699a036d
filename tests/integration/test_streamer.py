"""The streamer with a real broker, a real Postgres and a consumer that stores: nothing is lost.

The broker runs in a thread on Unix sockets, and so does the consumer; both can be stopped and
started again by a test.
"""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from telemq.broker import server
from telemq.client.link import ConsumerLink
from telemq.codec import Decoder
from telemq.errors import LocalProtocolError, SettingError, StreamError
from telemq.record import BatchId
from telemq.settings import BrokerSettings, StreamerSettings
from telemq.sources.csv_replay import COLUMNS, bundled_sample, read_csv
from telemq.store import leases
from telemq.store.verify import verify
from telemq.store.writer import StoredBatch, Writer
from telemq.streamer.service import run
from tests.support.ports import free_port

SAMPLE_ROWS = 2340
DEADLINE_S = 30


class Part:
    """A service in a thread, which a test can stop and start."""

    def __init__(self, serve: Callable[[threading.Event], object]) -> None:
        self._serve = serve
        self._executor = ThreadPoolExecutor(1)
        self._stop = threading.Event()
        self._future: Future[object] | None = None

    def start(self) -> None:
        self._stop = threading.Event()
        self._future = self._executor.submit(self._serve, self._stop)

    def stop(self) -> None:
        """End it, and raise what went wrong in it."""
        self._stop.set()
        if self._future is not None:
            future, self._future = self._future, None
            future.result(DEADLINE_S)

    def close(self) -> None:
        self.stop()
        self._executor.shutdown()


def serve_broker(folder: Path, stop: threading.Event) -> None:
    server.run(
        BrokerSettings(
            producer_bind=f"ipc://{folder}/producers",
            consumer_bind=f"ipc://{folder}/consumers",
            ops_address="127.0.0.1:0",
            heartbeat_s=0.1,
            message_bytes_max=65_536,
            drain_s=0,
        ),
        stop,
    )


def store(dsn: str, folder: Path, stop: threading.Event) -> None:
    """Store what the broker delivers, as a collector does."""
    decoder = Decoder()
    link = ConsumerLink(
        f"ipc://{folder}/consumers", name="test", credit_records=20_000, credit_bytes=2**24
    )
    with closing(link), psycopg.connect(dsn, autocommit=True) as conn:
        writer = Writer(conn)
        while not stop.is_set():
            if found := link.poll(0.05):
                writer.store(
                    [
                        StoredBatch(
                            BatchId.parse(d.id),
                            d.records,
                            d.payload,
                            decoder.decode(d.payload, d.metadata["content-type"], d.records),
                        )
                        for d in found
                    ]
                )
                link.settle(found)


class Pipeline:
    """A broker, a consumer, and as many streamers as a test starts."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.folder = folder
        self.broker = Part(lambda stop: serve_broker(folder, stop))
        self.consumer = Part(lambda stop: store(dsn, folder, stop))
        self.stop = threading.Event()
        self._executor = ThreadPoolExecutor(8)

    def settings(self, **changed: Any) -> StreamerSettings:
        usual: dict[str, Any] = {
            "dsn": self.dsn,
            "broker": f"ipc://{self.folder}/producers",
            "ops_address": "127.0.0.1:0",
            "batch_records": 100,
            "lease_s": 1.0,
            "drain_s": 3.0,
        }
        return StreamerSettings(**(usual | changed))

    def stream(
        self,
        csv: Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        **changed: Any,
    ) -> Future[int]:
        settings = self.settings(**changed)
        return self._executor.submit(run, settings, csv or bundled_sample(), self.stop, on_progress)

    def close(self) -> None:
        self.stop.set()
        self._executor.shutdown()
        self.consumer.close()
        self.broker.close()


@pytest.fixture
def pipeline(dsn: str, tmp_path: Path) -> Iterator[Pipeline]:
    """Broker and consumer run; the streamers end with the test."""
    with closing(Pipeline(dsn, tmp_path)) as pipeline:
        pipeline.broker.start()
        pipeline.consumer.start()
        yield pipeline


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Give the first true result; conditions are asked often, for up to half a minute."""
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        if result := condition():
            return result
        time.sleep(0.01)
    pytest.fail(f"not within {DEADLINE_S} s: {what}")


def one(conn: psycopg.Connection, query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def numbered_csv(folder: Path, rows: int, *more: str) -> Path:
    """Write a file whose row i has the value i, with `more` lines below."""
    path = folder / "numbered.csv"
    lines = [
        f"2026-01-15T09:00:{i % 60:02d}Z,M,{i % 8},d,GPU-{i % 8},m,host-{i % 8},,,,{i},"
        for i in range(rows)
    ]
    path.write_text("\n".join([",".join(COLUMNS), *lines, *more]) + "\n")
    return path


def assert_stored_once(conn: psycopg.Connection, rows: int, *, of_file: int) -> None:
    """A stream over `numbered_csv` has each row as often as it has passed it."""
    assert verify(conn).complete
    assert 0 == one(conn, "SELECT count(*) FROM stream_lease")
    expected = {i: rows // of_file + (i < rows % of_file) for i in range(of_file)}
    counts = conn.execute("SELECT value::int, count(*) FROM telemetry GROUP BY value").fetchall()
    assert {i: n for i, n in expected.items() if n} == dict(counts)


def ops(port: int, path: str) -> tuple[int, str]:
    """Give status and text; 0 while nobody listens yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_two_streamers_share_a_stream_and_end_by_themselves(
    pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """`telemq up --rows 5000 --streamers 2`."""
    csv = numbered_csv(tmp_path, 70)
    seen: list[tuple[int, int]] = []
    both = [
        pipeline.stream(csv, lambda *progress: seen.append(progress), rows=5000, batch_records=30)
        for _ in range(2)
    ]
    assert [0, 0] == [streamer.result(DEADLINE_S) for streamer in both]
    assert_stored_once(conn, 5000, of_file=70)
    assert (5000, 5000) == seen[-1]
    assert one(conn, "SELECT count(*) FROM ledger") >= 5000 // 30


def test_bad_rows_become_dead_letters_at_their_place(
    pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """One line of the file is cut off; it comes round once a loop."""
    csv = numbered_csv(tmp_path, 9, "2026-01-15T09:00:00Z,M")
    assert 0 == pipeline.stream(csv, rows=35, batch_records=4).result(DEADLINE_S)
    letters = conn.execute("SELECT first_row, reason, payload FROM dead_letter ORDER BY 1")
    reason = "row 11: 2 fields instead of the header's 12"
    assert [(row, reason, b"2026-01-15T09:00:00Z,M") for row in (9, 19, 29)] == letters.fetchall()
    assert 32 == one(conn, "SELECT count(*) FROM telemetry")
    assert verify(conn).complete


def test_second_start_goes_on_where_the_first_ended(
    pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """More rows are asked for; those that are there are not sent again."""
    csv = numbered_csv(tmp_path, 70)
    assert 0 == pipeline.stream(csv, rows=250).result(DEADLINE_S)
    assert 0 == pipeline.stream(csv, rows=1010).result(DEADLINE_S)
    assert_stored_once(conn, 1010, of_file=70)
    # Nothing is left to do, and that is no reason to wait.
    assert 0 == pipeline.stream(csv, rows=1000).result(DEADLINE_S)
    assert_stored_once(conn, 1010, of_file=70)


def test_recorded_clock_keeps_the_times_of_the_file(
    pipeline: Pipeline, conn: psycopg.Connection
) -> None:
    """`--clock recorded`, to load history."""
    streamer = pipeline.stream(clock="recorded", rows=SAMPLE_ROWS)
    assert 0 == streamer.result(DEADLINE_S)
    expected = sorted(read_csv(bundled_sample()).time_us.tolist())
    got = conn.execute("SELECT (extract(epoch FROM timestamp) * 1e6)::bigint FROM telemetry")
    assert expected == sorted(us for (us,) in got)


def test_processed_clock_tells_the_time_and_keeps_the_order(
    pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """The default: ordered by time, a streamer's records are in the order of the stream."""
    begin = time.time()
    csv = numbered_csv(tmp_path, 2000)
    assert 0 == pipeline.stream(csv, rows=2000).result(DEADLINE_S)
    got = conn.execute(
        "SELECT extract(epoch FROM timestamp)::float8, value FROM telemetry ORDER BY 1, 2"
    ).fetchall()
    assert list(range(2000)) == [value for _, value in got]
    assert begin - 0.01 <= got[0][0] <= got[-1][0] <= time.time()


def test_rate_is_kept(pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path) -> None:
    """`--rate 400`: 300 rows take three quarters of a second, not less."""
    csv = numbered_csv(tmp_path, 70)
    begin = time.monotonic()
    assert 0 == pipeline.stream(csv, rate=400, rows=300).result(DEADLINE_S)
    assert 0.75 <= time.monotonic() - begin
    assert_stored_once(conn, 300, of_file=70)


@pytest.mark.parametrize(
    ("linger_ms", "batch_records", "sizes"), [(250, 1000, {100}), (250, 64, {64}), (0, 1, {1})]
)
def test_batch_has_what_comes_within_the_linger(
    pipeline: Pipeline,
    conn: psycopg.Connection,
    tmp_path: Path,
    linger_ms: float,
    batch_records: int,
    sizes: set[int],
) -> None:
    """`--rate 400`: what a record waits for is a setting; being late changes none of these."""
    rows = 3 * max(sizes)
    csv = numbered_csv(tmp_path, 70)
    streamer = pipeline.stream(
        csv, rate=400, rows=rows, linger_ms=linger_ms, batch_records=batch_records
    )
    assert 0 == streamer.result(DEADLINE_S)
    assert sizes == {n for (n,) in conn.execute("SELECT row_count FROM ledger")}
    assert_stored_once(conn, rows, of_file=70)


def test_batches_of_long_labels_fit_into_a_message(
    pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """Every row is another series with 60 KB of labels; full batches would be refused."""
    pipeline.consumer.stop()
    csv = tmp_path / "long.csv"
    rows = [f"2025-07-18T20:42:34Z,M,0,d,GPU-{i},m,h,,,,1," + "x" * 60_000 for i in range(200)]
    csv.write_text("\n".join([",".join(COLUMNS), *rows]))
    streamer = pipeline.stream(csv, rows=200, batch_records=8192, lease_s=3600.0)
    wait_for(lambda: one(conn, "SELECT count(*) FROM stream_lease"), "leases")
    assert 69 == one(conn, "SELECT max(row_count) FROM stream_lease")
    pipeline.stop.set()
    with pytest.raises(LocalProtocolError):  # this broker's limit is far below the default
        streamer.result(DEADLINE_S)


def test_stop_waits_for_confirms_and_gives_leases_back(
    pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """SIGTERM while it streams for ever: nothing is left in doubt, and nobody has to wait."""
    csv = numbered_csv(tmp_path, 70)
    streamer = pipeline.stream(csv, lease_s=3600.0, window_records=1000)
    wait_for(lambda: one(conn, "SELECT count(*) FROM ledger") > 5, "batches stored")
    pipeline.stop.set()
    assert 0 == streamer.result(DEADLINE_S)
    assert 0 == one(conn, "SELECT count(*) FROM stream_lease WHERE leased_until > now()")
    assert verify(conn).complete
    pipeline.stop.clear()
    rows = one(conn, "SELECT max(next_row) FROM stream_progress")
    assert 0 == pipeline.stream(csv, rows=rows).result(DEADLINE_S)
    assert_stored_once(conn, rows, of_file=70)


def test_stop_gives_up_after_the_drain_limit(
    pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """No collector runs, so nothing is ever confirmed."""
    pipeline.consumer.stop()
    streamer = pipeline.stream(numbered_csv(tmp_path, 70), drain_s=0.2, lease_s=3600.0)
    wait_for(lambda: one(conn, "SELECT count(*) FROM stream_lease"), "a lease")
    pipeline.stop.set()
    assert 0 == streamer.result(5)
    assert 0 == one(conn, "SELECT count(*) FROM stream_lease WHERE leased_until > now()")


def test_leases_of_a_dead_streamer_are_taken_over(
    pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """A streamer was killed by SIGKILL with two batches of its own size on the way."""
    csv = numbered_csv(tmp_path, 70)
    stream_id, source = read_csv(csv).stream_id, read_csv(csv).fingerprint
    leases.open_stream(conn, stream_id, source)
    leases.reserve(conn, stream_id, "dead", batch_records=37, batches=2, rows_max=500, lease_s=0.7)
    assert 0 == pipeline.stream(csv, rows=500).result(DEADLINE_S)
    assert_stored_once(conn, 500, of_file=70)
    assert [(0, 37), (37, 37)] == conn.execute(
        "SELECT first_row, row_count FROM ledger ORDER BY 1 LIMIT 2"
    ).fetchall()


def test_lease_whose_answer_was_lost_is_published_all_the_same(
    pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """The connection broke after the reservation's commit: the owner does not know its lease."""
    pipeline.consumer.stop()
    csv = numbered_csv(tmp_path, 70)
    streamer = pipeline.stream(csv, rows=300, batch_records=50)
    owner = wait_for(lambda: one(conn, "SELECT min(owner) FROM stream_lease"), "a lease")
    wait_for(lambda: one(conn, "SELECT max(next_row) FROM stream_progress") == 300, "all reserved")
    stream_id = read_csv(csv).stream_id
    leases.reserve(conn, stream_id, owner, batch_records=20, batches=1, rows_max=0, lease_s=3600)
    pipeline.consumer.start()
    assert 0 == streamer.result(DEADLINE_S)
    assert_stored_once(conn, 320, of_file=70)


def test_broker_that_dies_loses_nothing(
    pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """The broker goes down with batches in it, and comes back empty."""
    csv = numbered_csv(tmp_path, 70)
    pipeline.consumer.stop()
    streamer = pipeline.stream(csv, rows=5000, lease_s=30.0)
    wait_for(lambda: one(conn, "SELECT max(next_row) FROM stream_progress") == 5000, "all reserved")
    pipeline.broker.stop()
    pipeline.broker.start()
    pipeline.consumer.start()
    assert 0 == streamer.result(DEADLINE_S)
    assert_stored_once(conn, 5000, of_file=70)


def test_streamer_without_broker_is_not_ready_and_lets_its_leases_run_out(
    pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """A network cut between streamer and broker: the others of its stream must get on."""
    port = free_port()
    pipeline.consumer.stop()
    streamer = pipeline.stream(
        numbered_csv(tmp_path, 70), rows=500, ops_address=f"127.0.0.1:{port}"
    )
    wait_for(lambda: ops(port, "/readyz")[0] == 200, "ready")
    wait_for(lambda: one(conn, "SELECT count(*) FROM stream_lease"), "leases")
    pipeline.broker.stop()
    _, reason = wait_for(lambda: (a := ops(port, "/readyz"))[0] == 503 and a, "not ready")
    assert "broker" in reason
    held = "SELECT count(*) FROM stream_lease WHERE leased_until > now()"
    wait_for(lambda: one(conn, held) == 0, "leases run out")
    pipeline.broker.start()
    pipeline.consumer.start()
    assert 0 == streamer.result(DEADLINE_S)
    assert_stored_once(conn, 500, of_file=70)


def test_postgres_that_goes_away_is_waited_for(
    pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """A failover: connections are cut, and new ones refused for a while."""
    port = free_port()
    pipeline.consumer.stop()  # it does not come back by itself, as a collector would
    name = conn.info.dbname
    streamer = pipeline.stream(
        numbered_csv(tmp_path, 70), rows=2000, ops_address=f"127.0.0.1:{port}", window_records=500
    )
    wait_for(lambda: one(conn, "SELECT count(*) FROM stream_lease") > 5, "leases")
    with psycopg.connect(pipeline.dsn, autocommit=True, dbname="postgres") as admin:
        allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        admin.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND application_name = 'telemq streamer'",
            [name],
        )
        _, reason = wait_for(lambda: (a := ops(port, "/readyz"))[0] == 503 and a, "not ready")
        assert "postgres: " in reason
        assert 200 == ops(port, "/healthz")[0]
        admin.execute(allow.format(sql.Identifier(name), sql.SQL("true")))
    wait_for(lambda: ops(port, "/readyz")[0] == 200, "ready again")
    metrics = ops(port, "/metrics")[1]
    retries = [x for x in metrics.splitlines() if x.startswith("telemq_streamer_postgres_retries")]
    assert float(retries[0].split()[1]) >= 1
    pipeline.consumer.start()
    assert 0 == streamer.result(DEADLINE_S)
    assert_stored_once(conn, 2000, of_file=70)


def test_streamer_may_start_before_everything_else(pipeline: Pipeline, tmp_path: Path) -> None:
    """Postgres is not up yet: it is waited for, and a stop is still obeyed at once."""
    port = free_port()
    streamer = pipeline.stream(
        numbered_csv(tmp_path, 70),
        dsn="host=/nowhere dbname=none",
        ops_address=f"127.0.0.1:{port}",
    )
    wait_for(lambda: ops(port, "/readyz")[0] == 503, "not ready")
    wait_for(lambda: "No such file" in ops(port, "/readyz")[1], "the reason")
    pipeline.stop.set()
    assert 0 == streamer.result(5)


def test_stream_of_another_file_is_refused(
    pipeline: Pipeline, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """The file was replaced, and `--stream` names the old stream."""
    assert 0 == pipeline.stream(stream="mine", rows=10).result(DEADLINE_S)
    with pytest.raises(StreamError, match="'mine' was begun from another source"):
        pipeline.stream(numbered_csv(tmp_path, 70), stream="mine", rows=20).result(DEADLINE_S)
    assert 10 == one(conn, "SELECT max(next_row) FROM stream_progress")


def test_batch_that_the_broker_never_takes_ends_the_streamer(
    pipeline: Pipeline, conn: psycopg.Connection
) -> None:
    """`--batch-records` is too high for the broker's largest message; waiting would not help."""
    with pytest.raises(LocalProtocolError, match="make smaller batches"):
        pipeline.stream(batch_records=1000, rows=5000).result(DEADLINE_S)
    assert 0 == one(conn, "SELECT count(*) FROM stream_lease WHERE leased_until > now()")


def test_streamer_that_the_broker_refuses_ends(pipeline: Pipeline) -> None:
    """The two endpoints of the broker were mixed up; waiting would not help."""
    with pytest.raises(LocalProtocolError, match=r"consumers: the broker says role"):
        pipeline.stream(broker=f"ipc://{pipeline.folder}/consumers").result(DEADLINE_S)


@pytest.mark.parametrize(
    ("changed", "flag"),
    [
        ({"dsn": "postgresql://me:secret@[host/db"}, "--dsn"),
        ({"stream": "s" * 481}, "--stream"),
        ({"broker": "nowhere"}, "--broker"),
        ({"ops_address": "127.0.0.1"}, "--ops-address"),
    ],
)
def test_setting_that_cannot_work_is_refused_by_name(
    pipeline: Pipeline, changed: dict[str, Any], flag: str
) -> None:
    """A typing error; the password in a DSN is not repeated."""
    with pytest.raises(SettingError, match=flag) as caught:
        pipeline.stream(**changed).result(DEADLINE_S)
    assert "secret@" not in str(caught.value)
    assert caught.value.__cause__ is None or flag != "--dsn"
