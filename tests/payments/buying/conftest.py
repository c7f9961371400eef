"""A gateway with a buying wallet on the local chain, a server that sells by x402, and proof that books and chain agree."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from gateway.catalog.assets import asset_id
from gateway.database.pool import Connection
from gateway.ledger import proof
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.keystore import Signer
from gateway.payments.evm.purchases import BOOKED, rail_of
from gateway.payments.evm.wallet_movements import Movement, book
from tests.payments.evm.conftest import until
from tests.support.chain import Chain, temporary_chain
from tests.support.gateway import RunningGateway, start_gateway
from tests.support.seller import PRICE, Seller, open_seller
from tests.support.services import Services
from tests.support.world import SEPOLIA_USDC, USDC, Agent, Shop, World

FUNDS, CAP = 100 * PRICE, 3 * PRICE
Reselling = Callable[..., Awaitable[Shop]]


def buys(chain: Chain, key: str, **settings: str) -> dict[str, str]:
    """What a gateway that buys on the local chain has in its environment."""
    return {
        f"CHAIN_{chain.chain_id}_RPC": chain.url,
        "CHAIN_BUYER_KEY": key,
        "BUYING_PUBLISHERS": "*",
        "BUYING_EXPOSURE": str(4 * PRICE),
        "BUYING_VALIDITY": "86400",  # the chain's clock may be ahead
        "MONEY_DEAD_AFTER": "2",
        **settings,
    }


@pytest.fixture(scope="session")
def running_chain() -> Iterator[Chain]:
    """A chain of their own: these tests move its clock, which never goes back."""
    with temporary_chain() as chain:
        yield chain


@pytest_asyncio.fixture(scope="session")
async def chain(running_chain: Chain) -> AsyncIterator[Chain]:
    """That chain; what is sent is mined at once."""
    async with running_chain.resting() as chain:
        yield chain


@pytest.fixture(scope="module")
def key() -> str:
    """The buying wallet's private key."""
    return "0x" + secrets.token_bytes(32).hex()


@pytest.fixture(scope="module")
def wallet(key: str) -> Signer:
    """The buying wallet."""
    return Signer(bytes.fromhex(key[2:]))


@pytest_asyncio.fixture(scope="module")
async def funded(chain: Chain, wallet: Signer, connection: Connection) -> None:
    """The wallet has money, on the chain and in the books."""
    await give(chain, wallet, connection, FUNDS)


async def give(chain: Chain, wallet: Signer, connection: Connection, amount: int) -> None:
    transaction = bytes.fromhex((await chain.give(wallet.address, amount))[2:])
    booked_in, brought = asset_id("eip155:8453", "USDC"), Movement(treasury=0, outside=amount)
    assert await book(connection, booked_in, chain.network, "USDC", transaction, brought, incoming=True)


@pytest_asyncio.fixture(scope="module")
async def gateway(
    services: Services, database_url: str, chain: Chain, key: str, funded: None
) -> AsyncIterator[RunningGateway]:
    """A gateway that buys."""
    running = await start_gateway(services, database_url, **buys(chain, key))
    yield running
    await running.stop()


@pytest_asyncio.fixture(scope="module")
async def running_seller(chain: Chain) -> AsyncIterator[Seller]:
    seller, serving = await open_seller(chain, secrets.token_bytes(20))
    async with serving:
        yield seller


@pytest.fixture
def seller(running_seller: Seller) -> Seller:
    """A server that sells, honestly until a test says otherwise."""
    running_seller.usual()
    return running_seller


@pytest_asyncio.fixture
async def reselling(world: World, seller: Seller) -> Reselling:
    """Makes publishers of that server, which callers with a balance buy from."""

    async def make(**changes: Any) -> Shop:
        document: dict[str, Any] = {
            "api_url": seller.url, "billing_model": "x402_passthrough", "pricing_model": "passthrough",
            "reserve_max_charge": "0.03", "wallet_address": show_address(seller.payee),
            "wallet_network_id": "eip155:84532",
        }  # fmt: skip
        return await world.publisher(None, SEPOLIA_USDC, **{**document, **changes})

    return make


@pytest_asyncio.fixture
async def agent(world: World) -> Agent:
    """A caller with money for some calls."""
    return await world.agent(10 * CAP, USDC)


async def left(world: World, agent: Agent, amount: int) -> None:
    """Wait until an agent has so much: the end of a hold is written just behind the answer."""

    async def there() -> bool:
        return await world.balance(agent) == amount

    await until(there)


async def booked(connection: Connection, chain: Chain) -> int:
    """What the books say is in the buying wallet."""
    return await BOOKED.one(connection, rail_of(chain.network, "USDC"))


async def ended(connection: Connection, chain: Chain) -> list[tuple[str, bool]]:
    """Wait until it is known what became of every purchase, and return that, oldest first."""

    async def over() -> bool:
        await chain.mine()
        return not await connection.fetchval("SELECT count(*) FROM chain.purchase WHERE ended_at IS NULL")

    await until(over)
    rows = await connection.fetch("SELECT state::text, delivered FROM chain.purchase ORDER BY signed_at")
    return [(row["state"], row["delivered"]) for row in rows]


async def expire(connection: Connection, chain: Chain) -> None:
    """Let every authorization that was signed and not used end, by the chain's clock."""
    rows = await connection.fetch("SELECT payer, nonce, valid_before FROM chain.purchase WHERE ended_at IS NULL")
    unused = [row["valid_before"] for row in rows if not await chain.used(row["payer"], row["nonce"])]
    head = await chain.node.head()
    if unused and max(unused) > head.timestamp:
        await chain.later(max(unused) - head.timestamp + 1)
        await chain.mine(5)
        await chain.clock_back()


@dataclass
class Apart:
    """By how much books and wallet disagree since a test that failed: nothing, while none has."""

    units: int = 0


@pytest.fixture(scope="module")
def apart() -> Apart:
    """What the tests before have left."""
    return Apart()


@pytest_asyncio.fixture(autouse=True)
async def agreement(connection: Connection, chain: Chain, wallet: Signer, apart: Apart) -> AsyncIterator[None]:
    """After every test everything is known, the books balance, and the wallet has what they say. Then it is forgotten."""
    await chain.at_once()
    yield
    await expire(connection, chain)
    await ended(connection, chain)

    async def all_ended() -> bool:
        return (await proof.verify(connection)).open_exchanges == 0

    await until(all_ended)
    report = await proof.verify(connection)
    assert report.sound, report.violations
    books, wallets = await booked(connection, chain), await chain.usdc_of(wallet.address)
    before, apart.units = apart.units, wallets - books
    assert books + before == wallets
