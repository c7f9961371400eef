"""Wallets that are contracts pay calls: deployed ones affirm by ERC-1271, others are made by ERC-6492 with the payment."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.eip55 import keccak_256
from gateway.networks import networks_file
from gateway.payments.evm.encoding import show_address
from tests.payments.evm.test_methods import DEPLOYER, INIT, YES
from tests.payments.onchain.buyer import PRICE, Buyer, Document, encoded, payload, settled
from tests.payments.onchain.conftest import Buying, chained
from tests.payments.x402.test_signatures import wrapped
from tests.support.chain import Authorization, Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import Shop, World

NO = "0x60006000fd"  # reverts whatever it is asked


@pytest_asyncio.fixture(scope="module")
async def gateway(
    services: Services, database_url: str, chain: Chain, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningGateway]:
    """A gateway that lets one factory make wallets."""
    place: Path = tmp_path_factory.mktemp("networks") / "networks.toml"
    listed = f'x402_name = "base-sepolia"\nerc6492_factories = ["{show_address(DEPLOYER)}"]\n'
    place.write_text(networks_file().read_text().replace('x402_name = "base-sepolia"\n', listed))
    running = await start_gateway(services, database_url, **chained(chain, CHAIN_NETWORKS=str(place)))
    yield running
    await running.stop()


def header_of(signed: Authorization, required: Document) -> dict[str, str]:
    document = {"x402Version": 2, "payload": payload(signed), "accepted": required["accepts"][0]}
    return {"PAYMENT-SIGNATURE": encoded(document)}


def signed_by(buyer: Buyer, wallet: bytes, signature: bytes, required: Document) -> Authorization:
    """An authorization of a contract's money with what the contract takes for a signature."""
    return replace(buyer.sign(required["accepts"][0]), payer=wallet, signature=signature)


async def test_a_deployed_wallet_pays_when_it_affirms_and_only_then(
    buying: Buying, shop: Shop, chain: Chain, world: World, upstream: RecordingUpstream
) -> None:
    wallet, buyer, path = secrets.token_bytes(20), await buying(), f"/publishers/{shop.slug}/x"
    await chain.rpc("anvil_setCode", "0x" + wallet.hex(), NO)
    await chain.give(wallet, 2 * PRICE)
    required = await buyer.asked(path)
    header = header_of(signed_by(buyer, wallet, b"any" * 40, required), required)
    refused = await buyer.client.get(path, headers=header)
    assert (refused.status_code, refused.json()["error"]) == (402, "invalid_exact_evm_payload_signature")
    assert (upstream.calls, await chain.usdc_of(wallet)) == (0, 2 * PRICE)
    await chain.rpc("anvil_setCode", "0x" + wallet.hex(), "0x" + YES.hex())
    paid = await buyer.client.get(path, headers=header)
    assert paid.status_code == 200, paid.text
    again = await buyer.client.get(path, headers=header)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    assert (upstream.calls, await chain.usdc_of(wallet), await world.earned(shop)) == (1, PRICE, 9_000)


async def test_a_wallet_that_is_not_there_yet_is_made_by_a_listed_factory_and_pays(
    buying: Buying,
    shop: Shop,
    chain: Chain,
    world: World,
    upstream: RecordingUpstream,
    connection: Connection,
) -> None:
    salt, buyer, path = secrets.token_bytes(32), await buying(), f"/publishers/{shop.slug}/x"
    wallet = keccak_256(b"\xff" + DEPLOYER + salt + keccak_256(INIT))[12:]
    await chain.give(wallet, 2 * PRICE)
    required = await buyer.asked(path)
    for factory, data, reason in (
        (b"\x99" * 20, salt + INIT, "eip6492_factory_not_allowed"),
        (DEPLOYER, secrets.token_bytes(32) + INIT, "transaction_failed"),  # makes another wallet
    ):
        forged = signed_by(buyer, wallet, wrapped(factory, data, b"any" * 40), required)
        refused = await buyer.client.get(path, headers=header_of(forged, required))
        assert (refused.status_code, refused.json()["error"]) == (402, reason), refused.text
    assert (upstream.calls, await chain.usdc_of(wallet)) == (0, 2 * PRICE)
    signed = signed_by(buyer, wallet, wrapped(DEPLOYER, salt + INIT, b"any" * 40), required)
    paid = await buyer.client.get(path, headers=header_of(signed, required))
    assert paid.status_code == 200, paid.text
    second = signed_by(buyer, wallet, wrapped(DEPLOYER, salt + INIT, b"any" * 40), required)  # it is there by now
    assert (await buyer.client.get(path, headers=header_of(second, required))).status_code == 200
    await settled(connection)
    assert (upstream.calls, await chain.usdc_of(wallet), await world.earned(shop)) == (2, 0, 18_000)
