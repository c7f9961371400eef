"""Statements: whatever window of whatever history is asked for, its lines lead from one balance to the other."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from gateway.database.pool import Connection
from gateway.ledger.statements import Line, Opening, Subject, of_publisher, of_wallet, read
from gateway.ledger.wallets import grant
from gateway.settings import DatabaseSettings
from tests.analytics.test_rollups import Books
from tests.support.world import USDC, World

BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)


async def whole(url: str, subject: Subject, since: datetime, until: datetime) -> tuple[int, list[Line]]:
    opening, lines = None, list[Line]()
    async for part in read(DatabaseSettings(url=url), subject, since, until):
        if isinstance(part, Opening):
            opening = part.balance
        else:
            lines += part
    assert opening is not None
    return opening, lines


@pytest.mark.parametrize("seed", range(3))
async def test_lines_lead_from_the_opening_to_the_closing_balance(
    connection: Connection, world: World, database_url: str, seed: int
) -> None:
    agents, shops = [await world.agent(100_000) for _ in range(2)], [await world.publisher() for _ in range(2)]
    books = Books(connection, agents, shops, random.Random(seed))
    subjects = [of_wallet(agent.wallet_id) for agent in agents]
    marks: list[tuple[datetime, list[int]]] = []
    for number in range(12):
        await grant(connection, agents[0].wallet_id, source="promo", reference=f"{seed}/{number}", amount=number + 1)
        for _ in range(3):
            await books.step()
        moment = await connection.fetchval("SELECT clock_timestamp()")
        marks.append((moment, [await _balance(connection, subject) for subject in subjects]))
        if number == 0:  # the earnings accounts are there by now
            subjects += [await of_publisher(connection, shop.id, USDC) for shop in shops]
            marks[0][1].extend([await _balance(connection, subject) for subject in subjects[2:]])
    for index, subject in enumerate(subjects):
        opening, lines = await whole(database_url, subject, BEGINNING, marks[-1][0])
        assert opening == 0
        assert sum(line.change for line in lines) == marks[-1][1][index]
        for _ in range(6):
            first, last = sorted(books.chance.sample(marks, 2))
            opening, lines = await whole(database_url, subject, first[0], last[0])
            assert opening == first[1][index]
            assert opening + sum(line.change for line in lines) == last[1][index]
            assert lines == sorted(lines, key=lambda line: (line.at, line.cause_id))


async def _balance(connection: Connection, subject: Subject) -> int:
    """Return what the ledger itself says: of a wallet with what is held."""
    if isinstance(subject.key, int):
        sql = "SELECT coalesce(sum(balance), 0) FROM ledger.account WHERE wallet_id = $1"
    else:
        sql = "SELECT coalesce(sum(credits - debits), 0) FROM ledger.shard WHERE account_id = ANY ($1)"
    return int(await connection.fetchval(sql, subject.key))


async def test_all_is_of_one_moment_whatever_happens_meanwhile(
    connection: Connection, world: World, database_url: str
) -> None:
    agent = await world.agent(100)
    subject, tomorrow = of_wallet(agent.wallet_id), datetime.now(UTC) + timedelta(days=1)
    parts = read(DatabaseSettings(url=database_url), subject, BEGINNING, tomorrow)
    opening = await anext(parts)
    await grant(connection, agent.wallet_id, source="promo", reference="late", amount=7)
    lines = [line async for part in parts if isinstance(part, list) for line in part]
    assert isinstance(opening, Opening)
    assert (opening.balance, [line.change for line in lines]) == (0, [100])
