"""The rivals carry every message, and losing one shows; small, as the other benchmarks' tests."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
import pytest

from telemq.bench.carrier import Carrier, Load, Sender, carry
from telemq.bench.measure import Part, Quantiles, Run
from telemq.bench.pipeline import PipelineLoad, run_pipeline
from telemq.bench.worker import Worker
from telemq.errors import TelemqError
from telemq.sources.csv_replay import bundled_sample
from tests.bench import bars, growth, page, sidebyside
from tests.bench.rivals import jetstream, natspipeline, rabbitmq, wide
from tests.bench.rivals.proxies import ENCRYPTED, PUSHPULL
from tests.bench.rivals.server import serving
from tests.support.running import eventually

RIVALS = [carrier for carrier in sidebyside.CARRIERS if not carrier.name.startswith("telemq")]


@pytest.mark.parametrize("carrier", RIVALS, ids=lambda carrier: carrier.name)
def test_rival_carries_every_message_once(carrier: Carrier) -> None:
    """A rival's client has a fault, and would be compared with for what it does not do."""
    if reason := carrier.missing():
        pytest.skip(reason)
    done = carry(carrier, Load(600, 2, 100, silence_s=5))
    assert (carrier.name, 600) == (done.subject, done.records)
    assert ["broker", "producer", "consumer"] == [part.name for part in done.parts]
    assert done.parts[0].peak_bytes > 0


@pytest.mark.parametrize(
    ("confirms", "counts"),
    [
        ([[(1, False)], [(2, False), (3, False)]], [1, 2]),
        ([[(5, True)], [(5, True), (6, False)]], [5, 1]),
        ([[(3, False), (2, False)], [(4, True)], [(1, False)]], [2, 2, 0]),
    ],
)
def test_confirms_of_rabbitmq_count_once(
    confirms: list[list[tuple[int, bool]]], counts: list[int]
) -> None:
    """It confirms single messages, or all up to one, and not always in order."""
    seen = rabbitmq.Confirms()
    assert counts == [seen.hear(some) for some in confirms]


def test_rabbitmq_ends_with_its_bench() -> None:
    """Somebody loses patience: neither server, nor its name service, nor its folder is left."""
    if reason := rabbitmq.missing():
        pytest.skip(reason)
    worker = Worker("broker", rabbitmq.RABBITMQ.serve, Load(1))
    try:
        worker.receive(60)
        started = psutil.Process(worker.pid).children(recursive=True)
        assert {"beam.smp", "epmd"} <= {process.name() for process in started}
        folders = {Path(p.cwd()) for p in started if p.name() == "beam.smp"}
    finally:
        worker.close()
    assert [] == psutil.wait_procs(started, timeout=20)[1]
    assert [] == [folder for folder in folders if folder.exists()]


_FORKS = """
import os, socket, sys
if os.fork():
    socket.create_server(("127.0.0.1", int(sys.argv[1]))).accept()
    os.wait()
number = 0
while True:
    number += 1
    open(f"{number}.temp", "x").close()
"""


def test_servers_child_ends_with_it() -> None:
    """Redis rewrites its file in a child: that went on, and its folder could not be removed."""
    with TemporaryDirectory() as folder:
        with serving(Path(folder), sys.executable, "-c", _FORKS, "{port}") as server:
            (child,) = psutil.Process(server.pid).children()
            eventually(lambda: any(Path(folder).glob("*.temp")), "the child writes")
        written = set(os.listdir(folder))
        # One that was killed has closed its files a moment before it counts as gone.
        eventually(lambda: _gone(child), "the child is gone")
        assert written == set(os.listdir(folder))


def _gone(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def _without_key(address: tuple[str, str, bytes], load: Load) -> Sender:
    return ENCRYPTED.sender((*address[:2], b""), load)


def test_proxy_with_keys_hears_nobody_without() -> None:
    """It would be compared with as one that encrypts, and does not."""
    with pytest.raises(TelemqError, match="of 30 messages 30 were lost"):
        carry(replace(ENCRYPTED, sender=_without_key), Load(30, 1, 100, silence_s=0.5))


class _Forgetful:
    """A producer's end that claims to have sent what it throws away: every third message."""

    def __init__(self, address: tuple[str, str], load: Load) -> None:
        self._end = PUSHPULL.sender(address, load)
        self._count = 0

    def room(self) -> int:
        """Tell what the real one tells."""
        return self._end.room()

    def send(self, payload: bytes) -> None:
        """Send two of three."""
        self._count += 1
        if self._count % 3:
            self._end.send(payload)

    def poll(self, timeout_s: float) -> int:
        """Confirm all."""
        confirmed = self._end.poll(timeout_s)
        return confirmed + confirmed // 2 + 1

    def close(self) -> None:
        """Close."""
        self._end.close()


def test_rival_that_throws_messages_away_is_not_compared_with() -> None:
    """A queue drops at its high-water mark and says nothing: it would look quick."""
    lossy = replace(PUSHPULL, name="lossy", sender=_Forgetful)
    session = sidebyside.Session(sidebyside.QUICK, lambda _: None)
    with pytest.raises(TelemqError, match="lossy: of 90 messages 30 were lost"):
        carry(lossy, Load(90, 1, 100, silence_s=0.5))
    load = Load(90, 1, 100, silence_s=0.5)
    assert [] == session.turns({"lossy": partial(carry, lossy, load)})
    assert "30 were lost" in session.failed["lossy"]


@pytest.mark.parametrize("error", [TelemqError("lost 3"), OSError(28, "No space left on device")])
def test_subject_that_fails_drops_out_and_the_others_go_on(error: Exception) -> None:
    """A rival crashes in the second of five turns, at night, with nobody there."""
    session = sidebyside.Session(replace(sidebyside.FULL, turns=3), lambda _: None)
    session._end = time.monotonic() + 60
    turns = iter(range(10))

    def fails() -> Run:
        if next(turns) == 1:
            raise error
        return Run("rival", 10, 1.0, (Part("broker", 0.1, 1),))

    seen = session.turns({"rival": fails, "ours": lambda: Run("ours", 10, 1.0, ())})
    assert ["ours"] * 3 == [run.subject for run in seen]
    assert {"rival": str(error)} == session.failed


def test_rival_that_is_not_installed_is_skipped_with_the_reason() -> None:
    """A machine without Debian's packages runs the session all the same."""
    session = sidebyside.Session(sidebyside.QUICK, lambda _: None)
    absent = replace(PUSHPULL, name="absent", missing=_absent)
    assert [] == session.carried([absent], 1)
    assert {"absent": "not here"} == session.skipped


def _absent() -> str:
    return "not here"


def test_pipeline_over_jetstream_stores_every_row(dsn: str) -> None:
    """The same streamers and collectors with another queue between them."""
    if reason := jetstream.missing():
        pytest.skip(reason)
    load = PipelineLoad(bundled_sample(), 3_000, 500, 1, 1)
    done = run_pipeline(natspipeline.JETSTREAM, load, dsn)
    assert 3_000 == done.records
    assert ["collector", "broker", "streamer"] == [part.name for part in done.parts[:3]]


@pytest.mark.parametrize("fill", [wide.wide_copy, wide.insert_each])
def test_wide_table_is_filled_with_every_row(dsn: str, fill: Callable[..., Run]) -> None:
    """What people do first, beside which the pipeline is measured."""
    assert 80 == fill(dsn, bundled_sample(), 80).records


def test_wide_table_that_lacks_rows_is_not_compared_with(conn: psycopg.Connection) -> None:
    """A rule or a trigger of somebody's database throws rows away."""
    conn.execute("CREATE TABLE wide (metric_name text)")
    with pytest.raises(TelemqError, match="of 80 rows the wide table has 0"):
        wide._check(conn, 80)


def figures(**groups: object) -> dict[str, object]:
    """What a session gives, with some groups."""
    about = {
        "date": "2026-11-25", "mode": "quick", "minutes": 2.0, "machine": "m", "versions": "v",
        "load": "0.1 and 2.0 on 2 cores", "rate": 5000.0, "busy": False,
    }  # fmt: skip
    return {"about": about, "skipped": {}, "failed": {}, **groups}


def about_of(seen: dict[str, object]) -> dict[str, object]:
    """What a session says of itself."""
    about = seen["about"]
    assert isinstance(about, dict)
    return about


def carried(**rates: list[float]) -> dict[str, object]:
    """One group of a session: the rates of each subject in each turn."""
    runs = [
        Run(name, 1000, 1000 / rate, (Part("broker", 0.01, 10**6),), Quantiles(1, 2, 3))
        for name, all_rates in rates.items()
        for rate in all_rates
    ]
    return sidebyside.digest(runs)


def test_bar_is_judged_by_the_median_of_neighbouring_turns() -> None:
    """One noisy turn neither clears a bar nor breaks it."""
    group = carried(telemq=[10.0, 1, 30], beanstalkd=[10.0, 100, 20])
    verdicts = {v.bar.what: v for v in bars.judge(figures(**{"carry 256": group}))}
    beanstalkd = verdicts["the same against beanstalkd"]
    assert "met" == beanstalkd.word
    assert beanstalkd.figure == pytest.approx(1.0)
    assert "not measured" == verdicts["list of GPUs at 20 million samples, p50"].word


@pytest.mark.parametrize(
    ("figure", "at_most", "word"),
    [
        (0.99, False, "not met"),
        (1.0, False, "met"),
        (1.3, False, "reached"),
        (1.01, True, "not met"),
        (1.0, True, "met"),
        (0.5, True, "reached"),
    ],
)
def test_bar_that_is_missed_by_a_little_is_not_met(figure: float, at_most: bool, word: str) -> None:
    """Nothing is rounded up."""
    bar = bars.Bar("x", lambda _: 0.0, 1.0, 0.5 if at_most else 1.3, at_most=at_most)
    assert word == bars.Verdict(bar, figure).word


def test_page_says_what_was_skipped_and_what_failed() -> None:
    """A rival was not installed and another lost messages: the page does not hide it."""
    seen = figures(**{"carry 256": carried(telemq=[2e3, 1e3, 3e3], beanstalkd=[1e3, 1e3, 1e3])})
    seen["skipped"], seen["failed"] = {"Redis Streams": "no redis-server"}, {"lossy": "10 lost"}
    part = page.render(seen)
    assert "Not measured: Redis Streams: no redis-server." in part
    assert "**Failed**: lossy: 10 lost." in part
    assert "no figures to quote" not in part
    assert "no figures to quote" in page.render({**seen, "about": {**about_of(seen), "busy": True}})
    assert "| beanstalkd | 1,000 (1,000 to 1,000) | 2.00 | 10.00 | 10.00 | 1 |" in part
    assert "| the same against beanstalkd | >= 0.8 | 1.1 | 2.00 | reached |" in part


@pytest.mark.parametrize(
    ("mode", "samples", "word"),
    [
        ("quick", 50_000, "needs --full"),
        ("full", 19_999_999, "needs 20,000,000 samples"),
        ("full", 20_000_000, "reached"),
    ],
)
def test_bar_about_20_million_samples_is_not_judged_by_fewer(
    mode: str, samples: int, word: str
) -> None:
    """A table of a hundred pages is quick in any layout: its ratio means nothing."""
    sizes = {
        name: {"samples": samples, "sample_bytes": size}
        for name, size in {"telemq": 80.0, "wide table": 560.0}.items()
    }
    seen = figures(sizes=sizes)
    about_of(seen)["mode"] = mode
    verdicts = {v.bar.what: v for v in bars.judge(seen)}
    on_disk = verdicts["bytes on disk a sample, against the wide table"]
    assert word == on_disk.word
    assert (on_disk.figure is None) == word.startswith("needs")


def test_bar_is_not_judged_by_a_run_that_is_mostly_start() -> None:
    """Fifty thousand rows take a tenth of a second: whoever starts quicker seems to be quicker."""
    group = carried(telemq=[6000], beanstalkd=[1000])  # of 1,000 records
    verdicts = {v.bar.what: v for v in bars.judge(figures(**{"carry 256": group}))}
    assert "needs --full" == verdicts["the same against beanstalkd"].word


def test_page_is_made_although_all_failed() -> None:
    """The disk is full, or Postgres is not to be started: whoever left it running sees why."""
    names = ("carry 256", "carry 1", "latency", "ingest", "pipeline", "query")
    groups: dict[str, object] = {name: {} for name in names}
    seen = figures(**groups | {"sizes": {}, "backlog": []})
    seen["failed"] = {"query": "no space left"}
    assert "**Failed**: query: no space left." in page.render(seen)


def test_part_is_put_in_its_place_in_the_page() -> None:
    """The page is made anew; what people wrote round the tables stays."""
    begin, end = page.BEGIN.format("x"), page.END.format("x")
    old = f"before\n{begin}\nold\n{end}\nafter\n"
    assert f"before\n{begin}\nnew\n{end}\nafter\n" == page.insert(old, "new\n", "x")
    with pytest.raises(ValueError, match="has no lines"):
        page.insert("before", "new\n")


def test_figures_survive_json(tmp_path: Path) -> None:
    """The page is made from the file of a run, not only from its memory."""
    seen = figures(**{"carry 256": carried(telemq=[1e6], beanstalkd=[1e6])})
    assert page.render(json.loads(json.dumps(seen))) == page.render(seen)


def test_growth_is_measured_point_by_point(dsn: str) -> None:
    """Somebody makes the tables anew; here with almost nothing."""
    least = growth.Growth(
        size="least", turns=1, messages=10, records=1000, stored=500, latency_s=0.01,
        peers=(2,), batches=(4,), rates=(500,), backlogs=(1000,), singles=(100,), new_gpus=(10,),
        gpus=(2, 4), days=(1,),
    )  # fmt: skip
    lines = "\n".join(growth.grow(least, dsn)).splitlines()
    first = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    heads = [
        "producers", "consumers", "records a message", "records/s",
        "producers and consumers, 5,000 records/s", "records that wait, 256 a message",
        "records that wait, 1 a message", "series", "GPUs, an hour stored",
        "days stored, 25 GPUs",
    ]  # fmt: skip
    assert heads == [head for head in first if not head[0].isdigit()]
    points = ["2", "2", "4", "500", "2", "1,024", "100", "100", "2", "4", "1"]
    assert points == [point for point in first if point[0].isdigit()]
    assert len(heads) == sum(line.startswith("At ") for line in lines)
    assert "| 360,000 |" in lines[-3], "a day of 25 GPUs, ten series each, a scrape a minute"


def test_line_that_is_not_straight_says_how_far() -> None:
    """The last point costs twice as much a record as the first: somebody has to explain it."""
    said = page.straight("a record costs the broker", {1: 0.5, 4: 0.7, 8: 1.0})
    assert "At 8, a record costs the broker 2.00 times what it is at 1." in said
