"""A node that is silent, slow, wrong or lying costs time, never money: nothing is lost, doubled or wrongly booked."""

from __future__ import annotations

import asyncio

import pytest

from gateway.payments.evm.rpc import NoAnswer, NodeRefused, Request, Rpc, RpcError
from tests.payments.evm.conftest import Ordering, Worker, ended, until
from tests.support.chain import Chain, executed
from tests.support.flaky_node import GARBAGE, flaky_node
from tests.support.world import Shop, World


@pytest.mark.parametrize("mode", ["down", "500", *GARBAGE])
async def test_payments_wait_for_the_node_and_are_made_once(
    mode: str, settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer = await chain.wallet(1_000_000)
    async with flaky_node(chain.url) as node, settling(url=node.url) as settlements:
        node.mode = mode
        one = order(chain.authorize(payer, chain.treasury, 10_000))
        await settlements.reserve(one)
        await settlements.submit(one.id)
        relayer = settlements.relayers[0]

        async def held_up() -> bool:
            return relayer.state.trouble != ""

        await until(held_up)
        status = await settlements.status(one.id)
        assert status is not None
        assert status.state == "pending"
        node.mode = "ok"
        assert await ended(settlements, one.id) == "confirmed"
        assert relayer.state.trouble == ""
    assert await world.earned(shop) == 9_000


async def test_an_answer_lost_after_broadcasting_is_found_in_the_next_block(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payers = [await chain.wallet(10_000) for _ in range(4)]
    async with flaky_node(chain.url) as node, settling(url=node.url) as settlements:
        node.mode = "lose"
        orders = [order(chain.authorize(payer, chain.treasury, 10_000)) for payer in payers]
        for one in orders:
            await settlements.reserve(one)
            await settlements.submit(one.id)
        assert {await ended(settlements, one.id) for one in orders} == {"confirmed"}
    assert await world.earned(shop) == 4 * 9_000


async def test_a_node_silent_after_broadcasting_makes_payments_unknown_until_it_answers(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer = await chain.wallet(10_000)
    async with flaky_node(chain.url) as node, settling(url=node.url, unknown_seconds=0.5) as settlements:
        async with chain.held_blocks():
            one = order(chain.authorize(payer, chain.treasury, 10_000))
            await settlements.reserve(one)
            await settlements.submit(one.id)

            async def state(wanted: str) -> bool:
                status = await settlements.status(one.id)
                return status is not None and status.state == wanted

            await until(lambda: state("broadcast"))
            node.mode = "down"
            await until(lambda: state("unknown"))
            status = await settlements.status(one.id)
            assert status is not None
            assert (status.reason, status.ended) == ("settlement_pending", False)
        assert await chain.usdc_of(payer.address) == 0, "it was mined behind our back"
        node.mode = "ok"
        assert await ended(settlements, one.id) == "confirmed"
    assert await world.earned(shop) == 9_000


async def test_nothing_is_sent_to_another_chain(settling: Worker, order: Ordering, chain: Chain) -> None:
    payer = await chain.wallet(10_000)
    async with flaky_node(chain.url) as node, settling(url=node.url) as settlements:
        node.chain_id = "0x1"
        one = order(chain.authorize(payer, chain.treasury, 10_000))
        await settlements.reserve(one)
        await settlements.submit(one.id)
        relayer = settlements.relayers[0]

        async def noticed() -> bool:
            return "serves chain 1" in relayer.state.trouble

        await until(noticed)
        await asyncio.sleep(0.5)
        assert "eth_sendRawTransaction" not in node.seen
        node.chain_id = None
        assert await ended(settlements, one.id) == "confirmed"


async def test_a_key_without_gas_money_makes_payments_wait(settling: Worker, order: Ordering, chain: Chain) -> None:
    payer, broke = await chain.wallet(10_000), "0x" + "77" * 32
    async with settling(key=broke) as settlements:
        one = order(chain.authorize(payer, chain.treasury, 10_000))
        await settlements.reserve(one)
        await settlements.submit(one.id)
        await asyncio.sleep(0.7)
        status = await settlements.status(one.id)
        assert status is not None
        assert status.state == "pending"
        address = settlements.relayers[0].address
        await chain.rpc("anvil_setBalance", "0x" + address.hex(), hex(10**18))
        assert await ended(settlements, one.id) == "confirmed"


async def test_a_node_that_takes_few_calls_and_few_blocks_at_once_is_asked_in_smaller_parts(
    settling: Worker, order: Ordering, chain: Chain
) -> None:
    payers = [await chain.wallet(10_000) for _ in range(9)]
    other = await chain.wallet()
    await chain.mine(50)
    async with flaky_node(chain.url) as node, settling(url=node.url) as settlements:
        node.largest_batch, node.largest_range = 3, 10
        signed = [chain.authorize(payer, chain.treasury, 10_000) for payer in payers]
        orders = [order(one) for one in signed]
        for one in orders:
            await settlements.reserve(one)
        await chain.transact(other, chain.usdc, executed(signed[0]))  # found by its log alone
        await chain.mine(30)
        for one in orders:
            await settlements.submit(one.id)
        assert {await ended(settlements, one.id) for one in orders} == {"confirmed"}


async def test_a_slow_node_is_given_up_on_and_nothing_else_is(chain: Chain) -> None:
    async with flaky_node(chain.url) as node:
        node.mode = "slow"
        rpc = Rpc(node.url, timeout=0.3)
        with pytest.raises(NoAnswer):
            await rpc.call("eth_chainId")
        assert all(isinstance(one, NoAnswer) for one in await rpc.batch([Request("eth_chainId")] * 3))
        await rpc.aclose()


@pytest.mark.parametrize("mode", GARBAGE)
async def test_garbage_is_no_answer(mode: str, chain: Chain) -> None:
    async with flaky_node(chain.url) as node:
        node.mode = mode
        rpc = Rpc(node.url)
        with pytest.raises(NoAnswer):
            await rpc.call("eth_getBlockByNumber", "latest", False)
        answers = await rpc.batch([Request("eth_chainId")] * 2)
        assert len(answers) == 2
        assert mode == "wrong shapes" or all(isinstance(one, NoAnswer) for one in answers)
        await rpc.aclose()


async def test_a_refusal_is_told_apart_from_silence_and_carries_the_revert(chain: Chain) -> None:
    call = {"to": "0x" + chain.usdc.hex(), "data": "0xa9059cbb" + "00" * 12 + "11" * 20 + "ff" * 32}
    with pytest.raises(NodeRefused) as caught:
        await chain.rpc("eth_call", {**call, "from": "0x" + "22" * 20}, "latest")
    assert b"exceeds balance" in caught.value.data
    answers = await chain.node.rpc.batch([Request("eth_chainId"), Request("nope"), Request("eth_blockNumber")])
    assert [isinstance(one, RpcError) for one in answers] == [False, True, False]
    with pytest.raises(NoAnswer):
        await Rpc("http://127.0.0.1:1/secret-key").call("eth_chainId")


async def test_more_than_a_batch_holds_is_asked_in_parts_and_in_order(chain: Chain) -> None:
    answers = await chain.node.rpc.batch([Request("web3_sha3", (f"0x{number:04x}",)) for number in range(250)])
    assert len(set(answers)) == 250
    assert answers[249] == await chain.rpc("web3_sha3", "0x00f9")


async def test_an_answer_without_end_is_cut_off(chain: Chain) -> None:
    async with flaky_node(chain.url) as node:
        GARBAGE["endless"] = b'"' + b"a" * 17_000_000
        node.mode = "endless"
        try:
            with pytest.raises(NoAnswer):
                await Rpc(node.url).call("eth_chainId")
        finally:
            del GARBAGE["endless"]


async def test_nothing_shows_the_key_in_a_nodes_url() -> None:
    rpc = Rpc("http://127.0.0.1:1/v2/0123456789abcdef")
    assert "0123456789abcdef" not in repr(rpc)
    with pytest.raises(NoAnswer) as caught:
        await rpc.call("eth_chainId")
    assert "0123456789abcdef" not in str(caught.value)
    await rpc.aclose()
