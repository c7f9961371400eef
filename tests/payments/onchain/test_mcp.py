"""Wallets without an account buy tool calls over MCP, with the official clients of both protocols, and once each."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from mcp.client.client import Client
from x402.mcp import x402MCPClient

from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE, Buyer, payload
from tests.payments.onchain.conftest import Buying, chained
from tests.payments.onchain.test_official_clients import official
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.mcp_client import call, connected, opened, post, response
from tests.support.mcp_server import PublishersServer, selling
from tests.support.services import Services
from tests.support.world import SEPOLIA_USDC, Shop, World


@pytest.fixture
def server(mcp_server: PublishersServer) -> PublishersServer:
    mcp_server.forget()
    return mcp_server


@pytest_asyncio.fixture
async def tools(world: World, server: PublishersServer) -> Shop:
    """Sells the server's tools, payable on the local chain."""
    return await world.publisher(PRICE, SEPOLIA_USDC, **selling(server, endpoints=[], gateway_fee_percent="10"))


class ForX402:
    """The SDK's client as x402's expects it: one argument, and results by the names that they have on the wire."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call_tool(self, params: dict[str, Any], read_timeout_seconds: timedelta) -> SimpleNamespace:
        found = await self._client.call_tool(
            params["name"], params["arguments"], read_timeout_seconds.total_seconds(), meta=params.get("_meta")
        )
        return SimpleNamespace(**found.model_dump(by_alias=True, mode="json"))


def paid_in(required: dict[str, Any], buyer: Buyer, signed: Any = None) -> dict[str, Any]:
    """A payment for what a result asks for, as `_meta` carries it."""
    chosen = next(one for one in required["accepts"] if one["scheme"] == "exact")
    signed = signed or buyer.sign(chosen)
    document = {"x402Version": 2, "payload": payload(signed), "accepted": chosen, "resource": required["resource"]}
    return {"x402/payment": document}


async def test_the_official_client_pays_for_a_tool(
    gateway: RunningGateway, buying: Buying, tools: Shop, server: PublishersServer, world: World, chain: Chain
) -> None:
    for mode, left in (("legacy", 9), ("auto", 8)):
        buyer = await buying((left + 1) * PRICE)
        async with connected(gateway, tools, mode=mode) as client:
            result = await x402MCPClient(ForX402(client), official(buyer)).call_tool("forecast", {"city": "Oslo"})
        assert result.content[0]["text"] == "Oslo: sunny for 1 days"
        assert result.payment_response.success
        receipt = await chain.rpc("eth_getTransactionReceipt", result.payment_response.transaction)
        assert receipt["status"] == "0x1"
        assert await buyer.balance() == left * PRICE
    assert server.runs["forecast"] == 2
    assert await world.earned(tools) == 2 * 9_000


async def asked(gateway: RunningGateway, tools: Shop, session: str, tool: str = "forecast") -> dict[str, Any]:
    answer = response(await post(gateway, tools, call(tool), mcp_session_id=session))["result"]
    assert answer["isError"]
    return answer["structuredContent"]


async def test_one_payment_buys_one_call_whoever_presents_it_how_often(
    gateway: RunningGateway, buying: Buying, tools: Shop, server: PublishersServer
) -> None:
    buyer, session = await buying(), await opened(gateway, tools)
    required = await asked(gateway, tools, session)
    meta = paid_in(required, buyer)
    answers = await asyncio.gather(
        *(post(gateway, tools, call("forecast", number, **meta), mcp_session_id=session) for number in range(5))
    )
    results = [response(answer)["result"] for answer in answers]
    assert {one["content"][0]["text"] for one in results} == {"Oslo: sunny for 1 days"}
    assert [response(answer)["id"] for answer in answers] == list(range(5))
    assert len({one["_meta"]["x402/payment-response"]["transaction"] for one in results}) == 1
    assert server.runs["forecast"] == 1
    other = await post(gateway, tools, call("failing", 9, **meta), mcp_session_id=session)
    assert response(other)["result"]["isError"]
    assert "failing" not in server.runs, "another call is not what was paid for"
    assert await buyer.balance() == 9 * PRICE


async def test_two_payments_for_one_call_are_refused(
    gateway: RunningGateway, buying: Buying, tools: Shop, server: PublishersServer
) -> None:
    buyer, session = await buying(), await opened(gateway, tools)
    required = await asked(gateway, tools, session)
    first, second = paid_in(required, buyer), buyer.payment(required)
    answer = await post(gateway, tools, call("forecast", 1, **first), mcp_session_id=session, **second)
    assert response(answer)["error"]["code"] == -32602
    assert not server.runs
    assert await buyer.balance() == 10 * PRICE


async def test_a_payment_for_a_tool_that_fails_is_not_taken(
    gateway: RunningGateway, buying: Buying, tools: Shop, server: PublishersServer
) -> None:
    buyer, session = await buying(), await opened(gateway, tools)
    required = await asked(gateway, tools, session, "failing")
    answer = await post(gateway, tools, call("failing", 1, **paid_in(required, buyer)), mcp_session_id=session)
    result = response(answer)["result"]
    assert (result["isError"], "x402/payment-response" in result["_meta"]) == (True, False)
    assert server.runs["failing"] == 1
    assert await buyer.balance() == 10 * PRICE


async def test_a_payment_that_is_no_good_is_told_why(
    gateway: RunningGateway, buying: Buying, tools: Shop, server: PublishersServer
) -> None:
    poor, session = await buying(PRICE - 1), await opened(gateway, tools)
    required = await asked(gateway, tools, session)
    answer = await post(gateway, tools, call("forecast", 1, **paid_in(required, poor)), mcp_session_id=session)
    result = response(answer)["result"]
    assert (result["isError"], result["structuredContent"]["error"]) == (True, "insufficient_funds")
    assert not server.runs


async def test_a_tool_is_paid_by_plain_http_too(
    gateway: RunningGateway, buying: Buying, tools: Shop, server: PublishersServer
) -> None:
    buyer = await buying()
    answer = await buyer.buy(f"/publishers/{tools.slug}/forecast", "POST", json={"city": "Rome"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["content"][0]["text"] == "Rome: sunny for 1 days"
    assert (server.runs["forecast"], await buyer.balance()) == (1, 9 * PRICE)


@pytest.mark.slow
async def test_a_payment_survives_a_gateway_that_is_killed_while_the_tool_runs(
    gateway: RunningGateway,
    buying: Buying,
    tools: Shop,
    server: PublishersServer,
    services: Services,
    database_url: str,
    chain: Chain,
) -> None:
    doomed = await start_gateway(services, database_url, **chained(chain))
    buyer, session = await buying(), await opened(doomed, tools)
    message = call("slow", 1, **paid_in(await asked(doomed, tools, session, "slow"), buyer))
    running = asyncio.ensure_future(post(doomed, tools, message, mcp_session_id=session))
    await server.begun.wait()
    await doomed.kill()
    await asyncio.gather(running, return_exceptions=True)
    assert await buyer.balance() == 10 * PRICE, "nothing is taken for what was not delivered"
    server.gate.set()

    async def answered() -> bool:
        said = response(await post(gateway, tools, message, mcp_session_id=session))
        return "result" in said and said["result"]["content"][0]["text"] == "done"

    await until(answered)
    assert server.runs["slow"] == 2
    assert await buyer.balance() == 9 * PRICE
