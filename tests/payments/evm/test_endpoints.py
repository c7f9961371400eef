"""Several nodes of one network: the first that answers and serves the right chain is asked, transactions go out once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from gateway.payments.evm.endpoints import Endpoints
from gateway.payments.evm.rpc import NoAnswer, NodeRefused, Request
from tests.payments.evm.conftest import Ordering, Worker, ended
from tests.support.chain import Chain
from tests.support.flaky_node import FlakyNode, flaky_node
from tests.support.world import Shop, World


@contextlib.asynccontextmanager
async def two(chain: Chain) -> AsyncIterator[tuple[FlakyNode, FlakyNode, Endpoints]]:
    """A network with two nodes."""
    async with flaky_node(chain.url) as first, flaky_node(chain.url) as second:
        endpoints = Endpoints(chain.network, [first.url, second.url], timeout=0.5)
        yield first, second, endpoints
        await endpoints.aclose()


async def test_the_first_is_asked_while_it_answers(chain: Chain) -> None:
    async with two(chain) as (first, second, endpoints):
        await endpoints.call("eth_blockNumber")
        await endpoints.batch([Request("eth_gasPrice")] * 2)
        assert first.seen == ["eth_chainId", "eth_blockNumber", "eth_gasPrice", "eth_gasPrice"]
        assert second.seen == []


@pytest.mark.parametrize("mode", ["down", "slow", "500", "html", "overloaded", "deep"])
async def test_what_the_first_does_not_answer_the_second_does(mode: str, chain: Chain) -> None:
    async with two(chain) as (first, second, endpoints):
        await endpoints.call("eth_blockNumber")
        first.mode = mode
        assert await endpoints.call("eth_gasPrice")
        assert all(isinstance(one, str) for one in await endpoints.batch([Request("eth_gasPrice")] * 2))
        asked = len(first.seen)
        assert await endpoints.call("eth_gasPrice")
        assert len(first.seen) == asked, "the first is left alone for a moment"
        second.mode = "down"
        first.mode = "ok"
        assert await endpoints.call("eth_gasPrice"), "who rests is better than nobody"
        first.mode = "down"
        with pytest.raises(NoAnswer):
            await endpoints.call("eth_gasPrice")
        assert all(isinstance(one, NoAnswer) for one in await endpoints.batch([Request("eth_gasPrice")] * 2))


async def test_a_node_of_another_chain_is_asked_nothing(chain: Chain) -> None:
    async with two(chain) as (first, second, endpoints):
        first.chain_id = "0x1"
        await endpoints.call("eth_blockNumber")
        assert (first.seen, second.seen) == (["eth_chainId"], ["eth_chainId", "eth_blockNumber"])
        second.chain_id, second.mode = "0x2", "down"
        with pytest.raises(NoAnswer):
            await endpoints.call("eth_blockNumber")
        second.mode = "ok"
        with pytest.raises(NoAnswer, match="serves chain"):
            await endpoints.call("eth_blockNumber")
        assert set(first.seen) == {"eth_chainId"}


async def test_a_refusal_is_an_answer(chain: Chain) -> None:
    async with two(chain) as (_, second, endpoints):
        with pytest.raises(NodeRefused):
            await endpoints.call("eth_sendRawTransaction", "0x12")
        with pytest.raises(NodeRefused):
            await endpoints.call("nope")
        assert second.seen == []


async def test_a_transaction_is_handed_to_one_node(chain: Chain) -> None:
    async with two(chain) as (first, second, endpoints):
        await endpoints.call("eth_blockNumber")
        first.mode = "lose"  # it takes the transaction and hangs up
        with pytest.raises(NoAnswer):
            await endpoints.call("eth_sendRawTransaction", "0x12")
        answers = await endpoints.batch([Request("eth_sendRawTransaction", ("0x12",))])
        assert isinstance(answers[0], NodeRefused), "the next try goes to the other"
        assert (first.seen.count("eth_sendRawTransaction"), second.seen.count("eth_sendRawTransaction")) == (1, 1)


async def test_a_payment_is_settled_once_through_an_outage_of_one_node(
    settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop
) -> None:
    payer = await chain.wallet(20_000)
    async with (
        flaky_node(chain.url) as first,
        flaky_node(chain.url) as second,
        settling(url=f"{first.url} {second.url}") as settlements,
    ):
        for mode in ("lose", "down"):
            first.mode = mode
            one = order(chain.authorize(payer, chain.treasury, 10_000))
            await settlements.reserve(one)
            await settlements.submit(one.id)
            assert await ended(settlements, one.id) == "confirmed"
    assert await chain.usdc_of(payer.address) == 0
    assert await world.earned(shop) == 18_000
