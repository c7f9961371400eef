"""The 402: one answer for clients of version 2, of version 1 and for holders of a key, that none of them chokes on."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any, Literal

import pytest
from eth_account import Account
from pydantic import BaseModel

from gateway.networks import load_networks
from gateway.payments.evm.encoding import parse_address
from gateway.payments.x402 import v1, v2
from gateway.payments.x402.answers import resource
from gateway.payments.x402.offer import Offer, compile_kinds
from gateway.payments.x402.required import required_body, typed_data
from tests.payments.x402.shop import BASE, FACILITATOR, NOW, SEPOLIA, SHOP, Payer, check, offer, permit2_offer

PREPAID = {"scheme": "prepaid", "network": BASE, "asset": "USDC", "amount": "1", "payTo": "tollway", "extra": {}}
SEREN = {"payment_request_id": "0", "publisher_id": "1", "expires": NOW + 300}


class RequirementsOf100(BaseModel):
    """What the client x402 1.0.0 demands of every entry; one that does not fit makes it give up."""

    scheme: str
    network: Literal["base", "base-sepolia", "avalanche", "avalanche-fuji"]
    maxAmountRequired: str
    resource: str
    description: str
    mimeType: str
    payTo: str
    maxTimeoutSeconds: int
    asset: str
    extra: dict[str, Any]


class BodyOf100(BaseModel):
    """What x402 1.0.0 demands of the body."""

    x402Version: Literal[1]
    error: str
    accepts: list[RequirementsOf100]


def body_of(*offers: Offer, bearer: bool = False, prepaid: dict[str, Any] | None = PREPAID) -> dict[str, Any]:
    body = required_body(offers, SHOP, "Payment required", seren=SEREN, prepaid=prepaid, bearer=bearer)
    return json.loads(json.dumps(body))


def header_of(*offers: Offer) -> dict[str, Any]:
    return json.loads(base64.b64decode(v2.required_header(offers, SHOP, "Payment required")))


def test_version_1_finds_only_what_it_can_read() -> None:
    body = body_of(permit2_offer(), offer(scheme="upto"), offer(), offer(BASE))
    read = BodyOf100.model_validate(body)
    assert [(entry.scheme, entry.network) for entry in read.accepts] == [("exact", "base-sepolia"), ("exact", "base")]
    assert all("assetTransferMethod" not in entry.extra for entry in read.accepts)
    assert (read.accepts[0].resource, read.accepts[0].maxAmountRequired) == (SHOP.url, "10000")


def test_the_contracts_parts_stand_beside_the_list() -> None:
    body = body_of(offer())
    assert (body["seren"], body["prepaid"]) == (SEREN, PREPAID)
    assert body["resource"]["url"] == SHOP.url
    assert set(body["accepts"][0]) >= {"amount", "asset", "extra", "maxTimeoutSeconds", "network", "payTo", "scheme"}
    assert "prepaid" not in body_of(offer(), prepaid=None)


def test_version_2_finds_every_rail_in_the_header() -> None:
    offers = (offer(), offer(BASE), permit2_offer(), offer(scheme="upto"))
    header = header_of(*offers)
    assert header["x402Version"] == 2
    assert header["accepts"] == [json.loads(json.dumps(v2.requirements(one))) for one in offers]
    assert header["accepts"][2]["extra"]["assetTransferMethod"] == "permit2"
    assert header["accepts"][3]["extra"]["facilitatorAddress"].lower() == "0x" + FACILITATOR.hex()


@pytest.mark.parametrize("offers", [(), (permit2_offer(),), (offer(),)])
def test_who_holds_a_key_finds_the_prepaid_offer_first(offers: tuple[Offer, ...]) -> None:
    body = body_of(*offers, bearer=True)
    assert (body["x402Version"], body["accepts"][0], body["seren"]) == (2, PREPAID, SEREN)
    assert len(body["accepts"]) == 1 + len(offers)


@pytest.mark.parametrize("offers", [(), (permit2_offer(),)])
def test_without_an_offer_that_version_1_knows_the_body_is_version_2s(offers: tuple[Offer, ...]) -> None:
    assert body_of(*offers)["x402Version"] == 2
    assert body_of(*offers)["accepts"] == [PREPAID, *header_of(*offers)["accepts"]]


def test_a_network_without_a_version_1_name_is_not_in_version_1s_list() -> None:
    ours = offer()
    nameless = replace(ours, kind=replace(ours.kind, network=ours.kind.network.model_copy(update={"x402_name": None})))
    assert not v1.offered(nameless)
    assert body_of(nameless)["x402Version"] == 2


def test_the_header_stays_small_whatever_is_sold() -> None:
    """Larger headers make stock clients fail before they read anything."""
    long = resource("https://gateway.example/" + "x" * 9_000, "é€" * 500)
    offers = [offer(), *(offer(BASE, amount=10**30 + n) for n in range(40))]
    header = v2.required_header(offers, long, "why " * 500)
    assert len(header) <= v2.MAX_OFFER_HEADER
    accepts = json.loads(base64.b64decode(header))["accepts"]
    assert accepts[0] == json.loads(json.dumps(v2.requirements(offers[0])))
    assert 5 <= len(accepts) < 41
    assert len(v2.required_header(offers[:1], long, "why " * 500)) <= v2.MAX_OFFER_HEADER

    said = json.loads(base64.b64decode(v2.required_header(offers, long, "why", {"large": "x" * 6_000})))
    assert ("extensions" in said, len(said["accepts"])) == (False, 1), "offers and extensions stand in the body"


def test_each_network_keeps_its_first_offer_as_long_as_there_is_room() -> None:
    many = [*(offer(amount=10**30 + n) for n in range(40)), offer(BASE), offer(BASE, amount=2 * 10**30)]
    accepts = json.loads(base64.b64decode(v2.required_header(many, SHOP, "why")))["accepts"]
    assert [one["network"] for one in accepts[-2:]] == [SEPOLIA, BASE]
    assert accepts[0] == json.loads(json.dumps(v2.requirements(many[0])))


def test_offers_that_version_1_cannot_read_stand_beside_its_list() -> None:
    body = body_of(offer(), permit2_offer())
    assert [one["scheme"] for one in body["accepts"]] == ["exact"]
    assert [one["extra"].get("assetTransferMethod") for one in body["offers"]] == [None, "permit2"]
    assert BodyOf100.model_validate(body).accepts[0].network == "base-sepolia"
    assert "offers" not in body_of(offer())


def test_typed_data_is_ready_to_sign() -> None:
    account, ours = Account.create(), offer()
    data = typed_data(ours, account.address, b"\x11" * 32, NOW)
    assert data is not None
    signature = account.sign_typed_data(full_message=data).signature
    payment = Payer(account).payment(ours)
    payment["payload"] = {"signature": "0x" + signature.hex(), "authorization": data["message"]}
    assert check(payment, ours).question is None
    assert typed_data(permit2_offer(), account.address, b"\x11" * 32, NOW) is None


def test_only_networks_that_can_be_settled_on_are_offered() -> None:
    networks = load_networks({})
    kinds = compile_kinds(networks, {SEPOLIA: FACILITATOR})
    assert kinds.find(BASE, "USDC") is None
    assert kinds.find(SEPOLIA, "ETH") is None
    exact, upto = kinds.find(SEPOLIA, "USDC"), kinds.find(SEPOLIA, "USDC", "upto")
    assert exact is not None
    assert upto is not None
    assert (exact.method, upto.method) == ("eip3009", "permit2_upto")
    assert exact.verifier == exact.asset == parse_address("0x036CbD53842c5426634e7929541eC2318f3dCF7e")
    assert (upto.facilitator, upto.asset) == (FACILITATOR, exact.asset)
