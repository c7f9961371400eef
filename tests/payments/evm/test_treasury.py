"""The treasury by the books and by the chain: the same at every step of a payment and a payout, and not after a theft."""

from __future__ import annotations

from functools import partial

import pytest

from gateway.database.pool import Connection, Database
from gateway.payments.evm.treasury import Standing, look
from gateway.settings import DatabaseSettings
from gateway.telemetry.metrics import Metrics
from tests.payments.evm.conftest import QUICK, Ordering, Worker, ended, links_of, until
from tests.payments.evm.test_payouts import EARNED, Till, seen, till
from tests.support.alerts import firing
from tests.support.chain import Chain

__all__ = ["till"]  # the fixture


async def stands(database_url: str, chain: Chain) -> Standing:
    database = Database(DatabaseSettings(url=database_url))
    await database.start()
    link = links_of(chain, "", "", QUICK)[chain.network]
    try:
        (found,) = await look(database, link)
    finally:
        await database.stop()
        await link.node.rpc.aclose()
    return found


async def test_books_and_chain_differ_by_what_an_operator_did_and_by_nothing_else(
    till: Till, settling: Worker, order: Ordering, database_url: str, connection: Connection
) -> None:
    chain = till.chain
    now = partial(stands, database_url, chain)
    await chain.mine(4)
    before = await now()
    async with settling() as settlements:
        one = order(chain.authorize(await chain.wallet(500), chain.treasury, 500))
        await settlements.reserve(one)
        await settlements.submit(one.id)
        assert await ended(settlements, one.id) == "confirmed"
        assert surplus(await now()) == surplus(before)  # booked, and not final
        payout = await till.ask(EARNED - 1_000)
        await till.is_in(payout, "processing")
        while await till.state(payout) == "processing":
            head = (await chain.node.head()).hash

            async def acted(head: bytes = head) -> bool:
                return await till.state(payout) == "completed" or await seen(settlements.relayers[0], head)

            await until(acted)
            assert surplus(await now()) == surplus(before)
            await chain.mine()
        assert await till.state(payout) == "completed"
    await chain.mine(4)
    after = await now()
    assert (surplus(after), after.books) == (surplus(before), before.books + 500 - (EARNED - 1_000))
    await chain.treasurer_pays((await chain.wallet()).address, surplus(after) + 300)
    await chain.mine(4)
    stolen = await now()
    assert (stolen.missing, surplus(stolen)) == (300, -300)
    await chain.give(chain.treasury, surplus(after) + 300)


async def test_what_is_queued_and_not_there_is_short_by_so_much(
    till: Till, database_url: str, connection: Connection
) -> None:
    payout = await till.ask(EARNED, approval=True)
    has = await till.chain.usdc_of(till.chain.treasury)
    queued = (await stands(database_url, till.chain)).queued
    await till.chain.treasurer_pays((await till.chain.wallet()).address, has - 1_000)
    found = await stands(database_url, till.chain)
    assert (found.key, found.queued, found.short) == (1_000, queued, queued - 1_000)
    assert queued >= EARNED
    await till.chain.give(till.chain.treasury, has - 1_000)
    assert await connection.fetchval("SELECT chain.return_payout($1, 'cancelled', '')", payout)


@pytest.mark.parametrize(("of", "alert"), [("missing", "TollwayTreasuryMissing"), ("short", "TollwayTreasuryLow")])
def test_its_alert_fires(of: str, alert: str) -> None:
    metrics = Metrics()
    metrics.set_treasury("eip155:8453", "USDC", of, 0)
    assert not firing(metrics.render().decode(), alert)
    metrics.set_treasury("eip155:8453", "USDC", of, 1)
    assert firing(metrics.render().decode(), alert)


def surplus(one: Standing) -> int:
    return one.chain - one.books
