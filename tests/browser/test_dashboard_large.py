"""Ten thousand GPUs on the map: that it follows them is asserted, how smoothly is reported."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Locator, expect

from tests.support.brokers import until
from tests.support.browser import Visit
from tests.support.shown_fleet import METRICS, make_fleet, now, value_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

_HOSTS, _GPUS = 1250, 8
_ROUNDS = 4
#: Measures every frame, and every task that held the page for over 50 ms.
_METER = """(() => {
  const meter = { frames: [], tasks: [] };
  let last = performance.now();
  const frame = (now) => {
    meter.frames.push(now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) meter.tasks.push(entry.duration);
  }).observe({ type: "longtask", buffered: true });
  window.meter = meter;
})()"""
_TAKE = "() => { const { frames, tasks } = meter; meter.frames = []; meter.tasks = []; "
_TAKE += "return { frames, tasks }; }"


def test_ten_thousand_gpus_are_followed(
    visit: Visit, conn: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    """A large fleet, of which every GPU reports at once, again and again."""
    fleet = make_fleet(conn, hosts=_HOSTS, gpus_per_host=_GPUS, metrics=METRICS[:5])
    moment = now()
    fleet.measure(conn, moment)
    conn.execute("ANALYZE")
    visit.page.add_init_script(_METER)
    began = time.perf_counter()
    visit.open("/")
    page = visit.page
    tile = page.locator("#totals .tile b").first
    expect(tile).to_have_text(f"{_HOSTS * _GPUS:,}", timeout=60_000)
    shown_s = time.perf_counter() - began
    expect(page.locator("#live")).to_have_text("Live", timeout=60_000)
    opening = page.evaluate(_TAKE)
    hottest = page.locator("#totals .tile", has_text="Hottest").locator("b")
    page.locator("#map").focus()
    for turn in range(1, _ROUNDS + 1):
        later = moment + timedelta(seconds=10 * turn)
        fleet.measure(conn, later)
        degrees = max(
            value_of("DCGM_FI_DEV_GPU_TEMP", gpu, later) for gpu in range(len(fleet.uuids))
        )
        seen = page.locator("#totals").get_by_text(f"{later.astimezone():%H:%M:%S}")
        until(
            partial(_is_there, seen),
            "the new samples are seen",
            lambda: page.keyboard.press("ArrowDown"),
            lambda: page.wait_for_timeout(50),
        )
        expect(hottest).to_have_text(f"{degrees:.0f} °C", timeout=20_000)
    with capsys.disabled():
        print(f"\n{_told(shown_s, opening, page.evaluate(_TAKE))}")


def _is_there(seen: Locator) -> bool:
    return seen.count() > 0


def _told(shown_s: float, opening: dict[str, Any], meter: dict[str, Any]) -> str:
    frames = sorted(meter["frames"])
    return (
        f"dashboard: {_HOSTS * _GPUS:,} GPUs shown after {shown_s:.1f} s, with "
        f"{_tasks(opening)}; while all of them reported {_ROUNDS} times in "
        f"{sum(frames) / 1000:.0f} s: {len(frames)} frames, p50 {_rank(frames, 0.5):.0f} ms, "
        f"p99 {_rank(frames, 0.99):.0f} ms, longest {frames[-1]:.0f} ms, with {_tasks(meter)}"
    )


def _tasks(meter: dict[str, Any]) -> str:
    longest = max(meter["tasks"], default=0)
    return f"{len(meter['tasks'])} tasks over 50 ms, the longest {longest:.0f} ms"


def _rank(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
