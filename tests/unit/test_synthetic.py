"""The made-up fleet: the same bytes for the same seed, and numbers that hang together."""

import io
from collections import defaultdict
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from telemq.errors import SettingError, SourceError
from telemq.sources.csv_replay import CsvReplay, bundled_sample, read_csv
from telemq.sources.synthetic import METRICS, generate


def made(
    folder: Path,
    *,
    seed: int = 1,
    hosts: int = 5,
    gpus_per_host: int = 8,
    minutes: float = 6,
    interval_s: int = 60,
) -> CsvReplay:
    path = folder / "made.csv"
    generate(
        path,
        seed=seed,
        hosts=hosts,
        gpus_per_host=gpus_per_host,
        minutes=minutes,
        interval_s=interval_s,
    )
    return read_csv(path)


def values_by_scrape(replay: CsvReplay) -> list[dict[str, float]]:
    """Give the metrics of each GPU at each scrape, by metric without its prefix."""
    gpus = len({labels.uuid for labels in replay.series})
    found: defaultdict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for row in range(replay.rows):
        labels = replay.series[replay.series_index[row]]
        scrape = row // (gpus * len(METRICS))
        found[labels.uuid, scrape][labels.metric_name.removeprefix("DCGM_FI_DEV_")] = float(
            replay.value[row]
        )
    return list(found.values())


def test_bundled_sample_is_what_the_generator_makes() -> None:
    """The command in data/README.md must give the file in git, byte for byte."""
    file = io.StringIO()
    assert 2340 == generate(file, seed=1, hosts=5, gpus_per_host=8, minutes=6, interval_s=60)
    assert bundled_sample().read_bytes() == file.getvalue().encode("ascii")


def test_bundled_sample_is_small_enough_for_git() -> None:
    """Every clone pays for it."""
    assert 1_500_000 > bundled_sample().stat().st_size


def test_seed_changes_everything_that_is_by_chance(tmp_path: Path) -> None:
    """Two made-up fleets in one database must not share GPUs."""
    first, second = made(tmp_path, seed=1), made(tmp_path, seed=2)
    assert not {s.uuid for s in first.series} & {s.uuid for s in second.series}
    assert first.value.tolist() != second.value.tolist()


def test_fleet_has_the_asked_size_and_one_gpu_missing(tmp_path: Path) -> None:
    """As on a real fleet, where one board is out for repair."""
    replay = made(tmp_path, hosts=3, gpus_per_host=4, minutes=2, interval_s=30)
    assert 11 * len(METRICS) * 4 == replay.rows
    last = {s.gpu_id for s in replay.series if s.hostname == "hopper-003"}
    assert {"0", "1", "3"} == last
    assert 11 == len({s.uuid for s in replay.series})


def test_values_hang_together(tmp_path: Path) -> None:
    """Dashboards and queries are tried on it, so it must behave as GPUs do."""
    scrapes = values_by_scrape(made(tmp_path, hosts=6, minutes=30))
    assert {81_007} == {v["FB_USED"] + v["FB_FREE"] for v in scrapes}
    assert all(0 <= v["GPU_UTIL"] <= 100 and 60 <= v["POWER_USAGE"] <= 700 for v in scrapes)
    assert all(345 <= v["SM_CLOCK"] <= 1980 and v["SM_CLOCK"] % 15 == 0 for v in scrapes)
    busy = [v for v in scrapes if v["GPU_UTIL"] > 80]
    idle = [v for v in scrapes if v["GPU_UTIL"] == 0 and v["FB_USED"] < 10]
    assert busy
    assert idle
    for name in ("POWER_USAGE", "GPU_TEMP", "SM_CLOCK"):
        assert min(v[name] for v in busy) > max(v[name] for v in idle)


def test_idle_gpus_have_no_pod_and_others_say_it_twice(tmp_path: Path) -> None:
    """The labels of the columns are those of labels_raw, and Prometheus has no empty ones."""
    series = made(tmp_path, hosts=6).series
    assert {True, False} == {bool(s.pod) for s in series}
    for s in series:
        assert bool(s.pod) == bool(s.namespace) == bool(s.container) == ("pod=" in s.labels_raw)
        named = {"UUID": s.uuid, "__name__": s.metric_name, "gpu": s.gpu_id, "pod": s.pod}
        for name, text in named.items():
            assert not text or f'{name}="{text}"' in s.labels_raw.split(",")


def test_start_is_converted_to_utc() -> None:
    """Someone gives the local time with its offset."""
    file = io.StringIO()
    generate(
        file, hosts=1, minutes=1, start=datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=2)))
    )
    assert '"2026-02-28T22:00:00Z"' in file.getvalue()


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        ({"hosts": 0}, "--hosts"),
        ({"gpus_per_host": 17}, "--gpus-per-host"),
        ({"interval_s": 0}, "--interval-s"),
        ({"minutes": -1}, "--minutes"),
    ],
)
def test_argument_out_of_range_is_refused_by_name(arguments: dict[str, int], flag: str) -> None:
    """A typing error at `telemq sample`."""
    with pytest.raises(SettingError, match=flag):
        generate(io.StringIO(), **arguments)  # type: ignore[arg-type]  # one of several int names


def test_start_without_offset_is_refused() -> None:
    """Nobody can tell which time is meant."""
    with pytest.raises(SettingError, match="--start"):
        generate(io.StringIO(), start=datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None))


def test_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The folder does not exist."""
    with pytest.raises(SourceError, match=r"none/made\.csv: cannot be written"):
        generate(tmp_path / "none" / "made.csv")
