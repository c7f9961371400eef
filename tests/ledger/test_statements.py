"""Statements: whatever window of whatever history is asked for, its lines lead from one balance to the other."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta

import pytest

from gateway.database.pool import Connection
from gateway.ledger.statements import Line, Opening, Subject, of_publisher, of_wallet, read
from gateway.ledger.wallets import grant
from gateway.settings import DatabaseSettings
from tests.analytics.test_rollups import Books
from tests.support.gateway import ROOT
from tests.support.world import USDC, Agent, Shop, World

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


LOT, HELD, FROZEN, EARNED, PENALTIES, LEAVING, PLATFORM = (
    "lot",
    "held",
    "disputed",
    "earnings",
    "penalties",
    "paying_out",
    "x",
)
# Every kind of transfer there is, from where to where.
KINDS = {
    "grant": [(PLATFORM, LOT)], "charge": [(LOT, EARNED)], "refund": [(EARNED, LOT), (PENALTIES, LOT)],
    "hold": [(LOT, HELD)], "capture": [(HELD, EARNED)], "release": [(HELD, LOT)], "expire": [(LOT, PLATFORM)],
    "payment": [(PLATFORM, EARNED)], "direct": [(EARNED, PLATFORM)],
    "reversal": [(EARNED, PLATFORM), (LOT, PLATFORM)], "repayment": [(EARNED, PLATFORM)],
    "repaid": [(PLATFORM, PLATFORM)], "funding": [(PLATFORM, PLATFORM)], "purchase": [(PLATFORM, PLATFORM)],
    "withdrawal": [(PLATFORM, PLATFORM)], "penalty": [(LOT, PENALTIES)], "card_fee": [(PLATFORM, PLATFORM)],
    "card_refund": [(LOT, PLATFORM)], "dispute": [(LOT, FROZEN)], "dispute_won": [(FROZEN, LOT)],
    "dispute_lost": [(FROZEN, PLATFORM)], "shortfall": [(PLATFORM, PLATFORM)], "recovery": [(LOT, PLATFORM)],
    "payout": [(EARNED, LEAVING), (PENALTIES, LEAVING)], "paid_out": [(LEAVING, PLATFORM)],
    "payout_back": [(LEAVING, EARNED), (LEAVING, PENALTIES)], "invoice": [(PLATFORM, PLATFORM)],
    "invoice_paid": [(PLATFORM, PLATFORM)], "invoice_void": [(PLATFORM, PLATFORM)],
    "correction": [(LOT, PLATFORM)],
}  # fmt: skip
WITH_FEE = {"charge", "capture", "payment", "refund", "repayment", "reversal"}


async def test_every_kind_of_transfer_has_its_word_on_both_sides_and_in_the_docs(
    connection: Connection, world: World, database_url: str
) -> None:
    agent, shop = await world.agent(1_000_000), await world.publisher()
    assert set(await connection.fetchval("SELECT enum_range(NULL::ledger.kind)::text[]")) == set(KINDS)
    accounts = await _accounts(connection, agent, shop)
    since = await connection.fetchval("SELECT clock_timestamp()")
    number = 100
    for kind, ways in KINDS.items():
        for leg, (debit, credit) in enumerate(ways):
            number += 1  # an amount of its own: no two of them cancel out
            fee = 3 if kind in WITH_FEE and EARNED in (debit, credit) else 0
            await connection.execute(
                "INSERT INTO ledger.transfer (cause_id, kind, leg, wallet_id, debit_account, credit_account, amount, fee)"
                " VALUES (gen_random_uuid(), $1::text::ledger.kind, $2, $3, $4, $5, $6, $7)",
                kind, leg, agent.wallet_id if {debit, credit} & {LOT, HELD, FROZEN} else None,
                accounts[debit], accounts[credit], number, fee,
            )  # fmt: skip
    told = _table()
    assert set(told) | _not_lines() == set(KINDS)
    assert not set(told) & _not_lines()
    for side, subject in enumerate((of_wallet(agent.wallet_id), await of_publisher(connection, shop.id, USDC))):
        _, lines = await whole(database_url, subject, since, since + timedelta(days=1))
        assert {line.kind for line in lines} == {kind for kind, words in told.items() if words[side] != "–"}
        assert sum(line.change for line in lines) == await _posted(connection, subject, since)


async def _accounts(connection: Connection, agent: Agent, shop: Shop) -> dict[str, int]:
    """Return an account of each sort."""
    make, wallet = connection.fetchval, agent.wallet_id
    await connection.execute(
        "INSERT INTO ledger.account (purpose, asset_id, wallet_id, balance)"
        " SELECT unnest('{held,disputed}'::ledger.purpose[]), $1, $2, 0 ON CONFLICT DO NOTHING", USDC, wallet,
    )  # fmt: skip
    own = await connection.fetch(
        "SELECT id, CASE WHEN granted IS NULL THEN purpose::text ELSE 'lot' END AS sort FROM ledger.account"
        " WHERE wallet_id = $1", wallet,
    )  # fmt: skip
    of_shop = {EARNED: shop.account_id, LEAVING: await make("SELECT chain.paying_account($1, $2)", shop.id, USDC),
               PENALTIES: await make("SELECT ledger.penalties_account($1, $2)", shop.id, USDC)}  # fmt: skip
    clearing = await make("SELECT ledger.platform_account($1, 'clearing', 'eip155:8453')", USDC)
    return {**{row["sort"]: row["id"] for row in own}, **of_shop, PLATFORM: clearing}


async def _posted(connection: Connection, subject: Subject, since: datetime) -> int:
    """Return what was booked for a subject since then, as the proof sees it."""
    key = "wallet_id = $1" if isinstance(subject.key, int) else "id = ANY ($1)"
    sql = f"""
        SELECT sum(p.credit - p.debit) FROM ledger.posting p
         WHERE p.created_at >= $2 AND p.account_id IN (SELECT id FROM ledger.account WHERE {key})
    """
    return int(await connection.fetchval(sql, subject.key, since))


def _chapter() -> str:
    return (ROOT / "docs/money.md").read_text().split("## Statements")[1].split("\n## ")[0]


def _table() -> dict[str, tuple[str, str]]:
    """Return what the docs say of each kind that has lines: in a wallet, and of a publisher."""
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", _chapter(), re.MULTILINE)
    return {kind: (wallet, publisher) for kind, wallet, publisher in rows}


def _not_lines() -> set[str]:
    return set(re.findall(r"`(\w+)`", _chapter().partition("Not lines,")[2]))
