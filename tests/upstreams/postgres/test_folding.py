"""Ways to carry a table home in a few rows, and what each of them is metered; what folds nothing is not charged for it."""

from __future__ import annotations

import pytest

from gateway.upstreams.postgres.pool import DatabasePool
from pricing.sql.guard import QueryRefused
from pricing.sql.metering import metered_rows
from pricing.sql.policy import check
from tests.pricing.sql.tables import ON_SALE
from tests.support.market import Market
from tests.upstreams.postgres.test_queries import run

SOURCE = 1_200  # companies
# Each carries the tickers of all companies in one row or in few.
FOLDS = [
    "SELECT string_agg(ticker, ',') FROM companies",
    "SELECT string_agg(DISTINCT ticker, ',' ORDER BY ticker) FROM companies",
    "SELECT array_agg(ticker) FROM companies",
    "SELECT array_agg(ticker ORDER BY company_id) FILTER (WHERE true) FROM companies",
    "SELECT json_agg(ticker) FROM companies",
    "SELECT jsonb_agg(jsonb_build_object('t', ticker, 'n', name)) FROM companies",
    "SELECT json_object_agg(ticker, name) FROM companies",
    "SELECT jsonb_object_agg(ticker, company_id) FROM companies",
    "SELECT json_agg(x) FROM (SELECT ticker, name FROM companies) x",
    "SELECT array_agg(x) FROM (SELECT ticker FROM companies) x",
    "SELECT array_to_json(array_agg(ticker)) FROM companies",
    "SELECT array_to_string(array_agg(ticker), ';') FROM companies",
    "SELECT ARRAY(SELECT ticker FROM companies)",
    "SELECT to_json(ARRAY(SELECT ticker FROM companies))",
    "SELECT ARRAY(SELECT ticker FROM companies), 1",
    "SELECT (SELECT string_agg(ticker, '') FROM companies)",
    "SELECT (SELECT json_agg(ticker) FROM companies) ->> 0",
    "SELECT x.j FROM (SELECT jsonb_agg(ticker) AS j FROM companies) x",
    "WITH a AS (SELECT string_agg(ticker, '') AS t FROM companies) SELECT t FROM a",
    "SELECT country, array_agg(ticker) FROM companies GROUP BY country",
    "SELECT company_id % 3, string_agg(ticker, ',') FROM companies GROUP BY 1",
    "SELECT string_agg(t, '') FROM (SELECT string_agg(ticker, '') AS t FROM companies GROUP BY country) x",
    "SELECT string_agg(ticker, ',') OVER (ORDER BY company_id) FROM companies ORDER BY company_id DESC LIMIT 1",
    "SELECT array_agg(ticker) OVER () FROM companies LIMIT 1",
    "SELECT lag(ticker, 600) OVER (ORDER BY company_id) || ticker FROM companies OFFSET 600",
    "SELECT range_agg(int4range(company_id, company_id + 1)) FROM companies WHERE company_id > 0",
    "SELECT c.ticker, (SELECT array_agg(d.ticker) FROM companies d) FROM companies c LIMIT 1",
    "SELECT string_agg(ticker, ',') FROM companies WHERE company_id > 0 HAVING count(*) > 1",
    "SELECT string_agg(ticker, ',') FROM companies UNION ALL SELECT NULL WHERE false",
    "SELECT max(t) FROM (SELECT string_agg(ticker, ',') AS t FROM companies) x",
    # With a predicate beside, and words in constants and names that plans use.
    "SELECT ARRAY(SELECT ticker FROM companies) FROM filings WHERE company_id NOT IN (SELECT company_id FROM companies WHERE country = 'DE') LIMIT 1",
    "SELECT 'hashed SubPlan 1', ARRAY(SELECT ticker FROM companies WHERE company_id <> f.filing_id) AS \"EXISTS(SubPlan 1)\" FROM filings f LIMIT 1",
    'SELECT "hashed SubPlan 1".x, ARRAY(SELECT ticker FROM companies WHERE company_id <> x) FROM (SELECT 1 AS x OFFSET 0) AS "hashed SubPlan 1"',
    "SELECT 'hashed InitPlan 1', ARRAY(SELECT ticker FROM companies)",
]
# Refused by their text: whole rows are no values.
REFUSED = [
    "SELECT json_agg(c) FROM companies c",
    "SELECT c.json_agg FROM companies c",
    "SELECT c.array_agg FROM companies c",
    "SELECT jsonb_agg(c.*) FROM companies c",
    "SELECT string_agg(c::text, '') FROM companies c",
    "SELECT xmlagg(xmlelement(name x, ticker)) FROM companies",
    "SELECT query_to_xml('SELECT * FROM companies', true, false, '')",
    "SELECT json_arrayagg(ticker) FROM companies",
]
# One row, or few, whose size does not grow with what they are made of.
PLAIN = [
    "SELECT count(*), sum(employees), min(founded), max(name), avg(employees) FROM companies",
    "SELECT country, count(*) FROM companies GROUP BY country",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY employees) FROM companies",
    "SELECT count(DISTINCT country) FROM companies",
    "SELECT bool_or(employees > 5), stddev(employees), corr(employees, company_id) FROM companies",
    "SELECT mode() WITHIN GROUP (ORDER BY country) FROM companies",
    "SELECT ticker, rank() OVER (ORDER BY employees) FROM companies LIMIT 3",
    "SELECT ticker, sum(employees) OVER (PARTITION BY country) FROM companies LIMIT 3",
    "SELECT (SELECT max(day) FROM prices)",
    "SELECT ARRAY[1, 2, 3], json_build_object('a', 1)",
    "SELECT ticker, tags FROM companies LIMIT 2",
    # Predicates look up and carry nothing.
    "SELECT count(*) FROM filings WHERE company_id NOT IN (SELECT company_id FROM companies WHERE country = 'DE')",
    "SELECT CASE WHEN company_id IN (SELECT company_id FROM companies) THEN 1 END FROM filings LIMIT 20",
    "SELECT company_id >= ALL (SELECT company_id FROM companies) FROM filings LIMIT 20",
    "SELECT company_id = ANY (SELECT company_id + f.filing_id FROM companies) FROM filings f LIMIT 3",
    "SELECT EXISTS (SELECT 1 FROM companies c WHERE c.company_id = f.company_id) FROM filings f LIMIT 20",
    "SELECT EXISTS (SELECT 1 FROM prices p WHERE p.company_id > c.company_id) FROM companies c LIMIT 20",
    "SELECT (company_id, 1) IN (SELECT company_id, 1 FROM companies) FROM filings LIMIT 20",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM companies)",
    "SELECT count(*) FROM filings WHERE form IN (SELECT string_agg(ticker, '') FROM companies GROUP BY country)",
]


async def metered(pool: DatabasePool, query: str) -> int:
    _, read, planned = await run(pool, query)
    return metered_rows(returned=read.count, size=read.size, folded=planned.folded)


@pytest.mark.parametrize("query", FOLDS)
async def test_a_fold_is_metered_for_what_it_carries(market: Market, pool: DatabasePool, query: str) -> None:
    assert await metered(pool, query) >= SOURCE // 2


@pytest.mark.parametrize("query", REFUSED)
def test_whole_rows_and_texts_that_run_cannot_be_folded(query: str) -> None:
    with pytest.raises(QueryRefused):
        check(query, ON_SALE)


@pytest.mark.parametrize("query", PLAIN)
async def test_what_folds_nothing_is_metered_by_its_rows(market: Market, pool: DatabasePool, query: str) -> None:
    assert await metered(pool, query) <= 20
