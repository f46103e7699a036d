"""The latest value of every series: what changes it, and which series are asked for more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from telemq.errors import StoreError
from telemq.gateway.board import HOT_S, SWEEP_S, Board, Due
from telemq.store.columns import NEVER_US
from telemq.store.latest import Found, SeriesRow

S = 1_000_000_000
#: The database's clock at the first look, in microseconds.
NOW = 1_800_000_000_000_000


def row(id: int, uuid: str = "GPU-1", metric: str = "M") -> SeriesRow:
    return SeriesRow(id, metric, "0", "nvidia0", uuid, "H100", "host-1", "", "", "", "")


def found(*samples: tuple[int, int, float]) -> Found:
    """Samples of a series id, a time in microseconds and a value."""
    return Found(
        np.array([s for s, _, _ in samples], np.int32),
        np.array([t for _, t, _ in samples], np.int64),
        np.array([v for _, _, v in samples], np.float64),
    )


def loaded(*samples: tuple[int, int, float], series: int = 3) -> Board:
    """A board of series with the ids 10, 20, 30 …, loaded at time 0."""
    board = Board(1_000_000)
    board.add([row(10 * n, f"GPU-{n}") for n in range(1, series + 1)], now_ns=0)
    due = board.due(0)
    assert series == len(due.cold)
    board.take(found(*samples), due, now_ns=0, at_us=NOW)
    return board


def many(board: Board, now_ns: int, *, committed: bool = True) -> Due:
    """What is due, as if the board were too large to ask for all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("telemq.gateway.board._SMALL", 0)
        return board.due(now_ns, committed=committed)


def test_the_latest_sample_of_each_series_stays() -> None:
    """A batch has several samples of one series, in any order."""
    board = loaded((20, NOW, 2.0), (10, NOW, 9.0), (10, NOW - 5, 8.0), (10, NOW - 9, 7.0))
    assert [9.0, 2.0] == board.value[:2].tolist()
    assert [NOW, NOW, NEVER_US] == board.last_us.tolist()
    update = board.take(found((10, NOW + 7, 5.0)), board.due(S), now_ns=S, at_us=NOW + S // 1000)
    assert ([0], [NOW + 7], [5.0]) == (
        update.slots.tolist(), update.time_us.tolist(), update.value.tolist()
    )  # fmt: skip
    assert 5.0 == board.value[0]


def test_what_a_turn_brought_comes_in_order_of_time() -> None:
    """Live clients draw lines from it."""
    board = loaded((10, NOW - 9, 0.0))
    more = found((30, NOW + 3, 3.0), (10, NOW + 1, 1.0), (20, NOW + 2, 2.0), (10, NOW + 4, 4.0))
    update = board.take(more, board.due(S), now_ns=S, at_us=NOW)
    assert [1.0, 2.0, 3.0, 4.0] == update.value.tolist()
    assert [10, 20, 30, 10] == [board.series[slot].id for slot in update.slots.tolist()]


def test_series_that_come_later_and_twice_are_added_once() -> None:
    """A pod starts; ids are not committed in their order, so some are listed again."""
    board = loaded((10, NOW, 1.0))
    board.add([row(30, "GPU-3"), row(25, "GPU-new"), row(40, "GPU-1", "N")], now_ns=0)
    assert [10, 20, 30, 25, 40] == [series.id for series in board.series]
    assert 40 == board.last_id
    assert ["GPU-1", "GPU-2", "GPU-3", "GPU-new"] == board.uuids
    board.take(found((25, NOW, 4.0), (40, NOW, 5.0)), board.due(S), now_ns=S, at_us=NOW)
    assert [4.0, 5.0] == board.value[3:].tolist()
    assert [[0, 4], [1], [2], [3]] == board.slots_of


def test_more_series_than_the_limit_are_refused_with_its_name() -> None:
    """A label that changes with each record makes a series of each."""
    board = Board(2)
    board.add([row(1), row(2)], now_ns=0)
    board.add([row(2)], now_ns=0)
    with pytest.raises(StoreError, match="--board-series-max"):
        board.add([row(3)], now_ns=0)
    assert 2 == len(board)


def test_only_gpus_that_changed_are_marked() -> None:
    """Documents of the others are not made again."""
    board = loaded((10, NOW, 1.0), (20, NOW, 1.0))
    before = board.gpu_changes.copy()
    board.take(found((20, NOW + 1, 2.0)), board.due(S), now_ns=S, at_us=NOW)
    assert [False, True, False] == (board.gpu_changes > before).tolist()


def test_a_few_series_are_all_asked_in_every_turn() -> None:
    """A replay of old records: their times are of last year, and they come now."""
    board = loaded((10, NOW - 10**15, 1.0))
    assert [0, 1, 2] == sorted([*board.due(S).hot.tolist(), *board.due(S).cold.tolist()])


def test_of_many_series_those_are_asked_whose_samples_come() -> None:
    """A fleet with a long history of pods that ended."""
    board = loaded((10, NOW, 1.0), (20, NOW - 10**10, 1.0))
    assert [0] == many(board, S).hot.tolist()


def test_a_new_series_is_asked_until_its_first_sample_is_there() -> None:
    """A collector makes the series of a new pod first, and commits its samples a moment later."""
    board = loaded((10, NOW, 1.0))
    board.add([row(40)], now_ns=S)
    due = many(board, S)
    assert 3 in due.cold.tolist()
    assert 3 not in due.hot.tolist()
    board.take(found(), due, now_ns=S, at_us=NOW)
    assert 3 in many(board, 2 * S).hot.tolist()
    assert 3 not in many(board, 2 * S).cold.tolist()


def test_a_series_that_is_not_hot_is_asked_once_in_a_while() -> None:
    """A GPU that was gone comes back, or its samples come hours late."""
    board = loaded((10, NOW, 1.0), (20, NOW - 10**10, 1.0))
    asked = {slot for s in range(1, 2 * int(SWEEP_S)) for slot in many(board, s * S).cold.tolist()}
    assert {1, 2} == asked
    now_ns = 2 * int(SWEEP_S) * S
    due = many(board, now_ns)
    assert 1 in due.cold.tolist()
    board.take(found((20, NOW - 10**10 + 1, 2.0)), due, now_ns=now_ns, at_us=NOW)
    assert 1 in many(board, now_ns + S).hot.tolist()
    assert [] == many(board, now_ns + S).cold.tolist()


def test_a_series_of_which_nothing_comes_is_hot_no_longer() -> None:
    """A pod ended; soon its series costs next to nothing."""
    board = loaded((10, NOW, 1.0))
    assert [0] == many(board, int(HOT_S) * S - 1).hot.tolist()
    assert [] == many(board, int(HOT_S) * S).hot.tolist()
    assert 0 in many(board, int(HOT_S) * S).cold.tolist()


def test_a_hot_series_rests_for_half_of_its_interval() -> None:
    """A fleet that is scraped every 10 s need not be asked every second."""
    board = loaded((10, NOW - 10_000_000, 1.0), (10, NOW, 1.0))
    assert 10_000_000 == board.interval_us[0]
    board.take(found((10, NOW + 10_000_000, 2.0)), many(board, 9 * S), now_ns=9 * S, at_us=NOW)
    assert [] == many(board, 13 * S).hot.tolist()
    assert [0] == many(board, 14 * S).hot.tolist()


def test_after_the_last_commit_a_series_that_rested_is_asked_once() -> None:
    """Nothing is committed any more: its last sample was seen when something else was."""
    board = loaded((10, NOW, 1.0))
    board.take(found((10, NOW + 60_000_000, 2.0)), many(board, 60 * S), now_ns=60 * S, at_us=NOW)
    resting = many(board, 61 * S)
    assert 0 not in resting.hot.tolist()
    board.take(found(), resting, now_ns=61 * S, at_us=NOW)
    assert [] == many(board, 89 * S, committed=False).hot.tolist()
    rested = many(board, 90 * S, committed=False)
    assert [0] == rested.hot.tolist()
    board.take(found(), rested, now_ns=90 * S, at_us=NOW)
    assert 0 == len(many(board, 91 * S, committed=False))


@pytest.mark.parametrize("ask", [many, Board.due])
def test_after_the_last_commit_a_series_that_is_not_hot_is_asked_once(
    ask: Callable[..., Due],
) -> None:
    """Hours late, and straight into a chunk: partitions have nothing of it."""
    board = loaded((10, NOW, 1.0), (20, NOW - 10**10, 1.0))
    asked = list[int]()
    for second in range(1, 2 * int(SWEEP_S)):
        due = ask(board, second * S, committed=second == 1)
        asked += due.cold.tolist()
        board.take(found(), due, now_ns=second * S, at_us=NOW)
    assert [1, 2] == sorted(asked)
    assert 0 == len(ask(board, int(HOT_S) * 2 * S, committed=False))


def test_the_interval_is_that_of_the_latest_two_samples() -> None:
    """After a pause a turn brings many at once."""
    board = loaded((10, NOW, 1.0))
    assert 0 == board.interval_us[0]
    several = found((10, NOW + 90, 4.0), (10, NOW + 80, 3.0), (20, NOW, 1.0), (20, NOW - 3, 1.0))
    board.take(several, board.due(S), now_ns=S, at_us=NOW)
    assert [10, 3, 0] == board.interval_us.tolist()
