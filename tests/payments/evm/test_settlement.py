"""A payment from its authorization to booked money, on a real chain; and every way it ends without."""

from __future__ import annotations

import asyncio

import pytest

from gateway.database.pool import Connection
from gateway.payments.evm.settlements import Booking, Funds
from tests.payments.evm.conftest import Ordering, Worker, ended, until
from tests.support.chain import Chain
from tests.support.world import Shop, World


async def test_a_payment_is_moved_and_booked_once(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer = await chain.wallet(1_000_000)
    before = await chain.usdc_of(chain.treasury)
    async with settling() as settlements:
        one = order(chain.authorize(payer, chain.treasury, 10_000))
        assert (await settlements.reserve(one)).verdict == "reserved"
        assert await settlements.submit(one.id) == "pending"
        status = await settlements.wait(one.id, 60)
    assert (status.state, status.reason, status.amount) == ("confirmed", None, 10_000)
    assert status.transaction is not None
    assert await chain.usdc_of(chain.treasury) - before == 10_000
    assert await chain.usdc_of(payer.address) == 990_000
    assert await world.earned(shop) == 9_000


async def test_what_was_not_submitted_is_never_sent_and_can_be_presented_again(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer = await chain.wallet(1_000_000)
    signed = chain.authorize(payer, chain.treasury, 10_000)
    async with settling() as settlements:
        first, second = order(signed), order(signed)
        await settlements.reserve(first)
        assert await settlements.cancel(first.id, "upstream_5xx") == "cancelled"
        assert await settlements.submit(first.id) == "cancelled"
        assert (await settlements.reserve(second)).verdict == "reserved"
        await settlements.submit(second.id)
        assert await ended(settlements, second.id) == "confirmed"
        assert await settlements.cancel(second.id, "late") == "confirmed"
    assert await world.earned(shop) == 9_000


async def test_fifty_presentations_at_once_are_one_claim_and_one_transfer(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    payer = await chain.wallet(1_000_000)
    signed = chain.authorize(payer, chain.treasury, 10_000)
    orders = [order(signed) for _ in range(50)]
    async with settling() as settlements:
        claims = await asyncio.gather(*(settlements.reserve(one) for one in orders))
        won = [one for one, claim in zip(orders, claims, strict=True) if claim.verdict == "reserved"]
        assert len(won) == 1
        known = {claim.status.id for claim in claims if claim.status is not None}
        assert known == {won[0].id}
        await asyncio.gather(*(settlements.submit(won[0].id) for _ in range(20)))
        assert await ended(settlements, won[0].id) == "confirmed"
        again = await settlements.reserve(order(signed))
        assert (again.verdict, again.status and again.status.state) == ("known", "confirmed")
        found = await settlements.find(chain.network, "eip3009", chain.usdc, payer.address, signed.nonce)
        assert found == again.status
    assert await chain.usdc_of(payer.address) == 990_000


async def test_ten_authorizations_of_a_wallet_that_can_pay_one_are_one_claim(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    payer = await chain.wallet(10_000)
    funds = Funds(10_000, await chain.head())
    orders = [order(chain.authorize(payer, chain.treasury, 10_000)) for _ in range(10)]
    async with settling() as settlements:
        claims = await asyncio.gather(*(settlements.reserve(one, funds=funds) for one in orders))
        assert sorted(claim.verdict for claim in claims) == ["reserved"] + 9 * ["short"]
        won = orders[[claim.verdict for claim in claims].index("reserved")]
        await settlements.submit(won.id)
        assert await ended(settlements, won.id) == "confirmed"
        # The balance was read before the money moved: what has been confirmed since counts as gone.
        late = await settlements.reserve(order(chain.authorize(payer, chain.treasury, 1)), funds=funds)
        assert (late.verdict, late.available) == ("short", 0)


async def test_deferred_payments_stop_at_the_exposure_cap(settling: Worker, order: Ordering, chain: Chain) -> None:
    payer = await chain.wallet(1_000_000)
    async with settling() as settlements:
        orders = [order(chain.authorize(payer, chain.treasury, 4_000), deferred=True) for _ in range(3)]
        claims = [await settlements.reserve(one, exposure=10_000) for one in orders]
        assert [claim.verdict for claim in claims] == ["reserved", "reserved", "exposed"]
        assert claims[2].available == 2_000
        for one in orders[:2]:
            await settlements.submit(one.id)
        assert [await ended(settlements, one.id) for one in orders[:2]] == ["confirmed"] * 2
        assert (await settlements.reserve(orders[2], exposure=10_000)).verdict == "reserved"
        await settlements.cancel(orders[2].id, "test")


async def test_deferred_payments_share_a_transaction_and_a_bad_one_fails_alone(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    payer, poor = await chain.wallet(1_000_000), await chain.wallet(0)
    orders = [order(chain.authorize(payer, chain.treasury, 1_000), deferred=True) for _ in range(8)]
    bad = order(chain.authorize(poor, chain.treasury, 1_000), deferred=True)
    async with settling() as settlements:
        for one in (*orders[:4], bad, *orders[4:]):
            await settlements.reserve(one)
        await asyncio.gather(*(settlements.submit(one.id) for one in (*orders, bad)))
        assert await ended(settlements, bad.id) == "failed: insufficient_funds"
        statuses = [await settlements.wait(one.id, 60) for one in orders]
    assert {status.state for status in statuses} == {"confirmed"}
    assert len({status.transaction for status in statuses}) < len(statuses), "some were bundled"


async def test_a_payment_that_its_payer_cannot_pay_fails_and_costs_no_gas(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    poor = await chain.wallet(9_999)
    sent = await chain.node.next_nonce(chain.treasury)
    async with settling() as settlements:
        one = order(chain.authorize(poor, chain.treasury, 10_000))
        await settlements.reserve(one)
        await settlements.submit(one.id)
        assert await ended(settlements, one.id) == "failed: insufficient_funds"
    assert await chain.node.next_nonce(chain.treasury) == sent


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"valid_before": 1}, "invalid_exact_evm_payload_authorization_valid_before"),
        ({"valid_after": 2**33, "valid_before": 2**34}, "invalid_exact_evm_payload_authorization_valid_after"),
        ({"chain_id": 1}, "invalid_exact_evm_payload_signature"),
    ],
)
async def test_what_the_token_refuses_fails_with_the_protocols_reason(
    changes: dict[str, int], reason: str, settling: Worker, order: Ordering, chain: Chain
) -> None:
    payer = await chain.wallet(1_000_000)
    async with settling() as settlements:
        one = order(chain.authorize(payer, chain.treasury, 10_000, **changes))
        await settlements.reserve(one)
        await settlements.submit(one.id)
        assert await ended(settlements, one.id) == f"failed: {reason}"
    assert await chain.usdc_of(payer.address) == 1_000_000


async def test_poisoned_payments_fail_alone(settling: Worker, order: Ordering, chain: Chain) -> None:
    payer = await chain.wallet(1_000_000)
    signed = [chain.authorize(payer, chain.treasury, 1_000) for _ in range(6)]
    good = order(signed[0])
    poisoned = [
        order(signed[1], asset=b"\xff" * 20),  # no contract there
        order(signed[2], asset=chain.treasury),
        order(signed[3], signature=b"\xff" * 65),
        order(signed[4], signature=b"\x00" * 8_000),
        order(signed[5], payee=b"\x00" * 20, method="permit2_exact"),
    ]
    async with settling() as settlements:
        for one in (*poisoned, good):
            await settlements.reserve(one)
            await settlements.submit(one.id)
        assert await ended(settlements, good.id) == "confirmed"
        for one in poisoned:
            assert (await ended(settlements, one.id)).startswith("failed: ")


async def test_a_payment_to_the_publishers_own_address_is_earned_and_received(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop, connection: Connection
) -> None:
    payer, theirs = await chain.wallet(1_000_000), (await chain.wallet()).address
    async with settling() as settlements:
        one = order(
            chain.authorize(payer, theirs, 10_000), booking=Booking(kind="direct", account_id=shop.account_id)
        )  # fmt: skip
        await settlements.reserve(one)
        await settlements.submit(one.id)
        assert await ended(settlements, one.id) == "confirmed"
    assert await chain.usdc_of(theirs) == 10_000
    assert await world.earned(shop) == 0
    kinds = await connection.fetch(
        "SELECT kind::text FROM ledger.transfer t WHERE cause_id = $1 ORDER BY t.kind", one.id
    )
    assert [row["kind"] for row in kinds] == ["payment", "direct"]


async def test_a_deposit_fills_a_wallet_for_one_publisher(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer, agent = await chain.wallet(1_000_000), await world.agent()
    async with settling() as settlements:
        booking = Booking(kind="deposit", wallet_id=agent.wallet_id, publisher_id=shop.id)
        one = order(chain.authorize(payer, chain.treasury, 250_000), booking=booking)
        await settlements.reserve(one)
        await settlements.submit(one.id)
        assert await ended(settlements, one.id) == "confirmed"
    assert await world.balance(agent) == 250_000


async def test_a_settled_payment_goes_back_when_its_call_failed(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer = await chain.wallet(1_000_000)
    async with settling() as settlements:
        one = order(chain.authorize(payer, chain.treasury, 10_000))
        await settlements.reserve(one)
        assert await settlements.repay(one.id, "upstream_5xx") == "reserved"
        await settlements.submit(one.id)
        assert await ended(settlements, one.id) == "confirmed"
        assert await settlements.repay(one.id, "upstream_5xx") == "owed"
        assert await settlements.repay(one.id, "upstream_5xx") == "repeated"
        assert await world.earned(shop) == 0, "at once it is no longer the publisher's"
        await chain.mine(4)

        async def returned() -> bool:
            return await chain.usdc_of(payer.address) == 1_000_000

        await until(returned)
        state = "SELECT state::text FROM chain.repayment WHERE payment_id = $1"

        async def booked() -> bool:
            await chain.mine()
            return await world.connection.fetchval(state, one.id) == "confirmed"

        await until(booked)


async def test_twenty_payers_at_once_are_settled_within_two_blocks(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    payers = [await chain.wallet(20_000) for _ in range(20)]
    async with settling() as settlements, chain.blocks_every(2):
        orders = [order(chain.authorize(payer, chain.treasury, 10_000)) for payer in payers]
        await asyncio.gather(*(settlements.reserve(one) for one in orders))
        first = await chain.head()
        await asyncio.gather(*(settlements.submit(one.id) for one in orders))
        statuses = await asyncio.gather(*(settlements.wait(one.id, 60) for one in orders))
        last = await chain.head()
    assert {status.state for status in statuses} == {"confirmed"}
    assert last - first <= 2


async def test_waiting_ends_with_the_time_and_says_what_is_known(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    payer = await chain.wallet(1_000_000)
    async with settling() as settlements, chain.held_blocks():
        one = order(chain.authorize(payer, chain.treasury, 10_000))
        await settlements.reserve(one)
        await settlements.submit(one.id)
        status = await asyncio.wait_for(settlements.wait(one.id, 1.0), 60)
        assert (status.state, status.ended) == ("broadcast", False)
        await chain.mine()
        assert await ended(settlements, one.id) == "confirmed"
        with pytest.raises(LookupError):
            await settlements.wait(order(chain.authorize(payer, chain.treasury, 1)).id, 0.1)
