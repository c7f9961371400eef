"""What a publisher earns, over the API: windows, days, agents, and who may see it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from gateway.analytics.revenue import change
from gateway.analytics.rollups import REBUILD
from gateway.database.pool import Connection
from gateway.ids import floor_at
from gateway.ledger.entries import Charge, post
from gateway.ledger.exchanges import refund
from tests.admin_api.conftest import Api, Clerk, Member
from tests.support.world import ETHER, USDC, Agent, World


def ago(days: int) -> str:
    return (datetime.now(UTC).date() - timedelta(days=days)).isoformat()


class Shop:
    """A publisher made over the API, and calls of it on any day."""

    def __init__(self, api: Api, connection: Connection, owner: Member, publisher: dict[str, Any]) -> None:
        self.api, self.connection, self.owner = api, connection, owner
        self.id = UUID(publisher["id"])
        self.path = f"/organizations/{owner.organization_id}/publishers/{publisher['id']}"

    async def call(self, agent: Agent, days: int, amount: int, fee: int = 0, asset: UUID = USDC) -> UUID:
        moment = datetime.now(UTC).replace(hour=0, minute=0) - timedelta(days=days)
        exchange = UUID(int=floor_at(int(moment.timestamp() * 1000)).int | uuid4().int & (1 << 62) - 1)
        account = await self.connection.fetchval("SELECT ledger.earnings_account($1, $2)", self.id, asset)
        charge = Charge(exchange, agent.wallet_id, self.id, account, amount, fee)
        assert [one.verdict for one in await post(self.connection, [charge], None, [])] == ["posted"]
        return exchange

    async def give_back(self, exchange: UUID) -> None:
        week = timedelta(days=7)
        await refund(self.connection, exchange, reason="test", status=503, grace=week, only_open=False)

    async def get(self, path: str, *, key: str | None = None, expect: int = 200) -> Any:
        answer = await self.api.call("GET", f"{self.path}/{path}", key or self.owner.key, expect=expect)
        return answer.json()


@pytest.fixture
async def shop(api: Api, clerk: Clerk, connection: Connection) -> Shop:
    owner = await clerk.agent()
    return Shop(api, connection, owner, await clerk.publisher(owner))


async def test_a_window_is_compared_with_the_one_before(shop: Shop, world: World) -> None:
    ann, bob = await world.agent(10_000_000), await world.agent(10_000_000)
    assert await shop.get("analytics/revenue") == {
        "total_revenue_atomic": 0, "total_revenue": "0.00", "total_queries": 0, "active_agents": 0,
        "avg_query_cost_atomic": 0, "revenue_change_pct": 0, "queries_change_pct": 0, "agents_change_pct": 0,
        "period_start": ago(29), "period_end": ago(0), "asset": "USDC", "gross_atomic": 0, "fees_atomic": 0,
        "other_assets": [],
    }  # fmt: skip
    for days, amount in ((0, 1_000_001), (1, 500_000), (6, 500_000), (7, 800_000), (13, 200_000), (14, 9)):
        await shop.call(ann, days, amount, fee=amount // 10)
    await shop.call(bob, 3, 400_000)
    await shop.give_back(await shop.call(bob, 8, 700_000, fee=70_000))
    for _ in range(2):
        seen = await shop.get("analytics/revenue?days=7")
        assert (seen["gross_atomic"], seen["fees_atomic"]) == (2_400_001, 200_000)
        assert (seen["total_revenue_atomic"], seen["total_revenue"]) == (2_200_001, "2.200001")
        assert (seen["total_queries"], seen["active_agents"], seen["avg_query_cost_atomic"]) == (4, 2, 600_000)
        # before: 1.0 gross, 0.9 earned, two calls, one agent
        assert [seen[f"{name}_change_pct"] for name in ("revenue", "queries", "agents")] == [144, 100, 100]
        assert (seen["period_start"], seen["period_end"]) == (ago(6), ago(0))
        await REBUILD.run(shop.connection)


async def test_every_day_has_a_row_and_a_refund_lowers_the_day_of_its_call(shop: Shop, world: World) -> None:
    ann, bob = await world.agent(10_000), await world.agent(10_000)
    await shop.call(ann, 2, 100, fee=3)
    await shop.call(ann, 2, 100)
    await shop.call(bob, 2, 50)
    late = await shop.call(bob, 0, 70)
    rows = await shop.get("analytics/revenue-by-day?days=4")
    none = {"revenue_atomic": 0, "revenue": "0.00", "query_count": 0, "unique_agents": 0}
    day = {"date": ago(2), "revenue_atomic": 247, "revenue": "0.000247", "query_count": 3, "unique_agents": 2}
    today = {"date": ago(0), "revenue_atomic": 70, "revenue": "0.00007", "query_count": 1, "unique_agents": 1}
    assert rows == [{"date": ago(3), **none}, day, {"date": ago(1), **none}, today]
    await shop.give_back(late)
    assert (await shop.get("analytics/revenue-by-day?days=4"))[3] == {"date": ago(0), **none}
    assert len(await shop.get("analytics/revenue-by-day")) == 30


async def test_agents_are_ranked_by_what_they_spent_and_ties_by_their_wallets(shop: Shop, world: World) -> None:
    agents = [await world.agent(1_000) for _ in range(4)]
    for agent, amount in zip(agents, (5, 900, 5, 7), strict=True):
        await shop.call(agent, 1, amount)
    await shop.give_back(await shop.call(agents[3], 0, 900))
    top = await shop.get("analytics/top-agents")
    assert [one["rank"] for one in top] == [1, 2, 3, 4]
    assert [one["agent_wallet"].split("/")[0] for one in top] == [
        f"agent:{agents[index].id}" for index in (1, 3, 0, 2)
    ]  # fmt: skip
    assert [(one["total_spent_atomic"], one["balance_atomic"], one["query_count"]) for one in top] == [
        (900, 100, 1), (7, 993, 1), (5, 995, 1), (5, 995, 1)
    ]  # fmt: skip
    assert top[0]["last_active"].startswith(ago(1))
    assert await shop.get("analytics/top-agents?limit=2") == top[:2]


async def test_other_assets_are_told_beside_the_primary_one(shop: Shop, world: World) -> None:
    rich = await world.agent(10**18, ETHER)
    await shop.call(rich, 0, 10**17, fee=10**15, asset=ETHER)
    seen = await shop.get("analytics/revenue")
    assert (seen["asset"], seen["total_revenue_atomic"], seen["total_queries"]) == ("USDC", 0, 0)
    assert seen["other_assets"] == [
        {"asset_id": str(ETHER), "symbol": "ETH", "revenue": "0.099", "revenue_atomic": 99 * 10**15, "calls": 1}
    ]


async def test_it_agrees_with_the_earnings(shop: Shop, world: World) -> None:
    agent = await world.agent(10_000)
    for days in range(3):
        await shop.call(agent, days, 1_000, fee=33)
    (earned,) = (await shop.get("earnings"))["data"]
    assert earned["total_revenue_atomic"] == (await shop.get("analytics/revenue"))["total_revenue_atomic"] == 2_901


@pytest.mark.parametrize(
    "path",
    ["revenue?days=0", "revenue-by-day?days=366", "top-agents?limit=0", "top-agents?limit=101", "revenue?days=x"],
)
async def test_numbers_out_of_range_are_refused(shop: Shop, path: str) -> None:
    problem = await shop.get(f"analytics/{path}", expect=400)
    assert problem["type"].endswith("invalid-request")


@pytest.mark.parametrize("path", ["revenue", "revenue-by-day", "top-agents"])
async def test_a_publisher_of_another_organization_is_not_there(shop: Shop, clerk: Clerk, path: str) -> None:
    other = await clerk.agent()
    theirs = f"/organizations/{other.organization_id}/publishers/{shop.id}/analytics/{path}"
    await shop.api.call("GET", theirs, other.key, expect=404)
    await shop.get(f"analytics/{path}", key=other.key, expect=403)


@pytest.mark.parametrize(
    ("now", "before", "percent"),
    [(0, 0, 0), (1, 0, 100), (115, 100, 15), (85, 100, -15), (1125, 1000, 13), (1124, 1000, 12), (0, 7, -100),
     (10**18, 1, 2**31 - 1)],
)  # fmt: skip
def test_changes_are_whole_percents(now: int, before: int, percent: int) -> None:
    assert change(now, before) == percent
