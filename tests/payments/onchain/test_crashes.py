"""Killed at every step of a call that is paid on a chain: afterwards money and delivery agree, by the same payment.

The caller presents its payment again until it is told the end. Then it has its answer and has paid once; or it has its
money, and a new payment buys the call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.database.pool import Connection
from gateway.faults import POINTS
from tests.payments.onchain.buyer import PRICE, Buyer, settled
from tests.payments.onchain.conftest import chained
from tests.support.chain import Chain
from tests.support.gateway import start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import SEPOLIA_USDC, World

pytestmark = pytest.mark.slow

RELAYER = ["chain.planned", "chain.stored", "chain.sent", "chain.mined", "chain.booked"]
STEPS = {
    "settle_first": ["submit.after", "chain.submitted", "chain.sent", "chain.booked", "settlement.after", "forward.after", "store.before",
                     "store.after", "deliver.after"],
    "before_response": ["claim.after", "examine.after", "reserve.after", "look.after", "chain.reserved", "forward.after", "store.before", "store.after", *RELAYER,
                        "settlement.after", "deliver.after", "settle.after"],
    "deferred": ["chain.reserved", "forward.after", "store.before", "store.after", "chain.sent", "head.after",
                 "deliver.after"],
}  # fmt: skip
CASES = [(policy, point) for policy, points in STEPS.items() for point in points]


@pytest.fixture
def gateway() -> None:
    """None that would be there before the crash."""


def test_every_point_of_a_payment_is_in_the_suite() -> None:
    tried = {point for points in STEPS.values() for point in points}
    assert {point for point in POINTS if point.startswith("chain.")} <= tried


async def told(buyer: Buyer, path: str, header: dict[str, str]) -> httpx.Response:
    """Present a payment until the answer is an end."""
    for _ in range(120):
        answer = await buyer.client.get(path, headers=header)
        if answer.status_code not in (409, 503):
            return answer
        assert int(answer.headers["retry-after"]) >= 1
        assert "payment-required" not in answer.headers, "nobody is asked to pay again while it is open"
        await asyncio.sleep(0.25)
    raise AssertionError(answer.text)


@contextlib.asynccontextmanager
async def mining(chain: Chain) -> AsyncIterator[None]:
    """Make a block now and then: what goes back waits until the payment is final."""

    async def forever() -> None:
        while True:
            await asyncio.sleep(0.4)
            await chain.mine()

    miner = asyncio.create_task(forever())
    yield
    miner.cancel()
    await asyncio.gather(miner, return_exceptions=True)


@pytest.mark.parametrize(("policy", "point"), CASES)
async def test_killed_at(
    policy: str, point: str, services: Services, database_url: str, chain: Chain, world: World,
    upstream: RecordingUpstream, connection: Connection,
) -> None:  # fmt: skip
    shop = await world.publisher(PRICE, SEPOLIA_USDC, gateway_fee_percent="10", x402_settlement=policy)
    path = f"/publishers/{shop.slug}/" + ("chunks?n=3&pause=30" if point == "head.after" else "x")
    upstream.forget()
    doomed = await start_gateway(services, database_url, **chained(chain, FAULT=f"{point}:kill"))
    buyer = Buyer(doomed.url, chain, await chain.wallet(10 * PRICE))
    header = buyer.payment(await buyer.asked(path))
    had = None
    with contextlib.suppress(httpx.TransportError):
        had = await buyer.client.get(path, headers=header)
    await asyncio.to_thread(doomed.process.wait, 20)
    await buyer.client.aclose()
    await doomed.kill()
    healed = await start_gateway(services, database_url, **chained(chain))
    buyer = Buyer(healed.url, chain, buyer.wallet)
    try:
        async with mining(chain):
            answer = await told(buyer, path, header)
            await settled(connection, 30)
            rows = await connection.fetch(
                "SELECT p.state::text, r.payment_id IS NOT NULL AS repaid FROM chain.payment p"
                " LEFT JOIN chain.repayment r ON r.payment_id = p.id WHERE p.payer = $1", buyer.wallet.address,
            )  # fmt: skip
        paid = sum(row["state"] == "confirmed" and not row["repaid"] for row in rows)
        assert answer.status_code in (200, 402), answer.text
        assert paid == (1 if answer.status_code == 200 else 0)
        assert await buyer.balance() == (10 - paid) * PRICE
        assert await world.earned(shop) == 9_000 * paid
        assert upstream.calls <= 2
        if had is not None and had.status_code == 200:
            assert (answer.status_code, answer.content) == (200, had.content), "who had the answer has it again"
            assert upstream.calls == 1
        if answer.status_code == 402:
            assert policy == "settle_first", "only what was settled before the call can have been returned"
            again = await buyer.buy(path)
            assert again.status_code == 200
            await settled(connection)
            assert (await buyer.balance(), await world.earned(shop)) == (9 * PRICE, 9_000)
        once_more = await buyer.client.get(path, headers=header)
        assert once_more.status_code == answer.status_code
        assert await buyer.balance() == 9 * PRICE
    finally:
        await buyer.client.aclose()
        await healed.stop()
