"""Every way that x402 moves a token: EIP-3009 by key and by contract wallet, Permit2 exact and up to, and wallets that
do not exist yet. Each on chain, booked, replayed and refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.eip55 import keccak_256
from gateway.payments.evm.checks import Inspector, inspect
from gateway.payments.evm.encoding import call_data, parse_address, selector
from gateway.payments.evm.node import Node
from gateway.payments.evm.rpc import NoAnswer, Rpc
from gateway.payments.evm.settlements import Settlements
from tests.payments.evm.conftest import Ordering, Worker, ended, until
from tests.support.chain import Chain
from tests.support.world import Shop, World

# A contract that says yes to every question (ERC-1271's magic value), and code that deploys it.
YES = bytes.fromhex("7f1626ba7e" + "00" * 28 + "60005260206000f3")
DEPLOYER = parse_address("0x4e59b44847b379578588920cA78FbF26c0B4956C")  # anvil has it, as most chains do
INIT = bytes([0x60, len(YES), 0x80, 0x60, 0x0B, 0x60, 0x00, 0x39, 0x60, 0x00, 0xF3]) + YES


async def settled(settlements: Settlements, one, amount: int | None = None, fee: int | None = None) -> str:
    assert (await settlements.reserve(one)).verdict == "reserved"
    await settlements.submit(one.id, amount=amount, fee=fee)
    return await ended(settlements, one.id)


async def test_permit2_exact(settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop) -> None:
    payer = await chain.wallet(1_000_000)
    await chain.allow_permit2(payer)
    signed = chain.permit(payer, chain.treasury, 10_000)
    async with settling() as settlements:
        one = order(signed, method="permit2_exact")
        assert await settled(settlements, one) == "confirmed"
        assert (await settlements.reserve(order(signed, method="permit2_exact"))).verdict == "known"
        # The same nonce for another amount is another signature, and the same payment: Permit2 takes a nonce once.
        again = chain.permit(payer, chain.treasury, 20_000, nonce=signed.nonce)
        assert (await settlements.reserve(order(again, method="permit2_exact"))).verdict == "known"
    assert await chain.usdc_of(payer.address) == 990_000
    assert await world.earned(shop) == 9_000


async def test_permit2_up_to_settles_the_actual_amount(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer = await chain.wallet(1_000_000)
    await chain.allow_permit2(payer)
    async with settling() as settlements:
        one = order(chain.permit(payer, chain.treasury, 10_000, method="permit2_upto"), method="permit2_upto")
        assert await settled(settlements, one, amount=3_700, fee=370) == "confirmed"
    assert await chain.usdc_of(payer.address) == 996_300
    assert await world.earned(shop) == 3_330


async def test_permit2_for_another_facilitator_is_worth_nothing(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    payer = await chain.wallet(1_000_000)
    await chain.allow_permit2(payer)
    signed = chain.permit(payer, chain.treasury, 10_000, method="permit2_upto", facilitator=payer.address)
    async with settling() as settlements:
        assert (await settled(settlements, order(signed, method="permit2_upto"))).startswith("failed: ")
    assert await chain.usdc_of(payer.address) == 1_000_000


async def test_permit2_without_its_allowance_fails_with_the_reason(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    payer = await chain.wallet(1_000_000)
    async with settling() as settlements:
        one = order(chain.permit(payer, chain.treasury, 10_000), method="permit2_exact")
        assert await settled(settlements, one) in ("failed: permit2_allowance_required", "failed: insufficient_funds")


async def test_permit2_executed_by_somebody_else_is_found(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer, other = await chain.wallet(1_000_000), await chain.wallet()
    await chain.allow_permit2(payer)
    signed = chain.permit(payer, chain.treasury, 10_000)
    async with settling() as settlements:
        one = order(signed, method="permit2_exact")
        await settlements.reserve(one)
        name = selector("settle(((address,uint256),uint256,uint256),address,(address,uint256),bytes)")
        data = call_data(
            name, chain.usdc, signed.value, signed.nonce, signed.valid_before, signed.payer, signed.payee, 0,
            data=signed.signature,
        )  # fmt: skip
        theirs = await chain.transact(other, settlements.chains[chain.network].contracts.exact_proxy, data)
        # A plain transfer of the same amount between the same two is not this payment.
        await chain.transact(payer, chain.usdc, call_data(selector("transfer(address,uint256)"), signed.payee, 10_000))
        await settlements.submit(one.id)
        status = await settlements.wait(one.id, 60)
    assert status.state == "confirmed"
    assert status.transaction is not None
    assert status.transaction.hex() == theirs[2:]
    assert await world.earned(shop) == 9_000
    await give_back(chain, 10_000)


async def give_back(chain: Chain, units: int) -> None:
    """Take money out of the treasury that no payment brought, for the fixture that compares chain and ledger."""
    data = call_data(selector("transfer(address,uint256)"), b"\x11" * 20, units)
    sent = {"from": "0x" + chain.treasury.hex(), "to": "0x" + chain.usdc.hex(), "data": "0x" + data.hex()}
    await chain.rpc("eth_sendTransaction", sent)


async def test_a_contract_wallet_pays(settling: Worker, order: Ordering, chain: Chain) -> None:
    wallet = keccak_256(b"a wallet with code")[:20]
    await chain.rpc("anvil_setCode", "0x" + wallet.hex(), "0x" + YES.hex())
    await chain.give(wallet, 50_000)
    signed = replace(chain.authorize(await chain.wallet(), chain.treasury, 10_000), payer=wallet, signature=b"any" * 40)
    async with settling() as settlements:
        assert await settled(settlements, order(signed)) == "confirmed"
    assert await chain.usdc_of(wallet) == 40_000


async def test_a_wallet_that_does_not_exist_yet_is_made_and_pays(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    salt = keccak_256(b"salt")
    wallet = keccak_256(b"\xff" + DEPLOYER + salt + keccak_256(INIT))[12:]
    await chain.give(wallet, 50_000)
    signed = replace(chain.authorize(await chain.wallet(), chain.treasury, 10_000), payer=wallet, signature=b"any" * 40)
    async with settling() as settlements:
        assert (await settled(settlements, order(signed))).startswith("failed: "), "without its code nobody can say yes"
        again = replace(signed, nonce=keccak_256(b"another"))
        one = order(again, deploy_target=DEPLOYER, deploy_data=salt + INIT)
        assert await settled(settlements, one) == "confirmed"
    assert await chain.usdc_of(wallet) == 40_000


async def test_a_wallet_that_burns_gas_is_refused(settling: Worker, order: Ordering, chain: Chain) -> None:
    wallet = keccak_256(b"a wallet that loops")[:20]
    await chain.rpc("anvil_setCode", "0x" + wallet.hex(), "0x5b600056")  # JUMPDEST, jump to it
    await chain.give(wallet, 50_000)
    signed = replace(chain.authorize(await chain.wallet(), chain.treasury, 10_000), payer=wallet, signature=b"any" * 40)
    before = await chain.node.next_nonce(chain.treasury)
    async with settling() as settlements:
        assert (await settled(settlements, order(signed))).startswith("failed: ")
    assert await chain.node.next_nonce(chain.treasury) == before


async def test_inspection_says_what_an_authorization_is_worth(settling: Worker, order: Ordering, chain: Chain) -> None:
    payer, poor = await chain.wallet(50_000), await chain.wallet(1)
    async with settling() as settlements:
        link = settlements.chains[chain.network]
        good = order(chain.authorize(payer, chain.treasury, 10_000))
        found = await inspect(link, good)
        assert (found.balance, found.refusal) == (50_000, None)
        assert found.block <= await chain.head()
        refusals = {
            "insufficient_funds": order(chain.authorize(poor, chain.treasury, 10_000)),
            "invalid_exact_evm_payload_signature": order(chain.authorize(payer, chain.treasury, 1), authorized=2),
            "invalid_exact_evm_payload_authorization_valid_before": order(
                chain.authorize(payer, chain.treasury, 1, valid_before=1)
            ),
            "transaction_failed": order(chain.authorize(payer, chain.treasury, 1), asset=b"\x01" * 20),
        }
        for reason, one in refusals.items():
            assert (await inspect(link, one)).refusal == reason
        assert await settled(settlements, good) == "confirmed"
        assert (await inspect(link, good)).refusal == "invalid_exact_evm_nonce_already_used"
        assert (await inspect(link, good)).balance == 40_000
        away = replace(link, node=Node(Rpc("http://127.0.0.1:1")))
        with pytest.raises(NoAnswer):
            await inspect(away, good)
        await away.node.rpc.aclose()


async def test_payments_inspected_together_are_each_worth_what_they_are_alone(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    payer, poor, wallet = await chain.wallet(50_000), await chain.wallet(1), parse_address("0x" + "6a" * 20)
    await chain.rpc("anvil_setCode", "0x" + wallet.hex(), "0x" + YES.hex())
    await chain.give(wallet, 10_000)
    signed = chain.authorize(payer, chain.treasury, 1_000)
    many = [
        *(order(chain.authorize(payer, chain.treasury, 10_000)) for _ in range(3)),
        *(order(chain.authorize(payer, chain.treasury, 30_000)) for _ in range(2)),  # either, but not both
        order(chain.authorize(poor, chain.treasury, 10_000)),
        order(signed, authorized=1_001),
        order(chain.authorize(payer, chain.treasury, 1, valid_before=1)),
        order(chain.authorize(payer, chain.treasury, 1), asset=b"\x01" * 20),
        order(replace(chain.authorize(payer, chain.treasury, 5_000), payer=wallet)),  # a contract that says yes
    ]
    await chain.allow_permit2(payer)
    many.append(order(chain.permit(payer, chain.treasury, 10_000), method="permit2_exact"))
    async with settling() as settlements:
        link = settlements.chains[chain.network]
        spent = order(chain.authorize(payer, chain.treasury, 1))
        assert await settled(settlements, spent) == "confirmed"
        inspector = Inspector(link)
        together = await asyncio.gather(*(inspector.inspect(one) for one in (*many, spent)))
        alone = [await inspect(link, one) for one in (*many, spent)]
    assert [(one.balance, one.refusal) for one in together] == [(one.balance, one.refusal) for one in alone]
    assert [one.refusal for one in together].count(None) == 7


async def test_one_that_burns_the_gas_of_a_bundle_holds_up_the_others_once(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    """A wallet whose contract says yes while it is tried, and burns all gas in a block of its choice."""
    wallet, payer = parse_address("0x" + "6b" * 20), await chain.wallet(1_000_000)
    await chain.rpc("anvil_setCode", "0x" + wallet.hex(), "0x" + YES.hex())
    await chain.give(wallet, 10_000)
    burner = order(replace(chain.authorize(payer, chain.treasury, 5_000), payer=wallet))
    orders = [order(chain.authorize(payer, chain.treasury, 100)) for _ in range(4)]
    async with settling() as settlements:
        async with chain.held_blocks():
            for one in (orders[0], burner, *orders[1:]):
                await settlements.reserve(one)
            await asyncio.gather(*(settlements.submit(one.id) for one in (orders[0], burner, *orders[1:])))

            async def sent() -> bool:
                states = [await settlements.status(one.id) for one in (*orders, burner)]
                return all(state is not None and state.state == "broadcast" for state in states)

            await until(sent)
            await chain.rpc("anvil_setCode", "0x" + wallet.hex(), "0x5b600056")  # loops for ever
        assert [await ended(settlements, one.id) for one in orders] == ["confirmed"] * 4
        assert (await ended(settlements, burner.id)).startswith("failed: ")


async def test_bundles_cost_less_gas_than_single_transactions(settling: Worker, order: Ordering, chain: Chain) -> None:
    payer = await chain.wallet(1_000_000)

    async def gas_of(batch: int) -> int:
        async with settling(batch=batch) as settlements, chain.held_blocks():
            orders = [order(chain.authorize(payer, chain.treasury, 100)) for _ in range(10)]
            for one in orders:
                await settlements.reserve(one)
            for one in orders:
                await settlements.submit(one.id)
            before = await chain.head()

            async def done() -> bool:
                await chain.mine()
                states = [await settlements.status(one.id) for one in orders]
                return all(state is not None and state.state == "confirmed" for state in states)

            await until(done)
            blocks = range(before + 1, await chain.head() + 1)
            heads = [await chain.rpc("eth_getBlockByNumber", hex(number), False) for number in blocks]
            return sum(int(head["gasUsed"], 16) for head in heads)

    alone, together = await gas_of(1), await gas_of(50)
    assert together < alone * 0.9
