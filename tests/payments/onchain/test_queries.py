"""Queries paid by a wallet: the estimate by `exact`, at most the maximum by `upto`, and what ran is paid for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from eth_account import Account
from x402 import x402Client
from x402.http.clients.httpx import x402HttpxClient
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.upto import UptoEvmScheme

from gateway.database.pool import Connection
from gateway.payments.evm.encoding import parse_address, show_address
from tests.payments.onchain.buyer import Buyer, Document, decoded, encoded, settled
from tests.payments.onchain.conftest import Buying, chained
from tests.payments.onchain.test_official_clients import key_of
from tests.support.chain import EXACT_PROXY, UPTO_PROXY, Authorization, Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.market import Market, sell
from tests.support.services import Services
from tests.support.world import SEPOLIA_USDC, Shop, World

DOLLAR = 1_000_000
HUNDRED = "SELECT company_id, ticker FROM companies ORDER BY company_id LIMIT 100"  # 0.1 dollars, estimated and at most
COUNT = "SELECT count(*) FROM companies"  # estimated for 0.001, 0.032 at most; costs 0.001
FAILS = "SELECT 1 / (company_id - 5) AS n FROM companies"


async def shop_of(gateway: RunningGateway, world: World, market: Market, **more: Any) -> Shop:
    """A publisher that sells the market for a dollar per 1,000 rows, at least 0.001 dollars, in the chain's USDC."""
    made = await sell(
        gateway.client, await world.agent(), market.config(sample=False), pricing={"min_charge": "0.001"},
        accepted_asset_ids=[str(SEPOLIA_USDC)], gateway_fee_percent="10", **more,
    )  # fmt: skip
    account = await world.connection.fetchval(
        "SELECT ledger.earnings_account($1, ledger_asset_id) FROM catalog.asset WHERE id = $2", made.id, SEPOLIA_USDC
    )
    return Shop(made.id, made.slug, account)


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str, chain: Chain) -> AsyncIterator[RunningGateway]:
    """A gateway that lets everybody look at prices as often as these tests do."""
    running = await start_gateway(services, database_url, **chained(chain, LIMITS_ESTIMATES="100000"))
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def base(gateway: RunningGateway, world: World, market: Market) -> Shop:
    return await shop_of(gateway, world, market)


class Asking:
    """A wallet that asks one publisher."""

    def __init__(self, buyer: Buyer, shop: Shop, query: str) -> None:
        self.buyer, self.path, self.body = buyer, f"/publishers/{shop.slug}", {"query": query}

    async def asked(self) -> Document:
        return await self.buyer.asked(self.path, "POST", json=self.body)

    async def present(self, header: dict[str, str], **more: str) -> httpx.Response:
        return await self.buyer.client.post(self.path, json=self.body, headers={**header, **more})

    async def buy(self) -> httpx.Response:
        return await self.present(self.buyer.payment(await self.asked()))

    def upto(self, required: Document, value: int | None = None) -> dict[str, str]:
        """The header that takes up the `upto` offer."""
        (offer,) = [one for one in required["accepts"] if one["scheme"] == "upto"]
        offer = offer | ({} if value is None else {"amount": str(value)})
        signed = self.buyer.chain.permit(
            self.buyer.wallet, parse_address(offer["payTo"]), int(offer["amount"]), method="permit2_upto",
            facilitator=parse_address(offer["extra"]["facilitatorAddress"]), seconds=offer["maxTimeoutSeconds"],
        )  # fmt: skip
        document = {"x402Version": 2, "payload": permitted(signed, offer), "accepted": offer}
        return {"PAYMENT-SIGNATURE": encoded(document)}


def permitted(signed: Authorization, offer: Document) -> Document:
    """A Permit2 authorization as the wire has it."""
    upto = offer["scheme"] == "upto"
    witness = {"to": show_address(signed.payee), "validAfter": str(signed.valid_after)}
    return {
        "signature": "0x" + signed.signature.hex(),
        "permit2Authorization": {
            "from": show_address(signed.payer),
            "permitted": {"token": offer["asset"], "amount": str(signed.value)},
            "spender": show_address(UPTO_PROXY if upto else EXACT_PROXY),
            "nonce": str(int.from_bytes(signed.nonce, "big")),
            "deadline": str(signed.valid_before),
            "witness": witness | ({"facilitator": offer["extra"]["facilitatorAddress"]} if upto else {}),
        },
    }


async def test_an_unpaid_query_is_told_its_estimate_and_how_to_pay_it(
    buying: Buying, base: Shop, gateway: RunningGateway, chain: Chain
) -> None:
    asking = Asking(await buying(), base, COUNT)
    answer = await asking.buyer.client.post(asking.path, json=asking.body)
    required = decoded(answer.headers["payment-required"])
    assert [(one["scheme"], one["amount"]) for one in required["accepts"]] == [("exact", "1000"), ("upto", "50000")]
    assert answer.json()["seren"]["estimate"] == {
        "asset_symbol": "USDC", "base_cost": "0.001", "estimated_rows": 1, "markup_multiplier": "1",
        "min_charge": "0.001", "total_cost": "0.001", "total_cost_atomic": 1_000,
    }  # fmt: skip
    assert [one["scheme"] for one in answer.json()["accepts"]] == ["exact"], "all that version 1 can read"
    assert "ratelimit" in answer.headers
    (listed,) = (await gateway.client.get(f"/publishers/{base.slug}")).json()["data"]["x402_accepts"]
    assert (listed["network_id"], listed["asset_symbol"]) == (chain.network, "USDC"), "the store says so, too"


@pytest.mark.parametrize("policy", ["settle_first", "before_response", "deferred"])
async def test_exact_pays_the_estimate_once_and_repeats_the_answer(
    policy: str, gateway: RunningGateway, world: World, market: Market, buying: Buying, connection: Connection
) -> None:
    shop = await shop_of(gateway, world, market, x402_settlement=policy)
    asking = Asking(await buying(DOLLAR), shop, HUNDRED)
    header = asking.buyer.payment(await asking.asked())
    answers = await asyncio.gather(*(asking.present(header) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}, answers[0].text
    (first,) = [answer for answer in answers if "idempotency-replayed" not in answer.headers]
    assert {answer.content for answer in answers} == {first.content}
    document = first.json()
    assert (document["row_count"], document["cost"], document["payment_source"]) == (100, "0.1", "onchain")
    assert (first.headers["x-cost"], first.headers["x-cost-asset"]) == ("0.1", "USDC")
    said = decoded(first.headers["payment-response"])
    assert (said["success"], said["amount"], bool(said["transaction"])) == (True, "100000", policy != "deferred")
    await settled(connection)
    assert (await asking.buyer.balance(), await world.earned(shop)) == (DOLLAR - 100_000, 90_000)


async def test_the_official_client_buys_a_query(
    buying: Buying, base: Shop, gateway: RunningGateway, world: World, connection: Connection
) -> None:
    buyer, before = await buying(DOLLAR), await world.earned(base)
    client = x402Client()
    client.register("eip155:*", ExactEvmScheme(Account.from_key(key_of(buyer))))
    async with x402HttpxClient(client, timeout=30) as http:
        answer = await http.post(f"{gateway.url}/publishers/{base.slug}", json={"query": HUNDRED})
        assert answer.status_code == 200, await answer.aread()
    await settled(connection)
    assert (await buyer.balance(), await world.earned(base) - before) == (DOLLAR - 100_000, 90_000)


async def test_version_1_buys_a_query(buying: Buying, base: Shop) -> None:
    asking = Asking(await buying(DOLLAR), base, HUNDRED)
    answer = await asking.buyer.client.post(asking.path, json=asking.body)
    paid = await asking.present(asking.buyer.payment_v1(answer.json()))
    assert paid.status_code == 200, paid.text
    assert decoded(paid.headers["x-payment-response"])["success"] is True


@pytest.mark.parametrize("policy", ["settle_first", "before_response", "deferred"])
async def test_upto_signs_for_the_maximum_and_settles_what_was_metered(
    policy: str, gateway: RunningGateway, world: World, market: Market, buying: Buying, chain: Chain,
    connection: Connection,
) -> None:  # fmt: skip
    shop = await shop_of(gateway, world, market, x402_settlement=policy)
    asking = Asking(await buying(DOLLAR), shop, COUNT)
    await chain.allow_permit2(asking.buyer.wallet)
    header = asking.upto(await asking.asked())
    answer = await asking.present(header)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["cost"], answer.headers["x-cost"]) == ("0.001", "0.001")
    assert decoded(answer.headers["payment-response"])["amount"] == "1000"
    await settled(connection)
    assert (await asking.buyer.balance(), await world.earned(shop)) == (DOLLAR - 1_000, 900)
    again = await asking.present(header)
    assert (again.content, again.headers["idempotency-replayed"]) == (answer.content, "true")
    assert await asking.buyer.balance() == DOLLAR - 1_000


async def test_what_is_signed_is_the_budget_of_the_query(buying: Buying, base: Shop, chain: Chain) -> None:
    """Between estimate and maximum every amount is good; the query is stopped where it is used up."""
    asking = Asking(await buying(DOLLAR), base, "SELECT company_id, name FROM companies WHERE company_id % 2 = 0")
    await chain.allow_permit2(asking.buyer.wallet)
    required = await asking.asked()
    least = int(required["accepts"][0]["amount"])
    answer = await asking.present(asking.upto(required, least))
    document = answer.json()
    assert answer.status_code == 200, answer.text
    assert (document["truncated"], document["row_count"]) == ("budget", least // 1_000)
    for wrong in (least - 1, int(required["accepts"][1]["amount"]) + 1):
        refused = await asking.present(asking.upto(required, wrong))
        assert (refused.status_code, refused.json()["error"]) == (
            402, "invalid_exact_evm_payload_authorization_value_mismatch"
        ), refused.text  # fmt: skip
        assert decoded(refused.headers["payment-required"])["accepts"] == required["accepts"]


@pytest.mark.parametrize(("scheme", "cost"), [("exact", "2"), ("upto", "0.001")])
async def test_a_query_that_ran_and_failed_is_paid(
    scheme: str, cost: str, buying: Buying, base: Shop, chain: Chain, world: World, connection: Connection
) -> None:
    """What fails would tell data for nothing otherwise: by `upto` the minimum, by `exact` what was signed."""
    asking, before = Asking(await buying(10 * DOLLAR), base, FAILS), await world.earned(base)
    await chain.allow_permit2(asking.buyer.wallet)
    required = await asking.asked()
    header = asking.buyer.payment(required) if scheme == "exact" else asking.upto(required)
    answer = await asking.present(header)
    assert (answer.status_code, answer.json()["sqlstate"]) == (422, "22012"), answer.text
    assert (answer.json()["cost"], answer.headers["x-cost"]) == (cost, cost)
    assert decoded(answer.headers["payment-response"])["success"] is True
    await settled(connection)
    paid = round(float(cost) * DOLLAR)
    assert (await asking.buyer.balance(), await world.earned(base) - before) == (10 * DOLLAR - paid, paid * 9 // 10)
    again = await asking.present(header)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (422, "true")
    assert await asking.buyer.balance() == 10 * DOLLAR - paid


async def test_what_does_not_run_costs_nothing_and_the_authorization_stays_good(
    buying: Buying, base: Shop, connection: Connection
) -> None:
    asking = Asking(await buying(DOLLAR), base, HUNDRED)
    header = asking.buyer.payment(await asking.asked())
    for query, status in (("SELECT * FROM internal_costs", 400), ("SELECT ticker + 1 FROM companies", 422)):
        refused = await Asking(asking.buyer, base, query).present(header)
        assert refused.status_code == status, refused.text
        assert "payment-response" not in refused.headers
    await settled(connection)
    assert await asking.buyer.balance() == DOLLAR
    assert (await asking.present(header)).status_code == 200


async def test_a_used_payment_buys_no_other_query(buying: Buying, base: Shop) -> None:
    asking = Asking(await buying(DOLLAR), base, HUNDRED)
    header = asking.buyer.payment(await asking.asked())
    assert (await asking.present(header)).status_code == 200
    other = await Asking(asking.buyer, base, HUNDRED.replace("ticker", "name")).present(header)
    assert (other.status_code, other.json()["error"]) == (402, "invalid_exact_evm_nonce_already_used")
    assert decoded(other.headers["payment-required"])["accepts"], "an honest payment is still asked for"
    assert await asking.buyer.balance() == DOLLAR - 100_000


async def test_a_wallet_that_cannot_pay_runs_nothing(buying: Buying, base: Shop, gateway: RunningGateway) -> None:
    asking = Asking(await buying(), base, HUNDRED)  # 100,000 units are asked for, and that is what it has
    header = asking.buyer.payment(await asking.asked())
    await asking.buyer.chain.give_away(asking.buyer.wallet, 1)
    refused = await asking.present(header)
    assert (refused.status_code, refused.json()["error"]) == (402, "insufficient_funds")
    forged = asking.buyer.payment(
        await asking.asked(), asking.buyer.sign({**(await asking.asked())["accepts"][0]}, chain_id=1)
    )
    refused = await asking.present(forged)
    assert (refused.status_code, refused.json()["error"]) == (402, "invalid_exact_evm_payload_signature")


async def test_an_api_key_without_funds_is_offered_both_and_may_take_either(
    buying: Buying, base: Shop, world: World
) -> None:
    asking, agent = Asking(await buying(DOLLAR), base, HUNDRED), await world.agent(5)
    answer = await asking.buyer.client.post(asking.path, json=asking.body, headers=agent.headers)
    assert [one["scheme"] for one in answer.json()["accepts"]] == ["prepaid", "exact", "upto"], answer.text
    header = asking.buyer.payment(decoded(answer.headers["payment-required"]))
    paid = await asking.present(header, **agent.headers)
    assert (paid.status_code, paid.json()["payment_source"]) == (200, "onchain")
    assert await world.balance(agent) == 5


def changed(part: str, **fields: str) -> Callable[[Document], None]:
    """Change what stands in a signed permit, or in the offer that it takes up."""

    def change(document: Document) -> None:
        place = document
        for name in part.split("."):
            place = place[name]
        place.update(fields)

    return change


PERMIT = "payload.permit2Authorization"
ELSEWHERE = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
FORGERIES: dict[str, tuple[Callable[[Document], None], str]] = {
    "another payee": (changed(f"{PERMIT}.witness", to=ELSEWHERE), "invalid_permit2_recipient_mismatch"),
    "another facilitator": (changed(f"{PERMIT}.witness", facilitator=ELSEWHERE), "upto_facilitator_mismatch"),
    "another spender": (changed(PERMIT, spender=ELSEWHERE), "invalid_permit2_spender"),
    "another token": (changed(f"{PERMIT}.permitted", token=ELSEWHERE), "permit2_token_mismatch"),
    "another amount than signed": (changed(f"{PERMIT}.permitted", amount="20000"), "permit2_amount_mismatch"),
    "somebody else's money": (changed(PERMIT, **{"from": ELSEWHERE}), "invalid_permit2_signature"),
    "the other scheme": (changed("accepted", scheme="exact"), "invalid_payment_requirements"),
    "another nonce": (changed(PERMIT, nonce="7"), "invalid_permit2_signature"),
    "years": (changed(PERMIT, deadline="4102444800"), "permit2_deadline_expired"),
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forged_permit_moves_nothing(
    name: str, buying: Buying, base: Shop, chain: Chain, world: World, connection: Connection
) -> None:
    forge, reason = FORGERIES[name]
    asking, before = Asking(await buying(DOLLAR), base, COUNT), await world.earned(base)
    await chain.allow_permit2(asking.buyer.wallet)
    document = decoded(asking.upto(await asking.asked())["PAYMENT-SIGNATURE"])
    forge(document)
    refused = await asking.present({"PAYMENT-SIGNATURE": encoded(document)})
    assert (refused.status_code, refused.json()["error"]) == (402, reason), refused.text
    assert (await asking.buyer.balance(), await world.earned(base)) == (DOLLAR, before)


async def test_a_permit_without_its_allowance_runs_nothing(buying: Buying, base: Shop) -> None:
    asking = Asking(await buying(DOLLAR), base, COUNT)
    refused = await asking.present(asking.upto(await asking.asked()))
    assert (refused.status_code, refused.json()["error"]) == (402, "permit2_allowance_required")
    assert await asking.buyer.balance() == DOLLAR


async def test_the_official_client_signs_for_the_maximum(
    buying: Buying, base: Shop, gateway: RunningGateway, world: World, chain: Chain, connection: Connection
) -> None:
    buyer, before = await buying(DOLLAR), await world.earned(base)
    await chain.allow_permit2(buyer.wallet)
    client = x402Client()
    client.register("eip155:*", UptoEvmScheme(Account.from_key(key_of(buyer))))
    async with x402HttpxClient(client, timeout=30) as http:
        answer = await http.post(f"{gateway.url}/publishers/{base.slug}", json={"query": COUNT})
        assert answer.status_code == 200, await answer.aread()
    await settled(connection)
    assert (await buyer.balance(), await world.earned(base) - before) == (DOLLAR - 1_000, 900)


@pytest.mark.parametrize("point", ["chain.reserved", "query.after", "store.before", "store.after", "settlement.after"])
async def test_killed_at(
    point: str, services: Services, database_url: str, chain: Chain, gateway: RunningGateway, base: Shop, world: World,
    buying: Buying, connection: Connection,
) -> None:  # fmt: skip
    """Whoever presents the payment again has its rows, and has paid once for what was metered."""
    doomed = await start_gateway(
        services, database_url, **chained(chain, FAULT=f"{point}:kill", LIMITS_ESTIMATES="100000")
    )
    asking, before = Asking(await buying(DOLLAR, url=doomed.url), base, COUNT), await world.earned(base)
    await chain.allow_permit2(asking.buyer.wallet)
    header = asking.upto(await asking.asked())
    with contextlib.suppress(httpx.TransportError):
        assert (await asking.present(header)).status_code == 503
    await asyncio.to_thread(doomed.process.wait, 20)
    healed = Asking(Buyer(gateway.url, chain, asking.buyer.wallet), base, COUNT)
    try:
        for _ in range(120):
            answer = await healed.present(header)
            if answer.status_code not in (409, 503):
                break
            await asyncio.sleep(0.25)
        assert (answer.status_code, answer.json()["rows"]) == (200, [{"count": 1200}]), answer.text
        await settled(connection)
        assert (await healed.buyer.balance(), await world.earned(base) - before) == (DOLLAR - 1_000, 900)
    finally:
        await healed.buyer.client.aclose()
        await doomed.kill()


async def test_looks_at_the_price_that_nobody_pays_are_counted(
    services: Services, database_url: str, chain: Chain, gateway: RunningGateway, base: Shop, buying: Buying
) -> None:
    strict = await start_gateway(services, database_url, **chained(chain, LIMITS_ESTIMATES="3"))
    try:
        asking = Asking(await buying(DOLLAR, url=strict.url), base, HUNDRED)
        answers = [await asking.buyer.client.post(asking.path, json=asking.body) for _ in range(5)]
        assert answers[-1].status_code == 429
        assert {answer.status_code for answer in answers} <= {402, 429}
        assert answers[-1].json()["policy"] == "estimates"
        assert int(answers[-1].headers["retry-after"]) >= 1
    finally:
        await strict.stop()
