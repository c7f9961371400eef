"""A wallet proves itself by a signature, once each time, and uses what was deposited from it; a claim opens nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from typing import Any

import pytest_asyncio
from eth_account import Account
from eth_account.messages import encode_defunct

from gateway.payments.x402.siwe import read_claims, signed_text
from gateway.payments.x402.wallet_proof import make_nonce
from tests.payments.facilitator.conftest import payer
from tests.payments.facilitator.test_deposits import PATH, SEPOLIA_USDC, body, deposits, signed
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway
from tests.support.world import Shop, World

YES = bytes.fromhex("7f1626ba7e" + "00" * 28 + "60005260206000f3")  # a contract that affirms every signature
NO = bytes.fromhex("60206000f3")
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest_asyncio.fixture(scope="module")
async def shop(world: World, gateway: RunningGateway) -> Shop:
    return await world.publisher(10_000, asset=SEPOLIA_USDC)


async def challenge(gateway: RunningGateway) -> dict[str, Any]:
    answer = await gateway.client.get("/wallet/challenge")
    assert answer.status_code == 200, answer.text
    return answer.json()["extensions"]["sign-in-with-x"]


def claims(asked: dict[str, Any], address: str, **changes: Any) -> dict[str, Any]:
    """What a client says in answer to a challenge."""
    chosen = asked["supportedChains"][0]
    return {**asked["info"], **chosen, "address": address, **changes}


def text_of(fields: dict[str, Any]) -> str:
    return signed_text(read_claims(base64.b64encode(json.dumps({**fields, "signature": "0x"}).encode())))


def headers(fields: dict[str, Any], signature: bytes) -> dict[str, str]:
    document = {**fields, "signature": "0x" + signature.hex()}
    return {"SIGN-IN-WITH-X": base64.b64encode(json.dumps(document).encode()).decode()}


async def proof(gateway: RunningGateway, account: Any, **changes: Any) -> dict[str, str]:
    """A fresh proof by an honest client, with changes that are signed."""
    fields = claims(await challenge(gateway), account.address, **changes)
    return headers(fields, bytes(account.sign_message(encode_defunct(text=text_of(fields))).signature))


async def deposited(gateway: RunningGateway, chain: Chain, shop: Shop, amount: str = "0.50") -> Any:
    """A wallet that has deposited."""
    account = await payer(chain, 2_000_000)
    payment = signed(account, await gateway.client.post(PATH, json=body(shop, amount)))
    answer = await gateway.client.post(PATH, json=body(shop, amount), headers=payment)
    assert answer.status_code == 200, answer.text
    return account


async def refused(gateway: RunningGateway, fields: dict[str, str]) -> str:
    """Why a proof opens nothing, neither reading nor spending."""
    answer = await gateway.client.get("/wallet/deposits", headers=fields)
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthenticated"), answer.text
    return answer.json()["detail"]


async def test_a_wallet_reads_and_spends_its_deposit_with_a_proof_for_each_request(
    gateway: RunningGateway, chain: Chain, shop: Shop, world: World
) -> None:
    account = await deposited(gateway, chain, shop)
    answer = await gateway.client.get("/wallet/deposits", headers=await proof(gateway, account))
    data = answer.json()["data"]
    assert data["owner"] == f"{chain.network}:{account.address}"
    assert [(one["publisher_slug"], one["balance"], one["asset_symbol"]) for one in data["deposits"]] == [
        (shop.slug, "0.50", "USDC")
    ]
    claimed = {"X-AGENT-WALLET": account.address.lower()}
    bought = await gateway.client.get(f"/publishers/{shop.slug}/x", headers=await proof(gateway, account) | claimed)
    assert (bought.status_code, bought.headers["x-cost"]) == (200, "0.01")
    assert await deposits(gateway, await proof(gateway, account)) == [(shop.slug, "490000")]
    other = await world.publisher(10_000, asset=SEPOLIA_USDC)
    elsewhere = await gateway.client.get(f"/publishers/{other.slug}/x", headers=await proof(gateway, account))
    assert elsewhere.status_code == 402
    assert await deposits(gateway, await proof(gateway, account)) == [(shop.slug, "490000")]


async def test_the_upstream_sees_neither_proof_nor_claim(
    gateway: RunningGateway, chain: Chain, shop: Shop, upstream: Any, world: World
) -> None:
    open_shop = await world.publisher(10_000, asset=SEPOLIA_USDC, allowed_passthrough_headers=["*"])
    account = await deposited(gateway, chain, open_shop)
    fields = await proof(gateway, account) | {"X-AGENT-WALLET": account.address}
    assert (await gateway.client.get(f"/publishers/{open_shop.slug}/seen", headers=fields)).status_code == 200
    seen = upstream.requests[-1]
    assert seen.all("user-agent")
    assert not seen.all("sign-in-with-x") + seen.all("x-agent-wallet")


async def test_a_claim_without_a_proof_opens_nothing_and_is_told_what_to_sign(
    gateway: RunningGateway, chain: Chain, shop: Shop
) -> None:
    account = await deposited(gateway, chain, shop)
    claim = {"X-AGENT-WALLET": account.address}
    answer = await gateway.client.get("/wallet/deposits", headers=claim)
    assert answer.status_code == 401
    asked = answer.json()["extensions"]["sign-in-with-x"]
    unpaid = await gateway.client.get(f"/publishers/{shop.slug}/x", headers=claim)
    assert unpaid.status_code == 402
    offered = json.loads(base64.b64decode(unpaid.headers["payment-required"]))
    for told in (offered["extensions"], unpaid.json()["extensions"]):
        assert told["sign-in-with-x"]["info"]["uri"] == f"{gateway.url}/publishers/{shop.slug}"
    asked = offered["extensions"]["sign-in-with-x"]
    fields = claims(asked, account.address)
    good = headers(fields, bytes(account.sign_message(encode_defunct(text=text_of(fields))).signature))
    assert await deposits(gateway, good | claim) == [(shop.slug, "500000")]


async def test_a_proof_counts_once_wherever_it_is_presented_first(
    gateway: RunningGateway, chain: Chain, shop: Shop
) -> None:
    account = await deposited(gateway, chain, shop)
    once = await proof(gateway, account)
    sent = [gateway.client.get(f"/publishers/{shop.slug}/x", headers=once) for _ in range(10)]
    answers = await asyncio.gather(*sent)
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 9
    assert "used before" in await refused(gateway, once)
    assert await deposits(gateway, await proof(gateway, account)) == [(shop.slug, "490000")]


async def test_proofs_for_elsewhere_or_another_time_are_refused(
    gateway: RunningGateway, chain: Chain, shop: Shop
) -> None:
    account = await deposited(gateway, chain, shop)
    for changes, words in (
        ({"domain": "evil.example"}, "another place"),
        ({"uri": "https://evil.example/wallet"}, "another place"),
        ({"chainId": "eip155:8453"}, "chainId must be one of"),
        ({"nonce": "0" * 32}, "not one of this gateway's"),
        ({"nonce": make_nonce(b"x" * 32, "127.0.0.1", int(time.time()), b"1234")}, "not one of this gateway's"),
        ({"expirationTime": "2020-01-01T00:00:00Z"}, "expired"),
        ({"issuedAt": "2099-01-01T00:00:00Z"}, "future"),
    ):
        assert words in await refused(gateway, await proof(gateway, account, **changes))
    other = Account.create()
    assert "X-AGENT-WALLET" in await refused(gateway, await proof(gateway, account) | {"X-AGENT-WALLET": other.address})
    stolen = claims(await challenge(gateway), account.address)
    by_other = headers(stolen, bytes(other.sign_message(encode_defunct(text=text_of(stolen))).signature))
    assert "not signed by the wallet" in await refused(gateway, by_other)
    assert "wallet proof does not hold" in await refused(gateway, {"SIGN-IN-WITH-X": "e30="})


async def test_a_signature_turned_around_is_refused(gateway: RunningGateway, chain: Chain, shop: Shop) -> None:
    account = await deposited(gateway, chain, shop)
    fields = claims(await challenge(gateway), account.address)
    good = bytes(account.sign_message(encode_defunct(text=text_of(fields))).signature)
    high = good[:32] + (ORDER - int.from_bytes(good[32:64], "big")).to_bytes(32, "big") + bytes([55 - good[64]])
    assert "not signed by the wallet" in await refused(gateway, headers(fields, high))
    assert await deposits(gateway, headers(fields, good)) == [(shop.slug, "500000")]


async def test_a_contract_wallet_answers_for_itself(gateway: RunningGateway, chain: Chain, shop: Shop) -> None:
    for code, status in ((YES, 200), (NO, 401), (b"", 401)):
        wallet = Account.create().address
        await chain.rpc("anvil_setCode", wallet, "0x" + code.hex())
        fields = claims(await challenge(gateway), wallet)
        answer = await gateway.client.get("/wallet/deposits", headers=headers(fields, secrets.token_bytes(90)))
        assert answer.status_code == status, answer.text


async def test_a_key_and_a_proof_together_are_one_too_many(
    gateway: RunningGateway, chain: Chain, shop: Shop, world: World
) -> None:
    agent, account = await world.agent(), Account.create()
    for path in ("/wallet/deposits", f"/publishers/{shop.slug}/x"):
        both = agent.headers | await proof(gateway, account)
        assert (await gateway.client.get(path, headers=both)).status_code == 400
    twice: Any = [*(await proof(gateway, account)).items(), *(await proof(gateway, account)).items()]
    for path in ("/wallet/deposits", f"/publishers/{shop.slug}/x"):
        assert (await gateway.client.get(path, headers=twice)).status_code == 400
