"""Whether a publisher's role may do exactly what it should, and what there is to sell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio

from gateway.upstreams.postgres.inspection import Selection, findings, sandbox_sql, tables_on_sale
from gateway.upstreams.postgres.pool import DatabasePool
from pricing.sql.catalogue import OnSale, Relation
from tests.support.market import Market

DEMO = Selection(schemas=("demo",))
NO_BOUND = "No bound keeps the role's queries from filling the disk with temporary files."


async def on_sale(session: asyncpg.Connection, selection: Selection = DEMO) -> OnSale:
    return OnSale.of(table.relation() for table in await tables_on_sale(session, selection))


async def test_what_is_on_sale_is_what_the_role_reads_and_the_selection_takes(pool: DatabasePool) -> None:
    async with pool.lease() as session:
        tables = {table.name: table for table in await tables_on_sale(session, DEMO)}
        assert set(tables) == {
            "sectors", "companies", "filings", "prices", "Ratings 2024", "latest_price", "monthly_volume",
        }  # fmt: skip
        prices = tables["prices"]
        assert [(one.name, one.type, one.nullable) for one in prices.columns][:3] == [
            ("company_id", "integer", False),
            ("day", "date", False),
            ("open", "numeric(12,4)", False),
        ]
        assert 100_000 < (prices.rows or 0) < 200_000
        assert tables["latest_price"].kind == "view"
        chosen = Selection(tables=("demo.prices", "sectors"), columns=("prices.day", "prices.close"))
        few = {table.name: table for table in await tables_on_sale(session, chosen)}
        assert set(few) == {"prices", "sectors"}
        assert [one.name for one in few["prices"].columns] == ["day", "close"]
        assert not few["prices"].whole
        assert few["sectors"].whole
        assert await tables_on_sale(session, Selection(schemas=("hidden",))) == []


async def test_a_role_made_by_our_own_script_is_in_order(market: Market, pool: DatabasePool) -> None:
    async with pool.lease() as session:
        wanted = await on_sale(session, replace(DEMO, columns=("companies.ticker", "companies.name")))
    script = sandbox_sql("shop reader", "tw_market", wanted.relations.values(), "p")
    script = "\n".join(line for line in script.splitlines() if "temp_file_limit" not in line)  # not a superuser here
    transaction = market.owner.transaction()
    await transaction.start()
    try:
        await market.owner.execute(script)
        await market.owner.execute('GRANT "shop reader" TO CURRENT_USER; SET LOCAL ROLE "shop reader"')
        assert [one.problem for one in await findings(market.owner, wanted)] == [NO_BOUND]
        assert set((await on_sale(market.owner)).relations) == set(wanted.relations)
    finally:
        await transaction.rollback()


GRANTS = {
    "INSERT ON demo.companies": ("has INSERT on demo.companies", "REVOKE INSERT ON demo.companies FROM"),
    "UPDATE (name) ON demo.companies": ("has UPDATE on demo.companies", "REVOKE UPDATE ON demo.companies FROM"),
    "TRUNCATE ON demo.prices": ("has TRUNCATE on demo.prices", "REVOKE TRUNCATE ON demo.prices FROM"),
    "CREATE ON SCHEMA demo": ("has CREATE on SCHEMA demo", "REVOKE CREATE ON SCHEMA demo FROM"),
    "CREATE ON DATABASE tw_market": ("has CREATE on DATABASE", "REVOKE CREATE ON DATABASE tw_market FROM"),
    "SELECT ON demo.internal_costs": ("reads demo.internal_costs, which is not on sale", "REVOKE SELECT ON"),
    "pg_read_all_data": ("is a member of pg_read_all_data", 'REVOKE "pg_read_all_data" FROM'),
}


@pytest_asyncio.fixture
async def granting(market: Market) -> AsyncIterator[asyncpg.Connection]:
    """The owner in a transaction that is undone."""
    transaction = market.owner.transaction()
    await transaction.start()
    yield market.owner
    await transaction.rollback()


@pytest.mark.parametrize("grant", GRANTS)
async def test_a_right_too_many_is_found_and_its_fix_works(
    granting: asyncpg.Connection, pool: DatabasePool, grant: str
) -> None:
    if grant == "pg_read_all_data":
        may = await granting.fetchval(
            "SELECT pg_has_role(current_user, 'pg_read_all_data', 'MEMBER WITH ADMIN OPTION')"
        )
        if not may:
            pytest.skip("only a superuser can grant this role")
    async with pool.lease() as session:
        wanted = await on_sale(session)
    await granting.execute(f"GRANT {grant} TO reader; SET LOCAL ROLE reader")
    found = [one for one in await findings(granting, wanted) if one.fatal]
    problem, fix = GRANTS[grant]
    assert any(problem in one.problem and one.fix.startswith(fix) for one in found), found
    await granting.execute("RESET ROLE")
    for one in found:
        await granting.execute(one.fix)
    await granting.execute("SET LOCAL ROLE reader")
    assert [one for one in await findings(granting, wanted) if one.fatal] == []


async def test_an_owner_is_refused_as_the_role(market: Market, pool: DatabasePool) -> None:
    async with pool.lease() as session:
        wanted = await on_sale(session)
    problems = " ".join(one.problem for one in await findings(market.owner, wanted))
    for words in ("owns TABLE demo.companies", "owns SCHEMA demo", "has DELETE on demo.prices"):
        assert words in problems


async def test_a_function_with_its_owners_rights_is_a_warning(pool: DatabasePool) -> None:
    async with pool.lease() as session:
        found = await findings(session, await on_sale(session))
    assert [one.fatal for one in found] == [False, False]
    assert "demo.peek" in found[0].problem
    assert found[1].problem == NO_BOUND
    assert found[1].fix == "ALTER ROLE \"reader\" SET temp_file_limit = '256MB';"


def test_names_are_quoted_in_the_script() -> None:
    script = sandbox_sql('a"b', "x; DROP", [Relation("s", "t", ('c"d',), whole=False)], "p")
    assert 'CREATE ROLE "a""b" LOGIN' in script
    assert 'ON DATABASE "x; DROP" TO' in script
    assert 'GRANT SELECT ("c""d") ON "s"."t" TO "a""b";' in script
