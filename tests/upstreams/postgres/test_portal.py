"""A portal gives all rows once, in one round trip for the first of them, and what its transaction meets as an error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from gateway.upstreams.postgres.portal import Portal
from tests.support.market import Market

NUMBERS = "SELECT generate_series(1, $1::text::int) AS n"


@pytest_asyncio.fixture
async def session(market: Market) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(market.connection_string)
    yield connection
    await connection.close()


@pytest.mark.parametrize(("rows", "fetches"), [(0, [0]), (5, [5]), (20, [20, 0, 0]), (47, [20, 20, 7, 0])])
async def test_rows_come_in_order_and_once(session: asyncpg.Connection, rows: int, fetches: list[int]) -> None:
    async with session.transaction(readonly=True):
        portal = Portal(session, NUMBERS, [str(rows)])
        lots = [await portal.fetch(20) for _ in fetches]
    assert [len(lot) for lot in lots] == fetches
    assert [row["n"] for lot in lots for row in lot] == list(range(1, rows + 1))


async def test_two_portals_of_one_statement_are_apart(session: asyncpg.Connection) -> None:
    async with session.transaction(readonly=True):
        one, other = Portal(session, NUMBERS, ["3"]), Portal(session, NUMBERS, ["9"])
        assert [row["n"] for row in await one.fetch(2)] == [1, 2]
        assert [row["n"] for row in await other.fetch(4)] == [1, 2, 3, 4]
        assert [row["n"] for row in await one.fetch(2)] == [3]
        assert [row["n"] for row in await other.fetch(20)] == [5, 6, 7, 8, 9]


async def test_a_statement_is_prepared_once_per_session(session: asyncpg.Connection) -> None:
    for _ in range(3):
        async with session.transaction(readonly=True):
            await Portal(session, NUMBERS, ["1"]).fetch(2)
    prepared = await session.fetch("SELECT name FROM pg_prepared_statements WHERE statement = $1", NUMBERS)
    assert len(prepared) == 1


async def test_an_error_and_a_cancellation_leave_a_usable_session(session: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with session.transaction(readonly=True):
            await Portal(session, "SELECT 1 / (n - 3) FROM generate_series(1, 9) n", []).fetch(20)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2), session.transaction(readonly=True):
            await Portal(session, "SELECT pg_sleep(20)", []).fetch(20)
    async with session.transaction(readonly=True):
        assert len(await Portal(session, NUMBERS, ["2"]).fetch(20)) == 2
