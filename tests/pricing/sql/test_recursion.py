"""Recursive queries: what multiplies its own value is refused, what analysts write is sold."""

from __future__ import annotations

import pytest

from pricing.sql.guard import QueryRefused
from pricing.sql.policy import check
from tests.pricing.sql.tables import ON_SALE


def recursive(step: str, first: str = "SELECT 'x' AS x, 1 AS n", name: str = "r", last: str = "SELECT 1 FROM r") -> str:
    return f"WITH RECURSIVE {name} AS ({first} UNION ALL {step}) {last}"


GROWING = [
    recursive("SELECT x || x, n + 1 FROM r"),
    recursive("SELECT concat(x, x), n FROM r"),
    recursive("SELECT x || '-' || upper(x), n FROM r"),
    recursive("SELECT r.x || t.x, r.n FROM r, LATERAL (SELECT r.x AS x) AS t"),
    recursive("SELECT y, n FROM (SELECT x || x AS y, n FROM r) AS s"),
    recursive("SELECT s.a || s.b, n FROM (SELECT x AS a, x AS b, n FROM r) AS s"),
    recursive("SELECT t.a || t.a FROM r AS t (a)", "SELECT 'x'", "r (x)"),
    recursive("SELECT repeat(x, 2), n FROM r"),
    recursive("SELECT replace(x, 'x', x), n FROM r"),
    recursive("SELECT replace(x, 'x', 'xx'), n FROM r"),
    recursive("SELECT regexp_replace(x, '.', '\\&\\&', 'g'), n FROM r"),
    recursive("SELECT CASE WHEN n > 3 THEN x || x ELSE x END, n FROM r"),
    recursive("SELECT coalesce(x, '') || coalesce(x, ''), n FROM r"),
    recursive("SELECT (SELECT r.x || r.x), n FROM r"),
    recursive("SELECT format('%s%s', x, x), n FROM r"),
    recursive("SELECT array_cat(x, x), n FROM r", "SELECT ARRAY[1] AS x, 1 AS n"),
    recursive("SELECT x || x, n FROM r", "SELECT '[1]'::jsonb AS x, 1 AS n"),
    recursive("(WITH d AS (SELECT x || x AS y, n FROM r) SELECT y, n FROM d)"),
    recursive("(WITH d (y, m) AS (SELECT x || x, n FROM r) SELECT y, m FROM d)"),
    recursive("SELECT v.y, r.n FROM r, LATERAL (VALUES (r.x || r.x)) AS v (y)"),
    recursive("SELECT u.y, r.n FROM r, LATERAL unnest(ARRAY[r.x || r.x]) AS u (y)"),
    recursive("SELECT u.y, n FROM r, concat(r.x, r.x) AS u (y)"),
    recursive("SELECT u, n FROM r CROSS JOIN LATERAL concat(r.x, r.x) AS u"),
    recursive("SELECT string_agg(x, '') OVER (), n FROM r"),
    recursive("SELECT (SELECT string_agg(r.x || left(g::text, 0), '') FROM generate_series(1, 2) AS g), n FROM r"),
    recursive("SELECT array_to_string(array_agg(x) OVER (), ''), n FROM r"),
    "WITH a AS (WITH " + recursive("SELECT x || x, n FROM r").removeprefix("WITH ") + ") SELECT * FROM a",
    "SELECT (" + recursive("SELECT x || x, n FROM r", last="SELECT max(length(x)) FROM r") + ")",
]
FINE = [
    recursive("SELECT x || 'y', n + 1 FROM r WHERE n < 100"),
    recursive(
        "SELECT t.path || ' > ' || s.name, s.sector_id FROM sectors s JOIN t ON s.parent_id = t.sector_id",
        "SELECT name AS path, sector_id FROM sectors WHERE parent_id IS NULL", "t", "SELECT path FROM t",
    ),
    recursive("SELECT path || s.sector_id, s.sector_id FROM t, sectors s WHERE s.parent_id = id AND s.sector_id <> ALL (path)",
              "SELECT ARRAY[sector_id] AS path, sector_id AS id FROM sectors", "t", "SELECT path FROM t"),
    recursive("SELECT b, a + b FROM fib WHERE b < 1000", "SELECT 0, 1", "fib (a, b)", "SELECT a FROM fib"),
    recursive("SELECT d + 1, n * 2 FROM r WHERE n < 9", "SELECT date '2024-01-01' AS d, 1 AS n"),
    recursive("SELECT substring(x FROM position(',' IN x) + 1), n FROM r WHERE x LIKE '%,%'", "SELECT 'a,b,c' AS x, 1 AS n"),
    recursive("SELECT split_part(x, ',', 1), length(x) + length(x) FROM r WHERE n > length(x)"),
    recursive("SELECT replace(x, ' ', '_'), n FROM r"),
    recursive("SELECT regexp_replace(x, '^[^,]*,', ''), n FROM r"),
    recursive("SELECT CASE WHEN x = 'a' THEN x ELSE x || 'b' END, n FROM r"),
    recursive("SELECT coalesce(x, x, 'z'), greatest(n, n + 1) FROM r"),
    recursive("SELECT c.name, n + 1 FROM r JOIN companies c ON c.company_id = r.n", "SELECT 'x' AS name, 1 AS n"),
    recursive("SELECT c.name || ' ' || c.ticker || ' ' || c.name, n + 1 FROM r JOIN companies c ON c.company_id = n",
              "SELECT 'x' AS name, 1 AS n"),
    recursive("VALUES ('y', 2)"),
    recursive("SELECT first_value(x) OVER (ORDER BY x), row_number() OVER (ORDER BY x, n) FROM r WHERE n < 3"),
    recursive("SELECT t.tag, n + 1 FROM r, companies c, unnest(c.tags) AS t (tag) WHERE c.company_id = n AND t.tag > x"),
    recursive("SELECT e.value, n + 1 FROM r, jsonb_array_elements_text(x -> 'kids') AS e (value)",
              "SELECT profile AS x, 1 AS n FROM companies"),
    "WITH RECURSIVE a AS (SELECT name || name AS x FROM companies) SELECT x || x FROM a",
]  # fmt: skip


@pytest.mark.parametrize("query", GROWING)
def test_what_multiplies_its_own_value_is_refused(query: str) -> None:
    with pytest.raises(QueryRefused) as refusal:
        check(query, ON_SALE)
    assert refusal.value.code == "too_large"


@pytest.mark.parametrize("query", FINE)
def test_what_analysts_write_is_sold(query: str) -> None:
    check(query, ON_SALE)
