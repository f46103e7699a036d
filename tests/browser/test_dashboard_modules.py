"""The dashboard's modules that know no page: colours, layout, time, numbers, events, the fleet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from telemq.dashboard.pages import build
from telemq.settings import ApiSettings
from tests.support.browser import chromium
from tests.support.gateway import serving

pytestmark = pytest.mark.browser


class Run(Protocol):
    """Runs the body of an async function with one module as ``m``; gives what it returns."""

    def __call__(self, module: str, body: str, argument: Any = None) -> Any: ...


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Chromium on a page of a gateway without a database: modules are served all the same."""
    with serving(ApiSettings(dsn="host=127.0.0.1 port=1")) as client, chromium() as browser:
        page = browser.new_page(timezone_id="Europe/Berlin")
        page.route("**/api/**", lambda route: route.abort())
        page.goto(f"{client.base_url}", wait_until="domcontentloaded")

        def call(module: str, body: str, argument: Any = None) -> Any:
            path = f"/app/{build()}/{module}.js"
            script = f"async (a) => {{ const m = await import('{path}'); {body} }}"
            return page.evaluate(script, argument)

        yield call


# Colours


@pytest.mark.parametrize(("theme", "rises"), [("dark", True), ("light", False)])
def test_the_heat_map_is_read_by_lightness_alone(run: Run, theme: str, rises: bool) -> None:
    """Somebody does not see red, green or blue, or prints the map in grey."""
    ramp = run("colour", "return m.ramp(a, 64)", theme)
    for seen in _SEEN_BY.values():
        light = [_luminance(seen, colour) for colour in ramp]
        assert light == sorted(light, reverse=not rises)
        assert max(light) - min(light) > 0.6


#: What reaches somebody without one kind of cone, in linear light: Machado, Oliveira, Fernandes
#: 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency", severity 1.
_SEEN_BY = {
    "everybody": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.01182, 0.04294, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.3039),
    ),
}


def _luminance(seen: tuple[tuple[float, ...], ...], colour: list[int]) -> float:
    linear = [
        c / 12.92 if (c := part / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for part in colour
    ]
    red, green, blue = (sum(w * v for w, v in zip(row, linear, strict=True)) for row in seen)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    ("value", "step"),
    [(-5, 0), (0, 0), (50, 5), (99.9, 9), (100, 9), (1000, 9), (None, -1), ("NaN", -1)],
)
def test_a_value_has_a_colour_and_none_has_no_colour(run: Run, value: Any, step: int) -> None:
    """A GPU reports more than its scale, or nothing."""
    assert step == run("colour", "return m.stepOf(a === 'NaN' ? NaN : a, 0, 100, 10)", value)


def test_a_scale_without_width_is_no_division_by_zero(run: Run) -> None:
    """The whole fleet draws no power."""
    assert 0 == run("colour", "return m.stepOf(0, 0, 0, 10)")


# Layout


def test_every_cell_is_hit_where_it_is_drawn(run: Run) -> None:
    """Somebody points at a GPU: of one host, of many, of hosts that are unlike."""
    missed = run(
        "layout",
        """
        const missed = [];
        for (const [counts, width, height] of a) {
          const l = m.layOut(counts, width, height, 80);
          counts.forEach((count, host) => {
            for (let place = 0; place < count; place++) {
              const { x, y } = m.cellAt(l, host, place);
              const found = m.hit(l, counts, x + l.cell / 2, y + l.cell / 2);
              if (found?.host !== host || found?.place !== place) missed.push([host, place]);
            }
          });
        }
        return missed;
        """,
        [
            [[8], 1200, 600],
            [[8] * 12, 1200, 600],
            [[8, 1, 4, 8, 2], 360, 600],
            [[72, 72, 8], 360, 600],
            [[8] * 1250, 1200, 560],
        ],
    )
    assert [] == missed


def test_ten_thousand_gpus_fit_a_screen(run: Run) -> None:
    """A large fleet is one picture: nobody scrolls to see whether it works."""
    layout = run("layout", "return m.layOut(a, 1216, 560, 80)", [8] * 1250)
    assert layout["width"] <= 1216
    assert layout["height"] <= 560


def test_a_host_with_more_gpus_than_a_phone_is_wide_takes_several_lines(run: Run) -> None:
    """A rack that reports as one host, looked at on a phone."""
    layout = run("layout", "return m.layOut(a, 340, 500, 100)", [72])
    assert layout["width"] <= 340
    assert layout["lines"] > 1


def test_nothing_is_hit_beside_the_cells(run: Run) -> None:
    """The pointer is on a host's name, or where a host has no more GPUs."""
    found = run(
        "layout",
        "const l = m.layOut([8, 2], 300, 400, 80);"
        "return [m.hit(l, [8, 2], 10, 5), m.hit(l, [8, 2], 80 + 5 * l.cell, l.row + 3),"
        " m.hit(l, [8, 2], -1, 5), m.hit(l, [8, 2], 90, 10000)]",
    )
    assert [None] * 4 == found


@pytest.mark.parametrize(
    ("key", "ctrl", "start", "end"),
    [
        ("ArrowRight", False, (0, 0), (0, 1)),
        ("ArrowLeft", False, (0, 1), (0, 0)),
        ("ArrowLeft", False, (0, 0), (0, 0)),
        ("ArrowRight", False, (29, 7), (29, 7)),
        ("ArrowDown", False, (0, 7), (1, 3)),
        ("ArrowUp", False, (1, 3), (0, 3)),
        ("ArrowUp", False, (0, 3), (0, 3)),
        ("End", False, (0, 2), (0, 7)),
        ("Home", False, (1, 2), (1, 0)),
        ("End", True, (0, 2), (29, 7)),
        ("Home", True, (20, 2), (0, 0)),
        ("PageDown", False, (0, 2), (10, 2)),
        ("PageUp", False, (3, 2), (0, 2)),
        ("PageDown", False, (25, 2), (29, 2)),
        ("x", False, (4, 2), (4, 2)),
    ],
)
def test_keys_lead_from_gpu_to_gpu(
    run: Run, key: str, ctrl: bool, start: tuple[int, int], end: tuple[int, int]
) -> None:
    """Somebody without a mouse; the second host has only four GPUs."""
    at = run(
        "layout",
        "const counts = [8, 4, ...Array(28).fill(8)]; const l = m.layOut(counts, 320, 9000, 60);"
        "const n = m.move(l, counts, {host: a[0][0], place: a[0][1]}, a[1], a[2]);"
        "return [n.host, n.place]",
        [list(start), key, ctrl],
    )
    assert list(end) == at


def test_right_and_left_cross_to_the_column_beside(run: Run) -> None:
    """The map has several columns, and the key stays in its row."""
    there, back = run(
        "layout",
        "const counts = Array(40).fill(8); const l = m.layOut(counts, 1200, 300, 80);"
        "const right = m.move(l, counts, {host: 2, place: 7}, 'ArrowRight');"
        "return [[right.host - l.rows, right.place],"
        " Object.values(m.move(l, counts, right, 'ArrowLeft'))]",
    )
    assert [2, 0] == there
    assert [2, 7] == back


# Time


@pytest.mark.parametrize(
    ("seconds", "width", "step"),
    [(300, 600, 2), (3600, 600, 30), (86_400, 600, 600), (2_592_000, 600, 21_600), (60, 900, 1)],
)
def test_a_step_has_about_three_pixels(run: Run, seconds: int, width: int, step: int) -> None:
    """From five minutes to a month, on a phone or a wall."""
    assert step == run("span", "return m.stepFor(...a)", [seconds, width])


def test_no_chart_asks_for_more_points_than_it_has_pixels(run: Run) -> None:
    """Whatever is asked for, the gateway aggregates, and the browser stays quick."""
    most = run(
        "span",
        "let most = 0; for (let s = 60; s <= 31 * 86400; s = Math.ceil(s * 1.3))"
        " for (const w of [1, 120, 333, 1600])"
        " most = Math.max(most, s / m.stepFor(s, w) / Math.max(31, w)); return most",
    )
    assert most <= 1


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["1h", -3_600_000]),
        ("span=5m", ["5m", -300_000]),
        ("span=constructor", ["1h", -3_600_000]),
        ("from=2025-07-18T00:00:00Z&to=2025-07-17T00:00:00Z", ["1h", -3_600_000]),
        ("from=nonsense&to=2025-07-17T00:00:00Z&span=7d", ["7d", -604_800_000]),
    ],
)
def test_a_url_without_a_good_time_shows_the_usual(
    run: Run, query: str, expected: list[Any]
) -> None:
    """Somebody edits the address by hand."""
    found = run(
        "span",
        "const s = m.readSpan(new URLSearchParams(a), 1e12); return [s.span, s.from - s.to]",
        query,
    )
    assert expected == found


def test_a_shared_url_shows_the_same_time_later(run: Run) -> None:
    """A colleague opens the link next week."""
    found = run(
        "span",
        "const s = m.readSpan(new URLSearchParams(a), 1e13);"
        "return [s.span, m.rfc3339(s.from), m.rfc3339(s.to)]",
        "from=2025-07-18T20:42:34Z&to=2025-07-18T22:45:00.5Z",
    )
    assert [None, "2025-07-18T20:42:34Z", "2025-07-18T22:45:00.500Z"] == found


def test_a_brush_goes_either_way_and_a_slip_selects_nothing(run: Run) -> None:
    """Somebody drags from right to left, or clicks."""
    found = run("span", "return [m.brushed(9000.6, 2000.4), m.brushed(5000, 5001)]")
    assert [{"from": 2000, "to": 9001}, None] == found


def test_lines_share_one_axis_and_break_where_nothing_came(run: Run) -> None:
    """Two metrics of different pace, one of which pauses."""
    at = "2025-07-18T00:00:{:02}Z"
    records = [
        {"timestamp": at.format(second), "metric_name": name, "value": value}
        for second, name, value in [
            (0, "A", 1), (10, "A", 2), (50, "A", 3), (0, "B", 7), (5, "B", 8), (50, "B", 9),
        ]
    ]  # fmt: skip
    axis, a, b = run(
        "span",
        "const [x, ...rows] = m.align(a, ['A', 'B'], 30);"
        "const seen = (v) => (v === undefined ? '' : v);"
        "return [x.map((t) => t - x[0]), ...rows.map((r) => r.map(seen))]",
        records,
    )
    assert [0, 5, 10, 40, 50] == axis
    assert [1, "", 2, None, 3] == a
    assert [7, 8, "", None, 9] == b


# Numbers and words


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("number(1234567)", "1,234,567"),
        ("number(98.66)", "98.7"),
        ("number(0.4249)", "0.42"),
        ("number(NaN)", "–"),
        ("fixed(1234.5, 2)", "1,234.50"),
        ("fixed(null, 2)", "–"),
        ("short(12345)", "12.35 k"),
        ("short(4560000)", "4.56 M"),
        ("quantity(38412, 'W')", "38.4 kW"),
        ("quantity(700, 'W')", "700 W"),
        ("quantity(81559, 'MiB')", "79.6 GiB"),
        ("quantity(NaN, 'W')", "–"),
        ("duration(0.4)", "400 ms"),
        ("duration(90)", "90 s"),
        ("duration(600)", "10 min"),
        ("duration(200000)", "2.3 d"),
        ("ago(0, 65000)", "65 s ago"),
        ("ago(NaN, 0)", "never"),
        ("ago(9e5, 0)", "in 15 min"),
        ("moment('2025-07-18T20:42:34Z')", "2025-07-18 22:42:34"),
        ("moment('x')", "–"),
        ("metricTitle('DCGM_FI_DEV_GPU_UTIL')", "GPU util"),
        ("metricTitle('DCGM_FI_PROF_PIPE_TENSOR_ACTIVE')", "Pipe tensor active"),
        ("metricTitle('my_metric')", "My metric"),
        ("count(1, 'GPU')", "1 GPU"),
        ("count(2, 'GPU')", "2 GPUs"),
    ],
)
def test_values_read_as_people_write_them(run: Run, call: str, text: str) -> None:
    """A tile, a tip, a table."""
    assert text == run("format", f"return m.{call}")


def test_an_axis_of_time_names_the_day_where_one_begins(run: Run) -> None:
    """A chart over midnight, and one over a month, in the browser's zone."""
    hours, days = run(
        "format",
        "const at = Date.parse('2025-07-18T20:00:00Z') / 1000;"
        "return [m.ticks([at, at + 7200, at + 14400], 7200),"
        " m.ticks([at + 7200, at + 93600], 86400)]",
    )
    assert ["22:00", "07-19", "02:00"] == hours
    assert ["07-19", "07-20"] == days


# Server-sent events


def test_events_are_whole_wherever_the_stream_is_cut(run: Run) -> None:
    """The network cuts a stream anywhere, even between CR and LF."""
    stream = ": hi\r\nid: 7\r\nevent: samples\r\ndata: {\r\ndata: }\r\n\r\ndata: x\n\nid: 8\n\n"
    differing = run(
        "sse",
        """
        const whole = new m.Events();
        const expected = JSON.stringify([whole.push(a), whole.lastId]);
        const differing = [];
        for (let cut = 0; cut <= a.length; cut++) {
          const parser = new m.Events();
          const found = [...parser.push(a.slice(0, cut)), ...parser.push(a.slice(cut))];
          if (JSON.stringify([found, parser.lastId]) !== expected) differing.push(cut);
        }
        return [expected, differing];
        """,
        stream,
    )
    expected, cuts = differing
    assert [] == cuts
    assert '[[{"event":"samples","data":"{\\n}"},{"event":"message","data":"x"}],"8"]' == expected


# The fleet


def _device(uuid: str, host: str, gpu: str, **latest: float | None) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "gpu_id": gpu,
        "device": f"nvidia{gpu}",
        "hostname": host,
        "model_name": "NVIDIA H100",
        "pods": [{"namespace": "research", "pod": f"train-{uuid}", "container": "c"}],
        "last_seen": "2025-07-18T00:00:00Z",
        "latest": {
            f"DCGM_FI_DEV_{name}": {"value": value, "timestamp": "2025-07-18T00:00:00Z"}
            for name, value in latest.items()
        },
    }


_DEVICES = [
    _device("d", "host-10", "0", GPU_UTIL=2, POWER_USAGE=100.5),
    _device("b", "host-2", "10", GPU_UTIL=90, POWER_USAGE=650, FB_USED=30, FB_FREE=10),
    _device("a", "host-2", "9", GPU_UTIL=98, GPU_TEMP=71, POWER_USAGE=700, FB_USED=10, FB_FREE=30),
    _device("c", "host-2", "11"),
]


def test_hosts_and_gpus_stand_in_the_order_of_their_numbers(run: Run) -> None:
    """host-2 before host-10, GPU 9 before GPU 10."""
    found = run(
        "fleetmodel",
        "const f = new m.Fleet(a); const s = new m.Selection(f);"
        "return [f.gpus.map((g) => g.uuid).join(''), s.hosts, s.counts]",
        _DEVICES,
    )
    assert ["abcd", ["host-2", "host-10"], [3, 1]] == found


def test_totals_count_what_is_measured_and_nothing_else(run: Run) -> None:
    """One GPU reports nothing: it neither pulls a mean down nor adds to a sum."""
    total = run("fleetmodel", "return new m.Fleet(a).totals()", _DEVICES)
    assert (4, 2, 2, 3) == tuple(total[name] for name in ("gpus", "hosts", "busy", "measured"))
    assert pytest.approx(190 / 3) == total["utilization"]
    assert pytest.approx(1450.5) == total["power"]
    assert (40, 80, 71, 0) == tuple(
        total[name] for name in ("used", "memory", "hottest", "hottestAt")
    )


def test_what_nobody_measures_is_unknown_and_not_zero(run: Run) -> None:
    """A fleet whose exporter tells no power."""
    total = run(
        "fleetmodel",
        "const t = new m.Fleet(a).totals(); return ['power', 'used', 'memory', 'hottest']"
        ".map((name) => Number.isNaN(t[name]))",
        [_device("a", "host-1", "0", GPU_UTIL=5)],
    )
    assert [True] * 4 == total


def test_samples_change_their_gpu_and_strangers_are_told(run: Run) -> None:
    """The live stream tells of a GPU that was plugged in after the page was opened."""
    util = "DCGM_FI_DEV_GPU_UTIL"
    found = run(
        "fleetmodel",
        "const f = new m.Fleet(a[0]); const r = f.apply(a[1]);"
        "return [r, f.value('utilization', 2), Number.isNaN(f.value('memory', 2)), f.newest]",
        [
            _DEVICES,
            [
                ["c", util, "2025-07-18T00:00:10Z", 55],
                ["a", util, "2025-07-18T00:00:10Z", 98],
                ["z", util, "2025-07-18T00:00:10Z", 1],
                ["b", "SOMETHING_ELSE", "2025-07-18T00:00:20Z", 1],
            ],
        ],
    )
    assert [{"changed": [2], "unknown": True}, 55, True, 1_752_796_820_000] == found


@pytest.mark.parametrize(
    ("search", "left"),
    [("", 4), ("host-2", 3), ("HOST-2 train-b", 1), ("h100", 4), ("nobody", 0), ("  ", 4)],
)
def test_a_search_leaves_what_holds_all_its_words(run: Run, search: str, left: int) -> None:
    """Somebody looks for a pod of a host."""
    found = run(
        "fleetmodel",
        "const s = new m.Selection(new m.Fleet(a[0]), a[1]);"
        "const there = s.numbers.every((n) => s.indexAt(s.placeOf(n)) === n);"
        "return [s.numbers.length, there, s.placeOf(99)]",
        [_DEVICES, search],
    )
    assert [left, True, None] == found


def test_the_scale_of_power_is_a_round_number_above_the_fleet(run: Run) -> None:
    """700 W is the most that anybody draws."""
    assert {"low": 0, "high": 700} == run(
        "fleetmodel", "return new m.Fleet(a).bounds('power')", _DEVICES
    )
    assert {"low": 0, "high": 100} == run("fleetmodel", "return new m.Fleet([]).bounds('power')")


def test_metrics_of_one_unit_share_a_chart_and_unknown_ones_have_their_own(run: Run) -> None:
    """A fleet exports what telemq has never heard of."""
    charts = run(
        "metrics",
        "return m.chartsOf(a[0], new Map(a[1])).map((c) => [c.title, c.unit, c.metrics])",
        [
            ["X", "DCGM_FI_DEV_ENC_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_UTIL"],
            [
                ["DCGM_FI_DEV_GPU_UTIL", {"unit": "%"}],
                ["DCGM_FI_DEV_ENC_UTIL", {"unit": "%"}],
                ["DCGM_FI_DEV_GPU_TEMP", {"unit": "°C"}],
            ],
        ],
    )
    assert [
        ["Utilisation", "%", ["DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_ENC_UTIL"]],
        ["Temperature", "°C", ["DCGM_FI_DEV_GPU_TEMP"]],
        ["X", "", ["X"]],
    ] == charts


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (None, ""),
        ("", ""),
        (
            "xid=24, ecc=1",
            "Not known, because it is not measured: XID errors of 24 GPUs, ECC errors of 1 GPU.",
        ),
    ],
)
def test_no_news_is_good_news_only_of_what_is_measured(
    run: Run, header: str | None, words: str
) -> None:
    """A fleet whose exporter does not tell XID errors."""
    assert words == run("wrong", "return m.unmeasured(a)", header)


def test_history_forgets_its_oldest(run: Run) -> None:
    """A page of the pipeline is left open for a week."""
    found = run(
        "history",
        "const h = new m.History(2); h.add(1, [10, 20]); h.add(2, [11, 21]); h.add(3, [12, 22]);"
        "return [h.columns(1), m.sumOf([{x: 1}, {}, {x: 2}], 'x'), m.sumOf([{}], 'x')]",
    )
    assert [[[2, 3], [21, 22]], 3, None] == found
