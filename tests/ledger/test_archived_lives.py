"""Lives of money with archives in the middle, in an order that a seed picks: what is put away changes no balance, and a
statement leads to what is left of it, to the atomic unit.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from gateway.ledger.archive import check
from gateway.ledger.exchanges import refund
from gateway.ledger.statements import Opening, of_publisher, of_wallet, read
from gateway.settings import DatabaseSettings
from tests.ledger.past import GRACE, MONTHS, Past, archived, id_in, month
from tests.support.books import made_of_nothing
from tests.support.world import USDC

pytestmark = pytest.mark.slow
STEPS = 30


class Life:
    """Calls of months that are not archived yet; `oldest` is the oldest of those, in months ago."""

    def __init__(self, past: Past, dice: random.Random, directory: Path) -> None:
        self.past, self.dice, self.directory = past, dice, directory
        self.oldest = MONTHS - 1
        self.calls: list[tuple[int, UUID]] = []
        self.archives = 0

    async def step(self) -> None:
        ago = self.dice.randint(0, self.oldest)
        match self.dice.choice(("call", "call", "hold", "grant", "back", "back", "archive")):
            case "call":
                self.calls.append((ago, await self.past.call(ago)))
            case "hold":
                captured = self.dice.choice((0, 40, 100))
                exchange = await self.past.held(ago, captured)
                self.calls += [(ago, exchange)] if captured else []
            case "grant":
                await self.past.connection.execute(
                    "SELECT ledger.grant_lot($1, $2, 'promo', $3, 50, 'promotional', NULL, NULL, NULL, NULL)",
                    id_in(ago), self.past.agent.wallet_id, str(id_in(ago)),
                )  # fmt: skip
            case "back" if self.calls:
                _, exchange = self.calls.pop(self.dice.randrange(len(self.calls)))
                await refund(self.past.connection, exchange, reason="x", status=None, grace=GRACE, only_open=False)
            case "archive" if self.oldest > 1:
                await self.archive()
            case _:
                pass

    async def archive(self) -> None:
        before = await self.past.money()
        self.oldest -= self.dice.randint(1, self.oldest - 1)
        self.archives += await archived(self.past, self.oldest, self.directory)
        assert await self.past.money() == before
        self.calls = [(ago, exchange) for ago, exchange in self.calls if ago <= self.oldest]

    async def statements_agree(self) -> None:
        connection, shop = self.past.connection, self.past.shop
        now = await connection.fetchval("SELECT clock_timestamp()")
        subjects = [
            (of_wallet(self.past.agent.wallet_id), await self.past.world.balance(self.past.agent)),
            (await of_publisher(connection, shop.id, USDC), await self.past.world.earned(shop)),
        ]
        upto = await connection.fetchval("SELECT upto FROM ledger.archived")
        for subject, balance in subjects:
            total, told = 0, None
            settings = DatabaseSettings(url=self.past.url)
            async for part in read(settings, subject, datetime(2020, 1, 1, tzinfo=UTC), now + timedelta(days=1)):
                if isinstance(part, Opening):
                    total, told = part.balance, part.archived
                else:
                    total += sum(line.change for line in part)
                    assert all(line.cause_id >= upto for line in part)
            assert total == balance
            assert (told is not None) == bool(self.archives)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_an_archive_in_the_middle_of_a_life_moves_nothing(past: Past, tmp_path: Path, seed: int) -> None:
    life = Life(past, random.Random(seed), tmp_path)
    for _ in range(STEPS):
        await life.step()
        assert await made_of_nothing(past.connection) == []
        await life.statements_agree()
    while life.oldest > 1:
        await life.archive()
    await life.statements_agree()
    assert life.archives
    assert await check(past.connection, tmp_path) == []
    upto = await past.connection.fetchval("SELECT ledger.moment_of(upto) FROM ledger.archived")
    assert upto == month(life.oldest)
