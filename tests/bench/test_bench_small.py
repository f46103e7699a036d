"""The benchmarks measure what they say: run small, and their checks can fail."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pytest

from telemq.bench import pipeline
from telemq.bench.api import QUESTIONS, DcgmFleet, bench_api
from telemq.bench.backlog import bench_backlog
from telemq.bench.broker import BROKER, UNIX, bench_broker, bench_curve
from telemq.bench.carrier import Carrier, Load, carry
from telemq.bench.cold import ColdPostgres, cached_share, evict
from telemq.bench.fleet import Fleet
from telemq.bench.ingest import IngestLoad, bench_ingest
from telemq.bench.layouts import fill_store
from telemq.bench.measure import Part, Quantiles, Run, limit, ratio, summarise
from telemq.bench.peers import PeerLoad, bench_peers
from telemq.bench.pipeline import PipelineLoad, bench_pipeline
from telemq.bench.postgres import scratch_database
from telemq.bench.query import QUERIES, QueryLoad, StoreSize, bench_query
from telemq.bench.worker import Crew
from telemq.errors import TelemqError
from telemq.gateway.formats import FORMATS
from telemq.protocol import Payload
from telemq.sources.csv_replay import bundled_sample
from tests.support.postgres import Databases
from tests.support.running import eventually

#: Enough for a lossy queue: what is missing after so long is lost.
SILENCE_S = 0.5


def run(subject: str, seconds: float, *parts: Part) -> Run:
    """A run of a thousand records."""
    return Run(subject, 1000, seconds, parts or (Part("c", 0.1, 1),))


def test_ratio_is_the_median_of_neighbours() -> None:
    """A noisy moment slows one pair of runs down; the comparison does not change for it."""
    seconds = [(1, 2), (10, 20), (1, 4)]
    runs = [r for mine, theirs in seconds for r in (run("a", mine), run("b", theirs))]
    assert 2 == ratio(runs, "a", "b")


def test_summary_adds_up_processes_of_one_name() -> None:
    """Two collectors ran; the table shows what they used together, and the larger one's peak."""
    summary = summarise([run("a", 2, Part("c", 1.0, 10), Part("c", 2.0, 30))])[0]
    assert (500.0, 500.0, 500.0) == summary.records_per_s
    assert {"c": 3000.0} == summary.cpu_s_per_million
    assert {"c": 30} == summary.peak_bytes


def test_limit_is_the_part_that_was_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody wants to know which part to make faster."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert "a at 90% of a core" == limit(run("x", 2, Part("a", 1.8, 0), Part("b", 0.1, 0)))
    everything = limit(run("x", 2, Part("a", 1.4, 0), Part("b", 1.0, 0), Part("b", 0.9, 0)))
    assert "all 2 cores; most of all a at 70% of a core" == everything
    waiting = limit(run("x", 2, Part("a", 0.5, 0), Part("b", 0.6, 0)))
    assert "waiting; most of all b at 30% of a core" == waiting


def test_quantiles_are_of_all_times() -> None:
    """A table's p99 is that of the times it was made from."""
    assert Quantiles(50.0, 99.0, 100.0) == Quantiles.of([float(ms) for ms in range(101)])


def test_broker_carries_every_record_beside_the_proxy() -> None:
    """Somebody measures a broker with two producers and two consumers."""
    runs = list(bench_broker(Load(20_000, 100, 50, 2, 2), 1))
    assert ["telemq", "zmq.proxy ROUTER/DEALER"] == [r.subject for r in runs]
    assert [20_000, 20_000] == [r.records for r in runs]
    assert ["broker", "producer", "producer", "consumer", "consumer"] == [
        part.name for part in runs[0].parts
    ]
    assert all(part.peak_bytes > 0 for r in runs for part in r.parts)
    assert {None} == {r.delivered_ms for r in runs}


def test_broker_carries_every_record_beside_itself_with_a_journal() -> None:
    """Somebody wants to know what the journal costs on their disk."""
    runs = list(bench_broker(Load(20_000, 100, 50), 1, journal=True))
    assert ["telemq", "telemq, journal"] == [r.subject for r in runs]
    assert [20_000, 20_000] == [r.records for r in runs]


def test_broker_carries_every_record_with_keys_and_without() -> None:
    """Somebody wants to know what encryption costs."""
    runs = list(bench_curve(Load(2000, 100, 50), 1))
    assert [("telemq, CURVE", 2000), ("telemq", 2000)] == [(r.subject, r.records) for r in runs]


def test_broker_carries_every_record_over_unix_sockets() -> None:
    """Everything is on one machine."""
    done = carry(UNIX, Load(20_000, 100, 50))
    assert ("telemq, Unix sockets", 20_000) == (done.subject, done.records)


def test_latency_is_measured_at_the_rate_that_was_asked_for() -> None:
    """Somebody wants to know how late single records come at a thousand a second."""
    done = carry(BROKER, Load(300, record_bytes=100, rate=1000))
    # The last one's confirm is the end: a slow machine may take longer, none may be quicker.
    assert done.seconds >= 299 / 1000
    assert done.delivered_ms is not None
    assert done.confirmed_ms is not None
    assert 0 < done.delivered_ms.p50 <= done.delivered_ms.p99 <= done.delivered_ms.most
    # Confirms follow the deliveries.
    assert done.delivered_ms.p50 < done.confirmed_ms.p50


class _Dropping:
    """A consumer's end that keeps every tenth message to itself."""

    every = 10

    def __init__(self, address: object, load: Load) -> None:
        self._end = BROKER.receiver(address, load)
        self._count = 0

    def take(self, timeout_s: float) -> Sequence[Payload]:
        """Give what came, without what is dropped."""
        taken = list(self._end.take(timeout_s))
        numbers = range(self._count, self._count + len(taken))
        self._count += len(taken)
        left = self.spoil([(n % self.every == 0, p) for n, p in zip(numbers, taken, strict=True)])
        if taken and not left:
            self._end.settle()
        return left

    def spoil(self, taken: list[tuple[bool, Payload]]) -> list[Payload]:
        """Drop."""
        return [payload for is_hit, payload in taken if not is_hit]

    def settle(self) -> None:
        """Be done with them."""
        self._end.settle()

    def close(self) -> None:
        """Close."""
        self._end.close()


class _Doubling(_Dropping):
    """A consumer's end that gives every tenth message twice."""

    def spoil(self, taken: list[tuple[bool, Payload]]) -> list[Payload]:
        """Double."""
        return [payload for is_hit, payload in taken for _ in range(1 + is_hit)]


class _Garbling(_Dropping):
    """A consumer's end that gives one message in place of another: the count is right."""

    def spoil(self, taken: list[tuple[bool, Payload]]) -> list[Payload]:
        """Garble."""
        return [bytes([255]) * len(p) if is_hit else p for is_hit, p in taken]


@pytest.fixture
def empty(postgres: Databases) -> Iterator[str]:
    """A database without a schema."""
    with postgres.fresh(migrated=False) as dsn:
        yield dsn


@pytest.mark.parametrize(
    ("receiver", "said"),
    [
        (_Dropping, "of 20 messages 2 were lost, 0 came twice, and 0 were never sent"),
        (_Doubling, "of 20 messages 0 were lost, 2 came twice, and 0 were never sent"),
        (_Garbling, "of 20 messages 2 were lost, 1 came twice, and 1 were never sent"),
    ],
)
def test_carrier_that_spoils_messages_does_not_come_out_as_the_fastest(
    receiver: type[_Dropping], said: str
) -> None:
    """A rival, or we, lose, double or mix up messages; its rate is worth nothing then."""
    lossy: Carrier = replace(BROKER, name="lossy", receiver=receiver)
    with pytest.raises(TelemqError, match=f"lossy: {said}"):
        carry(lossy, Load(2000, 100, 50, silence_s=SILENCE_S))


def test_backlog_is_measured_while_all_of_it_waits() -> None:
    """Somebody wants to know what a broker takes while Postgres is away."""
    (seen,) = bench_backlog(Load(20_000, 100, 400), 1)
    assert (20_000, 8_000_000) == (seen.records, seen.payload_bytes)
    assert seen.full_bytes - seen.empty_bytes > seen.payload_bytes
    assert 0 < seen.overhead


def test_many_peers_are_measured_each() -> None:
    """Somebody wants to know how even the shares of thirty producers are."""
    seen = bench_peers(PeerLoad(producers=30, consumers=5, batch_records=10, seconds=1.0))
    least, mean, most, _ = seen.shares
    assert 0 < least <= mean <= most
    assert seen.records_per_s == pytest.approx(30 * mean)
    assert 0 < seen.consumed[0] <= seen.consumed[2]
    empty, idle, peak = seen.broker_bytes
    assert 0 < empty <= idle <= peak
    assert seen.broker_descriptors > 35
    assert 0 == seen.lost


def test_pipeline_stores_every_row_beside_a_bare_copy(dsn: str) -> None:
    """Somebody measures the pipeline on a Postgres of theirs; nothing is left there."""
    load = PipelineLoad(bundled_sample(), 5_000, 500, 2, 2)
    runs = list(bench_pipeline(load, dsn, 1))
    assert [("telemq pipeline", 5_000), ("COPY BINARY alone", 5_000)] == [
        (r.subject, r.records) for r in runs
    ]
    assert all("postgres" == r.parts[-1].name for r in runs)
    assert [] == left_behind(dsn)


def test_ingest_stores_every_row_that_waited_beside_a_bare_copy(dsn: str) -> None:
    """Somebody wants to know whether a second collector pays."""
    load = IngestLoad(5_000, 500, Fleet(3), collectors=(1, 2))
    runs = list(bench_ingest(load, dsn, 1))
    assert [("1 collector", 5_000), ("2 collectors", 5_000), ("COPY BINARY alone", 5_000)] == [
        (r.subject, r.records) for r in runs
    ]
    assert ["collector", "collector", "broker", "postgres"] == [p.name for p in runs[1].parts]
    assert [] == left_behind(dsn)


def test_store_and_wide_table_are_asked_the_same(empty: str) -> None:
    """Somebody compares with the table they have; both must answer alike to be compared."""
    load = QueryLoad(20_000, Fleet(4, 1.0), concurrency=2, questions=5)
    seen = list(bench_query(load, empty, 1))
    sizes = {one.layout: one for one in seen if isinstance(one, StoreSize)}
    runs = {one.subject: one for one in seen if isinstance(one, Run)}
    assert len(runs) == len(seen) - len(sizes), "a subject twice in one turn has no neighbour"
    assert 20_000 == sizes["telemq"].samples == sizes["wide table"].samples
    assert sizes["telemq"].sample_bytes < sizes["wide table"].sample_bytes
    # 500 scrapes, one a second; five questions.
    for layout in ("telemq", "wide table"):
        assert 5 * 500 * 10 == runs[f"{layout}: one GPU, one hour"].records
        assert 5 * 9 == runs[f"{layout}: one series, one day by minute"].records
        assert 5 * 4 == runs[f"{layout}: list of GPUs"].records
        assert runs[f"{layout}: list of GPUs"].delivered_ms is not None


def test_questions_are_also_asked_of_a_server_that_has_forgotten_all(tmp_path: Path) -> None:
    """Somebody wants to know what the first look of a day takes, from the disk."""
    _skip_in_memory(tmp_path)
    load = QueryLoad(2_000, Fleet(2), questions=2, cold=1)
    with ColdPostgres(tmp_path) as own, scratch_database(own.dsn) as scratch:
        seen = list(bench_query(load, scratch, 1, own.chill))
    cold = [one.subject for one in seen if isinstance(one, Run) and ", cold: " in one.subject]
    layouts = ("telemq", "wide table")
    assert cold == [f"{layout}, cold: {query}" for query in QUERIES for layout in layouts] + [
        f"telemq, compacted, cold: {query}" for query in QUERIES
    ]


def test_files_that_were_dropped_from_memory_are_not_there(tmp_path: Path) -> None:
    """A question to the page cache would be shown as one to the disk."""
    _skip_in_memory(tmp_path)
    (tmp_path / "file").write_bytes(bytes(8 * 2**20))
    assert 1.0 == cached_share(tmp_path)
    (tmp_path / "empty").touch()
    evict(tmp_path)
    for _ in range(3):
        assert 0.0 == cached_share(tmp_path), "to look is not to read"
        time.sleep(0.01)
    with (tmp_path / "file").open("rb") as file:
        file.read(1)
    assert 0.0 < cached_share(tmp_path) < 1.0


def _skip_in_memory(folder: Path) -> None:
    mounts = [
        part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)
    ]
    if max(mounts, key=lambda part: len(part.mountpoint)).fstype == "tmpfs":
        pytest.skip("what is here is nowhere but in memory")


def test_filling_ends_with_a_whole_scrape_when_its_time_is_over(conn: psycopg.Connection) -> None:
    """The disk is slow: fewer samples are compared, and no night is spent on 20 million."""
    scrapes = fill_store(conn, Fleet(4), 5_000, 1e-9)
    assert 2_500 == scrapes
    row = conn.execute("SELECT count(*) FROM sample").fetchone()
    assert (scrapes * 40,) == row


def test_pipeline_is_timed_from_its_first_lease_to_its_last_commit() -> None:
    """Starting a process takes longer than carrying fifty thousand rows."""
    watch = pipeline._Watch()
    watch(0, 10)
    began = watch.began
    assert 0 < began
    assert 0 == watch.ended
    watch(10, 10)
    ended = watch.ended
    watch(10, 10)
    assert (began, ended) == (watch.began, watch.ended)
    assert began <= ended


def test_api_is_asked_in_every_format_and_about_the_fleet(empty: str) -> None:
    """Sixteen GPUs, an hour; the answers' sizes are checked by the benchmark itself."""
    load = QueryLoad(9600, DcgmFleet(16, 60.0), concurrency=2, questions=3)
    runs = {run.subject: run for run in bench_api(load, empty, 1)}
    assert {f"telemetry, {format.name}" for format in FORMATS} <= runs.keys()
    assert len(FORMATS) + 2 * len(QUESTIONS) == len(runs)
    assert 2 * 4 * 60 == runs["telemetry, arrow"].records
    for run in runs.values():
        assert run.delivered_ms is not None
        assert 0 < run.delivered_ms.p50
        assert 0 < run.parts[0].peak_bytes


def test_layouts_that_answer_differently_are_not_compared(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layout that has lost a sample would be quicker, and must not win for it."""
    monkeypatch.setattr("telemq.bench.query._WIDE_GPU", _ONE_LESS)
    with pytest.raises(TelemqError, match="one GPU, one hour: one layout gives 2000 rows"):
        list(bench_query(QueryLoad(4_000, Fleet(2), questions=1), empty, 1))


_ONE_LESS = """
SELECT timestamp, metric_name, gpu_id, device, uuid, model_name, hostname, container, pod,
       namespace, value, labels_raw
FROM wide WHERE uuid = %s AND timestamp >= %s AND timestamp <= %s ORDER BY timestamp OFFSET 1
"""


def left_behind(dsn: str) -> list[tuple[str]]:
    """Databases of benchmarks that are still there."""
    with psycopg.connect(dsn) as conn:
        left = conn.execute("SELECT datname FROM pg_database WHERE datname LIKE 'telemq_bench%'")
        return left.fetchall()


def test_worker_that_fails_says_why() -> None:
    """A part of a benchmark crashes; the reason is in the error, not only in what scrolled by."""
    with Crew() as crew:
        worker = crew.start("streamer", pipeline._stream, "", {}, None)
        with pytest.raises(TelemqError, match=r"streamer failed: AttributeError: .* 'records'"):
            worker.result(30)


def test_worker_that_is_killed_is_named() -> None:
    """It cannot say anything any more; the others do not wait for it for ever."""
    with Crew() as crew:
        worker = crew.start("broker", BROKER.serve, Load(1))
        worker.receive(30)
        psutil.Process(worker.pid).kill()
        with pytest.raises(TelemqError, match="broker ended without a result"):
            worker.result(30)


def test_worker_that_fails_while_others_work_says_why() -> None:
    """Whoever looks after all of them hears it, though it waits for another one."""
    with Crew() as crew:
        worker = crew.start("streamer", pipeline._stream, "", {}, None)
        said: list[str] = []

        def has_failed() -> bool:
            try:
                worker.check()
            except TelemqError as error:
                said.append(str(error))
            return bool(said)

        eventually(has_failed, "it has ended")
        assert said[0].startswith("streamer failed: AttributeError")


def test_worker_ends_with_a_benchmark_that_is_killed() -> None:
    """Somebody loses patience and kills it; nothing of it runs on in the background."""
    code = (
        "import sys, time\n"
        "from telemq.bench.carrier import Load\n"
        "from telemq.bench.broker import BROKER\n"
        "from telemq.bench.worker import Worker\n"
        "if __name__ == '__main__':\n"
        "    worker = Worker('broker', BROKER.serve, Load(1))\n"
        "    worker.receive(60)\n"
        "    print(worker.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        worker = psutil.Process(int(bench.stdout.readline()))
        bench.kill()
    worker.wait(20)
    assert not worker.is_running()


def test_sample_of_the_benchmark_is_there() -> None:
    """The default file of ``telemq bench pipeline``."""
    assert Path(bundled_sample()).is_file()
