"""A table of series gives every batch the series that it needs, in groups that stay the same."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from telemq.grouping import GROUP_SERIES, SeriesTable
from telemq.record import SeriesGroup, SeriesLabels

COUNT = 3 * GROUP_SERIES + 5
LABELS = tuple(SeriesLabels("m", "", "", f"GPU-{i}", *[""] * 6) for i in range(COUNT))

runs = st.tuples(st.integers(0, len(LABELS) - 1), st.integers(1, len(LABELS))).map(
    lambda run: np.arange(run[0], run[0] + run[1]) % len(LABELS)
)
some = st.lists(st.integers(0, len(LABELS) - 1)).map(lambda numbers: np.array(numbers, np.int32))


@given(st.lists(runs | some, min_size=1, max_size=5), st.integers(1, len(LABELS)))
@example([np.arange(GROUP_SERIES - 1), np.arange(1, GROUP_SERIES + 1)], COUNT)
def test_batches_get_their_series_and_no_others(batches: list[np.ndarray], series: int) -> None:
    """A file that is cut anywhere, with more or fewer series than a group has."""
    table = SeriesTable(LABELS[:series])
    cuts = {LABELS[:series][i : i + GROUP_SERIES] for i in range(0, series, GROUP_SERIES)}
    whole: dict[tuple[SeriesLabels, ...], SeriesGroup] = {}
    for numbers in (batch % series for batch in batches):
        groups, index = table.pick(numbers)
        picked = [labels for group in groups for labels in group.labels]
        assert [LABELS[number] for number in numbers.tolist()] == [picked[i] for i in index]
        assert len(set(numbers.tolist())) == len(picked)
        assert np.int32 == index.dtype
        for group in groups:
            if group.labels in cuts:
                assert group is whole.setdefault(group.labels, group)
