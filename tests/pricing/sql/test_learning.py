"""What answers teach about estimates: shapes, guesses, bounds by the text, and that others' answers stay theirs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.sql.estimate import estimated_rows, planned_rows
from pricing.sql.learning import ORDER, QUORUM, Experience, expected, learn, lesson, rows, size
from pricing.sql.policy import check
from tests.pricing.sql.tables import ON_SALE


def taught(*answers: tuple[int, int]) -> Experience:
    """Return what (planned, actual) rows teach, in their order."""
    known: Experience | None = None
    for planned, actual in answers:
        known = learn(known, planned, actual)
    assert known is not None
    return known


SAME = [
    ("SELECT ticker FROM companies WHERE country = 'US' LIMIT 3", "SELECT ticker FROM companies WHERE country='DE' limit 50"),
    ("SELECT ticker FROM companies WHERE company_id IN (1, 2)", "SELECT ticker FROM companies WHERE company_id IN (7, 8, 9)"),
    ("SELECT ticker FROM companies WHERE name = $1", "SELECT ticker -- x\nFROM demo.companies WHERE name = 'x'"),
]  # fmt: skip
DIFFERENT = [
    ("SELECT ticker FROM companies", "SELECT name FROM companies"),
    ("SELECT ticker FROM companies WHERE country < 'US'", "SELECT ticker FROM companies WHERE country > 'US'"),
    ("SELECT ticker FROM companies", "SELECT ticker FROM companies LIMIT 3"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_queries_that_differ_in_constants_have_one_shape(one: str, other: str) -> None:
    assert check(one, ON_SALE).shape == check(other, ON_SALE).shape
    assert len(check(one, ON_SALE).shape) == 16


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_queries_have_other_shapes(one: str, other: str) -> None:
    assert check(one, ON_SALE).shape != check(other, ON_SALE).shape


@given(st.integers(1, 10**12))
def test_logarithms_are_right_within_two_percent(number: int) -> None:
    assert abs(size(number) - math.log2(number) * ORDER) <= 1
    assert abs(rows(size(number)) - number) <= max(1, number * 0.02)


def test_the_planner_is_believed_where_it_was_right() -> None:
    known = taught((100, 100), (500, 510), (30, 29))
    assert [known.guess(planned) for planned in (1, 70, 4_000)] == [1, 70, 4_000]


def test_a_planner_that_is_wrong_by_a_factor_is_corrected_by_it() -> None:
    known = taught((100, 10), (1_000, 101), (50, 5), (4_000, 395))
    assert known.guess(20_000) == pytest.approx(2_000, rel=0.1)


def test_a_planner_that_says_nothing_is_not_asked() -> None:
    known = taught((60_000, 3), (100, 3), (9_000, 3), (400, 3))
    assert known.guess(1_000_000) == 3


def test_one_answer_is_half_believed() -> None:
    assert taught((1_000, 10)).guess(1_000) == pytest.approx(10, abs=1)
    assert taught((1_000, 10)).guess(100_000) == pytest.approx(100, rel=0.1)


def test_data_that_change_are_followed() -> None:
    known = taught(*[(100, 1_000)] * 50, *[(100, 5)] * 40)
    assert known.guess(100) == pytest.approx(5, abs=2)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1), st.integers(0, 10**13))
def test_whatever_came_a_guess_is_a_number_of_rows(answers: list[tuple[int, int]], planned: int) -> None:
    known = taught(*answers)
    assert 0 <= known.guess(planned) <= max(planned, 1 << 40)
    assert all(-(2**31) < getattr(known, name) < 2**31 for name in Experience.__slots__), "they fit their columns"


def test_others_answers_are_told_by_several_of_them_alone() -> None:
    others = [taught((1_000, rows)) for rows in (10, 20, 40)]
    assert len(others) == QUORUM
    assert expected(1_000, None, others[:2]) == 1_000, "two are not enough: one of the two may be asking"
    assert expected(1_000, None, others) == pytest.approx(20, abs=1), "the one in the middle"
    assert expected(1_000, taught((1_000, 300)), others) == pytest.approx(300, rel=0.02), (
        "who has own answers uses them"
    )


def test_a_guess_depends_on_constants_through_the_planner_alone() -> None:
    """No oracle: for one planned number there is one answer, whatever the constants were that taught it."""
    one, other = taught((10, 1), (10, 1_000)), taught((10, 1), (10, 1_000))
    assert [one.guess(planned) for planned in range(100)] == [other.guess(planned) for planned in range(100)]


@pytest.mark.parametrize(
    ("source", "limited", "actual", "cut", "learned"),
    [
        (100, None, 7, False, 7),
        (100, 10, 7, False, 7),
        (100, 10, 10, False, None),
        (5, 10, 10, False, 10),
        (100, None, 50, True, None),
        (100, None, 500, True, 500),
    ],
)
def test_an_answer_that_was_cut_says_at_least(
    source: int, limited: int | None, actual: int, cut: bool, learned: int | None
) -> None:
    assert lesson(source, limited, actual, cut=cut) == learned


GROUPS = {
    "SELECT CASE WHEN employees < 9 THEN 'a' ELSE 'b' END AS s, count(*) FROM companies GROUP BY s": 3,
    "SELECT CASE WHEN employees < 9 THEN name ELSE 'b' END AS s, count(*) FROM companies GROUP BY s": None,
    "SELECT width_bucket(close, 0, 400, 8) AS b, count(*) FROM prices GROUP BY b": 11,
    "SELECT extract(month FROM day), count(*) FROM prices GROUP BY 1": 13,
    "SELECT extract(month FROM day), close > 3, count(*) FROM prices GROUP BY 1, 2": 39,
    "SELECT extract(year FROM day), count(*) FROM prices GROUP BY 1": None,
    "SELECT country, count(*) FROM companies GROUP BY country": None,
    "SELECT close > 3, count(*) FROM prices GROUP BY CUBE (1)": None,
    "SELECT DISTINCT employees > 100 FROM companies": 3,
    "SELECT DISTINCT ON (employees > 100) name FROM companies": None,
    "SELECT count(*) FROM companies": None,
}


@pytest.mark.parametrize("query", GROUPS)
def test_a_text_that_bounds_its_groups_bounds_the_estimate(query: str) -> None:
    checked = check(query, ON_SALE)
    assert checked.groups == GROUPS[query]
    if checked.groups is not None:
        assert estimated_rows(checked, 60_000, cap=10_000) == checked.groups


def test_the_rows_below_a_limit_are_those_to_correct() -> None:
    assert planned_rows({"Node Type": "Limit", "Plan Rows": 10, "Plans": [{"Plan Rows": 5_000}]}) == (10, 5_000)
    assert planned_rows({"Node Type": "Sort", "Plan Rows": 70, "Plans": [{"Plan Rows": 5_000}]}) == (70, 70)
    assert planned_rows({}) == (0, 0)
