"""A publisher that takes many assets on several networks: one 402 that stock clients can read, and pay."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from x402.http.clients.httpx import x402HttpxClient

from gateway.catalog.assets import asset_id, store_assets
from gateway.database.pool import Connection
from gateway.networks import load_networks, networks_file
from gateway.payments.evm.encoding import show_address
from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE, Buyer, decoded, settled
from tests.payments.onchain.conftest import Buying, chained
from tests.payments.onchain.test_official_clients import official
from tests.payments.onchain.test_queries import permitted
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import SEPOLIA_USDC, USDC, Shop, World

MORE = 30
TOKEN = """
[[network."eip155:84532".asset]]
symbol = "T{number}"
name = "Token {number}"
decimals = 6
contract = "{contract}"
transfer = ["permit2"]
"""


@pytest_asyncio.fixture(scope="module")
async def gateway(
    services: Services, database_url: str, chain: Chain, connection: Connection, tmp_path_factory: object
) -> AsyncIterator[RunningGateway]:
    """A gateway with two networks and thirty tokens more; the node of the other network serves another chain."""
    place = Path(str(tmp_path_factory.mktemp("networks"))) / "networks.toml"  # type: ignore[attr-defined]
    tokens = (TOKEN.format(number=n, contract=show_address(n.to_bytes(20, "big"))) for n in range(1, MORE + 1))
    place.write_text(networks_file().read_text() + "".join(tokens))
    await store_assets(connection, load_networks({"TOLLWAY_CHAIN_NETWORKS": str(place)}))
    settings = chained(chain, CHAIN_NETWORKS=str(place), CHAIN_8453_RPC=chain.url, X402_WAIT="3")
    running = await start_gateway(services, database_url, **settings)
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def shop(world: World, upstream: RecordingUpstream, connection: Connection, gateway: RunningGateway) -> Shop:
    """Takes USDC on the test network first, then there whatever there is, and USDC on the other network."""
    upstream.forget()
    shop = await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10")
    for asset in (USDC, *(asset_id("eip155:84532", f"T{n}") for n in range(1, MORE + 1))):
        await connection.execute("INSERT INTO catalog.publisher_asset VALUES ($1, $2)", shop.id, asset)
        await connection.execute(
            "INSERT INTO catalog.pricing (publisher_id, asset_id, price_per_call) VALUES ($1, $2, $3)",
            shop.id, asset, PRICE,
        )  # fmt: skip

    async def known() -> bool:
        asked = (await gateway.client.get(f"/publishers/{shop.slug}/x")).json()
        return len(asked.get("offers", [])) == MORE + 2

    await until(known)
    return shop


async def test_the_head_stays_below_8_kib_and_the_body_has_every_offer(
    gateway: RunningGateway, shop: Shop, buying: Buying
) -> None:
    wallet = (await buying()).address
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
    connection.request("GET", f"/publishers/{shop.slug}/{'x' * 2_000}", headers={"X-AGENT-WALLET": wallet})
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    head = "".join(f"{name}: {value}\r\n" for name, value in answer.getheaders())
    assert (answer.status, len(head) < 8_192) == (402, True), len(head)
    said = decoded(answer.headers["payment-required"])
    assert len(body["offers"]) == MORE + 2
    assert said["accepts"][0] == body["offers"][0]
    assert {one["network"] for one in said["accepts"]} == {"eip155:84532", "eip155:8453"}
    assert 2 < len(said["accepts"]) < MORE + 2
    assert [one["network"] for one in body["accepts"]] == ["base-sepolia", "base"]
    assert body["prepaid"]["scheme"] == "prepaid"
    assert body["seren"]["eip712TypedData"]["message"]["from"] == wallet


async def test_official_clients_find_what_they_can_pay(
    gateway: RunningGateway, shop: Shop, buying: Buying, world: World, connection: Connection
) -> None:
    buyer = await buying()
    async with x402HttpxClient(official(buyer), timeout=30) as client:
        answer = await client.get(f"{gateway.url}/publishers/{shop.slug}/x")
        assert answer.status_code == 200, await answer.aread()
    version_1 = await buyer.client.get(f"/publishers/{shop.slug}/x")
    paid = await buyer.client.get(f"/publishers/{shop.slug}/x", headers=buyer.payment_v1(version_1.json()))
    assert paid.status_code == 200, paid.text
    await settled(connection)
    assert (await buyer.balance(), await world.earned(shop)) == (8 * PRICE, 2 * 9_000)


async def test_an_offer_that_the_header_left_out_can_be_taken_up(
    gateway: RunningGateway, shop: Shop, buying: Buying, upstream: RecordingUpstream
) -> None:
    """It is an offer all the same: this token is not there, and that is what its payer is told."""
    buyer = await buying()
    body = (await buyer.client.get(f"/publishers/{shop.slug}/x")).json()
    answer = await buyer.client.get(f"/publishers/{shop.slug}/x", headers=taken(buyer, body["offers"][-1]))
    assert (answer.status_code, answer.json()["error"]) == (402, "transaction_failed"), answer.text
    assert upstream.calls == 0


async def test_a_node_of_another_chain_takes_nothing_and_is_named(
    gateway: RunningGateway, shop: Shop, buying: Buying, upstream: RecordingUpstream, connection: Connection
) -> None:
    """It might have money there, on a test network; nobody asks."""
    buyer = await buying()
    required = await buyer.asked(f"/publishers/{shop.slug}/x")
    (place,) = [n for n, one in enumerate(required["accepts"]) if one["network"] == "eip155:8453"]
    offer = required["accepts"][place]
    signed = buyer.chain.authorize(
        buyer.wallet, bytes.fromhex(offer["payTo"][2:]), PRICE, chain_id=8453, token=bytes.fromhex(offer["asset"][2:]),
        name="USD Coin",
    )  # fmt: skip
    answer = await buyer.client.get(f"/publishers/{shop.slug}/x", headers=buyer.payment(required, signed, place))
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable"), answer.text
    assert (upstream.calls, await buyer.balance()) == (0, 10 * PRICE)
    assert "serves chain 84532: it is not used" in gateway.output()

    async def shown() -> bool:
        metrics = (await gateway.client.get("/metrics")).text
        return 'tollway_relayer_waits{network="eip155:8453"} 1' in metrics

    await until(shown)


def taken(buyer: Buyer, offer: dict[str, object]) -> dict[str, str]:
    """The header that takes up a Permit2 offer."""
    from tests.payments.onchain.buyer import encoded

    signed = buyer.chain.permit(
        buyer.wallet, bytes.fromhex(str(offer["payTo"])[2:]), int(str(offer["amount"])),
        token=bytes.fromhex(str(offer["asset"])[2:]), seconds=300,
    )  # fmt: skip
    return {"PAYMENT-SIGNATURE": encoded({"x402Version": 2, "payload": permitted(signed, offer), "accepted": offer})}
