"""A gateway that settles on the local chain, a shop to buy from, wallets that pay, and proof that all agree afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.ledger import proof
from tests.payments.evm.conftest import clearing, until
from tests.payments.onchain.buyer import PRICE, Buyer, settled
from tests.support.chain import Chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import SEPOLIA_USDC, Shop, World

Buying = Callable[..., Awaitable[Buyer]]


def chained(chain: Chain, **settings: str) -> dict[str, str]:
    """Return what a gateway on the local chain has in its environment."""
    return {
        f"CHAIN_{chain.chain_id}_RPC": chain.url,
        "CHAIN_SIGNER_KEY": chain.signer_key,
        "X402_WAIT": "15",
        "MONEY_DEAD_AFTER": "2",
        "PUBLIC_URL": "https://tollway.test",  # one name, whichever process answers: payments are made for it
        **settings,
    }


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str, chain: Chain) -> AsyncIterator[RunningGateway]:
    """A gateway on this module's database and the local chain."""
    running = await start_gateway(services, database_url, **chained(chain))
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def shop(world: World, upstream: RecordingUpstream) -> Shop:
    """A publisher whose calls cost PRICE, a tenth of it for the platform, payable on the local chain."""
    upstream.forget()
    return await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10")


@pytest_asyncio.fixture
async def buying(gateway: RunningGateway, chain: Chain) -> AsyncIterator[Buying]:
    """Makes buyers: `await buying(funds)`."""
    made: list[Buyer] = []

    async def make(funds: int = 10 * PRICE, url: str = "") -> Buyer:
        made.append(Buyer(url or gateway.url, chain, await chain.wallet(funds)))
        return made[-1]

    yield make
    for buyer in made:
        await buyer.client.aclose()


@pytest_asyncio.fixture(autouse=True)
async def agreement(connection: Connection, chain: Chain) -> AsyncIterator[None]:
    """After every test nothing is open, the books balance, and hold exactly what moved to the treasury."""
    await chain.at_once()
    before, booked = await chain.usdc_of(chain.treasury), await clearing(connection)
    yield
    # What goes back to a payer is booked when its block is final, and nobody else makes blocks now.
    miner = asyncio.create_task(_mine_on(chain))
    try:
        await settled(connection)

        async def all_ended() -> bool:
            return (await proof.verify(connection)).open_exchanges == 0

        await until(all_ended)
    finally:
        miner.cancel()
    report = await proof.verify(connection)
    assert report.sound, report.violations
    assert await clearing(connection) - booked == await chain.usdc_of(chain.treasury) - before


async def _mine_on(chain: Chain) -> None:
    while True:
        await chain.mine()
        await asyncio.sleep(0.1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run with the slow tests, one at a time: blocks come by the clock, and a busy machine makes payments late."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)
