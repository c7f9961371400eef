"""Killed between every two steps of payouts and repayments: each was sent once, as the token's own logs say."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from gateway.faults import POINTS
from tests.payments.evm.conftest import Worker, until
from tests.payments.evm.test_payouts import Till, till
from tests.payments.evm.test_repayments import Owing, owing
from tests.support.chain import Chain
from tests.support.dev import ROOT, environment

pytestmark = pytest.mark.slow
__all__ = ["owing", "till"]  # the fixtures

# The steps of sending, which they share with payments, and their own ends.
STEPS = [
    *("chain.planned", "chain.stored", "chain.sent", "chain.mined", "chain.booked"),
    *sorted(point for point in POINTS if point.startswith(("payout.", "repayment."))),
]
COUNT = 3


@pytest.mark.parametrize("point", STEPS)
@pytest.mark.parametrize("mined", ["while dead", "after the restart"])
async def test_killed_at(
    point: str, mined: str, owing: Owing, till: Till, settling: Worker, chain: Chain, database_url: str
) -> None:
    (debt,) = await owing()
    payouts = [await till.ask(3_000) for _ in range(COUNT)]
    if mined == "after the restart" and point in ("chain.stored", "chain.sent"):
        async with chain.held_blocks():
            await dies_at(point, chain, database_url)
    else:
        await dies_at(point, chain, database_url)
    assert not await ended(till) or point == "payout.completed"
    assert await debt.state() != "confirmed" or point.startswith(("payout.", "repayment.completed"))
    async with settling():
        for payout in payouts:
            await till.is_in(payout, "completed", mining=True)
        await debt.is_in("confirmed", mining=True)
        await until(lambda: nothing_open(till))
    assert [await till.times_paid(payout) for payout in payouts] == [1] * COUNT
    assert await debt.times_returned() == 1
    assert await till.world.earned(till.shop) == 0


async def dies_at(point: str, chain: Chain, database_url: str) -> None:
    """Run a relayer in a process of its own until it dies at the point."""
    keys = {f"TOLLWAY_CHAIN_{chain.chain_id}_RPC": chain.url, "TOLLWAY_CHAIN_SIGNER_KEY": chain.signer_key}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.payout_process",
        cwd=ROOT, env=environment(TOLLWAY_FAULT=f"{point}:kill"), stdin=-1, stdout=-1, stderr=-1,
    )  # fmt: skip
    task = asyncio.create_task(
        process.communicate(json.dumps({"database_url": database_url, "environment": keys}).encode())
    )
    async with asyncio.timeout(90):
        while not task.done():
            if not chain.held:
                await chain.mine()
            await asyncio.wait({task}, timeout=0.3)
    out, error = task.result()
    assert process.returncode == -9, f"it was to be killed: {out.decode()}{error.decode()}"


async def ended(till: Till) -> int:
    return await till.connection.fetchval(
        "SELECT count(*) FROM chain.payout WHERE publisher_id = $1 AND state = 'completed'", till.shop.id
    )


async def nothing_open(till: Till) -> bool:
    await till.chain.mine()
    return not await till.connection.fetchval("SELECT count(*) FROM chain.sending WHERE status IN ('open', 'mined')")
