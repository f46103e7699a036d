"""``telemq bench``: what this machine, this Postgres and these settings can do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from telemq_cli import bench_render as render
from telemq_cli.app import app
from telemq_cli.outcome import outcome

__all__ = ["api", "backlog", "bench", "broker", "ingest", "latency", "peers", "pipeline", "query"]

bench = typer.Typer(no_args_is_help=True, help="Measure what this machine can do.")
app.add_typer(bench, name="bench")

Records = Annotated[int, typer.Option(min=1, help="Records a run.")]
Batch = Annotated[int, typer.Option(min=1, max=65_536, help="Records a message.")]
Bytes = Annotated[int, typer.Option(min=1, max=65_536, help="Bytes a record.")]
Runs = Annotated[int, typer.Option(min=1, max=1000, help="Runs of each subject, turn by turn.")]
Count = Annotated[int, typer.Option(min=1, max=64, help="Processes.")]
Gpus = Annotated[int, typer.Option(min=1, max=1_000_000, help="GPUs, of ten series each.")]
Json = Annotated[bool, typer.Option("--json", help="Print every run as JSON.")]
Dsn = Annotated[
    str,
    typer.Option(
        envvar="TELEMQ_DSN",
        show_default=False,
        help="Postgres where databases may be made; default: one of its own.",
    ),
]


@bench.command()
def broker(
    *,
    records: Records = 5_000_000,
    batch_records: Batch = 256,
    record_bytes: Bytes = 400,
    producers: Count = 1,
    consumers: Count = 1,
    runs: Runs = 3,
    journal: Annotated[
        bool, typer.Option("--journal", help="Beside a broker with a journal instead.")
    ] = False,
    curve: Annotated[
        bool, typer.Option("--curve", help="With CURVE keys beside without, not the proxy.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Carry records through a broker, beside libzmq's own proxy, which promises nothing."""
    from telemq.bench.broker import bench_broker, bench_curve
    from telemq.bench.carrier import Load

    load = Load(records, batch_records, record_bytes, producers, consumers)

    def measure() -> int:
        measured = bench_curve(load, runs) if curve else bench_broker(load, runs, journal=journal)
        return render.report(measured, as_json)

    raise typer.Exit(outcome(measure))


@bench.command()
def latency(
    *,
    rate: Annotated[float, typer.Option(min=1, max=1e6, help="Records a second.")] = 5000.0,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Length of a run.")] = 10.0,
    record_bytes: Bytes = 400,
    runs: Runs = 3,
    journal: Annotated[
        bool, typer.Option("--journal", help="Beside a broker with a journal instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send single records at a given rate: how long until delivery, and until the confirm."""
    from telemq.bench.broker import bench_broker
    from telemq.bench.carrier import Load

    load = Load(max(1, int(rate * seconds)), record_bytes=record_bytes, rate=rate)

    def measure() -> int:
        return render.report_latency(bench_broker(load, runs, journal=journal), rate, as_json)

    raise typer.Exit(outcome(measure))


@bench.command()
def backlog(
    *,
    records: Records = 1_000_000,
    batch_records: Batch = 256,
    record_bytes: Bytes = 400,
    runs: Runs = 1,
    as_json: Json = False,
) -> None:
    """Let records wait in a broker: its memory beside what is in them."""
    from telemq.bench.backlog import bench_backlog
    from telemq.bench.carrier import Load

    load = Load(records, batch_records, record_bytes)
    raise typer.Exit(outcome(lambda: render.report_backlog(bench_backlog(load, runs), as_json)))


@bench.command()
def ingest(
    *,
    records: Records = 2_000_000,
    batch_records: Batch = 8192,
    gpus: Gpus = 248,
    collectors: Annotated[
        list[int] | None,
        typer.Option(min=1, max=64, help="Processes; again for another subject. [default: 1, 2]"),
    ] = None,
    runs: Runs = 3,
    dsn: Dsn = "",
    as_json: Json = False,
) -> None:
    """Store prepared batches that wait in a queue, beside a bare COPY of the same rows."""
    from telemq.bench.fleet import Fleet
    from telemq.bench.ingest import IngestLoad, bench_ingest

    load = IngestLoad(records, batch_records, Fleet(gpus), tuple(collectors or (1, 2)))

    def measure() -> int:
        with _server(dsn) as server:
            return render.report(bench_ingest(load, server, runs), as_json)

    raise typer.Exit(outcome(measure))


@bench.command()
def pipeline(
    *,
    records: Records = 1_000_000,
    batch_records: Batch = 8192,
    csv: Annotated[Path | None, typer.Option(help="File to replay; default: the sample.")] = None,
    streamers: Count = 1,
    collectors: Count = 1,
    runs: Runs = 3,
    dsn: Dsn = "",
    as_json: Json = False,
) -> None:
    """Carry a CSV's rows into Postgres, beside a bare COPY of the same rows."""
    from telemq.bench.pipeline import PipelineLoad, bench_pipeline
    from telemq.sources.csv_replay import bundled_sample

    load = PipelineLoad(csv or bundled_sample(), records, batch_records, streamers, collectors)

    def measure() -> int:
        with _server(dsn) as server:
            return render.report(bench_pipeline(load, server, runs), as_json)

    raise typer.Exit(outcome(measure))


@bench.command()
def query(
    *,
    samples: Annotated[int, typer.Option(min=1, help="Samples stored.")] = 2_000_000,
    gpus: Gpus = 248,
    interval_s: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Between two samples of a series.")
    ] = 10.0,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Questions at a time.")] = 4,
    questions: Annotated[int, typer.Option(min=1, help="Of each kind, in each run.")] = 100,
    asking_s: Annotated[
        float, typer.Option(min=0.1, max=3600, help="After which no more of a kind are asked.")
    ] = 10.0,
    cold: Annotated[
        int,
        typer.Option(
            min=0,
            max=100,
            help="Also ask so often after a restart with nothing in memory; not with --dsn.",
        ),
    ] = 0,
    runs: Runs = 3,
    dsn: Dsn = "",
    as_json: Json = False,
) -> None:
    """Ask for telemetry, beside the wide table of text that people make first."""
    from telemq.bench.cold import ColdPostgres
    from telemq.bench.fleet import Fleet
    from telemq.bench.postgres import scratch_database
    from telemq.bench.query import QueryLoad, bench_query
    from telemq.errors import SettingError

    load = QueryLoad(
        samples, Fleet(gpus, interval_s), concurrency, questions, asking_s=asking_s, cold=cold
    )

    def measure() -> int:
        if cold and dsn:
            raise SettingError(
                "--cold", str(cold), "0 with --dsn: only its own server is restarted"
            )
        if dsn:
            with scratch_database(dsn) as scratch:
                return render.report_query(bench_query(load, scratch, runs), as_json)
        with (
            TemporaryDirectory(prefix="telemq-bench-") as folder,
            ColdPostgres(Path(folder)) as own,
        ):
            chill = own.chill if cold else None
            return render.report_query(bench_query(load, own.dsn, runs, chill), as_json)

    raise typer.Exit(outcome(measure))


@bench.command()
def api(
    *,
    samples: Annotated[int, typer.Option(min=1, help="Samples stored.")] = 20_000_000,
    gpus: Gpus = 2000,
    interval_s: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Between two samples of a series.")
    ] = 60.0,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Questions at a time.")] = 4,
    questions: Annotated[int, typer.Option(min=1, help="Of each kind, in each run.")] = 20,
    runs: Runs = 1,
    dsn: Dsn = "",
    as_json: Json = False,
) -> None:
    """Ask a gateway for telemetry in every format, and about a whole fleet."""
    from telemq.bench.api import DcgmFleet, bench_api
    from telemq.bench.postgres import scratch_database
    from telemq.bench.query import QueryLoad

    load = QueryLoad(samples, DcgmFleet(gpus, interval_s), concurrency, questions)

    def measure() -> int:
        with _server(dsn) as server, scratch_database(server) as scratch:
            return render.report_api(bench_api(load, scratch, runs), as_json)

    raise typer.Exit(outcome(measure))


@bench.command()
def peers(
    *,
    producers: Annotated[int, typer.Option(min=1, max=20_000, help="Greedy producers.")] = 1000,
    consumers: Annotated[int, typer.Option(min=1, max=20_000, help="Consumers.")] = 100,
    batch_records: Batch = 100,
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, help="Time measured.")] = 20.0,
    as_json: Json = False,
) -> None:
    """Carry records between very many peers, and see how even their shares are."""
    from telemq.bench.peers import PeerLoad, bench_peers

    load = PeerLoad(producers, consumers, batch_records, seconds)
    raise typer.Exit(outcome(lambda: render.show_peers(bench_peers(load), as_json)))


@contextlib.contextmanager
def _server(dsn: str) -> Iterator[str]:
    """Yield the DSN of a server where databases may be made: the one given, or one of its own."""
    from telemq.store.embedded import database

    with TemporaryDirectory(prefix="telemq-bench-") as scratch, database(dsn, scratch) as server:
        yield server
