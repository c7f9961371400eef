"""What a chain can do to a payment that is on its way: forks, a forgetful mempool, low fees, other people."""

from __future__ import annotations

import asyncio
import itertools
import secrets

from gateway.database.pool import Connection
from gateway.eip55 import keccak_256
from gateway.payments.evm.encoding import call_data, selector, word
from gateway.payments.evm.fees import GWEI
from gateway.payments.evm.settlements import Booking, Order, Settlements
from tests.payments.evm.conftest import Ordering, Worker, ended, until
from tests.support.chain import CANCEL, Chain, executed
from tests.support.world import Shop, World


async def submitted(settlements: Settlements, one: Order) -> Order:
    assert (await settlements.reserve(one)).verdict == "reserved"
    await settlements.submit(one.id)
    return one


async def state_of(settlements: Settlements, one: Order) -> str:
    status = await settlements.status(one.id)
    assert status is not None
    return status.state


def reaches(settlements: Settlements, one: Order, state: str):
    async def there() -> bool:
        return await state_of(settlements, one) == state

    return there


def mined_until(settlements: Settlements, one: Order, chain: Chain, state: str):
    async def there() -> bool:
        await chain.mine()
        return await state_of(settlements, one) == state

    return there


async def sent_hash(connection: Connection, one: Order) -> bytes:
    """The newest transaction that carries a payment."""
    return await connection.fetchval(
        "SELECT a.hash FROM chain.attempt a JOIN chain.payment p USING (sending_id) WHERE p.id = $1"
        " ORDER BY a.made_at DESC LIMIT 1",
        one.id,
    )


async def test_a_payment_that_a_fork_takes_away_is_sent_again_and_booked_once(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop, connection: Connection
) -> None:
    payer = await chain.wallet(1_000_000)
    async with settling(finality=20) as settlements:
        one = await submitted(settlements, order(chain.authorize(payer, chain.treasury, 10_000)))
        assert await ended(settlements, one.id) == "confirmed"
        before = await connection.fetchval("SELECT block_hash FROM chain.payment WHERE id = $1", one.id)
        await chain.reorg(1)

        async def again() -> bool:
            row = await connection.fetchrow("SELECT block_hash, state::text FROM chain.payment WHERE id = $1", one.id)
            return row["block_hash"] != before and row["state"] == "confirmed"

        await until(again)
    assert await chain.usdc_of(payer.address) == 990_000
    assert await world.earned(shop) == 9_000


async def test_a_transaction_that_the_mempool_dropped_is_sent_again(
    settling: Worker, order: Ordering, chain: Chain, connection: Connection
) -> None:
    payer = await chain.wallet(1_000_000)
    async with settling() as settlements, chain.held_blocks():
        one = await submitted(settlements, order(chain.authorize(payer, chain.treasury, 10_000)))
        await until(reaches(settlements, one, "broadcast"))
        digest = await sent_hash(connection, one)
        await until(lambda: chain.knows(digest))
        await chain.forget(digest)
        assert not await chain.knows(digest)
        await until(lambda: chain.knows(digest))
        await chain.mine()
        assert await ended(settlements, one.id) == "confirmed"


async def test_a_stuck_transaction_is_replaced_by_one_that_pays_more(
    settling: Worker, order: Ordering, chain: Chain, connection: Connection
) -> None:
    payer = await chain.wallet(1_000_000)
    async with settling(stuck_seconds=0.5) as settlements, chain.held_blocks():
        one = await submitted(settlements, order(chain.authorize(payer, chain.treasury, 10_000)))
        count = "SELECT count(*) FROM chain.attempt a JOIN chain.payment p USING (sending_id) WHERE p.id = $1"

        async def raised() -> bool:
            return await connection.fetchval(count, one.id) >= 3

        await until(raised)
        fees = await connection.fetch(
            "SELECT max_fee, tip FROM chain.attempt a JOIN chain.payment p USING (sending_id) WHERE p.id = $1"
            " ORDER BY made_at", one.id,
        )  # fmt: skip
        for lower, higher in itertools.pairwise(fees):
            assert higher["max_fee"] * 10 >= lower["max_fee"] * 11, "nodes ask for a tenth more"
            assert higher["tip"] * 10 >= lower["tip"] * 11
        await chain.mine()
        assert await ended(settlements, one.id) == "confirmed"
    assert await chain.usdc_of(payer.address) == 990_000


async def test_over_the_gas_cap_payments_wait_and_then_go(settling: Worker, order: Ordering, chain: Chain) -> None:
    payer = await chain.wallet(1_000_000)
    async with settling(max_fee=GWEI // 2, min_tip=1) as settlements, chain.held_blocks():
        await chain.rpc("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
        await chain.mine()
        one = await submitted(settlements, order(chain.authorize(payer, chain.treasury, 10_000)))
        await asyncio.sleep(0.5)
        assert await state_of(settlements, one) == "pending"
        await chain.rpc("anvil_setNextBlockBaseFeePerGas", hex(1_000))
        await chain.mine()
        await until(reaches(settlements, one, "broadcast"))
        await chain.mine()
        assert await ended(settlements, one.id) == "confirmed"


async def test_money_that_somebody_else_moved_to_the_payee_is_a_payment(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer, other = await chain.wallet(1_000_000), await chain.wallet()
    signed = chain.authorize(payer, chain.treasury, 10_000)
    async with settling() as settlements:
        one = order(signed)
        await settlements.reserve(one)
        theirs = await chain.transact(other, chain.usdc, executed(signed))
        await settlements.submit(one.id)
        status = await settlements.wait(one.id, 60)
    assert status.state == "confirmed"
    assert status.transaction is not None
    assert status.transaction.hex() == theirs[2:]
    assert await world.earned(shop) == 9_000


async def test_a_front_run_makes_our_transaction_fail_and_the_payment_succeed(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer, other = await chain.wallet(1_000_000), await chain.wallet()
    signed = chain.authorize(payer, chain.treasury, 10_000)
    async with settling() as settlements, chain.held_blocks():
        one = await submitted(settlements, order(signed))
        await until(reaches(settlements, one, "broadcast"))
        theirs = await chain.transact(other, chain.usdc, executed(signed), tip=50 * GWEI)
        await chain.mine()
        status = await settlements.wait(one.id, 60)
    assert status.state == "confirmed"
    assert status.transaction is not None
    assert status.transaction.hex() == theirs[2:]
    assert await world.earned(shop) == 9_000


async def test_a_payer_who_signs_a_nonce_twice_and_spends_it_elsewhere_has_not_paid(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer, nonce = await chain.wallet(1_000_000), secrets.token_bytes(32)
    to_us, to_self = (chain.authorize(payer, payee, 10_000, nonce=nonce) for payee in (chain.treasury, payer.address))
    async with settling() as settlements, chain.held_blocks():
        one = await submitted(settlements, order(to_us))
        await until(reaches(settlements, one, "broadcast"))
        await chain.transact(payer, chain.usdc, executed(to_self), tip=50 * GWEI)
        await chain.mine()
        assert await ended(settlements, one.id) == "failed: invalid_exact_evm_nonce_already_used"
        await chain.mine(5)

        async def final() -> bool:
            status = await settlements.status(one.id)
            return status is not None and status.final

        await until(final)
    assert await world.earned(shop) == 0


async def test_a_payer_who_cancels_the_authorization_has_not_paid(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    payer = await chain.wallet(1_000_000)
    signed = chain.authorize(payer, chain.treasury, 10_000)
    signature = chain.sign(payer, keccak_256(CANCEL + word(payer.address) + signed.nonce))
    name = selector("cancelAuthorization(address,bytes32,bytes)")
    async with settling() as settlements, chain.held_blocks():
        one = await submitted(settlements, order(signed))
        await until(reaches(settlements, one, "broadcast"))
        cancel = call_data(name, payer.address, signed.nonce, data=signature)
        await chain.transact(payer, chain.usdc, cancel, tip=50 * GWEI)
        await chain.mine()
        assert await ended(settlements, one.id) == "failed: invalid_exact_evm_nonce_already_used"
    assert await chain.usdc_of(payer.address) == 1_000_000


async def test_a_wallet_emptied_meanwhile_fails_and_a_later_execution_is_still_noticed(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer, other = await chain.wallet(10_000), await chain.wallet()
    signed = chain.authorize(payer, chain.treasury, 10_000)
    async with settling() as settlements:
        async with chain.held_blocks():
            one = await submitted(settlements, order(signed))
            await until(reaches(settlements, one, "broadcast"))
            away = call_data(selector("transfer(address,uint256)"), other.address, 10_000)
            await chain.transact(payer, chain.usdc, away, tip=50 * GWEI)
            await chain.mine()
            assert await ended(settlements, one.id) == "failed: insufficient_funds"
        assert await world.earned(shop) == 0
        # The authorization is public now. Whoever executes it pays us, and we notice.
        await chain.give(payer.address, 10_000)
        await chain.transact(other, chain.usdc, executed(signed))
        await until(reaches(settlements, one, "confirmed"))
    assert await world.earned(shop) == 9_000


async def test_a_nonce_spent_by_somebody_else_with_our_key_costs_a_round_and_no_payment(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer = await chain.wallet(1_000_000)
    async with settling() as settlements, chain.held_blocks():
        one = await submitted(settlements, order(chain.authorize(payer, chain.treasury, 10_000)))
        await until(reaches(settlements, one, "broadcast"))
        await chain.rpc("anvil_dropAllTransactions")
        await chain.steal_nonce()
        await chain.mine()
        for _ in range(4):
            await chain.mine()
            await asyncio.sleep(0.2)
        await until(mined_until(settlements, one, chain, "confirmed"))
    assert await chain.usdc_of(payer.address) == 990_000
    assert await world.earned(shop) == 9_000


async def test_two_workers_have_one_relayer_and_the_other_takes_over(
    settling: Worker, order: Ordering, chain: Chain, connection: Connection
) -> None:
    payer = await chain.wallet(1_000_000)
    async with settling() as first, settling() as second:
        workers = (first, second)

        async def one_leads() -> bool:
            return sum(worker.relayers[0].state.leading for worker in workers) == 1

        await until(one_leads)
        orders = [order(chain.authorize(payer, chain.treasury, 1_000)) for _ in range(20)]
        for number, one in enumerate(orders):
            await submitted(workers[number % 2], one)
        # Whichever worker waits hears of it, whoever relays.
        ends = await asyncio.gather(*(ended(workers[number % 2], one.id) for number, one in enumerate(orders)))
        assert set(ends) == {"confirmed"}
        leader = next(worker for worker in workers if worker.relayers[0].state.leading)
        other = second if leader is first else first
        await connection.execute(
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()"
        )
        await until(one_leads)
        late = await submitted(other, order(chain.authorize(payer, chain.treasury, 1_000)))
        assert await ended(leader, late.id) == "confirmed"
    assert await chain.usdc_of(payer.address) == 1_000_000 - 21_000
    nonces = await connection.fetch("SELECT nonce FROM chain.sending WHERE status <> 'lost'")
    assert len({row["nonce"] for row in nonces}) == len(nonces)


async def test_a_gap_in_the_nonces_is_filled(
    settling: Worker, order: Ordering, chain: Chain, connection: Connection
) -> None:
    payer = await chain.wallet(1_000_000)
    async with settling() as settlements, chain.held_blocks():
        one = await submitted(settlements, order(chain.authorize(payer, chain.treasury, 10_000)))
        await until(reaches(settlements, one, "broadcast"))
        await chain.rpc("anvil_dropAllTransactions")
        # As after a chain went back by more than was remembered: the chain waits for an earlier nonce.
        await chain.rpc(
            "anvil_setNonce", "0x" + chain.treasury.hex(), hex(await chain.node.next_nonce(chain.treasury) - 1)
        )
        await until(mined_until(settlements, one, chain, "confirmed"))
    assert await chain.usdc_of(payer.address) == 990_000


async def test_a_booking_that_the_ledger_refuses_holds_up_nothing_and_is_made_when_it_can_be(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop, connection: Connection
) -> None:
    payers = [await chain.wallet(10_000) for _ in range(2)]
    suspense = await connection.fetchval(
        "SELECT ledger.platform_account(asset_id, 'suspense') FROM ledger.account WHERE id = $1", shop.account_id
    )
    async with settling() as settlements:
        # A fee where there is no account for fees: cannot be booked.
        odd = Booking(kind="earnings", account_id=suspense, fee=1)
        bad = order(chain.authorize(payers[0], chain.treasury, 10_000), booking=odd)
        good = order(chain.authorize(payers[1], chain.treasury, 10_000))
        await submitted(settlements, bad)
        await submitted(settlements, good)
        assert await ended(settlements, good.id) == "confirmed"
        await asyncio.sleep(0.6)
        assert await state_of(settlements, bad) == "broadcast"
        await connection.execute("UPDATE chain.payment SET account_id = $2 WHERE id = $1", bad.id, shop.account_id)
        assert await ended(settlements, bad.id) == "confirmed"
    assert await world.earned(shop) == 9_000 + 9_999
