"""What time does to a payment: its validity ends, and a fork that took it away cannot be undone any more.

These tests move the chain's clock, which never goes back, so they have a chain of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal

import pytest
import pytest_asyncio

from gateway.catalog.assets import asset_id
from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.payments.evm.encoding import call_data, selector
from gateway.payments.evm.fees import GWEI
from gateway.payments.evm.keystore import Signer
from gateway.payments.evm.settlements import Booking, Order, Settlements
from tests.payments.evm.conftest import Ordering, Worker, ended, until
from tests.payments.evm.test_events import mined_until, reaches, sent_hash, state_of, submitted
from tests.support.chain import Chain, temporary_chain
from tests.support.world import Shop, World


@pytest.fixture(scope="module")
def own_chain() -> Iterator[Chain]:
    with temporary_chain() as chain:
        yield chain


@pytest_asyncio.fixture(scope="module")
async def chain(own_chain: Chain) -> AsyncIterator[Chain]:
    async with own_chain.resting() as chain:
        yield chain


async def lose_for_good(
    settlements: Settlements, one: Order, payer: Signer, chain: Chain, connection: Connection
) -> None:
    """Fork a confirmed payment away, let its payer spend the money elsewhere, and let its validity end."""
    elsewhere = call_data(selector("transfer(address,uint256)"), (await chain.wallet()).address, one.authorized)
    async with chain.held_blocks():
        await chain.reorg(1)
        await chain.forget(await sent_hash(connection, one))
        # The payer is quicker this time. Its transaction pays more for gas, so it comes first.
        await chain.transact(payer, chain.usdc, elsewhere, tip=50 * GWEI)
        await until(mined_until(settlements, one, chain, "failed"))
        await chain.later(7_200)
        await chain.mine(8)

        async def final() -> bool:
            status = await settlements.status(one.id)
            return status is not None and status.final

        await until(final)
    assert await state_of(settlements, one) == "failed"
    await chain.clock_back()


@pytest.mark.parametrize("owed_back", [False, True])
async def test_a_payment_that_a_fork_takes_away_for_good_is_unbooked(
    owed_back: bool, settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop, connection: Connection
) -> None:
    payer = await chain.wallet(10_000)
    async with settling(finality=6) as settlements:
        one = await submitted(settlements, order(chain.authorize(payer, chain.treasury, 10_000, seconds=3_600)))
        assert await ended(settlements, one.id) == "confirmed"
        if owed_back:  # its call failed; what never came is not sent back
            assert await settlements.repay(one.id, "upstream_5xx") == "owed"
        await lose_for_good(settlements, one, payer, chain, connection)
    assert await world.earned(shop) == 0
    assert await connection.fetchval("SELECT count(*) FROM chain.repayment") == 0


@pytest.mark.parametrize("spent", [0, 4_000])
async def test_a_deposit_that_a_fork_takes_away_for_good_is_taken_back_as_far_as_it_is_there(
    spent: int, settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop, connection: Connection
) -> None:
    payer, agent = await chain.wallet(10_000), await world.agent(asset=asset_id(chain.network, "USDC"))
    booking = Booking(kind="deposit", wallet_id=agent.wallet_id, publisher_id=shop.id)
    account = await connection.fetchval(
        "SELECT ledger.earnings_account($1, $2)", shop.id, asset_id(chain.network, "USDC")
    )
    async with settling(finality=6) as settlements:
        signed = chain.authorize(payer, chain.treasury, 10_000, seconds=3_600)
        one = await submitted(settlements, order(signed, booking=booking))
        assert await ended(settlements, one.id) == "confirmed"
        assert await world.balance(agent) == 10_000
        if spent:
            paid = await connection.fetchrow(
                "SELECT verdict, deposit FROM ledger.post_charge($1, $2, $3, $4, $5, 0, NULL)",
                uuid7(), agent.wallet_id, shop.id, account, Decimal(spent),
            )  # fmt: skip
            assert (paid["verdict"], paid["deposit"]) == ("posted", spent)
        await lose_for_good(settlements, one, payer, chain, connection)
    assert await world.balance(agent) == 0
    suspense = "SELECT coalesce(sum(s.debits), 0) FROM ledger.shard s JOIN ledger.account a ON a.id = s.account_id"
    lost = await connection.fetchval(
        suspense + " WHERE a.purpose = 'suspense' AND a.asset_id = $1", asset_id(chain.network, "USDC")
    )
    assert int(lost) == spent, "what was spent of it is the platform's loss"


async def test_an_expired_payment_fails_for_good_only_when_no_fork_can_revive_it(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    payer = await chain.wallet(1_000_000)
    async with settling(finality=4) as settlements, chain.held_blocks():
        one = await submitted(settlements, order(chain.authorize(payer, chain.treasury, 10_000, seconds=60)))
        await until(reaches(settlements, one, "broadcast"))
        await chain.rpc("anvil_dropAllTransactions")
        await chain.later(120)
        await chain.mine()
        assert await ended(settlements, one.id) == "failed: invalid_exact_evm_payload_authorization_valid_before"
        status = await settlements.status(one.id)
        assert status is not None
        assert not status.final
        await chain.mine(6)

        async def final() -> bool:
            status = await settlements.status(one.id)
            return status is not None and status.final

        await until(final)
    await chain.clock_back()
