"""A ledger with months behind it, for tests of what becomes of old ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from gateway.database.pool import Connection
from gateway.ids import floor_at
from gateway.ledger import proof
from gateway.ledger.archive import archive
from gateway.ledger.entries import Charge, Settlement, post
from gateway.ledger.exchanges import END_HOLD, refund
from gateway.ledger.holds import Hold, post_holds
from tests.support.world import World

GRACE = timedelta(days=7)
MONTHS = 6


def month(ago: int) -> datetime:
    """Return the beginning of a month of the past."""
    now = datetime.now(UTC)
    number = now.year * 12 + now.month - 1 - ago
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)


def floor(ago: int) -> UUID:
    return floor_at(int(month(ago).timestamp() * 1000))


def id_in(ago: int) -> UUID:
    """Return an id of a call in that month."""
    return UUID(
        int=floor_at(int((month(ago) + timedelta(days=9)).timestamp() * 1000)).int | uuid4().int & (1 << 62) - 1
    )


class Past:
    """A ledger with months behind it: the first partition ends MONTHS ago."""

    def __init__(self, url: str, connection: Connection) -> None:
        self.url = url
        self.connection = connection
        self.world = World(connection)

    async def begin(self) -> None:
        """Cut the empty first partition into months, and let everything else be as on an old gateway."""
        for table in ("transfer", "settlement"):
            await self.connection.execute(f"DROP TABLE ledger.{table}_first")
            await self.connection.execute(
                f"CREATE TABLE ledger.{table}_first PARTITION OF ledger.{table}"
                f" FOR VALUES FROM (MINVALUE) TO ('{UUID(int=floor(MONTHS).int >> 80 << 80)}')"
            )
            for ago in range(MONTHS, -1, -1):
                await self.connection.execute("SELECT ledger.make_partition($1, $2)", table, month(ago))
        await self.connection.execute("UPDATE analytics.mark SET upto = now() + interval '1 day'")
        self.agent, self.shop = await self.world.agent(10_000), await self.world.publisher()

    async def call(self, ago: int, *, ended: bool = True) -> UUID:
        exchange = id_in(ago)
        charge = Charge(exchange, self.agent.wallet_id, self.shop.id, self.shop.account_id, 100, 7)
        ends = [Settlement(exchange, "delivered", 200, 0, 9, "GET", b"\1" * 32)] if ended else []
        assert [one.verdict for one in await post(self.connection, [charge], None, ends)] == ["posted"]
        return exchange

    async def held(self, ago: int, captured: int | None) -> UUID:
        hold = Hold(id_in(ago), self.agent.wallet_id, self.shop.id, self.shop.account_id, 100)
        assert [one.verdict for one in await post_holds(self.connection, [hold], None, [], GRACE)] == ["held"]
        if captured is not None:
            fee = "1" if captured else "0"
            ended = await END_HOLD.one(
                self.connection, hold.exchange_id, str(captured), fee, "delivered", 200, 0, 9, GRACE
            )  # fmt: skip
            assert ended.verdict == ("captured" if captured else "voided")
        return hold.exchange_id

    async def month_of_calls(self, ago: int) -> list[UUID]:
        """Charge, refund, hold, capture and void: everything that a month sees."""
        calls = [await self.call(ago) for _ in range(3)]
        await refund(self.connection, calls[0], reason="x", status=None, grace=GRACE, only_open=False)
        await self.held(ago, 40)
        await self.held(ago, 0)
        lot = await self.connection.fetchval(
            "SELECT verdict FROM ledger.grant_lot($1, $2, 'promo', $3, 50, 'promotional', NULL, NULL, NULL, NULL)",
            id_in(ago), self.agent.wallet_id, f"{ago}",
        )  # fmt: skip
        assert lot == "granted"
        return calls

    async def money(self) -> tuple[int, int, list[str]]:
        """Return what the agent has and the publisher has earned, and the sums of all, as the proof has them."""
        report = await proof.verify(self.connection)
        assert report.sound, report.violations
        return (
            await self.world.balance(self.agent), await self.world.earned(self.shop),
            [f"{one.asset} {one.debits} {one.credits} {one.customers} {one.fees}" for one in report.assets],
        )  # fmt: skip

    async def left(self) -> list[str]:
        """Return the partitions of transfers that are there."""
        return [row[0] for row in await self.connection.fetch("SELECT name FROM ledger.partitions('transfer')")]


async def archived(past: Past, ago: int, directory: Path) -> int:
    """Archive what was before a month, and return how many months that were."""
    return len([one async for one in archive(past.connection, floor(ago), directory)])
