"""The dashboard's pages with live data: a real gateway, Postgres and browser."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from telemq.gateway.app import run
from telemq.settings import ApiSettings
from tests.support.brokers import until
from tests.support.browser import Visit
from tests.support.gateway import add_samples, add_series, serving
from tests.support.ops import BrokerProcess
from tests.support.ports import free_port
from tests.support.shown_fleet import Fleet, make_fleet, now, value_of

pytestmark = pytest.mark.browser

_PAGES = ("/", "/?view=table", "/gpu?id={gpu}&span=5m", "/pipeline", "/usage")
_CELLS = "document.getElementById('map-cells')"


def _tile(visit: Visit, place: str, name: str) -> Any:
    """Find the value of a tile by the tile's name."""
    tile = visit.page.locator(f"#{place} .tile").filter(
        has=visit.page.get_by_text(name, exact=True)
    )
    return tile.locator("b")


def _drawn(visit: Visit) -> str:
    """Give the map as it is drawn now, once it is."""
    # Not wait_for_function: that evaluates text in the page, which the page's policy forbids.
    pause = lambda: visit.page.wait_for_timeout(20)  # noqa: E731 (the browser's turn)
    until(lambda: visit.page.evaluate(f"{_CELLS}.style.height !== ''"), "a map", pause)
    return str(visit.page.evaluate(f"{_CELLS}.toDataURL()"))


def _live(visit: Visit) -> None:
    expect(visit.page.locator("#live")).to_have_text("Live")


# The fleet


def test_the_fleet_is_shown_and_follows_what_is_stored(
    visit: Visit, fleet: Fleet, conn: psycopg.Connection
) -> None:
    """Somebody opens the first page, and looks on while the fleet works."""
    visit.open("/")
    expect(_tile(visit, "totals", "GPUs")).to_have_text("24")
    _live(visit)
    before = _drawn(visit)
    later = now() + timedelta(seconds=1)
    hottest = max(value_of("DCGM_FI_DEV_GPU_TEMP", gpu, later) for gpu in range(24)) + 15
    fleet.measure(conn, later)
    series = next(s for s, gpu, name in fleet.series if (gpu, name) == (9, "DCGM_FI_DEV_GPU_TEMP"))
    add_samples(conn, series, [(later + timedelta(seconds=1), hottest)])
    expect(_tile(visit, "totals", "Hottest")).to_have_text(f"{hottest:.0f} °C")
    expect(visit.page.locator("#totals").get_by_text("hopper-002, GPU 1")).to_be_visible()
    assert before != _drawn(visit)


def test_a_gpu_that_is_new_appears_by_itself(
    visit: Visit, fleet: Fleet, conn: psycopg.Connection
) -> None:
    """A host is added to the fleet while the page is open."""
    visit.open("/")
    expect(_tile(visit, "totals", "GPUs")).to_have_text("24")
    _live(visit)
    series = add_series(conn, "GPU-new", hostname="hopper-004")
    add_samples(conn, series, [(now(), 50)])
    expect(_tile(visit, "totals", "GPUs")).to_have_text("25", timeout=20_000)


def test_the_keyboard_goes_from_gpu_to_gpu_and_opens_one(visit: Visit, fleet: Fleet) -> None:
    """Somebody without a mouse, or who hears the page instead of seeing it."""
    visit.open("/")
    expect(_tile(visit, "totals", "GPUs")).to_have_text("24")
    visit.page.locator("#view button").last.focus()
    visit.page.keyboard.press("Tab")
    said = visit.page.locator("#map-say")
    expect(said).to_contain_text("hopper-001, GPU 0")
    visit.page.keyboard.press("ArrowDown")
    visit.page.keyboard.press("ArrowRight")
    expect(said).to_contain_text("hopper-002, GPU 1")
    expect(said).to_contain_text("utilisation")
    expect(said).to_contain_text("research/llm-pretrain-0")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("h1")).to_have_text("hopper-002 · GPU 1")


def test_the_map_tells_what_is_under_the_pointer_and_a_click_opens_it(
    visit: Visit, fleet: Fleet
) -> None:
    """Somebody sees a cell of another colour."""
    visit.open("/")
    expect(_tile(visit, "totals", "GPUs")).to_have_text("24")
    box = visit.page.locator("#map-over").bounding_box()
    assert box is not None
    x, y = box["x"] + 120, box["y"] + 10
    visit.page.mouse.move(x, y)
    tip = visit.page.locator("#tip")
    expect(tip).to_contain_text("hopper-001 · GPU")
    name = tip.locator("strong").inner_text()
    visit.page.mouse.click(x, y)
    expect(visit.page.locator("h1")).to_have_text(name)


def test_the_table_has_all_that_the_map_has_and_can_be_sorted(visit: Visit, fleet: Fleet) -> None:
    """The same fleet for a screen reader; the coldest and the hottest first."""
    visit.open("/?view=table")
    rows = visit.page.locator("#table-view tbody tr")
    expect(rows).to_have_count(24)
    expect(rows.first).to_contain_text("hopper-001 · GPU 0")
    heat = visit.page.get_by_role("button", name="Temperature").last
    heat.click()
    expect(visit.page.locator("th[aria-sort=descending]")).to_have_text("Temperature")
    column = "#table-view tbody td:nth-child(3)"
    degrees = [float(text.split()[0]) for text in visit.page.locator(column).all_inner_texts()]
    assert degrees == sorted(degrees, reverse=True)
    assert "sort=temperature-down" in visit.page.url


def test_a_url_brings_back_what_was_seen(visit: Visit, fleet: Fleet) -> None:
    """A colleague opens the link."""
    visit.open("/")
    visit.page.get_by_role("button", name="Power").click()
    visit.page.get_by_role("searchbox").fill("hopper-002")
    visit.page.get_by_role("button", name="Table", exact=True).click()
    expect(visit.page.locator("#table-view tbody tr")).to_have_count(8)
    visit.open(visit.page.url.removeprefix(visit.origin))
    expect(visit.page.locator("#table-view tbody tr")).to_have_count(8)
    expect(visit.page.get_by_role("searchbox")).to_have_value("hopper-002")
    power = visit.page.locator("#by").get_by_role("button", name="Power")
    expect(power).to_have_attribute("aria-pressed", "true")


def test_what_is_wrong_is_listed_and_marked(
    visit: Visit, fleet: Fleet, conn: psycopg.Connection
) -> None:
    """A GPU reports an XID error."""
    uuid = fleet.uuids[11]
    series = add_series(
        conn, uuid, metric_name="DCGM_FI_DEV_XID_ERRORS", gpu_id="3", hostname="hopper-002"
    )
    add_samples(conn, series, [(now() - timedelta(seconds=20), 79.0)])
    visit.open("/")
    wrong = visit.page.locator("#wrong li").filter(has_text="hopper-002 · GPU 3")
    expect(wrong.filter(has_text="XID")).to_contain_text("79")
    wrong.get_by_role("link").first.click()
    expect(visit.page.locator("#problems")).to_contain_text("79")


# One GPU


def test_a_gpu_shows_its_metrics_and_samples(
    visit: Visit, fleet: Fleet, conn: psycopg.Connection, gateway: httpx.Client
) -> None:
    """From the fleet to one GPU, its charts, its raw samples and the API's own answer."""
    uuid = fleet.uuids[0]
    visit.open(f"/gpu?id={uuid}&span=5m")
    expect(visit.page.locator("h1")).to_have_text("hopper-001 · GPU 0")
    expect(visit.page.locator("#about")).to_contain_text("535.129.03")
    expect(visit.page.locator("#charts canvas")).to_have_count(5)
    expect(visit.page.locator("#charts").get_by_text("GPU util")).to_be_visible()
    expect(visit.page.locator("#raw tbody tr")).to_have_count(25)
    visit.page.get_by_role("button", name="Older samples").click()
    expect(visit.page.locator("#raw tbody tr")).to_have_count(50)
    _live(visit)
    add_samples(conn, fleet.series[0][0], [(now() + timedelta(seconds=1), 42)])
    assert "DCGM_FI_DEV_FB_FREE" == fleet.series[0][2]
    json = visit.page.locator("#api-links").get_by_role("link", name="JSON").get_attribute("href")
    csv = visit.page.locator("#api-links").get_by_role("link", name="CSV").get_attribute("href")
    assert json is not None
    assert csv is not None
    assert {uuid} == {record["uuid"] for record in gateway.get(json).raise_for_status().json()}
    assert "timestamp,metric_name" in gateway.get(csv).raise_for_status().text
    expect(visit.page.locator("#api-curl")).to_contain_text(csv)


def test_latest_values_follow(visit: Visit, fleet: Fleet, conn: psycopg.Connection) -> None:
    """A GPU's tiles move with it."""
    visit.open(f"/gpu?id={fleet.uuids[0]}&span=5m")
    _live(visit)
    series = next(s for s, gpu, name in fleet.series if (gpu, name) == (0, "DCGM_FI_DEV_GPU_UTIL"))
    add_samples(conn, series, [(now() + timedelta(seconds=1), 13)])
    expect(_tile(visit, "latest", "Utilisation")).to_have_text("13 %")


def test_a_brush_zooms_and_back_leads_out(visit: Visit, fleet: Fleet) -> None:
    """Somebody sees a dip and looks closer; the address can be shared."""
    visit.open(f"/gpu?id={fleet.uuids[0]}&span=5m")
    plot = visit.page.locator("#charts .u-over").first
    plot.wait_for()
    box = plot.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    visit.page.mouse.move(box["x"] + box["width"] * 0.25, middle)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=5)
    visit.page.mouse.up()
    expect(visit.page).to_have_url(re.compile(r"[?&]from=\d{4}-.*&to=\d{4}-"))
    expect(visit.page.locator("#shown")).to_contain_text(" to ")
    shown = visit.page.locator("#span button[aria-pressed=true]")
    expect(shown).to_have_count(0)
    visit.page.go_back()
    expect(shown).to_have_text("5 min")


def test_a_finger_brushes_too_and_up_and_down_scrolls(
    browser: Browser, gateway: httpx.Client, fleet: Fleet
) -> None:
    """The same dip, on a phone."""
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    with context:
        visit = Visit(context.new_page(), str(gateway.base_url).rstrip("/"))
        visit.open(f"/gpu?id={fleet.uuids[0]}&span=5m")
        plot = visit.page.locator("#charts .u-over").first
        plot.scroll_into_view_if_needed()
        finger = context.new_cdp_session(visit.page)

        def move(by_x: float, by_y: float) -> None:
            box = plot.bounding_box()
            assert box is not None
            x, y = box["x"] + box["width"] / 3, box["y"] + box["height"] / 2
            for step in range(6):
                points = [{"x": x + by_x * step / 5, "y": y + by_y * step / 5}]
                kind = "touchMove" if step else "touchStart"
                finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        before = visit.page.evaluate("scrollY")
        move(3, -150)
        pause = lambda: visit.page.wait_for_timeout(20)  # noqa: E731 (the browser's turn)
        until(lambda: visit.page.evaluate("scrollY") > before, "it scrolls", pause)
        assert "span=5m" in visit.page.url
        plot.scroll_into_view_if_needed()
        move(100, 2)
        expect(visit.page).to_have_url(re.compile(r"[?&]from=\d{4}-.*&to=\d{4}-"))
        assert ([], []) == (visit.complaints, visit.elsewhere)


@pytest.mark.parametrize("span", ["5 min", "1 h", "6 h", "24 h", "7 d", "30 d"])
def test_every_span_can_be_chosen(visit: Visit, fleet: Fleet, span: str) -> None:
    """From the last five minutes to a month."""
    visit.open(f"/gpu?id={fleet.uuids[0]}")
    visit.page.locator("#span").get_by_role("button", name=span, exact=True).click()
    expect(visit.page.locator("#shown")).to_contain_text(f"the last {span}, in steps of")
    visit.page.get_by_label("Each step shows the").select_option("p95")
    expect(visit.page).to_have_url(re.compile("agg=p95"))
    expect(visit.page.locator("#api-curl")).to_contain_text("agg=p95")


def test_a_gpu_that_does_not_exist_leads_back(visit: Visit, fleet: Fleet) -> None:
    """An old link, of a GPU whose samples are all gone."""
    visit.open("/gpu?id=GPU-gone")
    expect(visit.page.get_by_role("heading", name="There is no such GPU")).to_be_visible()
    visit.page.get_by_role("link", name="Choose one of the fleet").click()
    expect(_tile(visit, "totals", "GPUs")).to_have_text("24")
    visit.complaints.clear()  # the browser tells of each 404


# The pipeline, usage


def test_the_pipeline_shows_brokers_and_that_nothing_is_lost(
    visit: Visit, dsn: str, conn: psycopg.Connection
) -> None:
    """An operator asks whether all is well."""
    fleet = make_fleet(conn, hosts=1)
    fleet.measure(conn, now())
    rows = len(fleet.series)
    conn.execute("INSERT INTO stream_progress VALUES ('csv:try', 'x', %s)", [rows])
    conn.execute("INSERT INTO ledger VALUES ('csv:try', 0, %s, %s, 0)", [rows, rows])
    with BrokerProcess() as broker:
        ops = broker.ops.removeprefix("http://") + ",127.0.0.1:1"
        with serving(ApiSettings(dsn=dsn, follow_s=0.2, broker_ops=ops)) as client:
            visit.origin = str(client.base_url).rstrip("/")
            visit.open("/pipeline")
            expect(visit.page.locator("#verdict b")).to_have_text("Nothing lost, nothing doubled")
            expect(_tile(visit, "totals", "Brokers")).to_have_text("1 of 2")
            expect(visit.page.locator(".broker")).to_have_count(2)
            expect(visit.page.locator(".broker .facts")).to_have_count(1)
            expect(visit.page.locator("#streams tbody tr")).to_contain_text("csv:try")
            expect(visit.page.locator("#dead")).to_contain_text("None")
            expect(visit.page.locator("#charts canvas")).to_have_count(2)
            _live(visit)


def test_the_pipeline_names_rows_that_are_lost(visit: Visit, conn: psycopg.Connection) -> None:
    """Somebody deleted from the ledger."""
    conn.execute("INSERT INTO stream_progress VALUES ('csv:<b>torn</b>', 'x', 100)")
    conn.execute("INSERT INTO ledger VALUES ('csv:<b>torn</b>', 0, 40, 0, 40)")
    visit.open("/pipeline")
    expect(visit.page.locator("#verdict li").first).to_contain_text("csv:<b>torn</b>")
    expect(visit.page.locator("#verdict")).to_contain_text("rows 40 to 99 are in no batch")
    expect(visit.page.locator("#brokers")).to_contain_text("--broker-ops")


def test_usage_shows_who_used_how_much(visit: Visit, fleet: Fleet) -> None:
    """Whoever pays for the fleet asks who had it."""
    visit.open("/usage?span=1h")
    rows = visit.page.locator("#usage tbody tr")
    expect(rows.filter(has_text="research")).to_have_count(1)
    visit.page.get_by_role("button", name="Host").click()
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text="hopper-002")).to_have_count(1)
    assert "group_by=host" in visit.page.url


def test_usage_shows_gpus_that_are_held_but_idle(visit: Visit, conn: psycopg.Connection) -> None:
    """A notebook that somebody forgot."""
    series = add_series(conn, "GPU-idle", pod="notebook-0")
    end = now()
    times = [end - timedelta(seconds=since) for since in range(3600, -1, -30)]
    add_samples(conn, series, [(moment, 0.0) for moment in times])
    visit.open("/usage?span=6h&minutes=30")
    row = visit.page.locator("#idle tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("notebook-0")


# Whoever looks, and whatever is stored


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", _PAGES)
def test_no_serious_barrier(visit: Visit, fleet: Fleet, path: str, scheme: Any) -> None:
    """Low vision, a screen reader, a keyboard: what axe can find of barriers is not there."""
    visit.page.emulate_media(color_scheme=scheme)
    visit.open(path.format(gpu=fleet.uuids[0]))
    _settle(visit)
    found = Axe().run(visit.page).response["violations"]
    serious = [
        (rule["id"], [node["target"] for node in rule["nodes"]])
        for rule in found
        if rule["impact"] in {"serious", "critical"}
    ]
    assert [] == serious


@pytest.mark.parametrize("path", _PAGES)
def test_nothing_is_wider_than_a_phone(visit: Visit, fleet: Fleet, path: str) -> None:
    """On the way to the data centre."""
    visit.page.set_viewport_size({"width": 360, "height": 740})
    visit.open(path.format(gpu=fleet.uuids[0]))
    visit.page.locator(".tile b").first.wait_for()
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_theme_is_the_systems_until_one_is_chosen(visit: Visit, fleet: Fleet) -> None:
    """Somebody likes it dark, whatever the system says, and on the next page too."""
    background = "getComputedStyle(document.body).backgroundColor"
    visit.page.emulate_media(color_scheme="light")
    visit.open("/")
    light = visit.page.evaluate(background)
    visit.page.get_by_role("button", name="Use the dark theme").click()
    dark = visit.page.evaluate(background)
    assert light != dark
    visit.open("/usage")
    assert dark == visit.page.evaluate(background)
    visit.page.get_by_role("button", name="Use the light theme").click()
    assert light == visit.page.evaluate(background)


_SCRIPT = "<script>window.hacked = 1</script>"
_IMAGE = "<img src=x onerror='window.hacked = 2'>"


@pytest.mark.parametrize(
    "path", ["/", "/?view=table", "/gpu?id={gpu}&span=5m", "/usage?group_by=pod"]
)
def test_row_35_markup_in_labels_stays_text(
    visit: Visit, conn: psycopg.Connection, path: str
) -> None:
    """Whoever may name a pod, a host or a model names it as a script."""
    uuid = f"GPU-{_IMAGE}"
    for metric in ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", _IMAGE):
        series = add_series(
            conn, uuid, metric_name=metric, hostname=_IMAGE, pod=_SCRIPT, model_name=_SCRIPT
        )
        end = now()
        add_samples(conn, series, [(end - timedelta(seconds=10 * n), 99.0) for n in range(20)])
    visit.open(path.format(gpu=uuid))
    _settle(visit)
    if path == "/":
        expect(_tile(visit, "totals", "GPUs")).to_have_text("1")
        visit.page.locator("#map").focus()
        visit.page.keyboard.press("ArrowRight")
        expect(visit.page.locator("#tip")).to_contain_text(_SCRIPT)
    expect(visit.page.locator("main")).to_contain_text("window.hacked")
    assert visit.page.evaluate("window.hacked === undefined")
    assert 0 == visit.page.locator("main script, main img").count()


def _settle(visit: Visit) -> None:
    """Wait until nothing is under way but what is followed for ever."""
    visit.page.locator(".tile b").first.wait_for()
    expect(visit.page.locator("main")).not_to_contain_text("Asking")


# What fails


def test_an_empty_database_says_how_to_fill_it(visit: Visit) -> None:
    """The first minute of a new installation."""
    visit.open("/")
    expect(visit.page.get_by_role("heading", name="No GPU has been seen yet")).to_be_visible()
    expect(visit.page.locator("#empty")).to_contain_text("telemq up")
    expect(visit.page.locator("#wrong")).to_contain_text("Nothing")
    visit.open("/pipeline")
    expect(visit.page.locator("#streams")).to_contain_text("telemq stream csv")
    visit.open("/usage")
    expect(visit.page.locator("#usage")).to_contain_text("No sample in this time")


def test_a_gateway_that_goes_away_is_told_and_comes_back(
    visit: Visit, fleet: Fleet, dsn: str
) -> None:
    """The gateway is upgraded while somebody looks; nobody reloads the page."""
    port = free_port()
    visit.origin = f"http://127.0.0.1:{port}"
    live = visit.page.locator("#live")
    with _gateway(dsn, port):
        visit.open("/")
        _live(visit)
        expect(_tile(visit, "totals", "GPUs")).to_have_text("24")
    expect(live).to_have_text("Reconnecting", timeout=20_000)
    visit.page.get_by_role("searchbox").fill("hopper-003")  # what is known can still be seen
    visit.page.get_by_role("button", name="Table", exact=True).click()
    expect(visit.page.locator("#table-view tbody tr")).to_have_count(8)
    with _gateway(dsn, port):
        expect(live).to_have_text("Live", timeout=30_000)
        visit.page.close()
    visit.complaints.clear()  # the browser tells of each attempt


@contextlib.contextmanager
def _gateway(dsn: str, port: int) -> Iterator[None]:
    """Run the gateway on a port that it had before."""
    settings = ApiSettings(dsn=dsn, address=f"127.0.0.1:{port}", follow_s=0.2, drain_s=0)
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(settings, stop), daemon=True)
    thread.start()
    try:
        until(lambda: _answers(port), "the gateway answers")
        yield
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_database_that_is_gone_is_named_with_the_reason(visit: Visit) -> None:
    """Postgres is down, the gateway is not."""
    with serving(ApiSettings(dsn="host=127.0.0.1 port=1", pool_wait_s=0.2)) as client:
        visit.origin = str(client.base_url).rstrip("/")
        visit.open("/")
        expect(visit.page.locator(".notice").first).to_contain_text("Service Unavailable")
        visit.page.close()
    visit.complaints.clear()  # the browser tells of each 503
