"""The series of a source, cut once into groups that are the same in every batch.

However a stream is cut into batches, most of a batch's series are whole groups, and each of those
is one object: spelt once by the streamer, and recognised at once by whoever reads it.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from telemq.record import SeriesGroup, SeriesLabels

__all__ = ["GROUP_SERIES", "SeriesTable"]

#: Series a group: at a batch's two ends, half a group each is spelt series by series; and each
#: group of a batch costs a microsecond, whatever is in it.
GROUP_SERIES = 64


class SeriesTable:
    """All series of a source, by number.

    Args:
        labels: without repetition; those that come together should be neighbours.
    """

    def __init__(self, labels: tuple[SeriesLabels, ...]) -> None:
        self._labels = labels
        self._groups = [
            SeriesGroup(labels[start : start + GROUP_SERIES])
            for start in range(0, len(labels), GROUP_SERIES)
        ]

    def pick(
        self, numbers: npt.NDArray[np.integer]
    ) -> tuple[tuple[SeriesGroup, ...], npt.NDArray[np.int32]]:
        """Give the series that a batch needs, in groups, and each record's index into them.

        Args:
            numbers: (n,) the series of each record, as an index into the table.

        Returns:
            The groups; one of which the batch needs all is the same object every time. And (n,)
            the indexes into their series, one group after the other.
        """
        used, index = np.unique(numbers, return_inverse=True)
        places = used // GROUP_SERIES
        starts = np.flatnonzero(np.diff(places, prepend=-1)).tolist()
        groups = []
        for start, end in pairwise([*starts, len(used)]):
            group = self._groups[int(places[start])]
            if end - start < len(group.labels):
                some = used[start:end].tolist()
                group = SeriesGroup(tuple(map(self._labels.__getitem__, some)))
            groups.append(group)
        return tuple(groups), index.astype(np.int32, copy=False)
