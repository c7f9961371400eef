"""Every way to pay less, twice, elsewhere or never: refused with the protocol's reason, and nothing moves or runs."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.payments.evm.encoding import call_data, parse_address, selector, word
from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE, Buyer, Document, decoded, encoded, payload
from tests.payments.onchain.conftest import Buying
from tests.support.chain import CANCEL, Chain, keccak_256
from tests.support.upstream import RecordingUpstream
from tests.support.world import SEPOLIA_USDC, Shop, World

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
EXACT = "invalid_exact_evm_payload"
ELSEWHERE = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
BASE_USDC = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"

Forge = Callable[[Buyer, Document], Document]


def document_of(buyer: Buyer, required: Document, **changes: Any) -> Document:
    """An honest payment, or one whose signed terms are changed."""
    offer = required["accepts"][0]
    return {"x402Version": 2, "payload": payload(buyer.sign(offer, **changes)), "accepted": offer}


def signed(**changes: Any) -> Forge:
    """Sign other terms than the offer's."""
    return lambda buyer, required: document_of(buyer, required, **changes)


def claimed(where: str, **fields: Any) -> Forge:
    """Sign honestly, then say something else: beside the signature, or in what it covers."""

    def forge(buyer: Buyer, required: Document) -> Document:
        document = json.loads(json.dumps(document_of(buyer, required)))
        part = document
        for name in filter(None, where.split(".")):
            part = part[name]
        part.update(fields)
        return document

    return forge


def high_s(buyer: Buyer, required: Document) -> Document:
    """The same signature in the form that anybody can compute."""
    document = document_of(buyer, required)
    raw = bytes.fromhex(document["payload"]["signature"][2:])
    flipped = raw[:32] + (ORDER - int.from_bytes(raw[32:64])).to_bytes(32) + bytes([55 - raw[64]])
    document["payload"]["signature"] = "0x" + flipped.hex()
    return document


AUTHORIZATION = "payload.authorization"
FORGERIES: dict[str, tuple[Forge, str]] = {
    # less
    "a smaller value": (signed(value=PRICE - 1), f"{EXACT}_authorization_value_mismatch"),
    "a larger value": (signed(value=PRICE + 1), f"{EXACT}_authorization_value_mismatch"),
    "no value": (signed(value=0), f"{EXACT}_authorization_value_mismatch"),
    "an offer of less": (claimed("accepted", amount="1"), f"{EXACT}_authorization_value_mismatch"),
    "a value that was not signed": (
        claimed(AUTHORIZATION, value=str(PRICE + 0), nonce="0x" + "1" * 64),
        f"{EXACT}_signature",
    ),
    # elsewhere
    "another payee": (signed(payee=parse_address(ELSEWHERE)), f"{EXACT}_recipient_mismatch"),
    "another payee in the offer": (claimed("accepted", payTo=ELSEWHERE), f"{EXACT}_recipient_mismatch"),
    "another asset": (claimed("accepted", asset=BASE_USDC), "invalid_payment_requirements"),
    "a network that is not ours": (claimed("accepted", network="eip155:1"), "invalid_network"),
    "another network": (claimed("accepted", network="eip155:8453"), "invalid_network"),
    "another chain's signature": (signed(chain_id=1), f"{EXACT}_signature"),
    "another scheme": (claimed("accepted", scheme="upto"), "unsupported_scheme"),
    "another resource": (claimed("", resource={"url": "https://other.example/x"}), "invalid_payment_requirements"),
    # never
    "somebody else's wallet": (claimed(AUTHORIZATION, **{"from": ELSEWHERE}), f"{EXACT}_signature"),
    "a forged signature": (claimed("payload", signature="0x" + "11" * 64 + "1b"), f"{EXACT}_signature"),
    "a signature of nothing": (claimed("payload", signature="0x" + "00" * 65), f"{EXACT}_signature"),
    "a short signature": (claimed("payload", signature="0x1122"), f"{EXACT}_signature"),
    "the other form of the signature": (high_s, f"{EXACT}_signature"),
    "not yet": (signed(valid_after=int(time.time()) + 3_600), f"{EXACT}_authorization_valid_after"),
    "no more": (signed(seconds=-10), f"{EXACT}_authorization_valid_before"),
    "in a moment no more": (signed(seconds=3), f"{EXACT}_authorization_valid_before"),
    "for years": (signed(seconds=10**8), f"{EXACT}_authorization_valid_before"),
    "a number as text": (claimed(AUTHORIZATION, value=f"0{PRICE}"), "invalid_payload"),
    "a number that is none": (claimed(AUTHORIZATION, value=f"+{PRICE}"), "invalid_payload"),
    "a field too many": (claimed(AUTHORIZATION, extra="1"), "invalid_payload"),
    "version 1 here": (claimed("", x402Version=1), "invalid_x402_version"),
    "version 3": (claimed("", x402Version=3), "invalid_x402_version"),
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forged_payment_is_refused_by_its_reason(
    name: str, buying: Buying, shop: Shop, upstream: RecordingUpstream, world: World
) -> None:
    forge, reason = FORGERIES[name]
    buyer = await buying()
    path = f"/publishers/{shop.slug}/x"
    answer = await buyer.client.get(path, headers={"PAYMENT-SIGNATURE": encoded(forge(buyer, await buyer.asked(path)))})
    assert answer.status_code == 402
    required = decoded(answer.headers["payment-required"])
    assert (answer.json()["error"], required["error"]) == (reason, reason)
    assert required["accepts"], "an honest payment is still asked for"
    assert (upstream.calls, await buyer.balance(), await world.earned(shop)) == (0, 10 * PRICE, 0)


HEADERS = {
    "no base64": "@@@@",
    "no padding": base64.b64encode(b'{"x402Version":2}').decode().rstrip("="),
    "no JSON": encoded("x")[:-4],
    "a list": encoded([]),
    "a name twice": base64.b64encode(b'{"x402Version":2,"x402Version":2}').decode(),
    "a fraction": base64.b64encode(b'{"x402Version":2.0}').decode(),
    "deep": base64.b64encode(b'{"a":' * 400 + b"1" + b"}" * 400).decode(),
    "long": "A" * 9_000,
    "empty": "",
}


@pytest.mark.parametrize("field", ["PAYMENT-SIGNATURE", "X-PAYMENT"])
@pytest.mark.parametrize("name", HEADERS)
async def test_a_header_that_is_no_payment_is_refused(
    name: str, field: str, buying: Buying, shop: Shop, upstream: RecordingUpstream
) -> None:
    buyer = await buying()
    answer = await buyer.client.get(f"/publishers/{shop.slug}/x", headers={field: HEADERS[name]})
    assert answer.status_code == 402
    assert answer.json()["error"] in ("invalid_payload", "invalid_x402_version")
    assert upstream.calls == 0


async def test_ten_authorizations_of_a_wallet_that_can_pay_one_run_one_call(
    buying: Buying, shop: Shop, upstream: RecordingUpstream, world: World
) -> None:
    buyer = await buying(PRICE)
    path = f"/publishers/{shop.slug}/x?ms=200"
    required = await buyer.asked(path)
    headers = [buyer.payment(required) for _ in range(10)]
    answers = await asyncio.gather(*(buyer.client.get(path, headers=header) for header in headers))
    assert sorted(answer.status_code for answer in answers) == [200] + [402] * 9
    assert {answer.json()["error"] for answer in answers if answer.status_code == 402} == {"insufficient_funds"}
    assert (upstream.calls, await buyer.balance(), await world.earned(shop)) == (1, 0, 9_000)


async def test_two_versions_of_one_authorization_are_one_payment(
    buying: Buying, shop: Shop, upstream: RecordingUpstream
) -> None:
    buyer = await buying()
    path = f"/publishers/{shop.slug}/x"
    required = await buyer.asked(path)
    authorization = buyer.sign(required["accepts"][0])
    second, first = buyer.payment(required, authorization), buyer.payment_v1(required, authorization)
    answers = [await buyer.client.get(path, headers=header) for header in (second, first, {**first, **second})]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert "x-payment-response" in answers[1].headers
    assert (upstream.calls, await buyer.balance()) == (1, 9 * PRICE)


async def test_other_spellings_of_the_addresses_are_the_same_payment(
    buying: Buying, shop: Shop, upstream: RecordingUpstream
) -> None:
    buyer = await buying()
    path = f"/publishers/{shop.slug}/x"
    required = await buyer.asked(path)
    document = document_of(buyer, required)
    upper = json.loads(json.dumps(document))
    for name in ("from", "to"):
        upper["payload"]["authorization"][name] = "0x" + upper["payload"]["authorization"][name][2:].upper()
    upper["payload"]["authorization"]["nonce"] = "0x" + upper["payload"]["authorization"]["nonce"][2:].upper()
    upper["accepted"]["payTo"] = upper["accepted"]["payTo"].lower()
    bare = json.loads(json.dumps(document))
    bare["payload"]["signature"] = (
        bare["payload"]["signature"][:-2] + f"{int(bare['payload']['signature'][-2:], 16) - 27:02x}"
    )
    for spelling in (upper, document, bare):
        answer = await buyer.client.get(path, headers={"PAYMENT-SIGNATURE": encoded(spelling)})
        assert answer.status_code == 200, answer.text
    assert (upstream.calls, await buyer.balance()) == (1, 9 * PRICE)


@pytest.mark.parametrize("change", ["path", "query", "method", "type", "publisher", "body"])
async def test_a_used_payment_buys_no_other_request(
    change: str, buying: Buying, shop: Shop, world: World, upstream: RecordingUpstream
) -> None:
    buyer, other = await buying(), await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10")
    path, method, body, headers = f"/publishers/{shop.slug}/x", "POST", b"body", {"Content-Type": "text/plain"}
    required = await buyer.asked(path, method)
    payment = buyer.payment({**required, "resource": None})
    payment = {"PAYMENT-SIGNATURE": encoded({k: v for k, v in decoded(payment["PAYMENT-SIGNATURE"]).items() if v})}
    first = await buyer.client.request(method, path, content=body, headers={**headers, **payment})
    assert first.status_code == 200, first.text
    match change:
        case "path":
            path += "y"
        case "query":
            path += "?q"
        case "method":
            method = "PUT"
        case "type":
            headers = {"Content-Type": "text/html"}
        case "publisher":
            path = f"/publishers/{other.slug}/x"
        case _:
            body = b"other"
    answer = await buyer.client.request(method, path, content=body, headers={**headers, **payment})
    assert (answer.status_code, answer.json()["error"]) == (402, "invalid_exact_evm_nonce_already_used")
    assert (upstream.calls, await buyer.balance()) == (1, 9 * PRICE)


async def test_a_payment_for_a_cheap_shop_does_not_pay_a_dear_one(
    buying: Buying, shop: Shop, world: World, upstream: RecordingUpstream
) -> None:
    buyer, dear = await buying(), await world.publisher(2 * PRICE, SEPOLIA_USDC, gateway_fee_percent="10")
    required = await buyer.asked(f"/publishers/{shop.slug}/x")
    payment = buyer.payment(required)
    answer = await buyer.client.get(f"/publishers/{dear.slug}/x", headers=payment)
    assert (answer.status_code, upstream.calls) == (402, 0)
    assert (await buyer.client.get(f"/publishers/{shop.slug}/x", headers=payment)).status_code == 200


async def race(
    buyer: Buyer, path: str, upstream: RecordingUpstream, chain: Chain, cheat: Callable[[Document], Awaitable[None]]
) -> Any:
    """Buy while no block is made, and cheat before the transfer is in one."""
    required = await buyer.asked(path)
    authorization = buyer.sign(required["accepts"][0])
    header = buyer.payment(required, authorization)
    async with chain.held_blocks():
        call = asyncio.create_task(buyer.client.get(path, headers=header))

        async def forwarded() -> bool:
            return upstream.calls == 1

        await until(forwarded)
        await cheat(header | {"nonce": authorization.nonce.hex()})
        await asyncio.sleep(0.3)
    return await call, header


async def test_a_wallet_that_is_emptied_before_its_payment_settles_gets_no_answer(
    buying: Buying, shop: Shop, upstream: RecordingUpstream, chain: Chain, world: World
) -> None:
    buyer = await buying()

    async def empty(_: Document) -> None:
        await chain.give_away(buyer.wallet, 10 * PRICE)

    answer, header = await race(buyer, f"/publishers/{shop.slug}/x", upstream, chain, empty)
    assert (answer.status_code, answer.json()["error"]) == (402, "insufficient_funds")
    response = decoded(answer.headers["payment-response"])
    assert (response["success"], response["errorReason"], response["transaction"]) == (False, "insufficient_funds", "")
    assert "target" not in answer.text, "what was not paid is not delivered"
    again = await buyer.client.get(f"/publishers/{shop.slug}/x", headers=header)
    assert (again.status_code, again.json()["error"]) == (402, "insufficient_funds")
    assert (upstream.calls, await world.earned(shop)) == (1, 0)


async def test_an_authorization_that_is_cancelled_before_it_settles_gets_no_answer(
    buying: Buying, shop: Shop, upstream: RecordingUpstream, chain: Chain, world: World
) -> None:
    buyer = await buying()

    async def cancel(terms: Document) -> None:
        nonce = bytes.fromhex(terms["nonce"])
        proof = chain.sign(buyer.wallet, keccak_256(CANCEL + word(buyer.wallet.address) + nonce))
        data = call_data(
            selector("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)"), buyer.wallet.address, nonce,
            proof[64], proof[:32], proof[32:64],
        )  # fmt: skip
        await chain.transact(buyer.wallet, chain.usdc, data, tip=10**11)

    answer, _ = await race(buyer, f"/publishers/{shop.slug}/x", upstream, chain, cancel)
    assert (answer.status_code, answer.json()["error"]) == (402, "invalid_exact_evm_nonce_already_used")
    assert (await buyer.balance(), await world.earned(shop)) == (10 * PRICE, 0)


async def test_somebody_else_who_executes_the_authorization_pays_for_the_call(
    buying: Buying, shop: Shop, upstream: RecordingUpstream, chain: Chain, world: World
) -> None:
    buyer, robber = await buying(), await chain.wallet()

    async def execute(header: Document) -> None:
        said = decoded(header["PAYMENT-SIGNATURE"])["payload"]
        terms, raw = said["authorization"], bytes.fromhex(said["signature"][2:])
        data = call_data(
            selector("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"),
            parse_address(terms["from"]), parse_address(terms["to"]), int(terms["value"]), int(terms["validAfter"]),
            int(terms["validBefore"]), bytes.fromhex(terms["nonce"][2:]), raw[64], raw[:32], raw[32:64],
        )  # fmt: skip
        await chain.transact(robber, chain.usdc, data, tip=10**11)

    answer, _ = await race(buyer, f"/publishers/{shop.slug}/x", upstream, chain, execute)
    assert answer.status_code == 200, answer.text
    assert (upstream.calls, await buyer.balance(), await world.earned(shop)) == (1, 9 * PRICE, 9_000)


async def test_an_upstream_cannot_claim_a_settlement(buying: Buying, shop: Shop, upstream: RecordingUpstream) -> None:
    upstream.extra_headers = [("PAYMENT-RESPONSE", "forged"), ("X-PAYMENT-RESPONSE", "forged"), ("X-Cost", "99")]
    buyer = await buying()
    answer = await buyer.buy(f"/publishers/{shop.slug}/x")
    upstream.extra_headers = []
    assert answer.headers.get_list("payment-response") != ["forged"]
    assert decoded(answer.headers["payment-response"])["success"] is True
    assert "x-payment-response" not in answer.headers
    assert answer.headers.get_list("x-cost") == ["0.01"]


async def test_a_claimed_wallet_opens_nothing(buying: Buying, shop: Shop, upstream: RecordingUpstream) -> None:
    buyer = await buying()
    answer = await buyer.client.get(f"/publishers/{shop.slug}/x", headers={"X-AGENT-WALLET": buyer.address.lower()})
    data = answer.json()["seren"]["eip712TypedData"]
    assert (answer.status_code, upstream.calls) == (402, 0)
    assert (data["primaryType"], data["message"]["from"]) == ("TransferWithAuthorization", buyer.address)
    assert data["message"]["value"] == str(PRICE)
    nonsense = await buyer.client.get(f"/publishers/{shop.slug}/x", headers={"X-AGENT-WALLET": "0x12"})
    assert "eip712TypedData" not in nonsense.json()["seren"]
