"""The text fence: what may run, decided from the text alone. What the database does with it is tested in upstreams/."""

from __future__ import annotations

import contextlib
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.sql.guard import MAX_BYTES, QueryRefused, guard
from pricing.sql.policy import check
from tests.pricing.sql.queries import REFUSED, SOLD
from tests.pricing.sql.tables import ON_SALE


@pytest.mark.parametrize("query", SOLD)
def test_an_analysts_query_is_sold_and_its_checked_text_passes_again(query: str) -> None:
    checked = check(query, ON_SALE)
    assert check(checked.text, ON_SALE).text == checked.text
    assert "--" not in checked.text
    assert "/*" not in checked.text


@pytest.mark.parametrize(("code", "query"), REFUSED)
def test_an_attack_is_refused_by_the_text_alone(code: str, query: str) -> None:
    with pytest.raises(QueryRefused) as refusal:
        check(query, ON_SALE)
    assert refusal.value.code == code


BOMBS = {
    "brackets": ("too_deep", "SELECT " + "(" * 2000 + "1" + ")" * 2000),
    "square brackets": ("too_deep", "SELECT " + "ARRAY[" * 60 + "1" + "]" * 60),
    "calls": ("too_deep", "SELECT " + "abs(" * 60 + "1" + ")" * 60),
    "subqueries": ("too_deep", "SELECT * FROM " + "(SELECT * FROM " * 60 + "companies" + ")" * 60),
    "selects side by side": ("too_complex", "SELECT " + ", ".join(["(SELECT 1)"] * 60)),
    "sum": ("too_complex", "SELECT " + "+".join(["1"] * 3000)),
    "or": ("too_complex", "SELECT 1 FROM companies WHERE " + " OR ".join(["country = 'x'"] * 900)),
    "casts": ("too_complex", "SELECT 1" + "::int" * 500),
    "dots": ("too_complex", "SELECT a" + ".a" * 500),
    "not": ("too_complex", "SELECT " + "NOT " * 500 + "true"),
    "minus": ("too_complex", "SELECT " + "- " * 500 + "1"),
    "case": ("too_complex", "SELECT " + "CASE WHEN true THEN " * 300 + "1" + " END" * 300),
    "union": ("too_complex", " UNION ALL ".join(["SELECT 1"] * 60)),
    "values union": ("too_complex", " UNION ALL ".join(["VALUES (1)"] * 200)),
    "select list": ("too_large", "SELECT 7" + ", 7654321" * 333_333),
    "words": ("too_complex", "SELECT 1" + ",1" * 8000),
    "open comments": ("syntax", "SELECT 1 " + "/*" * 10_000),
    "nested comments": ("too_complex", "SELECT 1 " + "/*" * 5_000 + "*/" * 5_000),
    "comments": ("too_complex", "SELECT 1 " + "/**/" * 5_000),
    "open string": ("syntax", "SELECT '" + "''" * 10_000),
    "open name": ("syntax", 'SELECT "' + "a" * 10_000),
    "open dollar": ("syntax", "SELECT $a$" + "$b$" * 5_000),
    "long name": ("name_too_long", 'SELECT "' + "a" * 64 + '"'),
    "bytes": ("too_large", "SELECT '" + "ü" * MAX_BYTES + "'"),
    "surrogate": ("encoding", "SELECT '\ud800'"),
    "NUL": ("encoding", "SELECT 'a\x00b'"),
    "escape": ("encoding", "SELECT 'a\x1bb'"),
    "no-break space": ("syntax", "SELECT\u00a01"),
    "nothing": ("empty", ""),
    "only a comment": ("empty", "-- nothing"),
    "only semicolons": ("empty", ";;;"),
    "wide": ("too_complex", "SELECT " + ", ".join(["c.*, p.*"] * 100) + " FROM companies c, prices p"),
    "parameter 0": ("parameter", "SELECT $0"),
    "parameter 99999": ("parameter", "SELECT $99999"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(name: str) -> None:
    code, query = BOMBS[name]
    with pytest.raises(QueryRefused) as refusal:
        check(query, ON_SALE)
    assert refusal.value.code == code


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(QueryRefused):
        check(text, ON_SALE)


@given(st.text(alphabet="'\"$eEuU&-*/\\\nab1;() ", max_size=60))
def test_quotes_and_comments_in_any_mixture_are_read_or_refused(text: str) -> None:
    try:
        read = guard(f"SELECT {text}")
    except QueryRefused:
        return
    assert not any(token.text == ";" for token in read)


def test_columns_that_are_not_on_sale_are_not_in_a_star() -> None:
    assert check("SELECT * FROM partial", ON_SALE).text == "SELECT partial.a, partial.b FROM demo.partial"
    assert "p.a, p.b" in check("SELECT p.*, 1 FROM partial p", ON_SALE).text
    for query in (
        "SELECT x.* FROM partial, LATERAL (SELECT partial.*) AS x",
        "SELECT (SELECT p.* LIMIT 1) FROM partial p",
        "SELECT (SELECT p.b FROM (SELECT p.*) AS y) FROM partial p",
        "SELECT p.*, (SELECT count(*) FROM companies) FROM partial p",
        "SELECT x.* FROM (SELECT * FROM partial UNION TABLE partial) AS x",
        "SELECT * FROM partial a, partial b, companies c",
    ):
        written = check(query, ON_SALE).text
        assert "*" not in written.replace("x.*", "").replace("count(*)", ""), written
    for query in (
        "SELECT j.* FROM (partial p CROSS JOIN companies c) AS j",
        "SELECT * FROM (partial p CROSS JOIN companies c) AS j",
        "SELECT * FROM companies, LATERAL (SELECT 1), partial",
        "SELECT 1 FROM partial JOIN companies USING (ticker)",
        "SELECT 1 FROM companies JOIN (partial CROSS JOIN sectors) USING (ticker)",
    ):
        with pytest.raises(QueryRefused):
            check(query, ON_SALE)
    for query in ("SELECT secret FROM partial", "SELECT * FROM partial JOIN companies c USING (a)"):
        with pytest.raises(QueryRefused):
            check(query, ON_SALE)


@pytest.mark.parametrize(
    ("query", "limit", "one_row", "collecting", "parameters"),
    [
        ("SELECT ticker FROM companies LIMIT 7", 7, False, False, 0),
        ("SELECT ticker FROM companies FETCH FIRST 3 ROWS ONLY", 3, False, False, 0),
        ("SELECT ticker FROM companies LIMIT $2 OFFSET $1", None, False, False, 2),
        ("SELECT count(*) FROM companies", None, True, False, 0),
        ("SELECT count(*) FROM companies GROUP BY country", None, False, False, 0),
        ("SELECT count(*) OVER () FROM companies", None, False, False, 0),
        ("SELECT (SELECT count(*) FROM companies) FROM prices", None, False, False, 0),
        ("SELECT string_agg(ticker, ',') FROM companies", None, True, True, 0),
        ("SELECT jsonb_object_agg(ticker, name) FROM companies", None, True, True, 0),
        ("SELECT ARRAY(SELECT ticker FROM companies)", None, False, True, 0),
        ("SELECT unnest(array_agg(ticker)) FROM companies", None, False, True, 0),
        ("SELECT generate_series(1, count(*)) FROM companies", None, False, False, 0),
        ("SELECT jsonb_array_elements(jsonb_agg(ticker)) FROM companies", None, False, True, 0),
        ("SELECT regexp_split_to_table(max(name), ' ') FROM companies", None, False, False, 0),
        ("SELECT sum(volume) FILTER (WHERE close > 1) OVER (ORDER BY day) FROM prices", None, False, False, 0),
        ("SELECT sum(volume) FILTER (WHERE close > 1) FROM prices", None, True, False, 0),
        ("SELECT ticker FROM companies ORDER BY country FETCH FIRST 3 ROWS WITH TIES", None, False, False, 0),
        ("(SELECT ticker FROM companies) LIMIT 2", 2, False, False, 0),
        ("SELECT ticker FROM companies UNION SELECT name FROM sectors LIMIT 4", 4, False, False, 0),
    ],
)
def test_what_the_text_says_about_the_number_of_rows(
    query: str, limit: int | None, one_row: bool, collecting: bool, parameters: int
) -> None:
    checked = check(query, ON_SALE)
    assert (checked.limit, checked.one_row, checked.collecting, checked.parameters) == (
        limit, one_row, collecting, parameters,
    )  # fmt: skip


def test_no_log_holds_a_query(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for query in ("SET ROLE secret_role", "EXPLAIN ANALYZE SELECT 'secret'", "DO LANGUAGE plpgsql 'secret'"):
            with pytest.raises(QueryRefused):
                check(query, ON_SALE)
    assert "secret" not in caplog.text


def test_rows_that_a_group_makes_have_no_bound_by_its_keys() -> None:
    assert check("SELECT employees > 9, count(*) FROM companies GROUP BY 1", ON_SALE).groups == 3
    assert check("SELECT employees > 9, unnest(array_agg(ticker)) FROM companies GROUP BY 1", ON_SALE).groups is None
