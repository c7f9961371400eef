"""The chain fails under a running gateway: afterwards money and delivery agree, by the same payment, on every side.

Killed gateways are in test_crashes.py, a node of another chain in test_many_assets.py; every fault of a chain under the
relayer alone is in tests/payments/evm.
"""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.database.pool import Connection
from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE, Buyer, settled
from tests.payments.onchain.conftest import Buying, chained
from tests.payments.onchain.test_crashes import told
from tests.support.chain import Chain
from tests.support.flaky_node import flaky_node
from tests.support.gateway import start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import SEPOLIA_USDC, Shop, World


async def sent_hash(buyer: Buyer, connection: Connection) -> bytes:
    """The transaction that carries the wallet's payment, once it is broadcast."""
    query = """
        SELECT a.hash FROM chain.payment p JOIN chain.attempt a ON a.sending_id = p.sending_id
         WHERE p.payer = $1 AND a.sent_at IS NOT NULL
    """
    found: list[bytes] = []

    async def sent() -> bool:
        found[:] = [row["hash"] for row in await connection.fetch(query, buyer.wallet.address)]
        return bool(found)

    await until(sent)
    return found[0]


@pytest.mark.parametrize("policy", ["settle_first", "before_response", "deferred"])
async def test_a_fork_that_takes_a_payment_away_is_followed_and_it_is_made_again(
    policy: str, buying: Buying, world: World, upstream: RecordingUpstream, chain: Chain, connection: Connection
) -> None:
    shop = await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10", x402_settlement=policy)
    upstream.forget()
    buyer, path = await buying(), f"/publishers/{shop.slug}/x"
    header = buyer.payment(await buyer.asked(path))
    first = await buyer.client.get(path, headers=header)
    assert first.status_code == 200, first.text

    async def has(balance: int) -> bool:
        return await buyer.balance() == balance

    await until(lambda: has(9 * PRICE))
    async with chain.held_blocks():
        await chain.reorg(1)
        assert await buyer.balance() == 10 * PRICE
    await chain.mine()
    await until(lambda: has(9 * PRICE))
    await settled(connection)
    again = await buyer.client.get(path, headers=header)
    assert (again.status_code, again.content) == (200, first.content)
    assert (upstream.calls, await world.earned(shop)) == (1, 9_000)


async def test_a_transaction_that_the_mempool_dropped_is_sent_again_while_its_caller_waits(
    buying: Buying, shop: Shop, world: World, upstream: RecordingUpstream, chain: Chain, connection: Connection
) -> None:
    buyer = await buying()
    async with chain.held_blocks():
        call = asyncio.create_task(buyer.buy(f"/publishers/{shop.slug}/x"))
        digest = await sent_hash(buyer, connection)
        await until(lambda: chain.knows(digest))
        await chain.forget(digest)
        await until(lambda: chain.knows(digest))
    assert (await call).status_code == 200
    assert (upstream.calls, await buyer.balance(), await world.earned(shop)) == (1, 9 * PRICE, 9_000)


@pytest.mark.parametrize("fault", ["down", "500", "html", "lose"])
async def test_a_node_that_fails_in_the_middle_leaves_one_call_one_transfer_and_one_answer(
    fault: str, services: Services, database_url: str, chain: Chain, buying: Buying, shop: Shop, world: World,
    upstream: RecordingUpstream, connection: Connection,
) -> None:  # fmt: skip
    async with flaky_node(chain.url) as node:
        url = {f"CHAIN_{chain.chain_id}_RPC": node.url, "X402_WAIT": "1"}
        gateway = await start_gateway(services, database_url, **chained(chain, **url))
        try:
            buyer = await buying(url=gateway.url)
            path = f"/publishers/{shop.slug}/x?ms=300"
            header = buyer.payment(await buyer.asked(path))
            call = asyncio.create_task(buyer.client.get(path, headers=header))

            async def forwarded() -> bool:
                return upstream.calls == 1

            await until(forwarded)
            node.mode = fault  # the money was there when it was asked for; now nobody says whether it moves
            answer = await call
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 503:
                assert answer.json()["type"] == "/problems/settlement-pending"
                assert (await buyer.client.get(path, headers=header)).status_code == 503
            node.mode = "ok"
            answer = await told(buyer, path, header)
            await settled(connection)
            assert answer.status_code == 200
            assert (upstream.calls, await buyer.balance(), await world.earned(shop)) == (1, 9 * PRICE, 9_000)
        finally:
            await gateway.stop()


async def test_while_one_node_hangs_the_other_is_asked(
    services: Services, database_url: str, chain: Chain, shop: Shop, world: World, upstream: RecordingUpstream,
    buying: Buying, connection: Connection,
) -> None:  # fmt: skip
    async with flaky_node(chain.url) as slow:
        nodes = {f"CHAIN_{chain.chain_id}_RPC": f"{slow.url} {chain.url}"}
        gateway = await start_gateway(services, database_url, **chained(chain, **nodes))
        try:
            buyer = await buying(url=gateway.url)
            assert (await buyer.buy(f"/publishers/{shop.slug}/x")).status_code == 200
            slow.mode = "slow"
            async with httpx.AsyncClient(base_url=gateway.url, timeout=40) as client:
                free = asyncio.create_task(client.get("/health/live"))
                assert (await buyer.buy(f"/publishers/{shop.slug}/x")).status_code == 200
                assert (await free).status_code == 200, "nobody else waits for the node"
            await settled(connection)
            assert (upstream.calls, await buyer.balance(), await world.earned(shop)) == (2, 8 * PRICE, 18_000)
        finally:
            await gateway.stop()
