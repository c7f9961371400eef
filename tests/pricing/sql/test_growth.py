"""Constants cannot be made into large values, however the functions that make them are nested."""

from __future__ import annotations

import pytest

from pricing.sql.guard import QueryRefused
from pricing.sql.policy import check
from tests.pricing.sql.tables import ON_SALE

X = "repeat('x', 10000)"
DOUBLED = "SELECT 'xxxxxxxx' AS x"
for _ in range(24):
    DOUBLED = f"SELECT x || x AS x FROM ({DOUBLED}) AS s"
CHAINED = "WITH " + ", ".join(
    [f"a0 AS (SELECT {X} AS x)", *(f"a{n} AS (SELECT concat(x, x, x) AS x FROM a{n - 1})" for n in range(1, 12))]
)

TOO_LARGE = {
    "repeat in repeat": f"SELECT repeat({X}, 10000)",
    "replace": f"SELECT replace({X}, 'x', {X})",
    "regexp_replace": f"SELECT regexp_replace({X}, 'x', {X}, 'g')",
    "replace three times": "SELECT replace(replace(replace(repeat('x', 900), 'x', repeat('y', 900)), 'y', 'zzzzzzzz'), 'z', 'aaaa')",
    "through a sub-select": f"SELECT replace(x, 'x', {X}) FROM (SELECT {X} AS x) AS s",
    "through LATERAL": f"SELECT y FROM (SELECT {X} AS x) AS s, LATERAL (SELECT repeat(x, 10000) AS y) AS t",
    "through a join": f"SELECT replace(a.x, 'x', b.x) FROM (SELECT {X} AS x) AS a JOIN (SELECT {X} AS x) AS b ON true",
    "through a CTE": f"WITH c AS (SELECT {X} AS x) SELECT repeat(x, 10000) FROM c",
    "through VALUES": f"SELECT repeat(v.x, 10000) FROM (VALUES ({X})) AS v(x)",
    "through a scalar sub-select": f"SELECT repeat((SELECT {X}), 10000)",
    "through a union": f"SELECT repeat(x, 10000) FROM (SELECT 'a' AS x UNION ALL SELECT {X}) AS u",
    "doubled": DOUBLED,
    "tripled in a chain": CHAINED + " SELECT x FROM a11",
    "in WHERE": f"SELECT 1 FROM companies WHERE name = repeat({X}, 10000)",
    "in ON": f"SELECT 1 FROM companies a JOIN companies b ON a.name = repeat({X}, 10000)",
    "in ORDER BY": f"SELECT 1 FROM companies ORDER BY repeat({X}, 10000)",
    "in GROUP BY": f"SELECT count(*) FROM companies GROUP BY repeat({X}, 10000)",
    "in HAVING": f"SELECT count(*) FROM companies HAVING max(name) = repeat({X}, 10000)",
    "in a window": f"SELECT sum(employees) OVER (PARTITION BY repeat({X}, 10000)) FROM companies",
    "in a filter": f"SELECT count(*) FILTER (WHERE name = repeat({X}, 10000)) FROM companies",
    "in CASE": f"SELECT CASE WHEN true THEN repeat({X}, 10000) END",
    "array_to_string": f"SELECT array_to_string(string_to_array({X}, NULL), {X})",
    "format": f"SELECT format('%1$s%1$s%1$s%1$s%1$s%1$s%1$s%1$s%1$s', repeat({X}, 400))",
    "in an IN": f"SELECT 1 FROM companies WHERE name IN (SELECT repeat({X}, 10000))",
    "padded by a cast": "SELECT length('x'::char(5000000) || 'y'::char(5000000))",
    "padded bits": "SELECT '1'::bit(80000000)",
    "padded in an array": "SELECT '{x}'::char(9000000)[]",
    "a parameter": "SELECT repeat($1, 10000)",
    "a number with an exponent": "SELECT repeat(1e120000::text, 10000)",
    "in LIMIT": f"SELECT 1 FROM companies LIMIT length(repeat({X}, 10000))",
}
FINE = [
    f"SELECT {X} || {X}",
    "SELECT lpad(extract(month FROM day)::text, 2, '0') || '-' || rpad('x', 10000) FROM prices",
    "SELECT ticker::char(3), '1'::bit(8), employees::numeric(10, 2), name::varchar(10000) FROM companies",
    "SELECT replace(replace(replace(name, 'a', 'bb'), 'b', ''), ',', ' and ') FROM companies",
    "SELECT regexp_replace(f.body, '[^a-z]+', ' ', 'g') FROM filings f",
    "SELECT format('%s (%s)', name, ticker) FROM companies",
    "SELECT array_to_string(tags, ', ') FROM companies",
    "SELECT " + ", ".join(f"CASE WHEN country = 'A{n}' THEN 'name {n}' ELSE name END AS c{n}" for n in range(90)) + " FROM companies",
    "WITH a AS (SELECT name || ' ' || ticker AS x FROM companies), b AS (SELECT x || '!' AS x FROM a), "
    "c AS (SELECT 'Q' || x AS x FROM b) SELECT upper(x) || x FROM c",
    " UNION ALL ".join(f"SELECT name || ' {n} ' || ticker FROM companies" for n in range(40)),
    "SELECT concat_ws(', ', name, ticker, country) FROM companies WHERE replace(name, 'x', 'y') <> name",
]  # fmt: skip


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_value_that_could_grow_large_is_refused(name: str) -> None:
    with pytest.raises(QueryRefused) as refusal:
        check(TOO_LARGE[name], ON_SALE)
    assert refusal.value.code == "too_large"


@pytest.mark.parametrize("query", FINE)
def test_what_analysts_write_is_sold(query: str) -> None:
    check(query, ON_SALE)
