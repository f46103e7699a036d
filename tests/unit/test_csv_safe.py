"""What a spreadsheet would make of an exported cell."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemq.csv_safe import csv_line, csv_text

ACTIVE = ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"]


@pytest.mark.parametrize("first", ACTIVE)
def test_text_that_a_spreadsheet_would_run_is_shown_as_text(first: str) -> None:
    """A pod was named `=HYPERLINK(…)` by somebody who waits for the monthly report."""
    (row,) = csv.reader(
        io.StringIO(csv_line([f'{first}HYPERLINK("http://x",1)'], "\n"), newline="")
    )
    assert [f'\'{first}HYPERLINK("http://x",1)'] == row


def test_numbers_and_absent_cells_are_written_as_they_are() -> None:
    """A temperature below zero is no formula."""
    assert "-5.0,-3,96.5,,\r\n" == csv_line([-5.0, -3, 96.5, None, ""])


def test_text_that_looks_like_a_number_is_text() -> None:
    """Text is text: whoever wrote the label meant no number."""
    assert "'-5" == csv_text("-5")


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"])) | st.floats(allow_nan=False), min_size=2
    )
)
def test_every_line_reads_back_as_what_was_written_or_that_after_an_apostrophe(
    cells: list[str | float],
) -> None:
    """Any label whatever: quotes, commas, line ends."""
    (row,) = csv.reader(io.StringIO(csv_line(cells), newline=""), strict=True)
    for cell, read in zip(cells, row, strict=True):
        assert read in ({cell, f"'{cell}"} if isinstance(cell, str) else {repr(cell)})
        assert isinstance(cell, float) or not read.startswith(tuple(ACTIVE))
