"""Whatever a grammar makes: nothing that writes or reaches outside of the sale is allowed, and what is, only reads."""

from __future__ import annotations

import asyncio
from collections import Counter

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings

from pricing.sql.guard import QueryRefused
from pricing.sql.policy import CheckedQuery, check
from tests.pricing.sql.tables import ON_SALE
from tests.support.market import BAIT, Market
from tests.upstreams.postgres.grammar import FOREIGN_TABLES, queries

EXAMPLES = 800
# What only a query of another kind, or one that reaches outside of the sale, can meet.
FORBIDDEN = {"42501", "3F000", "25006", "25001", "25P02", "0A000", "2F003", "58P01"}
CALLS = ("pg_sleep", "peek", "set_config", "pg_read", "to_xml", "lo_create", "nextval", "notify", "advisory", "txid")


async def outcome(session: asyncpg.Connection, checked: CheckedQuery) -> tuple[str, str]:
    """Run an allowed query read-only, as the database's owner, whom no grant stops: what it is by the plan, what it says."""
    transaction = session.transaction(readonly=True)
    await transaction.start()
    try:
        await session.execute("SET LOCAL search_path = demo; SET LOCAL statement_timeout = 2000")
        plan = "\n".join(row[0] for row in await session.fetch(f"EXPLAIN (VERBOSE) {checked.text}"))
        cursor = await session.cursor(checked.text)
        return plan, str(await cursor.fetch(50))
    except asyncpg.PostgresError as error:
        if error.sqlstate in FORBIDDEN:
            raise AssertionError(f"{error.sqlstate}: {checked.text}") from error
        return "", ""
    finally:
        await transaction.rollback()


async def test_nothing_that_writes_or_leaves_the_sale_is_ever_allowed(market: Market) -> None:
    loop = asyncio.get_running_loop()
    seen: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(queries)
    def every(query: str) -> None:
        try:
            checked = check(query, ON_SALE)
        except QueryRefused as refusal:
            seen[refusal.code] += 1
            return
        seen["allowed"] += 1
        plan, answer = asyncio.run_coroutine_threadsafe(outcome(market.owner, checked), loop).result(30)
        assert BAIT not in answer, checked.text
        assert not any(f" on {table.rpartition('.')[2]}" in plan for table in FOREIGN_TABLES), (checked.text, plan)
        assert not any(f"{call}(" in plan for call in CALLS), (checked.text, plan)
        assert not any(word in plan for word in ("Insert on", "Update on", "Delete on", "LockRows")), plan
        seen["ran"] += bool(answer)

    before = await market.owner.fetchval("SELECT count(*) FROM demo.companies")
    await asyncio.to_thread(every)
    assert await market.owner.fetchval("SELECT count(*) FROM demo.companies") == before
    assert seen["ran"] >= EXAMPLES / 100, "the grammar makes enough queries that run"
    assert len(seen) > 6, seen


@pytest.mark.parametrize("query", ["SELECT demo.peek(1)", "SELECT secret FROM hidden.api_keys"])
async def test_what_the_test_looks_for_would_be_seen(market: Market, query: str) -> None:
    """Without the text fence the owner reads the bait, so the property above can fail."""
    plan, answer = await outcome(market.owner, CheckedQuery(query, (), 0, None, one_row=False, collecting=False))
    assert BAIT in answer
    assert "peek(" in plan or " on hidden.api_keys" in plan
