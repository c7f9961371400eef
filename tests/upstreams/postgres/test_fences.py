"""Two fences, one switched off at a time: what the list alone stops, what the role alone stops, and what bounds stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio

from gateway.upstreams.egress import EgressGuard
from gateway.upstreams.postgres import queries
from gateway.upstreams.postgres.errors import QueryFailed, QueryTimeout
from gateway.upstreams.postgres.pool import DatabasePool
from gateway.upstreams.postgres.queries import Bounds, Rows
from pricing.sql.guard import QueryRefused
from pricing.sql.policy import CheckedQuery, check
from tests.docs.markdown import ROOT, rows
from tests.pricing.sql.tables import ON_SALE
from tests.support.databases import replaced
from tests.support.elder import Elder
from tests.support.market import BAIT, NAME, Market
from tests.support.services import Services
from tests.upstreams.postgres.conftest import LOOPBACK
from tests.upstreams.postgres.fences import ROWS
from tests.upstreams.postgres.test_queries import run

BOUNDS = Bounds(statement=1.0, total=4.0)
STATEMENTS = [(name, statement) for name in ROWS for statement in ROWS[name].statements]
SUMS = "SELECT (SELECT count(*) FROM demo.companies) + (SELECT count(*) FROM demo.prices) + (SELECT count(*) FROM demo.sectors)"


@pytest.mark.parametrize(("name", "statement"), STATEMENTS)
def test_the_list_stops_all_of_it_whatever_the_role_may_do(name: str, statement: str) -> None:
    with pytest.raises(QueryRefused):
        check(statement, ON_SALE)


@pytest.mark.parametrize("name", ROWS)
async def test_the_role_stops_without_the_list_what_the_table_says(
    market: Market, pool: DatabasePool, name: str
) -> None:
    """Each statement as it stands, by the very session that sold queries run in."""
    before = await market.owner.fetchval(SUMS)
    for statement in ROWS[name].statements:
        stopped = await refused_by_the_server(pool, statement)
        version = market.owner.get_server_version().major
        expected = ROWS[name].role == "stops" or (ROWS[name].role == "by version" and version >= 16)
        assert stopped == expected, statement
    assert await market.owner.fetchval(SUMS) == before


async def refused_by_the_server(pool: DatabasePool, statement: str) -> bool:
    async with pool.lease() as session:
        try:
            async with queries.sandbox(session, ON_SALE.search_path, BOUNDS):
                await session.fetch(statement)
        except QueryFailed:
            return True
    return False


async def test_without_the_role_harm_is_done_and_only_the_list_is_left(market: Market) -> None:
    """By the database's owner: so that the two tests above mean something."""
    transaction = market.owner.transaction()
    await transaction.start()
    try:
        assert BAIT in str(await market.owner.fetch("SELECT secret FROM hidden.api_keys"))
        assert BAIT in str(await market.owner.fetch("SELECT demo.peek(1)"))
        assert await market.owner.fetch("DELETE FROM demo.prices WHERE company_id = 1 RETURNING *")
    finally:
        await transaction.rollback()


async def test_what_the_role_lets_through_leaks_and_the_list_is_what_stops_it(pool: DatabasePool) -> None:
    async with pool.lease() as session:
        assert BAIT in str(await session.fetch("SELECT demo.peek(1)"))
        assert await session.fetch("SELECT rolname FROM pg_roles")
        with pytest.raises(asyncpg.PostgresError) as failure:
            await session.fetch("SELECT string_agg(ticker, '')::int FROM demo.companies")
    assert "BA01" in str(failure.value), "the server quotes data in its errors"


@pytest_asyncio.fixture
async def little_disk(
    market: Market, services: Services, request: pytest.FixtureRequest
) -> AsyncIterator[DatabasePool]:
    """Connections of a role with the bound on temporary files that `sandbox-sql` sets."""
    server: Services | Elder = services
    if market.owner.get_server_version().major == 15:
        server = request.getfixturevalue("elder")
    admin = await asyncpg.connect(replaced(server.admin_url, NAME))
    await admin.execute("ALTER ROLE reader SET temp_file_limit = '8MB'")
    pool = DatabasePool(market.address, EgressGuard([LOOPBACK]), size=1)
    yield pool
    pool.close()
    await admin.execute("ALTER ROLE reader RESET temp_file_limit")
    await admin.close()


DISK = [
    "SELECT count(*) FROM (SELECT a.n FROM generate_series(1, 900000) AS a (n) ORDER BY a.n DESC, a.n + 1) x",
    "SELECT a.body FROM filings a, filings b ORDER BY b.body || a.body",
    "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r, generate_series(1, 2) g) SELECT max(n) FROM r",
    "SELECT DISTINCT a.n * 7 || 'x', a.n FROM generate_series(1, 900000) AS a (n)",
]


@pytest.mark.parametrize("query", DISK)
async def test_no_query_fills_the_disk(little_disk: DatabasePool, query: str) -> None:
    """The list lets it through, and the role's bound ends it."""
    with pytest.raises(QueryFailed) as failure:
        await run(little_disk, check(query, ON_SALE), bounds=replace(BOUNDS, statement=10.0, total=20.0))
    assert failure.value.sqlstate == "53400"


TIME = [
    "SELECT count(*) FROM filings a, filings b",
    "WITH RECURSIVE t (i) AS (VALUES (1) UNION ALL SELECT i FROM t) SELECT max(i) FROM t",
    "SELECT count(*) FROM prices a, prices b WHERE a.volume <> b.volume",
    "SELECT sum(n) FROM generate_series(1, 1000000) AS a (n), generate_series(1, 1000000) AS b (m)",
]


@pytest.mark.parametrize("query", TIME)
async def test_no_query_runs_for_ever(pool: DatabasePool, query: str) -> None:
    with pytest.raises(QueryTimeout):
        await run(pool, check(query, ON_SALE), bounds=replace(BOUNDS, statement=0.3, total=1.0))


async def test_no_answer_fills_our_memory(pool: DatabasePool) -> None:
    """Rows, bytes and the width of one row are bounded where they are read, whatever the text allowed."""
    wide = CheckedQuery("SELECT repeat('x', 2000000) AS x", (), 0, None, one_row=False, collecting=False)
    found, read, _ = await run(pool, wide)
    assert (found, read.stopped) == ([], "row_size")
    many = CheckedQuery("SELECT generate_series(1, 2000000000) AS n", (), 0, None, one_row=False, collecting=False)
    read = Rows()
    found, read, _ = await run(pool, many, bounds=replace(BOUNDS, rows=500))
    assert (len(found), read.stopped) == (500, "rows")


def test_the_table_in_the_docs_is_this_one() -> None:
    told = {row[0]: row[1:] for row in rows(ROOT / "docs" / "sql.md", "| ") if len(row) == 3 and row[0] in ROWS}
    words = {"stops": "stops", "runs": "runs", "by version": "stops from PostgreSQL 16 on"}
    assert told == {name: ["stops", words[row.role]] for name, row in ROWS.items()}
