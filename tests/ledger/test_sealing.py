"""Who is writing into a month at the moment at which it is sealed: comes before, or is told so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.billing import charges
from gateway.billing.charges import RefundOutcome
from gateway.database.pool import Connection, connect
from gateway.ledger import proof
from gateway.ledger.archive import SEAL
from gateway.settings import DatabaseSettings
from tests.ledger.past import GRACE, Past, archived, floor, id_in
from tests.support.world import USDC

OLD = 5


class Rollback(Exception):
    """The month is not sealed after all."""


async def waits(connection: Connection, process: int) -> None:
    """Return when a process waits for somebody's lock."""
    async with asyncio.timeout(60):
        while not await connection.fetchval("SELECT cardinality(pg_blocking_pids($1))", process):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("penalty", [0, 40])
@pytest.mark.parametrize("sealed", [True, False])
async def test_a_refund_that_waits_for_a_sealing_is_told_what_became_of_it(
    past: Past, tmp_path: Path, sealed: bool, penalty: int
) -> None:
    charge, agent, shop = id_in(OLD), past.agent, past.shop
    await charges.SET_TERMS.run(past.connection, shop.id, USDC, "5000", "100000")
    made = await charges.CHARGE.one(past.connection, charge, shop.id, agent.wallet_id, "100", "7", "x", None)
    assert made.verdict == "charged"
    if penalty:
        assert (
            await charges.SLASH.one(past.connection, id_in(OLD), charge, str(penalty), "x", None)
        ).verdict == "slashed"
    await archived(past, OLD, tmp_path)
    before = await past.money()
    other = await connect(DatabaseSettings(url=past.url))
    refunding: asyncio.Task[RefundOutcome] | None = None
    try:
        try:
            async with past.connection.transaction():
                assert await SEAL.one(past.connection, floor(OLD - 1)) == "sealed"
                refunding = asyncio.create_task(charges.REFUND_CHARGE.one(other, charge, "broken", None, GRACE))
                await waits(past.connection, other.get_server_pid())
                if not sealed:
                    raise Rollback
        except Rollback:
            pass
        assert refunding is not None
        outcome = await refunding
        assert (outcome.verdict, outcome.amount) == (("archived", 0) if sealed else ("refunded", 100 + penalty))
    finally:
        await other.close()
    assert (await past.money() == before) is sealed
    assert (await proof.verify(past.connection)).sound
