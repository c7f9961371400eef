"""docs/payouts.md: the table of what is available is computed, row by row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pricing.payouts import Holdings, Purse

PAGE = Path(__file__).resolve().parents[2] / "docs" / "payouts.md"
ROWS = re.findall(r"^\|((?: -?\d+ \|){7})$", PAGE.read_text(), re.M)
OF_PROMOTIONAL = re.findall(r"^\|((?: -?\d+ \|){5})$", PAGE.read_text(), re.M)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_what_the_program_computes(row: str) -> None:
    earned, young, penalties, new, *told = [int(cell) for cell in row.split("|")[:-1]]
    held = Holdings(Purse(earned, young), Purse(penalties, new))
    assert told == [held.available, held.held_back, held.deficit]


@pytest.mark.parametrize("row", OF_PROMOTIONAL)
def test_a_row_of_promotional_credit_is_what_the_program_computes(row: str) -> None:
    free, promotional, left, *told = [int(cell) for cell in row.split("|")[:-1]]
    held = Holdings(Purse(free), promotional=promotional, promotional_left=left)
    assert told == [held.available, held.deficit]


def test_there_are_rows() -> None:
    assert (len(ROWS), len(OF_PROMOTIONAL)) == (7, 6)


def test_what_money_has_paid_goes_out_before_what_promotional_credit_has() -> None:
    held = Holdings(Purse(100), promotional=30, promotional_left=20)
    assert [held.of_promotional(amount) for amount in (1, 70, 71, 90)] == [0, 0, 1, 20]
    with pytest.raises(ValueError, match="available"):
        held.of_promotional(91)


@pytest.mark.parametrize(("amount", "of_penalties"), [(1, 0), (60, 0), (61, 1), (75, 15)])
def test_penalties_are_paid_out_when_the_earnings_are_used_up(amount: int, of_penalties: int) -> None:
    held = Holdings(Purse(60, 0), Purse(20, 5))
    assert held.of_penalties(amount) == of_penalties
    with pytest.raises(ValueError, match="available"):
        held.of_penalties(76)
