"""A settlement worker in this process, on a real chain and database, with short waits."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from gateway.database.pool import Connection, Database
from gateway.ids import uuid7
from gateway.ledger import proof
from gateway.networks import load_networks
from gateway.payments.evm.chains import Chain as Link
from gateway.payments.evm.chains import open_chains
from gateway.payments.evm.fees import RelayPolicy
from gateway.payments.evm.settlements import Booking, Order, Settlements
from gateway.settings import DatabaseSettings
from tests.support.chain import Authorization, Chain
from tests.support.world import Shop, World

QUICK = RelayPolicy(
    confirmations=1, finality=3, poll_seconds=0.05, idle_seconds=0.1, check_seconds=0.4, stuck_seconds=600.0
)
Worker = Callable[..., AbstractAsyncContextManager[Settlements]]


@pytest_asyncio.fixture(scope="module")
async def settling(database_url: str, chain: Chain) -> Worker:
    """Makes settlement workers: `async with settling(url=..., finality=...) as settlements`."""
    settings = DatabaseSettings(url=database_url)

    @asynccontextmanager
    async def worker(url: str = "", key: str = "", **policy: Any) -> AsyncIterator[Settlements]:
        database = Database(settings)
        await database.start()
        links = links_of(chain, url, key, replace(QUICK, **policy))
        settlements = Settlements(database, settings, links)
        await settlements.start()
        try:
            yield settlements
        finally:
            await settlements.stop()
            await database.stop()

    return worker


def links_of(chain: Chain, url: str, key: str, policy: RelayPolicy) -> dict[str, Link]:
    """Return the chain as a gateway has it, with a policy of ours."""
    environ = {
        f"TOLLWAY_CHAIN_{chain.chain_id}_RPC": url or chain.url,
        "TOLLWAY_CHAIN_SIGNER_KEY": key or chain.signer_key,
    }
    links = open_chains(load_networks(environ), environ)
    return {name: replace(link, policy=policy) for name, link in links.items()}


@pytest_asyncio.fixture
async def shop(world: World) -> Shop:
    """A publisher with an earnings account."""
    return await world.publisher(10_000)


Ordering = Callable[..., Order]


@pytest.fixture
def order(chain: Chain, shop: Shop) -> Ordering:
    """Turns a signed authorization into an order that books to the shop's earnings, with a fee of a tenth."""

    def make(signed: Authorization, **changes: Any) -> Order:
        fields: dict[str, Any] = {
            "id": uuid7(), "network": chain.network, "asset": chain.usdc, "payer": signed.payer, "payee": signed.payee,
            "nonce": signed.nonce, "method": "eip3009", "authorized": signed.value, "valid_after": signed.valid_after,
            "valid_before": signed.valid_before, "signature": signed.signature,
            "booking": Booking(kind="earnings", account_id=shop.account_id, fee=signed.value // 10),
        }  # fmt: skip
        return Order(**{**fields, **changes})

    return make


@pytest_asyncio.fixture(autouse=True)
async def agreement(connection: Connection, chain: Chain) -> AsyncIterator[None]:
    """After every test the books balance, and hold exactly what this test's payments moved to the treasury."""
    before = await chain.usdc_of(chain.treasury)
    booked = await clearing(connection)
    yield
    report = await proof.verify(connection)
    assert report.sound, report.violations
    moved = await chain.usdc_of(chain.treasury) - before
    assert await clearing(connection) - booked == moved, "ledger and chain disagree"


async def clearing(connection: Connection) -> int:
    """What the ledger says has come in through the chain, and not gone out again."""
    return int(
        await connection.fetchval(
            "SELECT coalesce(sum(s.debits - s.credits), 0) FROM ledger.shard s JOIN ledger.account a ON a.id = s.account_id"
            " WHERE a.purpose = 'clearing' AND a.rail LIKE 'eip155:%'"
        )
    )


async def ended(settlements: Settlements, payment: UUID, seconds: float = 60.0) -> str:
    """Wait for a payment's end and return its state with the reason."""
    status = await settlements.wait(payment, seconds)
    return status.state if status.reason is None else f"{status.state}: {status.reason}"


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait until an async condition holds."""
    import asyncio

    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.05)
