"""The facilitator over HTTP: one transfer per authorization, told once, whoever asks how often; nothing is booked."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from gateway.database.pool import Connection
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.keystore import Signer
from tests.payments.evm.conftest import until
from tests.payments.facilitator.conftest import PRICE, ask, booked, measured, on_chain, paid, payee, payer, required
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.world import Agent, World

USED = "invalid_exact_evm_nonce_already_used"


async def test_what_is_supported_is_public(gateway: RunningGateway, chain: Chain) -> None:
    answer = await gateway.client.get("/payments/supported")
    said = answer.json()
    address = show_address(chain.treasury)
    assert {"x402Version": 2, "scheme": "exact", "network": chain.network} in said["kinds"]
    assert {"x402Version": 1, "scheme": "exact", "network": "base-sepolia"} in said["kinds"]
    assert said["signers"] == {"eip155:*": [address]}
    assert all(kind["network"] in (chain.network, "base-sepolia") for kind in said["kinds"])


async def test_a_payment_is_verified_and_then_moved_to_its_payee(
    gateway: RunningGateway, chain: Chain, seller: Agent, connection: Connection
) -> None:
    account, to = await payer(chain), payee()
    body = paid(account, required(chain, to))
    before = await booked(connection), await measured(gateway, "facilitator_gas_wei_total")
    for _ in range(2):
        assert await ask(gateway, "verify", body, seller) == {"isValid": True, "payer": account.address}
    assert await chain.usdc_of(to) == 0
    settled = await ask(gateway, "settle", body, seller)
    assert settled == {
        "success": True, "transaction": settled["transaction"], "network": chain.network, "payer": account.address,
        "amount": str(PRICE),
    }  # fmt: skip
    receipt = await chain.rpc("eth_getTransactionReceipt", settled["transaction"])
    assert receipt["status"] == "0x1"
    assert await chain.usdc_of(to) == PRICE
    assert await booked(connection) == before[0]

    async def counted() -> bool:
        return await measured(gateway, "facilitator_gas_wei_total") - before[1] == int(receipt["gasUsed"], 16) * int(
            receipt["effectiveGasPrice"], 16
        )

    await until(counted)


async def test_twenty_copies_of_a_payment_are_one_transfer_and_one_success(
    gateway: RunningGateway, chain: Chain, seller: Agent
) -> None:
    account, to = await payer(chain), payee()
    body = paid(account, required(chain, to))
    answers = await asyncio.gather(*(ask(gateway, "settle", body, seller) for _ in range(20)))
    assert sorted(answer["success"] for answer in answers) == [False] * 19 + [True]
    assert {answer["errorReason"] for answer in answers if not answer["success"]} == {USED}
    assert await chain.usdc_of(to) == PRICE
    assert (await ask(gateway, "verify", body, seller))["invalidReason"] == USED
    again = await ask(gateway, "settle", body, seller)
    assert (again["success"], again["errorReason"], again["network"]) == (False, USED, chain.network)


async def test_a_lost_answer_is_told_again_to_the_same_key_of_the_same_organization(
    gateway: RunningGateway, chain: Chain, seller: Agent, world: World
) -> None:
    body = paid(await payer(chain), required(chain, payee()))
    key = {"Idempotency-Key": "order-7"}
    first = await ask(gateway, "settle", body, seller, **key)
    assert first["success"]
    assert await ask(gateway, "settle", body, seller, **key) == first
    other = await world.agent()
    for who, headers in ((seller, {"Idempotency-Key": "order-8"}), (seller, {}), (other, key), (other, {})):
        answer = await ask(gateway, "settle", body, who, **headers)
        assert (answer["success"], answer["errorReason"]) == (False, USED)


async def test_a_settlement_that_takes_long_is_pending_and_its_end_can_be_asked_for(
    services: Services, database_url: str, chain: Chain, seller: Agent, world: World
) -> None:
    hasty = await start_gateway(services, database_url, **on_chain(chain), X402_WAIT="0.6")
    try:
        to = payee()
        body = paid(await payer(chain), required(chain, to))
        stranger = await world.agent()
        async with chain.held_blocks():
            pending = await ask(hasty, "settle", body, seller)
            assert (pending["success"], pending["errorReason"]) == (False, "settlement_pending")
            assert pending["transaction"]
            assert (await ask(hasty, "verify", body, seller))["invalidReason"] == "settlement_pending"
            assert (await ask(hasty, "settle", body, stranger))["errorReason"] == USED
        for _ in range(300):
            if (await ask(hasty, "verify", body, seller))["isValid"]:
                break
            await asyncio.sleep(0.2)
        settled = await ask(hasty, "settle", body, seller)
        assert (settled["success"], settled["transaction"]) == (True, pending["transaction"])
        assert (await ask(hasty, "settle", body, seller))["errorReason"] == USED
        assert await chain.usdc_of(to) == PRICE
    finally:
        await hasty.stop()


async def test_what_the_chain_would_refuse_is_refused_with_its_reason(
    gateway: RunningGateway, chain: Chain, seller: Agent
) -> None:
    to = payee()
    poor = paid(await payer(chain, PRICE - 1), required(chain, to))
    spender = await payer(chain, PRICE)
    first, second = (paid(spender, required(chain, payee())) for _ in range(2))
    for what in ("verify", "settle"):
        answer = await ask(gateway, what, poor, seller)
        assert answer.get("invalidReason", answer.get("errorReason")) == "insufficient_funds"
    answers = await asyncio.gather(*(ask(gateway, "settle", body, seller) for body in (first, second)))
    assert sorted(answer["success"] for answer in answers) == [False, True]
    assert [answer["errorReason"] for answer in answers if not answer["success"]] == ["insufficient_funds"]
    assert await chain.usdc_of(to) == 0


async def test_upto_settles_what_was_used(gateway: RunningGateway, chain: Chain, seller: Agent) -> None:
    account, to = await payer(chain), payee()
    wallet = Signer(bytes(account.key))
    await chain.rpc("anvil_setBalance", account.address, hex(10**18))
    await chain.allow_permit2(wallet)
    extra = {"name": "USDC", "version": "2", "assetTransferMethod": "permit2"}
    extra["facilitatorAddress"] = show_address(chain.treasury)
    most = required(chain, to, 5_000, scheme="upto", extra=extra)
    body = paid(account, most)
    assert (await ask(gateway, "verify", body, seller))["isValid"]
    over = {**body, "paymentRequirements": {**most, "amount": "5001"}}
    assert (await ask(gateway, "settle", over, seller))["errorReason"] == (
        "invalid_upto_evm_payload_settlement_exceeds_amount"
    )
    nothing = await ask(gateway, "settle", {**body, "paymentRequirements": {**most, "amount": "0"}}, seller)
    assert (nothing["success"], nothing["transaction"], nothing["amount"]) == (True, "", "0")
    used = await ask(gateway, "settle", {**body, "paymentRequirements": {**most, "amount": "1234"}}, seller)
    assert (used["success"], used["amount"]) == (True, "1234")
    assert await chain.usdc_of(to) == 1_234


async def test_the_gateways_own_money_is_not_taken_past_its_books(
    gateway: RunningGateway, chain: Chain, seller: Agent
) -> None:
    before = await chain.usdc_of(chain.treasury)
    body = paid(await payer(chain), required(chain, chain.treasury))
    assert (await ask(gateway, "verify", body, seller))["invalidReason"] == "invalid_payment_requirements"
    assert (await ask(gateway, "settle", body, seller))["errorReason"] == "invalid_payment_requirements"
    assert await chain.usdc_of(chain.treasury) == before


def changed(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one member replaced (or, by None, removed)."""
    copied = copy.deepcopy(body)
    *way, last = path.split(".")
    place: Any = copied
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return copied


WRONG = [
    ("x402Version", 3, "invalid_x402_version"),
    ("paymentPayload", None, "invalid_payload"),
    ("paymentPayload.payload.authorization.nonce", "0x01", "invalid_payload"),
    ("paymentPayload.payload.authorization.value", "010000", "invalid_payload"),
    ("paymentPayload.payload.authorization.value", "9999", "invalid_exact_evm_payload_authorization_value_mismatch"),
    ("paymentPayload.payload.signature", "0x" + "11" * 65, "invalid_exact_evm_payload_signature"),
    ("paymentRequirements.network", "eip155:1", "invalid_network"),
    ("paymentRequirements.amount", "1", "invalid_exact_evm_payload_authorization_value_mismatch"),
    ("paymentRequirements.payTo", "0x" + "22" * 20, "invalid_exact_evm_payload_recipient_mismatch"),
    ("paymentRequirements.asset", "0x" + "22" * 20, "invalid_payment_requirements"),
    ("paymentRequirements.maxTimeoutSeconds", 99_999, "invalid_payment_requirements"),
    ("surplus", 1, "invalid_payload"),
]


@pytest.mark.parametrize(("path", "value", "reason"), WRONG, ids=[f"{path}={value}"[:60] for path, value, _ in WRONG])
async def test_what_is_wrong_is_told_by_its_code(
    gateway: RunningGateway, chain: Chain, seller: Agent, path: str, value: Any, reason: str
) -> None:
    to = payee()
    body = changed(paid(await payer(chain), required(chain, to)), path, value)
    verified = await ask(gateway, "verify", body, seller)
    assert (verified["isValid"], verified["invalidReason"]) == (False, reason), verified
    settled = await ask(gateway, "settle", body, seller)
    assert (settled["success"], settled["errorReason"], settled["transaction"]) == (False, reason, "")
    assert isinstance(settled["network"], str)
    assert await chain.usdc_of(to) == 0


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"x402Version":2,"x402Version":2}', b"[" * 5_000, b"\xff", b"1.5"])
async def test_a_body_that_says_nothing_is_an_invalid_payload(
    gateway: RunningGateway, seller: Agent, raw: bytes
) -> None:
    headers = {**seller.headers, "Content-Type": "application/json"}
    for what, name in (("verify", "invalidReason"), ("settle", "errorReason")):
        answer = await gateway.client.post(f"/payments/{what}", content=raw, headers=headers)
        assert (answer.status_code, answer.json()[name]) == (200, "invalid_payload")


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9"])
async def test_a_key_for_repeating_is_checked(gateway: RunningGateway, seller: Agent, key: str) -> None:
    headers: Any = [("Authorization", seller.headers["Authorization"]), ("Idempotency-Key", key.encode("latin-1"))]
    assert (await gateway.client.post("/payments/settle", json={}, headers=headers)).status_code == 400
