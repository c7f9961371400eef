"""A sold query answers as its original does when psql sends it: names, types and values of every column."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import date
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings

from pricing.sql.functions import FUNCTIONS
from pricing.sql.guard import QueryRefused
from pricing.sql.policy import check
from tests.pricing.sql.queries import SOLD
from tests.pricing.sql.tables import ON_SALE
from tests.support.market import Market
from tests.upstreams.postgres.expressions import EXPRESSIONS
from tests.upstreams.postgres.grammar import queries

EXAMPLES = 400
ROWS = "FROM companies c JOIN filings f USING (company_id) WHERE company_id < 4 LIMIT 20"
# Of extensions that the server here lacks, and what the grammar makes of words.
UNTRIED = {"unaccent", "similarity", "is_normalized", "like_escape", "similar_to_escape"}
TOO_LONG = ("57014",)  # the state of a query that the statement timeout has ended
VALUES: dict[int, list[Any]] = {0: [], 1: [5], 2: [date(2022, 1, 3), [1, 2, 3]]}


async def answer(session: asyncpg.Connection, query: str, parameters: int = 0) -> tuple[object, ...]:
    """Return the names and types of a query's columns, and its rows; the state of its error where it fails."""
    transaction = session.transaction()
    await transaction.start()
    try:
        statement = await session.prepare(query)
        columns = [(column.name, column.type.schema, column.type.name) for column in statement.get_attributes()]
        rows = [str(tuple(row)) for row in await statement.fetch(*VALUES[parameters])]
        return columns, sorted(rows)
    except asyncpg.PostgresError as error:
        return (error.sqlstate,)
    finally:
        await transaction.rollback()


async def both(session: asyncpg.Connection, query: str) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Return the answers to a query as it stands and as it is sold, at the same moment."""
    checked = check(query, ON_SALE)
    transaction = session.transaction(readonly=True)
    await transaction.start()
    try:
        await session.execute(
            "SET LOCAL search_path = demo; SET LOCAL statement_timeout = 5000; SET LOCAL synchronize_seqscans = off; "
            "SET LOCAL max_parallel_workers_per_gather = 0"
        )
        return await answer(session, query, checked.parameters), await answer(session, checked.text, checked.parameters)
    finally:
        await transaction.rollback()


async def check_answer(market: Market, query: str) -> None:
    original, sold = await both(market.owner, query)
    if market.owner.get_server_version().major >= 18:
        assert len(original) == 2, original
    # Numbers such as 1_000 are read here as PostgreSQL 16 reads them, and sold from older ones too.
    assert sold == original or original == ("42601",)


@pytest.mark.parametrize("query", SOLD)
async def test_a_sold_query_answers_as_its_original_does(market: Market, query: str) -> None:
    await check_answer(market, query)


@pytest.mark.parametrize("expression", EXPRESSIONS)
async def test_an_expression_has_the_name_type_and_value_that_psql_shows(market: Market, expression: str) -> None:
    tail = "" if " FROM (" in expression or "FROM json" in expression else ROWS
    query = f"SELECT {expression} {tail}"
    await check_answer(market, query)


async def test_whatever_a_grammar_makes_and_is_sold_answers_as_its_original(market: Market) -> None:
    loop = asyncio.get_running_loop()
    seen: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(queries)
    def every(query: str) -> None:
        try:
            original, sold = asyncio.run_coroutine_threadsafe(both(market.owner, query), loop).result(30)
        except QueryRefused as refusal:
            seen[refusal.code] += 1
            return
        if TOO_LONG in (original, sold):  # a product of large tables, which a busy machine ends at either of them
            seen["too long"] += 1
            return
        assert sold == original, query
        seen["answered" if len(original) == 2 else "failed"] += 1

    await asyncio.to_thread(every)
    assert seen["answered"] > EXAMPLES / 100, seen


def test_every_function_on_the_list_is_tried() -> None:
    tried = " ".join([*EXPRESSIONS, *SOLD]).lower()
    assert {name for name in FUNCTIONS if f"{name}(" not in tried.replace(" (", "(")} <= UNTRIED
