"""pay_per_use through HTTP: what an upstream's answer says is what is paid, never more than was held."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from tests.support.chat import ChatUpstream
from tests.support.gateway import RunningGateway
from tests.support.world import Agent, Shop, World

pytestmark = pytest.mark.usefixtures("sound_books")

TOKENS = {"upstream_usage_prices": {"usage.prompt_tokens": "1", "usage.completion_tokens": "3"}}
COST = {"upstream_cost_response_path": "usage.cost"}
PATH = "/v1/chat/completions"


@pytest_asyncio.fixture
async def agent(world: World) -> Agent:
    """An agent with one dollar."""
    return await world.agent(1_000_000)


async def shop_of(world: World, chat: ChatUpstream, **fields: Any) -> Shop:
    document = {
        "api_url": chat.url, "billing_model": "pay_per_use", "reserve_max_charge": "0.10",
        "unresolved_fallback_charge": "0.02", "gateway_fee_percent": "10", **fields,
    }  # fmt: skip
    return await world.publisher(None, **document)


def asking(words: int = 4, **fields: Any) -> dict[str, Any]:
    return {"model": "echo-1", "messages": [{"role": "user", "content": "word " * words}], **fields}


def streaming(words: int = 4, **fields: Any) -> dict[str, Any]:
    return asking(words, stream=True, stream_options={"include_usage": True}, **fields)


async def ask(gateway: RunningGateway, shop: Shop, agent: Agent, body: dict[str, Any], **fields: str) -> httpx.Response:
    headers = {**agent.headers, **fields}
    return await gateway.client.post(f"/publishers/{shop.slug}{PATH}", headers=headers, json=body)


async def settled(world: World, agent: Agent, spent: int) -> None:
    """Wait until everything that was held is captured or released: what is left is what was not spent."""
    async with asyncio.timeout(10):
        while await world.balance(agent) != 1_000_000 - spent:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("fields", "body", "spent"),
    [
        (COST, asking(x_cost=0.0125), 13_750),
        (COST, asking(x_cost="0.0125"), 13_750),
        (COST, asking(x_cost=0.0000001), 1),
        (COST, asking(x_cost=0), 0),
        (COST, asking(x_cost=-1), 20_000),
        (COST, asking(x_cost=None), 20_000),
        (COST, asking(x_cost=5), 100_000),
        (COST, asking(x_mode="silent"), 20_000),
        (COST, asking(x_cost=0.0125, x_mode="gzip"), 13_750),
        ({**COST, "min_charge": 15_000}, asking(x_cost=0.0125), 15_000),
        ({**COST, "max_charge": 12_000}, asking(x_cost=0.0125), 12_000),
        (TOKENS, asking(1_000), 4_400),
        ({"upstream_cost_header": "X-Usage-Cost"}, asking(), 4_620),
    ],
)
async def test_a_whole_answer_says_what_it_costs_and_its_head_what_was_paid(
    gateway: RunningGateway, world: World, chat: ChatUpstream, agent: Agent, fields: dict, body: dict, spent: int
) -> None:
    shop = await shop_of(world, chat, **fields)
    answer = await ask(gateway, shop, agent, body)
    assert answer.status_code == 200
    assert float(answer.headers["x-cost"]) == spent / 1_000_000
    assert float(answer.headers["x-balance"]) == 1 - spent / 1_000_000
    assert "x-cost-max" not in answer.headers
    await settled(world, agent, spent)
    async with asyncio.timeout(10):
        while await world.earned(shop) != spent - spent * 10 // 110:
            await asyncio.sleep(0.02)
    assert answer.json()["choices"][0]["message"]["content"].startswith("word")


@pytest.mark.parametrize("key", [None, "once"])
async def test_a_stream_is_passed_on_and_paid_by_its_last_word(
    gateway: RunningGateway, world: World, chat: ChatUpstream, agent: Agent, key: str | None
) -> None:
    shop = await shop_of(world, chat, **TOKENS)
    fields = {"Idempotency-Key": key} if key else {}
    answer = await ask(gateway, shop, agent, streaming(1_000), **fields)
    assert (answer.headers["x-cost-max"], answer.headers["x-balance"]) == ("0.1", "0.9")
    assert "x-cost" not in answer.headers
    assert answer.text.endswith("data: [DONE]\n\n")
    await settled(world, agent, 4_400)
    receipt = await gateway.client.get(f"/receipts/{answer.headers['x-request-id']}", headers=agent.headers)
    assert receipt.status_code in (200, 404), receipt.text
    if key:
        again = await ask(gateway, shop, agent, streaming(1_000), **fields)
        assert (again.content, again.headers["x-cost"]) == (answer.content, "0")
        await settled(world, agent, 4_400)


async def test_a_stream_that_names_no_usage_costs_the_fallback(
    gateway: RunningGateway, world: World, chat: ChatUpstream, agent: Agent
) -> None:
    shop = await shop_of(world, chat, **TOKENS)
    answer = await ask(gateway, shop, agent, asking(stream=True))
    assert answer.status_code == 200
    await settled(world, agent, 20_000)


async def test_who_leaves_a_stream_pays_for_all_that_was_made(
    gateway: RunningGateway, world: World, chat: ChatUpstream, agent: Agent
) -> None:
    shop, before = await shop_of(world, chat, **TOKENS), chat.finished
    body = streaming(10, x_mode="slow")
    async with gateway.client.stream(
        "POST", f"/publishers/{shop.slug}{PATH}", headers=agent.headers, json=body
    ) as answer:
        async for _ in answer.aiter_bytes():
            break
    async with asyncio.timeout(10):
        while chat.finished == before:
            await asyncio.sleep(0.02)
    await settled(world, agent, 44)


@pytest.mark.parametrize("body", [asking(x_mode="fail"), streaming(x_mode="cut")])
async def test_what_fails_costs_nothing(
    gateway: RunningGateway, world: World, chat: ChatUpstream, agent: Agent, body: dict
) -> None:
    shop = await shop_of(world, chat, **TOKENS)
    try:
        answer = await ask(gateway, shop, agent, body)
        assert (answer.status_code, answer.headers["x-cost"], answer.headers["x-balance"]) == (500, "0", "1")
    except httpx.RemoteProtocolError:
        assert body["stream"]
    await settled(world, agent, 0)


async def test_the_most_must_be_covered_before_the_upstream_hears_of_the_call(
    gateway: RunningGateway, world: World, chat: ChatUpstream
) -> None:
    poor, shop, heard = await world.agent(99_999), await shop_of(world, chat, **TOKENS), len(chat.heads)
    answer = await ask(gateway, shop, poor, asking())
    assert answer.status_code == 402
    assert answer.json()["accepts"][0]["extra"]["requiredAmount"] == "0.1"
    assert (await world.balance(poor), len(chat.heads)) == (99_999, heard)


async def test_no_number_of_calls_at_once_can_spend_more_than_there_is(
    gateway: RunningGateway, world: World, chat: ChatUpstream
) -> None:
    agent, shop = await world.agent(250_000), await shop_of(world, chat, **COST)
    calls = [ask(gateway, shop, agent, asking(x_cost=0.05)) for _ in range(12)]
    answers = await asyncio.gather(*calls)
    paid = sum(answer.status_code == 200 for answer in answers)
    assert {answer.status_code for answer in answers} <= {200, 402}
    async with asyncio.timeout(10):
        while await world.balance(agent) != 250_000 - paid * 55_000:
            await asyncio.sleep(0.02)
    assert 2 <= paid <= 4


async def test_endpoints_and_methods_with_a_price_of_their_own_keep_it(
    gateway: RunningGateway, world: World, chat: ChatUpstream, agent: Agent
) -> None:
    endpoints = [{"method": "GET", "path": "/v1/models", "price": "0"}]
    shop = await shop_of(world, chat, endpoints=endpoints, **TOKENS)
    answer = await gateway.client.get(f"/publishers/{shop.slug}/v1/models", headers=agent.headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0")
    priced = await shop_of(world, chat, price_per_get=7_000, **TOKENS)
    answer = await gateway.client.get(f"/publishers/{priced.slug}/v1/models", headers=agent.headers)
    assert (answer.status_code, answer.headers["x-cost"]) == (200, "0.007")
    await settled(world, agent, 7_000)


async def test_the_upstream_is_asked_for_a_whole_answer_in_plain(
    gateway: RunningGateway, world: World, chat: ChatUpstream, agent: Agent
) -> None:
    shop = await shop_of(world, chat, **TOKENS)
    await ask(gateway, shop, agent, asking(), Range="bytes=0-10", **{"Accept-Encoding": "gzip, br"})
    lines = [line.lower() for line in chat.heads[-1].split("\r\n")]
    assert "accept-encoding: identity" in lines
    assert not any(line.startswith(("range:", "authorization:")) for line in lines)


async def test_a_key_buys_one_answer_at_what_it_cost(
    gateway: RunningGateway, world: World, chat: ChatUpstream, agent: Agent, connection: Connection
) -> None:
    shop, before = await shop_of(world, chat, **COST), len(chat.bodies)
    first, again = [await ask(gateway, shop, agent, asking(x_cost=0.03), **{"Idempotency-Key": "k"}) for _ in range(2)]
    assert (first.headers["x-cost"], again.headers["x-cost"]) == ("0.033", "0")
    assert (again.content, len(chat.bodies)) == (first.content, before + 1)
    assert await world.balance(agent) == 967_000
    due = await connection.fetchval("SELECT sum(captured) FROM ledger.hold WHERE wallet_id = $1", agent.wallet_id)
    assert due == 33_000
