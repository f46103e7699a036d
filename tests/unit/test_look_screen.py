"""How `telemq gpus` looks, drawn on terminals of several sizes."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len
from rich.console import Console

from telemq.look.board import GpuRow, Pod
from telemq.look.screen import View, ago, render, spark
from tests.unit.test_look_board import gpu

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def rows(count: int, **changed: object) -> list[GpuRow]:
    """GPUs that are all alike but for their place."""
    values: dict[str, object] = {
        "pods": (Pod("research", "llm-pretrain-0", "trainer"),),
        "utilization_percent": 87.4,
        "memory_used_mib": 74_300.0,
        "memory_total_mib": 81_007.0,
        "temperature_celsius": 61.0,
        "power_watts": 640.2,
        "last_seen": AT - timedelta(seconds=5),
        "recent": tuple(float(n * 5) for n in range(20)),
        **changed,
    }
    return [GpuRow(gpu=gpu(n), **values) for n in range(count)]  # type: ignore[arg-type]


def draw(
    shown: list[GpuRow], *, width: int = 120, height: int | None = 24, fault: str = ""
) -> list[str]:
    """The lines on a terminal of that size."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(View(shown, AT, 600, fault), width=width, height=height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 52, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("height", [6, 24, 50])
def test_table_fits_the_terminal_and_says_what_it_leaves_out(width: int, height: int) -> None:
    """A thousand GPUs on whatever window somebody has."""
    lines = draw(rows(1000), width=width, height=height, fault="not read since then: gone")
    assert len(lines) < height
    assert all(cell_len(line) <= width for line in lines)
    shown = sum(line.startswith("host-") for line in lines)
    assert shown >= 1
    assert f"… and {1000 - shown:,} more" == lines[-1].strip()


@pytest.mark.parametrize(
    ("width", "there", "not_there"),
    [
        (26, ["87%", "5 s"], ["61 °C", "▁"]),
        (50, ["87%", "61 °C", "5 s", "5 min", "▅▅▅"], ["640 W", "GiB", "research"]),
        (80, ["87%", "72.6 of 79 GiB", "640 W", "10 min", "▁▁▁▂"], ["research", "H100"]),
        (100, ["research/llm-pretrain-0", "10 min", "▁▁▁▂"], ["H100"]),
        (160, ["H100 80GB HBM3", "research/llm-pretrain-0", "▁▁▁▂"], []),
    ],
)
def test_narrow_terminal_leaves_out_what_can_be_done_without(
    width: int, there: list[str], not_there: list[str]
) -> None:
    """Half a screen beside an editor."""
    text = "\n".join(draw(rows(2), width=width))
    assert [] == [word for word in there if word not in text]
    assert [] == [word for word in not_there if word in text]


@pytest.mark.parametrize("width", range(26, 200))
def test_numbers_are_never_cut(width: int) -> None:
    """A cut number looks like another one; a cut name can be told."""
    shown = rows(1, pods=(Pod("n" * 60, "p" * 60, ""),))
    head, line = draw(shown, width=width)[1:]
    assert head.split()[-1] == "seen"
    cells = ["87%", "61 °C", "640 W", "72.6 of 79 GiB", "5 s"]
    for name, cell in zip(["util", "temp", "power", "memory", "seen"], cells, strict=True):
        assert (name in head) == (cell in line)


def test_all_gpus_are_shown_where_there_is_no_height() -> None:
    """`telemq gpus | less`."""
    assert 100 == sum(line.startswith("host-") for line in draw(rows(100), height=None))


def test_title_has_totals_and_those_that_are_silent() -> None:
    """The first line is what somebody looks at from across the room."""
    silent = GpuRow(gpu=gpu(9), last_seen=AT - timedelta(hours=3))
    (title, *lines) = draw([*rows(2), silent])
    assert "3 GPUs on 2 hosts, 87% busy, 1.3 kW, 1 silent" in title
    assert "3 h" in lines[-1]
    assert "-" in lines[-1].split()


def test_silent_gpus_that_are_left_out_are_counted() -> None:
    """They are beyond the last line."""
    lines = draw(rows(100, last_seen=AT - timedelta(hours=3)))
    assert lines[-1].strip().endswith("of them silent")


def test_label_cannot_steer_the_terminal() -> None:
    """A pod was named with care; markup is text, too."""
    for name, told in (("\x1b]0;x\x07", r"\x1b]0;x\x07"), ("[red]x[/]", "[red]x[/]")):
        text = "\n".join(draw(rows(1, pods=(Pod("n", name, "c"),)), width=160))
        assert "\x1b" not in text
        assert told in text


def test_gpu_that_pods_share_says_how_many_there_are() -> None:
    """Time slicing."""
    pods = (Pod("a", "one", ""), Pod("b", "two", ""))
    assert "a/one +1" in "\n".join(draw(rows(1, pods=pods)))


def test_nothing_there_says_so() -> None:
    """Before the first record."""
    assert ["no GPUs"] == [line.strip() for line in draw([])[1:]]


def test_bars_go_from_nothing_to_full_and_stay_within() -> None:
    """A mean of 100 is full; beyond the scale is not beyond the bars."""
    assert "▁▁▂▄█ ██▁" == spark([0, 12.4, 12.5, 49, 100, None, 99.9, 400, -5])


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-5, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 m"), (7200, "2 h"), (172_800, "2 d")],
)
def test_ages_are_short(seconds: float, told: str) -> None:
    """A column is five characters wide; a clock may be ahead."""
    assert told == ago(AT - timedelta(seconds=seconds), AT)
    assert "never" == ago(None, AT)
