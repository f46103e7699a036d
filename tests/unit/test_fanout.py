"""Live clients: who gets what, how it is spelt, and what becomes of a slow one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from telemq.gateway import fanout as module
from telemq.gateway.board import Board, Update
from telemq.gateway.fanout import Fanout, Filter, Picked, Watcher
from telemq.store.latest import SeriesRow

T = 1_752_871_354_000_000  # 2025-07-18T20:42:34Z


def board() -> Board:
    """Two GPUs with two metrics each: slots 0 and 1, 2 and 3."""
    made = Board(100)
    made.add(
        [
            SeriesRow(1 + n, f"M{n % 2}", "0", "", f"GPU-{n // 2}", "", "", "", "", "", "")
            for n in range(4)
        ],
        now_ns=0,
    )
    return made


def update(*slots: int) -> Update:
    return Update(
        1, T, np.array(slots), T + np.arange(len(slots)), np.arange(len(slots), dtype=float)
    )


def joined(fanout: Fanout, wanted: Filter | None = None) -> tuple[Watcher, list[None]]:
    """A client, and how often it was woken."""
    woken: list[None] = []
    return fanout.watch(wanted or Filter(), lambda: woken.append(None)), woken


def slots(watcher: Watcher) -> list[int]:
    picked = watcher.take()
    return picked.slots.tolist() if picked else []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(), [0, 1, 2, 3]),
        (Filter(gpus=frozenset({"GPU-1"})), [2, 3]),
        (Filter(metrics=frozenset({"M0"})), [0, 2]),
        (Filter(frozenset({"GPU-0", "GPU-9"}), frozenset({"M1"})), [1]),
        (Filter(gpus=frozenset({"GPU-9"})), []),
    ],
)
def test_a_client_hears_of_what_it_wants(wanted: Filter, expected: list[int]) -> None:
    """A heat map wants one metric of all GPUs, a page all metrics of one."""
    fanout = Fanout(100, 10)
    watcher, woken = joined(fanout, wanted)
    fanout.publish(board(), update(0, 1, 2, 3))
    assert expected == slots(watcher)
    assert bool(expected) == bool(woken)
    assert watcher.take() is None


def test_clients_with_the_same_filter_share_what_is_picked() -> None:
    """A hundred dashboards show the same page: it is spelt once."""
    fanout = Fanout(100, 10)
    first, second = (joined(fanout, Filter(metrics=frozenset({"M0"})))[0] for _ in range(2))
    fanout.publish(board(), update(0, 1, 2, 3))
    assert first.take() is second.take() is not None


def test_a_gpu_that_comes_later_is_heard_of() -> None:
    """A node is added while clients watch."""
    fanout, made = Fanout(100, 10), board()
    watcher, _ = joined(fanout, Filter(gpus=frozenset({"GPU-new"})))
    fanout.publish(made, update(0))
    made.add([SeriesRow(9, "M0", "0", "", "GPU-new", "", "", "", "", "", "")], now_ns=0)
    fanout.publish(made, update(0, 4))
    assert [4] == slots(watcher)


def test_a_slow_client_loses_all_that_waits_and_is_told_how_much() -> None:
    """A laptop goes to sleep: what waits for it is bounded, and others lose nothing."""
    fanout = Fanout(5, 10)
    slow, _ = joined(fanout)
    quick, _ = joined(fanout)
    for _ in range(3):
        fanout.publish(board(), update(0, 1))
        assert [0, 1] == slots(quick)
    assert slow.take() is None
    assert 6 == fanout.missed
    fanout.publish(board(), update(0, 1))  # not before it began anew
    assert slow.take() is None
    assert 8 == slow.take_missed()
    assert 0 == slow.take_missed()
    fanout.publish(board(), update(3))
    assert [3] == slots(slow)
    assert 8 == fanout.missed


def test_there_is_a_limit_on_clients_and_a_place_is_given_back() -> None:
    """Somebody's loop opens connection after connection."""
    fanout = Fanout(5, 1)
    watcher, _ = joined(fanout)
    assert fanout.full
    fanout.leave(watcher)
    fanout.leave(watcher)
    assert not fanout.full


def test_all_end_when_the_gateway_stops_also_those_that_come_then() -> None:
    """SIGTERM: a stream has no end of its own."""
    fanout = Fanout(5, 10)
    watcher, woken = joined(fanout)
    fanout.close()
    assert watcher.closed
    assert woken
    assert joined(fanout)[0].closed


def test_samples_are_spelt_in_pieces_that_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names come from outside; a time has microseconds only where there are any."""
    monkeypatch.setattr(module, "_PIECE", 2)
    names = ['</script><script>alert("ü")', "a,b", "[]"]
    series = [SeriesRow(1, "M,1", "", "", name, "", "", "", "", "", "") for name in names]
    picked = Picked(
        series, np.array([0, 1, 2]), T + np.array([0, 250_000, 1]), np.array([1.5, -2, 1e300]), T
    )
    pieces = list(picked.pieces())
    rows = [row for piece in pieces for row in json.loads(piece)["samples"]]
    assert 2 == len(pieces)
    assert [
        [names[0], "M,1", "2025-07-18T20:42:34Z", 1.5],
        [names[1], "M,1", "2025-07-18T20:42:34.250000Z", -2.0],
        [names[2], "M,1", "2025-07-18T20:42:34.000001Z", 1e300],
    ] == rows
    assert pieces[0] is next(picked.pieces())
