"""What is held before a query runs, and what is told of its price: bounds that the text and the plan give."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.sql.budget import LEAST, Budget, bound, budget, rounded
from pricing.sql.metering import metered_rows
from pricing.sql.policy import check
from tests.pricing.sql.tables import ON_SALE

CAP, SIZE = 10_000, 16_777_216
TABLE = [
    # query, planned rows, folded, width -> estimate, most, returned
    ("SELECT count(*) FROM companies", 1, 0, 8, Budget(1, LEAST, 1)),
    ("SELECT ticker FROM companies LIMIT 500", 500, 0, 5, Budget(500, 500, 500)),
    ("SELECT ticker FROM companies", 1_200, 0, 5, Budget(1_200, CAP, CAP)),
    ("SELECT ticker FROM companies LIMIT 0", 1, 0, 5, Budget(1, LEAST, 0)),
    ("SELECT body FROM filings LIMIT 10", 10, 0, 2_000, Budget(157, 630, 10)),
    ("SELECT json_agg(ticker) FROM companies", 1, 1_200, 32, Budget(1_200, 4_800, 1)),
    ("SELECT repeat('x', 300) FROM companies LIMIT 50", 50, 0, 32, Budget(50, 150, 50)),
    ("SELECT repeat('x', 300) FROM companies", 1_200, 0, 32, Budget(1_200, 2 * CAP, CAP)),
    ("SELECT ticker FROM companies LIMIT 99999999", 99_999_999, 0, 5, Budget(CAP, CAP, CAP)),
]


@pytest.mark.parametrize(("query", "planned", "folded", "width", "wanted"), TABLE)
def test_a_budget_is_what_text_and_plan_allow(
    query: str, planned: int, folded: int, width: int, wanted: Budget
) -> None:
    checked = check(query, ON_SALE)
    found = budget(checked, planned=planned, folded=folded, width=width, columns=["ticker"], cap=CAP, size=SIZE)
    assert (found.most, found.returned) == (wanted.most, wanted.returned)
    assert found.estimate == pytest.approx(wanted.estimate, abs=2)
    assert found.returned == bound(checked, CAP)


@given(st.integers(0, 10**9), st.integers(0, 10**7), st.integers(0, 10_000), st.integers(0, 20_000))
def test_an_estimate_is_never_above_the_most(planned: int, folded: int, width: int, limit: int) -> None:
    checked = check(f"SELECT ticker FROM companies LIMIT {limit}", ON_SALE)
    found = budget(checked, planned=planned, folded=folded, width=width, columns=["ticker"], cap=CAP, size=SIZE)
    assert 1 <= found.estimate <= found.most
    assert found.most >= folded, "what is folded is paid for, so it is held"
    assert metered_rows(returned=found.returned, size=0, folded=folded) <= found.most


def test_what_is_told_for_nothing_is_rounded_up() -> None:
    assert [rounded(rows) for rows in (0, 1, 10, 11, 21, 50, 51, 101, 999, 1_001, 12_345)] == [
        10, 10, 10, 20, 50, 50, 100, 200, 1_000, 2_000, 20_000,
    ]  # fmt: skip
    assert [rounded(3, 5), rounded(1, 1), rounded(7, 0)] == [5, 1, 1]


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_rounded_estimate_keeps_the_order(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert rounded(low) <= rounded(high)
    assert rounded(high) >= high
