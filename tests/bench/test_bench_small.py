"""The benchmarks measure what they say: run small, and their checks can fail."""

from pathlib import Path

import psycopg
import pytest

from telemq.bench import broker, pipeline
from telemq.bench.broker import BrokerLoad, bench_broker, bench_curve
from telemq.bench.measure import Part, Run, Worker, ratio, summarise
from telemq.bench.peers import PeerLoad, bench_peers
from telemq.bench.pipeline import PipelineLoad, bench_pipeline
from telemq.errors import TelemqError
from telemq.sources.csv_replay import bundled_sample


def run(subject: str, seconds: float, *parts: Part) -> Run:
    """A run of a thousand records."""
    return Run(subject, 1000, seconds, parts)


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


def test_broker_carries_every_record_beside_the_proxy() -> None:
    """Somebody measures a broker with two producers and two consumers."""
    runs = list(bench_broker(BrokerLoad(20_000, 100, 50, 2, 2), 1))
    assert ["telemq broker", "zmq.proxy"] == [r.subject for r in runs]
    assert [20_000, 20_000] == [r.records for r in runs]
    assert ["broker", "producer", "producer", "consumer", "consumer"] == [
        part.name for part in runs[0].parts
    ]
    assert all(part.peak_bytes > 0 for r in runs for part in r.parts)


def test_broker_carries_every_record_beside_itself_with_a_journal() -> None:
    """Somebody wants to know what the journal costs on their disk."""
    runs = list(bench_broker(BrokerLoad(20_000, 100, 50, 1, 1), 1, journal=True))
    assert ["telemq broker", "with a journal"] == [r.subject for r in runs]
    assert [20_000, 20_000] == [r.records for r in runs]


def test_broker_bench_notices_a_lost_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subject that loses messages must not come out as the fastest."""
    monkeypatch.setattr(broker, "_consume", _consume_all_but_one)
    with pytest.raises(TelemqError, match="sent 10 messages, received 9"):
        next(bench_broker(BrokerLoad(1000, 100, 50, 1, 1), 1))


def test_broker_carries_every_record_with_keys_and_without() -> None:
    """Somebody wants to know what encryption costs."""
    runs = list(bench_curve(BrokerLoad(2000, 100, 50, 1, 1), 1))
    assert [("with CURVE", 2000), ("without", 2000)] == [(r.subject, r.records) for r in runs]


def _consume_all_but_one(pipe: object, endpoint: str, load: BrokerLoad) -> tuple[int, float]:
    messages, at = broker._consume(pipe, endpoint, load)  # type: ignore[arg-type]  # as Worker calls it
    return messages - 1, at


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
    with psycopg.connect(dsn) as conn:
        left = conn.execute("SELECT datname FROM pg_database WHERE datname LIKE 'telemq_bench%'")
        assert [] == left.fetchall()


def test_worker_that_dies_is_named() -> None:
    """A part of a benchmark crashes; the others do not wait for it for ever."""
    worker = Worker("streamer", pipeline._stream, "", "", None)
    try:
        with pytest.raises(TelemqError, match="streamer ended without a result"):
            worker.result(30)
    finally:
        worker.close()


def test_sample_of_the_benchmark_is_there() -> None:
    """The default file of ``telemq bench pipeline``."""
    assert Path(bundled_sample()).is_file()
