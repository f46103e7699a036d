"""Pictures of the dashboard for docs: ``python -m tests.browser.screenshots [DIRECTORY [NAME…]]``.

Writes all to docs/screenshots, or those whose names begin so to another directory.

A made-up fleet is recorded for some hours, stored by a real `telemq up` and then followed live by
another one on the same data, so that what is seen is what a user sees. It takes some minutes; the
font Inter (Debian: fonts-inter) makes the pictures look as on most people's machines.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page

from telemq.sources.synthetic import METRICS, generate
from tests.support.browser import chromium
from tests.support.up import running_up

_HOSTS, _INTERVAL_S, _HOURS = 12, 20, 3
_AHEAD = timedelta(seconds=240)
#: Scrapes that are played live, over and over.
_LIVE = 180
#: Smooths what is random in a made-up fleet: work goes up and down over minutes.
_SMOOTH = 0.06
_SWING = 2.4
#: For the rates and the queue of the page Pipeline to have a history.
_WATCHED_S = 100
_BYTES_MAX = 150_000

#: name, path, colour scheme, width, height, density
_PICTURES = (
    ("fleet-light", "/", "light", 1280, 800, 1),
    ("fleet-dark", "/?by=temperature", "dark", 1280, 800, 1),
    ("fleet-phone", "/", "dark", 390, 844, 1.5),
    ("gpu-light", "/gpu?id={gpu}&span=1h", "light", 1280, 1000, 1),
    ("gpu-dark", "/gpu?id={gpu}&span=1h", "dark", 1280, 1000, 1),
    ("gpu-phone", "/gpu?id={gpu}&span=1h", "light", 390, 844, 1.5),
    ("usage-light", "/usage?span=6h&group_by=pod", "light", 1280, 800, 1),
    ("usage-dark", "/usage?span=6h", "dark", 1280, 800, 1),
    ("usage-phone", "/usage?span=6h", "light", 390, 844, 1.5),
    ("pipeline-light", "/pipeline", "light", 1280, 1000, 1),
    ("pipeline-dark", "/pipeline", "dark", 1280, 1000, 1),
    ("pipeline-phone", "/pipeline", "dark", 390, 844, 1.5),
)


def main(directory: Path, names: tuple[str, ...]) -> None:
    """Write the pictures whose names begin with one of `names`."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as text:
        work = Path(text)
        end = datetime.now(UTC) + _AHEAD
        rows, gpu = _record(work)
        data = work / "data"
        recorded = work / "recorded.csv"
        with running_up(data, f"--csv={recorded}", f"--rows={rows}", "--clock=recorded") as up:
            assert 0 == up.process.wait(600)
        rate = (8 * _HOSTS - 1) * len(METRICS) / 2
        with (
            running_up(data, f"--csv={work / 'live.csv'}", f"--rate={rate}") as up,
            chromium() as browser,
        ):
            url = str(up.event("starting")["api"])
            up.until(lambda: _answers(url))
            time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds()))
            up.until(lambda: not _silent(url))
            _pictures(browser, url, gpu, directory, names)


def _pictures(
    browser: Browser, url: str, gpu: str, directory: Path, names: tuple[str, ...]
) -> None:
    pages: list[tuple[str, Page]] = []
    for name, path, scheme, width, height, density in _PICTURES:
        if not name.startswith(names):
            continue
        context = browser.new_context(
            viewport={"width": width, "height": height},
            device_scale_factor=density,
            color_scheme="dark" if scheme == "dark" else "light",
        )
        page = context.new_page()
        page.goto(url + path.format(gpu=gpu))
        pages.append((name, page))
        if "pipeline" not in name:
            page.wait_for_timeout(4000)
            _save(page, directory / f"{name}.png")
            context.close()
    for name, page in pages:
        if "pipeline" in name:
            page.wait_for_timeout(_WATCHED_S * 1000 / 3)
            _save(page, directory / f"{name}.png")


def _save(page: Page, path: Path) -> None:
    page.screenshot(path=path)
    size = path.stat().st_size
    print(f"{path}  {size:,} bytes")
    assert size <= _BYTES_MAX, f"{path} has {size:,} bytes, over {_BYTES_MAX:,}"


def _answers(url: str) -> bool:
    try:
        return len(httpx.get(f"{url}/api/v1/gpus", trust_env=False).json()) > 1
    except httpx.TransportError:
        return False


def _silent(url: str) -> bool:
    """Whether a GPU is silent still, since storing took longer than what was recorded ahead."""
    time.sleep(1)
    found = httpx.get(f"{url}/api/v1/fleet/health", trust_env=False, timeout=60).json()
    return any(problem["kind"] == "silent" for gpu in found for problem in gpu["problems"])


def _record(work: Path) -> tuple[int, str]:
    """Write recorded.csv, which ends now, and live.csv; gives the rows of the first, and a GPU."""
    scrapes = _HOURS * 3600 // _INTERVAL_S
    # Storing it takes a while: it ends ahead, where live samples will join it.
    start = datetime.now(UTC) + _AHEAD - timedelta(hours=_HOURS)
    raw = work / "raw.csv"
    minutes = (scrapes + _LIVE) * _INTERVAL_S / 60
    total = generate(raw, hosts=_HOSTS, minutes=minutes, interval_s=_INTERVAL_S, start=start)
    rows = total // (scrapes + _LIVE) * scrapes
    with raw.open(newline="") as file:
        reader = csv.reader(file)
        header = next(reader)
        chosen = ""
        with (
            (work / "recorded.csv").open("w", newline="") as to,
            (work / "live.csv").open("w", newline="") as live,
        ):
            writers = [csv.writer(out, quoting=csv.QUOTE_ALL) for out in (to, live)]
            for writer in writers:
                writer.writerow(header)
            for number, row in enumerate(_smoothed(reader)):
                writers[number >= rows].writerow(row)
                if not chosen and row[8].startswith("chat"):
                    chosen = row[4]
    return rows, chosen


def _smoothed(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    """Let values wander instead of jump; one GPU is hot, and notebooks are idle."""
    means: dict[tuple[str, str], float] = {}
    slow: dict[tuple[str, str], float] = defaultdict(float)
    for row in rows:
        metric, uuid, value = row[1], row[4], float(row[10])
        if metric.endswith(("_UTIL", "_TEMP", "_USAGE", "SM_CLOCK")):
            key = (uuid, metric)
            mean = means[key] = means.get(key, value) * 0.995 + value * 0.005
            slow[key] += _SMOOTH * (value - mean - slow[key])
            value = mean + _SWING * slow[key] + 0.2 * (value - mean)
            if row[8].startswith("notebook") and metric.endswith("GPU_UTIL"):
                value *= 0.1  # somebody opened it, and went home
            top = 100.0 if metric.endswith("_UTIL") else 1e4
            digits = 3 if metric.endswith("_USAGE") else 0
            row[10] = f"{min(top, max(0.0, value)):.{digits}f}"
        if (row[6], row[2], metric) == ("hopper-004", "5", "DCGM_FI_DEV_GPU_TEMP"):
            row[10] = "93"
        yield row


if __name__ == "__main__":
    _, *arguments = sys.argv
    main(Path(arguments[0] if arguments else "docs/screenshots"), tuple(arguments[1:]) or ("",))
