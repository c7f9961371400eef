"""POST /wallet/deposit/crypto: an official client's payment becomes a deposit for one publisher's calls, once."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from eth_account import Account
from x402 import x402Client, x402ClientSync
from x402.http.clients.httpx import x402HttpxClient
from x402.http.utils import (
    decode_payment_required_header,
    decode_payment_response_header,
    encode_payment_signature_header,
)
from x402.mechanisms.evm.exact import ExactEvmScheme

from gateway.catalog.assets import asset_id
from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.ledger import proof
from gateway.payments.evm.encoding import show_address
from tests.payments.evm.conftest import clearing
from tests.payments.facilitator.conftest import on_chain, payer
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import Shop, World

SEPOLIA_USDC = asset_id("eip155:84532", "USDC")
PATH = "/wallet/deposit/crypto"


@pytest_asyncio.fixture(scope="module")
async def shop(world: World, gateway: RunningGateway) -> Shop:
    return await world.publisher(10_000, asset=SEPOLIA_USDC)


@pytest_asyncio.fixture(autouse=True)
async def agreement(connection: Connection, chain: Chain) -> AsyncIterator[None]:
    """After every test the books balance, and hold what the treasury has received."""
    before, held = await chain.usdc_of(chain.treasury), await clearing(connection)
    yield
    report = await proof.verify(connection)
    assert report.sound, report.violations
    assert await clearing(connection) - held == await chain.usdc_of(chain.treasury) - before


def body(shop: Shop, amount: str = "0.75", **changes: Any) -> dict[str, Any]:
    return {"publisher_id": str(shop.id), "amount": amount, **changes}


def signed(account: Any, answer: httpx.Response) -> dict[str, str]:
    """The header by which the official client pays what a 402 asks for."""
    client = x402ClientSync()
    client.register("eip155:*", ExactEvmScheme(account))
    required: Any = decode_payment_required_header(answer.headers["payment-required"])
    return {"PAYMENT-SIGNATURE": encode_payment_signature_header(client.create_payment_payload(required))}


async def deposits(gateway: RunningGateway, headers: dict[str, str]) -> list[tuple[str, str]]:
    answer = await gateway.client.get("/wallet/deposits", headers=headers)
    assert answer.status_code == 200, answer.text
    return [(item["publisher_slug"], item["balance_atomic"]) for item in answer.json()["data"]["deposits"]]


async def test_the_402_asks_for_the_amount_to_the_treasury_in_both_versions(
    gateway: RunningGateway, chain: Chain, shop: Shop
) -> None:
    wallet = Account.create().address
    answer = await gateway.client.post(PATH, json=body(shop), headers={"X-AGENT-WALLET": wallet})
    assert answer.status_code == 402
    said = answer.json()
    offered = json.loads(base64.b64decode(answer.headers["payment-required"]))
    assert [(one["scheme"], one["network"], one["amount"]) for one in offered["accepts"]] == [
        ("exact", chain.network, "750000")
    ]
    assert bytes.fromhex(offered["accepts"][0]["payTo"][2:]) == chain.treasury
    assert said["accepts"][0]["maxAmountRequired"] == "750000"
    assert said["resource"]["url"] == gateway.url + PATH
    assert said["seren"]["publisher_id"] == str(shop.id)
    message = said["seren"]["eip712TypedData"]["message"]
    assert (message["from"], message["value"]) == (wallet, "750000")
    unnamed = (await gateway.client.post(PATH, json=body(shop))).json()
    assert unnamed["seren"].keys() == {"payment_request_id", "publisher_id", "expires"}


async def test_an_official_client_deposits_and_the_money_can_be_spent_at_that_publisher_only(
    gateway: RunningGateway, chain: Chain, shop: Shop, world: World
) -> None:
    """With an API key the deposit belongs to its account, whoever's wallet pays."""
    account, agent = await payer(chain, 5_000_000), await world.agent()
    other = await world.publisher(10_000, asset=SEPOLIA_USDC)
    client = x402Client()
    client.register("eip155:*", ExactEvmScheme(account))
    first = await gateway.client.post(PATH, json=body(shop, "0.50"), headers=agent.headers)
    assert first.status_code == 402
    async with x402HttpxClient(client, base_url=gateway.url, timeout=30, headers=agent.headers) as buyer:
        answer = await buyer.post(PATH, json=body(shop, "0.50"))
    assert answer.status_code == 200, answer.text
    settled = decode_payment_response_header(answer.headers["payment-response"])
    said = answer.json()
    assert said == {
        "publisher_id": str(shop.id), "agent_wallet": account.address, "asset_symbol": "USDC",
        "deposited_amount": "0.50", "balance_amount": "0.50", "tx_hash": settled.transaction,
        "message": "0.50 USDC can be spent on this publisher's calls.",
    }  # fmt: skip
    assert await deposits(gateway, agent.headers) == [(shop.slug, "500000")]
    bought = await gateway.client.get(f"/publishers/{shop.slug}/x", headers=agent.headers)
    assert (bought.status_code, bought.headers["x-cost"]) == (200, "0.01")
    assert (await gateway.client.get(f"/publishers/{other.slug}/x", headers=agent.headers)).status_code == 402
    assert await deposits(gateway, agent.headers) == [(shop.slug, "490000")]
    assert (await gateway.client.get("/wallet/balance", headers=agent.headers)).json()["data"]["balance_atomic"] == 0


async def test_version_1_deposits_as_well(gateway: RunningGateway, chain: Chain, shop: Shop) -> None:
    account = await payer(chain, 2_000_000)
    asked = await gateway.client.post(PATH, json=body(shop, "0.25"))
    two = json.loads(base64.b64decode(signed(account, asked)["PAYMENT-SIGNATURE"]))
    one = {"x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": two["payload"]}
    header = {"X-PAYMENT": base64.b64encode(json.dumps(one).encode()).decode()}
    answer = await gateway.client.post(PATH, json=body(shop, "0.25"), headers=header)
    assert answer.status_code == 200, answer.text
    assert json.loads(base64.b64decode(answer.headers["x-payment-response"]))["network"] == "base-sepolia"


async def test_ten_copies_are_one_deposit_and_one_answer(gateway: RunningGateway, chain: Chain, shop: Shop) -> None:
    account = await payer(chain, 5_000_000)
    before = await chain.usdc_of(chain.treasury)
    payment = signed(account, await gateway.client.post(PATH, json=body(shop)))
    sent = [gateway.client.post(PATH, json=body(shop), headers=payment) for _ in range(10)]
    answers = [answer.json() for answer in await asyncio.gather(*sent)]
    assert {(one["tx_hash"], one["deposited_amount"], one["balance_amount"]) for one in answers} == {
        (answers[0]["tx_hash"], "0.75", "0.75")
    }
    assert await chain.usdc_of(chain.treasury) - before == 750_000


async def test_with_a_key_a_second_payment_is_not_taken(
    gateway: RunningGateway, chain: Chain, shop: Shop, world: World
) -> None:
    account, agent = await payer(chain, 5_000_000), await world.agent()
    headers, before = {**agent.headers, "Idempotency-Key": str(uuid7())}, await chain.usdc_of(chain.treasury)
    asked = await gateway.client.post(PATH, json=body(shop), headers=headers)
    assert asked.status_code == 402
    first, second = signed(account, asked), signed(account, asked)
    answer = await gateway.client.post(PATH, json=body(shop), headers=headers | first)
    again = await gateway.client.post(PATH, json=body(shop), headers=headers | first)
    assert (answer.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    assert (again.content, again.headers["payment-response"]) == (answer.content, answer.headers["payment-response"])
    refused = await gateway.client.post(PATH, json=body(shop), headers=headers | second)
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/key-reused")
    assert await chain.usdc_of(chain.treasury) - before == 750_000
    nobody = {"Idempotency-Key": headers["Idempotency-Key"]}
    fresh = signed(account, asked)
    sent = [await gateway.client.post(PATH, json=body(shop), headers=nobody | fresh) for _ in range(2)]
    assert [one.headers.get("idempotency-replayed") for one in sent] == [None, "true"], sent[0].text


async def test_a_payment_for_something_else_is_refused_and_moves_nothing(
    gateway: RunningGateway, chain: Chain, shop: Shop, world: World
) -> None:
    account, agent = await payer(chain, 5_000_000), await world.agent()
    other = await world.publisher(10_000, asset=SEPOLIA_USDC)
    asked = await gateway.client.post(PATH, json=body(shop))
    payment = signed(account, asked)
    assert (await gateway.client.post(PATH, json=body(shop), headers=payment)).status_code == 200
    before = await chain.usdc_of(chain.treasury)
    for attempt, headers, reason in (
        (body(other), payment, "already_used"),  # spent on another publisher
        (body(shop), payment | agent.headers, "already_used"),  # spent for another owner
        (body(shop, "0.76"), payment, "value_mismatch"),
        (body(shop), {"PAYMENT-SIGNATURE": "nonsense"}, "invalid_payload"),
        (body(shop), signed(await payer(chain, 749_999), asked), "insufficient_funds"),
    ):
        answer = await gateway.client.post(PATH, json=attempt, headers=headers)
        assert answer.status_code == 402, answer.text
        assert reason in answer.json()["error"], answer.json()["error"]
        assert reason in json.loads(base64.b64decode(answer.headers["payment-required"]))["error"]
    both = {**payment, "X-PAYMENT": "e30="}
    assert (await gateway.client.post(PATH, json=body(shop), headers=both)).status_code == 400
    wrong = {"Authorization": "Bearer seren_x"}
    assert (await gateway.client.post(PATH, json=body(shop), headers=payment | wrong)).status_code == 401
    assert await chain.usdc_of(chain.treasury) == before


async def test_what_cannot_be_deposited_is_told_before_anybody_pays(
    gateway: RunningGateway, shop: Shop, world: World
) -> None:
    unpaid = await world.publisher(10_000, asset=SEPOLIA_USDC, prepaid_enabled=False)
    elsewhere = await world.publisher(10_000)  # priced on a network that this gateway has no node for
    for wrong, status, field in (
        (body(shop, "0.09"), 400, "amount"),
        (body(shop, "0"), 400, "amount"),
        (body(shop, "1.0000001"), 400, "amount"),
        (body(unpaid), 400, "asset_id"),
        (body(shop, asset_id=str(asset_id("eip155:8453", "USDC"))), 400, "asset_id"),
        ({"publisher_id": str(uuid7()), "amount": "1"}, 404, None),
        (body(elsewhere), 501, None),
    ):
        answer = await gateway.client.post(PATH, json=wrong)
        assert answer.status_code == status, answer.text
        assert field is None or answer.json()["errors"][0]["field"] == field


async def test_a_deposit_that_takes_long_is_asked_for_again_and_not_paid_again(
    services: Services, database_url: str, chain: Chain, shop: Shop
) -> None:
    hasty = await start_gateway(services, database_url, **on_chain(chain), X402_WAIT="0.5")
    try:
        before = await chain.usdc_of(chain.treasury)
        account = await payer(chain, 3_000_000)
        payment = signed(account, await hasty.client.post(PATH, json=body(shop)))
        async with chain.held_blocks():
            answer = await hasty.client.post(PATH, json=body(shop), headers=payment)
            assert answer.status_code == 503, answer.text
            said = answer.json()
            assert said["type"] == "/problems/settlement-pending"
            shown = await hasty.client.get(f"/payments/{said['payment_id']}")
            assert shown.json()["data"]["payee"] == show_address(chain.treasury)
            assert answer.headers["retry-after"] == "2"
        for _ in range(100):
            answer = await hasty.client.post(PATH, json=body(shop), headers=payment)
            if answer.status_code != 503:
                break
        assert (answer.status_code, answer.json()["balance_amount"]) == (200, "0.75")
        assert await chain.usdc_of(chain.treasury) - before == 750_000
    finally:
        await hasty.stop()


@pytest.mark.parametrize("header", ["PAYMENT-SIGNATURE", "X-PAYMENT"])
async def test_a_deposit_with_a_payment_of_the_wrong_version_is_refused(
    gateway: RunningGateway, chain: Chain, shop: Shop, header: str
) -> None:
    payment = signed(await payer(chain), await gateway.client.post(PATH, json=body(shop, "0.50")))
    document = json.loads(base64.b64decode(payment["PAYMENT-SIGNATURE"]))
    document["x402Version"] = 1 if header == "PAYMENT-SIGNATURE" else 2
    value = base64.b64encode(json.dumps(document).encode()).decode()
    answer = await gateway.client.post(PATH, json=body(shop, "0.50"), headers={header: value})
    assert answer.status_code == 402
    assert "invalid_x402_version" in answer.json()["error"]
