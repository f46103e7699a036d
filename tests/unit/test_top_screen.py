"""How `telemq top` looks, drawn on terminals of several sizes."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from telemq.top.screen import render, short
from telemq.watch.numbers import BrokerView, Watched
from tests.unit.test_watch_numbers import peer, status


def draw(
    *views: BrokerView, width: int = 80, height: int | None = 24, sort: str = "trouble"
) -> list[str]:
    """The lines on a terminal of that size."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(views, title="telemq top", sort=sort, width=width, height=height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def seen(peers: int, url: str = "http://127.0.0.1:9601", **changed: object) -> BrokerView:
    """A broker with so many peers, read twice."""
    watched = Watched(url)
    all = [
        msgspec.structs.replace(peer(f"streamer host-{n:02d}:4000", "producer"), **changed)
        for n in range(peers)
    ]
    watched.take(status(10, *all))
    return watched.take(status(12, *all, accepted=5_000_000))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 12)])
@pytest.mark.parametrize("brokers", [1, 3])
def test_view_fits_the_terminal_and_says_what_it_leaves_out(
    width: int, height: int, brokers: int
) -> None:
    """A thousand peers on an ordinary terminal."""
    views = [seen(1000, f"http://127.0.0.1:960{n}") for n in range(brokers)]
    lines = draw(*views, width=width, height=height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    shown = sum("streamer" in line for line in lines)
    assert shown >= 3
    assert f"… and {1000 * brokers - shown:,} more" == lines[-1].strip()


def test_narrow_terminal_still_shows_whole_names_rates_and_trouble() -> None:
    """80 columns."""
    lines = draw(seen(2, silent_s=9.0))
    (line, _) = [line for line in lines if "streamer" in line]
    assert "streamer host-00:4000" in line
    assert line.rstrip().endswith("silent for 9 s")
    assert "2.5M" in "\n".join(lines)


def test_all_peers_are_shown_where_there_is_no_height() -> None:
    """`telemq top --once | less`."""
    assert 100 == sum("streamer" in line for line in draw(seen(100), height=None))


def test_trouble_that_is_left_out_is_counted() -> None:
    """Sorted by rate, the stuck ones are beyond the last line."""
    lines = draw(seen(100, silent_s=9.0), sort="rate")
    assert lines[-1].strip().endswith("of them in trouble")


def test_broker_that_cannot_be_read_is_told_with_its_reason() -> None:
    """One of two is down: the reason is not cut on a narrow terminal."""
    lines = draw(seen(1), BrokerView("http://10.0.0.7:9601", "connection refused"))
    assert any("10.0.0.7:9601: connection refused" in line for line in lines)
    assert any("1 of 2 read" in line for line in lines)
    assert any("streamer host-00" in line for line in lines)


def test_name_of_a_peer_cannot_steer_the_terminal() -> None:
    """A peer chose its name with care; markup is text, too."""
    for name, told in (("\x1b]0;x\x07", r"\x1b]0;x\x07"), ("[red]x[/]", "[red]x[/]")):
        text = "\n".join(draw(seen(1, name=name), width=120))
        assert "\x1b" not in text
        assert told in text


def test_key_is_shown_when_there_are_keys() -> None:
    """With CURVE, an operator asks whose connection it is."""
    assert "rack-7" in "\n".join(draw(seen(1, key="rack-7"), width=120))
    assert " key " not in "\n".join(draw(seen(1), width=120))


def test_quiet_broker_says_so() -> None:
    """Nobody is connected."""
    assert "no peers" in "\n".join(draw(seen(0)))


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (None, "-"),
        (0, "0"),
        (0.25, "0.25"),
        (999, "999"),
        (1000, "1k"),
        (12_345, "12.3k"),
        (999_999, "1M"),
        (4_560_000, "4.56M"),
        (1e12, "1T"),
        (123_456_789e9, "123,457T"),
    ],
)
def test_numbers_are_short(number: float | None, told: str) -> None:
    """A column is six characters wide."""
    assert told == short(number)
