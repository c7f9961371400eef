"""Budgets of API keys as hard stops: on every way to pay from a balance, in every race, over two workers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio
from mcp.shared.exceptions import MCPError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.ledger.wallets import open_wallet
from tests.support.chat import ChatUpstream
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.market import Market, sell
from tests.support.mcp_client import connected
from tests.support.mcp_server import PublishersServer, selling
from tests.support.services import Services
from tests.support.sockets import SocketUpstream
from tests.support.upstream import RecordingUpstream
from tests.support.world import ETHER, Agent, World

pytestmark = pytest.mark.usefixtures("sound_books")

KEYS = "/organizations/default/api-keys"
DOLLAR = 1_000_000
PRICE = 10_000


@pytest_asyncio.fixture(scope="module")
async def second(services: Services, database_url: str) -> AsyncIterator[RunningGateway]:
    """Another gateway on the same database, as another worker of the first."""
    running = await start_gateway(services, database_url)
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def agent(world: World) -> Agent:
    """An agent with ten dollars, whose key has no budget."""
    return await world.agent(10 * DOLLAR)


@dataclass
class Key:
    """A key of the agent's with a budget."""

    gateway: RunningGateway
    owner: Agent
    id: str
    text: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.text}"}

    async def limit(self, **budget: str | None) -> None:
        path = f"{KEYS}/{self.id}"
        answer = await self.gateway.client.patch(path, headers=self.owner.headers, json={"budget": budget})
        assert answer.status_code == 200, answer.text

    async def budget(self) -> dict[str, Any]:
        answer = await self.gateway.client.get("/wallet/budget", headers=self.headers)
        return answer.json()["data"]["budget"]

    async def spent(self, amount: str) -> None:
        """Wait until so much counts as spent today and this month: the ends of holds are written behind the answers."""
        async with asyncio.timeout(60):
            while (await self.budget())["spent_today"] != amount:
                await asyncio.sleep(0.02)
        assert (await self.budget())["spent_this_month"] == amount


async def key_of(gateway: RunningGateway, agent: Agent, **budget: str) -> Key:
    body = {"name": "limited", "budget": budget}
    answer = await gateway.client.post(KEYS, headers=agent.headers, json=body)
    data = answer.json()["data"]
    return Key(gateway, agent, data["id"], data["api_key"])


def exceeded(answer: httpx.Response, **said: str) -> dict[str, Any]:
    """Assert that an answer is the refusal of a budget and costs nothing; return what it says."""
    assert answer.status_code == 403, answer.text
    assert answer.headers["x-cost"] == "0"
    assert "payment-required" not in answer.headers
    document = answer.json()
    assert document["type"] == "/problems/budget-exceeded"
    assert {name: document.get(name) for name in said} == said
    return document


@pytest.mark.parametrize(
    ("budget", "bought", "said"),
    [
        ({"per_call": "0.009999"}, 0, {"budget": "call", "limit": "0.009999"}),
        ({"per_day": "0.029999"}, 2, {"budget": "day", "limit": "0.029999", "spent": "0.02"}),
        ({"per_month": "0.03"}, 3, {"budget": "month", "limit": "0.03", "spent": "0.03"}),
        ({"per_day": "0.02", "per_month": "0.01"}, 1, {"budget": "month", "spent": "0.01"}),
        ({"per_day": "0"}, 0, {"budget": "day", "limit": "0"}),
    ],
)
async def test_what_a_budget_does_not_cover_is_refused_before_anything_is_sent(
    gateway: RunningGateway,
    world: World,
    upstream: RecordingUpstream,
    agent: Agent,
    budget: dict,
    bought: int,
    said: dict,
) -> None:
    shop, key = await world.publisher(PRICE), await key_of(gateway, agent, **budget)
    upstream.forget()
    path = f"/publishers/{shop.slug}/quote"
    answers = [await gateway.client.get(path, headers=key.headers) for _ in range(bought + 2)]
    assert [answer.status_code for answer in answers] == [200] * bought + [403] * 2
    document = exceeded(answers[-1], required="0.01", asset="USDC", **said)
    assert ("renews_at" in document) == (bought > 0), "what never fits does not renew"
    assert upstream.calls == bought
    assert await world.balance(agent) == 10 * DOLLAR - bought * PRICE
    assert (await gateway.client.get(path, headers=agent.headers)).status_code == 200


async def test_an_answer_says_what_is_left_and_only_where_there_is_a_budget(
    gateway: RunningGateway, world: World, agent: Agent
) -> None:
    shop, key = await world.publisher(PRICE), await key_of(gateway, agent, per_day="0.5", per_month="2")
    path = f"/publishers/{shop.slug}/quote"
    answer = await gateway.client.get(path, headers=key.headers)
    assert answer.headers["x-budget-left"] == "day=0.49, month=1.99"
    failed = await gateway.client.get(f"/publishers/{shop.slug}/status/503", headers=key.headers)
    assert (failed.headers["x-cost"], failed.headers["x-budget-left"]) == ("0", "day=0.49, month=1.99")
    await key.limit(per_month=None)
    assert (await gateway.client.get(path, headers=key.headers)).headers["x-budget-left"] == "day=0.48"
    await key.limit(per_day=None, per_call="0.02")
    assert "x-budget-left" not in (await gateway.client.get(path, headers=key.headers)).headers
    answer = await gateway.client.get(path, headers=agent.headers)
    assert (answer.status_code, "x-budget-left" in answer.headers) == (200, False)


@pytest.mark.parametrize("period", ["per_day", "per_month"])
async def test_no_race_over_two_workers_passes_a_budget_and_none_leaves_a_part_of_it(
    gateway: RunningGateway, second: RunningGateway, world: World, agent: Agent, period: str
) -> None:
    shop, key = await world.publisher(PRICE), await key_of(gateway, agent, **{period: "0.37"})
    path = f"/publishers/{shop.slug}/quote"
    clients = [gateway.client, second.client]
    answers = await asyncio.gather(*(clients[n % 2].get(path, headers=key.headers) for n in range(120)))
    assert Counter(answer.status_code for answer in answers) == {200: 37, 403: 83}
    assert await world.balance(agent) == 10 * DOLLAR - 37 * PRICE
    await key.spent("0.37")


async def test_what_is_held_counts_and_no_race_of_holds_passes_a_budget(
    gateway: RunningGateway, second: RunningGateway, world: World, agent: Agent
) -> None:
    shop = await world.publisher(
        None, price_per_mib="0.001", reserve_max_charge="0.05", pricing_model="per_byte", min_charge=PRICE
    )
    key = await key_of(gateway, agent, per_day="0.22")
    path = f"/publishers/{shop.slug}/bytes?n=10"
    clients = [gateway.client, second.client]
    answers = await asyncio.gather(*(clients[n % 2].get(path, headers=key.headers) for n in range(60)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 403}
    assert 4 <= statuses[200] <= 18, "0.05 is held for each, and 0.01 is paid"
    spent = statuses[200] * PRICE
    async with asyncio.timeout(60):
        while await world.balance(agent) != 10 * DOLLAR - spent:
            await asyncio.sleep(0.02)
    await key.spent(f"{spent / DOLLAR:g}")


async def test_what_is_given_back_can_be_spent_again(gateway: RunningGateway, world: World, agent: Agent) -> None:
    shop, key = await world.publisher(PRICE), await key_of(gateway, agent, per_day="0.01", per_month="0.01")
    for _ in range(3):
        failed = await gateway.client.get(f"/publishers/{shop.slug}/status/500", headers=key.headers)
        assert (failed.status_code, failed.headers["x-cost"]) == (500, "0")
    path = f"/publishers/{shop.slug}/quote"
    assert (await gateway.client.get(path, headers=key.headers)).status_code == 200
    exceeded(await gateway.client.get(path, headers=key.headers))


async def test_what_was_held_and_not_taken_can_be_spent_again(
    gateway: RunningGateway, world: World, chat: ChatUpstream, agent: Agent
) -> None:
    shop = await world.publisher(
        None, api_url=chat.url, billing_model="pay_per_use", reserve_max_charge="0.10",
        unresolved_fallback_charge="0.02", upstream_cost_response_path="usage.cost",
    )  # fmt: skip
    key = await key_of(gateway, agent, per_day="0.12", per_call="0.10")
    path = f"/publishers/{shop.slug}/v1/chat/completions"
    body = {"model": "echo-1", "messages": [{"role": "user", "content": "word"}], "x_cost": 0.0125}
    answers = [await gateway.client.post(path, headers=key.headers, json=body) for _ in range(3)]
    assert [answer.headers.get("x-budget-left") for answer in answers] == ["day=0.1075", "day=0.095", None]
    exceeded(answers[2], budget="day", required="0.1")
    await key.spent("0.025")
    await key.limit(per_call="0.099999")
    exceeded(await gateway.client.post(path, headers=key.headers, json=body), budget="call", required="0.1")
    await key.limit(per_call=None, per_day="1")
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}, "x_mode": "slow"}
    streamed["messages"] = [{"role": "user", "content": "word " * 10}]  # not over before its head is passed on
    answer = await gateway.client.post(path, headers=key.headers, json=streamed)
    assert (answer.headers["x-cost-max"], answer.headers["x-budget-left"]) == ("0.1", "day=0.875")


async def test_a_query_stops_where_its_budget_is_used_up(
    gateway: RunningGateway, world: World, market: Market, agent: Agent
) -> None:
    shop = await sell(gateway.client, await world.agent(), market.config(sample=False), pricing={"min_charge": "0.001"})

    async def ask(key: Key, rows: int) -> httpx.Response:
        body = {"query": f"SELECT company_id FROM companies LIMIT {rows}"}
        return await gateway.client.post(f"/publishers/{shop.slug}", headers=key.headers, json=body)

    key = await key_of(gateway, agent, per_day="0.01", per_month="0.012")
    answer = await ask(key, 4)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.004")
    assert answer.headers["x-budget-left"] == "day=0.006, month=0.008"
    exceeded(await ask(key, 7), budget="day", limit="0.01", required="0.007")
    await key.limit(per_day="0.02")
    exceeded(await ask(key, 9), budget="month", spent="0.004", required="0.009")
    small = await key_of(gateway, agent, per_call="0.003", per_day="0.021")
    assert (await ask(small, 3)).headers["x-cost"] == "0.003"
    assert exceeded(await ask(small, 4), budget="call", required="0.004").get("renews_at") is None
    underestimated = {"query": "SELECT company_id FROM companies WHERE abs(company_id) = company_id"}
    for limits, cost in (({"per_call": "0.02"}, "0.018"), ({"per_day": "1"}, "0.02")):
        await small.limit(**limits)
        cut = await gateway.client.post(f"/publishers/{shop.slug}", headers=small.headers, json=underestimated)
        assert (cut.json()["cost"], cut.json()["truncated"]) == (cost, "budget")


async def test_tools_are_refused_by_http_and_to_mcp_clients(
    gateway: RunningGateway, world: World, agent: Agent, mcp_server: PublishersServer
) -> None:
    shop, key = await world.publisher(PRICE, **selling(mcp_server)), await key_of(gateway, agent, per_day="0.01")
    path, arguments = f"/publishers/{shop.slug}/forecast", {"city": "Lisbon"}
    bought = await gateway.client.post(path, headers=key.headers, json=arguments)
    assert (bought.status_code, bought.headers["x-budget-left"]) == (200, "day=0")
    mcp_server.forget()
    limited = replace(agent, key=key.text)
    for mode in ("legacy", "auto"):
        async with connected(gateway, shop, limited, mode) as client:
            with pytest.raises(MCPError, match=r"may spend 0\.01 USDC per day") as refusal:
                await client.call_tool("forecast", arguments)
        assert refusal.value.error.data["type"] == "/problems/budget-exceeded"
    assert "Lisbon" not in str(mcp_server.requests)
    mcp_server.forget()
    exceeded(await gateway.client.post(path, headers=key.headers, json=arguments), budget="day", spent="0.01")
    assert mcp_server.requests == []


async def test_a_websocket_is_refused_at_its_handshake(
    gateway: RunningGateway, world: World, sockets: SocketUpstream, agent: Agent
) -> None:
    shop = await world.publisher(PRICE, api_url=sockets.url, websocket_enabled=True)
    key = await key_of(gateway, agent, per_day="0.01")
    url = f"ws://127.0.0.1:{gateway.port}/publishers/{shop.slug}/echo"
    async with connect(url, additional_headers=key.headers, proxy=None) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
    with pytest.raises(InvalidStatus) as refusal:
        await connect(url, additional_headers=key.headers, proxy=None)
    assert refusal.value.response.status_code == 403
    assert orjson.loads(refusal.value.response.body)["type"] == "/problems/budget-exceeded"


async def test_a_changed_budget_reaches_the_other_workers(
    gateway: RunningGateway, second: RunningGateway, world: World, agent: Agent
) -> None:
    shop, key = await world.publisher(PRICE), await key_of(gateway, agent)
    path = f"/publishers/{shop.slug}/quote"
    assert (await second.client.get(path, headers=key.headers)).status_code == 200
    for budget, status in (({"per_call": "0"}, 403), ({"per_call": "1"}, 200), ({"per_call": "0"}, 403)):
        await key.limit(**budget)
        async with asyncio.timeout(60):
            while (await second.client.get(path, headers=key.headers)).status_code != status:
                await asyncio.sleep(0.02)
        assert (await second.client.get(path, headers=key.headers)).status_code == status


async def test_money_in_another_asset_cannot_be_compared_and_is_not_spent(
    gateway: RunningGateway, world: World, agent: Agent
) -> None:
    wallet = await open_wallet(world.connection, agent.id, ETHER, f"agent:{agent.id}/ether")
    shop, key = await world.publisher(PRICE, asset=ETHER), await key_of(gateway, agent, per_month="1000")
    assert wallet.id != agent.wallet_id
    exceeded(await gateway.client.get(f"/publishers/{shop.slug}/quote", headers=key.headers), budget="asset")


async def test_what_is_free_and_what_is_replayed_needs_no_budget(
    gateway: RunningGateway, world: World, upstream: RecordingUpstream, agent: Agent
) -> None:
    shop, free = await world.publisher(PRICE), await world.publisher(0)
    key = await key_of(gateway, agent, per_day="0.01")
    upstream.forget()
    headers = {**key.headers, "Idempotency-Key": "bought-once"}
    answers = [await gateway.client.get(f"/publishers/{shop.slug}/quote", headers=headers) for _ in range(3)]
    assert [(one.status_code, one.headers["x-cost"]) for one in answers] == [(200, "0.01"), (200, "0"), (200, "0")]
    assert [one.headers.get("x-budget-left") for one in answers] == ["day=0", None, None]
    assert (await gateway.client.get(f"/publishers/{free.slug}/tip", headers=key.headers)).status_code == 200
    assert upstream.calls == 2


async def test_a_refused_call_gives_its_key_back(gateway: RunningGateway, world: World, agent: Agent) -> None:
    shop, key = await world.publisher(PRICE), await key_of(gateway, agent, per_day="0")
    headers, path = {**key.headers, "Idempotency-Key": "try-again"}, f"/publishers/{shop.slug}/quote"
    exceeded(await gateway.client.get(path, headers=headers))
    await key.limit(per_day="0.01")
    answer = await gateway.client.get(path, headers=headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.01")


async def test_a_recovered_agent_has_spent_what_it_had(gateway: RunningGateway, world: World, agent: Agent) -> None:
    shop, client = await world.publisher(PRICE), gateway.client
    path = f"/publishers/{shop.slug}/quote"
    code = (await client.post("/wallet/recovery", headers=agent.headers, json={})).json()["data"]["recovery_code"]
    key = await key_of(gateway, agent, per_day="0.02")
    assert (await client.get(path, headers=key.headers)).status_code == 200
    (own,) = [
        one["id"] for one in (await client.get(KEYS, headers=agent.headers)).json()["data"] if one["id"] != key.id
    ]
    await client.delete(f"{KEYS}/{own}", headers=agent.headers)
    back = (await client.post("/wallet/recover", json={"recovery_code": code})).json()["data"]["agent"]
    headers = {"Authorization": f"Bearer {back['api_key']}"}
    assert (await client.get(path, headers=headers)).headers["x-budget-left"] == "day=0"
    exceeded(await client.get(path, headers=headers), spent="0.02")


async def test_a_budget_is_told_before_a_balance_and_a_balance_still_stops(
    gateway: RunningGateway, world: World
) -> None:
    poor, shop = await world.agent(PRICE), await world.publisher(PRICE)
    key = await key_of(gateway, poor, per_day="0.02")
    path = f"/publishers/{shop.slug}/quote"
    assert (await gateway.client.get(path, headers=key.headers)).status_code == 200
    assert (await gateway.client.get(path, headers=key.headers)).status_code == 402
    await key.limit(per_day="0.01")
    exceeded(await gateway.client.get(path, headers=key.headers))
    assert (await key.budget())["spent_today"] == "0.01"
