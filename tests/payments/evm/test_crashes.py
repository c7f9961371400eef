"""Killed between every two steps of settlement: afterwards chain and ledger agree, and no payment is made twice."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.database.pool import Connection, Database
from gateway.faults import POINTS
from gateway.ids import uuid7
from gateway.jobs.reconcile import Reconciler
from gateway.payments.evm.settlements import Order
from gateway.settings import DatabaseSettings
from tests.payments.evm.conftest import Ordering, Worker, ended, until
from tests.support.chain import Chain
from tests.support.dev import ROOT, environment
from tests.support.relay_process import write_order
from tests.support.world import Shop, World

pytestmark = pytest.mark.slow

STEPS = sorted(point for point in POINTS if point.startswith("chain."))
COUNT = 3


async def doomed(orders: list[Order], chain: Chain, database_url: str, fault: str) -> str:
    """Run a worker process on the orders and return what it printed; it dies at the fault."""
    keys = {f"TOLLWAY_CHAIN_{chain.chain_id}_RPC": chain.url, "TOLLWAY_CHAIN_SIGNER_KEY": chain.signer_key}
    task = {"database_url": database_url, "environment": keys, "orders": [write_order(one) for one in orders]}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.relay_process",
        cwd=ROOT, env=environment(TOLLWAY_FAULT=fault), stdin=-1, stdout=-1, stderr=-1,
    )  # fmt: skip
    out, error = await asyncio.wait_for(process.communicate(json.dumps(task).encode()), 120)
    assert process.returncode == -9, f"it was to be killed: {out.decode()}{error.decode()}"
    return out.decode()


async def reconcile(database_url: str) -> None:
    """What the gateway's reconciler does once the dead worker has been missed for long enough."""
    database = Database(DatabaseSettings(url=database_url))
    await database.start()
    await Reconciler(database, timedelta(days=7), timedelta(0), lambda: True).run()
    await database.stop()


@pytest.mark.parametrize("point", STEPS)
@pytest.mark.parametrize("mined", ["while dead", "after the restart"])
async def test_killed_at(
    point: str, mined: str, settling: Worker, order: Ordering, chain: Chain, world: World, shop: Shop,
    database_url: str, connection: Connection,
) -> None:  # fmt: skip
    payers = [await chain.wallet(10_000) for _ in range(COUNT)]
    orders = [order(chain.authorize(payer, chain.treasury, 10_000)) for payer in payers]
    # A block is needed to die in it; else what was sent waits for the survivor.
    held = mined == "after the restart" and point in ("chain.stored", "chain.sent")
    if held:
        async with chain.held_blocks():
            printed = await doomed(orders, chain, database_url, f"{point}:kill")
    else:
        printed = await doomed(orders, chain, database_url, f"{point}:kill")
    assert "confirmed" not in printed
    handed = "SELECT id FROM chain.payment WHERE id = ANY ($1) AND submitted_at IS NOT NULL"
    submitted = {row["id"] for row in await connection.fetch(handed, [one.id for one in orders])}
    assert bool(submitted) == (point != "chain.reserved")
    await reconcile(database_url)
    async with settling() as settlements:
        await until(lambda: nothing_open(connection))
        for one in orders:  # the caller asks again with the same authorization
            claim = await settlements.reserve(replace(one, id=uuid7()))
            assert claim.verdict == ("known" if one.id in submitted else "reserved")
            if claim.status is not None:
                assert (claim.status.id, claim.status.state) == (one.id, "confirmed")
    for payer, one in zip(payers, orders, strict=True):
        assert await chain.usdc_of(payer.address) == (0 if one.id in submitted else 10_000)
    assert await world.earned(shop) == len(submitted) * 9_000


async def nothing_open(connection: Connection) -> bool:
    return not await connection.fetchval(
        "SELECT count(*) FROM chain.payment WHERE state IN ('reserved', 'pending', 'broadcast', 'unknown')"
        " AND worker_id IS NOT NULL"
    )


@pytest.mark.parametrize("end", ["dies", "is deposed"])
async def test_a_leader_that_hangs_before_broadcasting_is_followed_by_one_that_sends_what_it_stored(
    end: str, settling: Worker, order: Ordering, chain: Chain, database_url: str, connection: Connection
) -> None:
    """While it is alive and its lease lasts nobody signs over it; afterwards nothing is sent twice."""
    payer = await chain.wallet(10_000)
    one = order(chain.authorize(payer, chain.treasury, 10_000))
    keys = {f"TOLLWAY_CHAIN_{chain.chain_id}_RPC": chain.url, "TOLLWAY_CHAIN_SIGNER_KEY": chain.signer_key}
    task = {"database_url": database_url, "environment": keys, "orders": [write_order(one)]}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.relay_process",
        cwd=ROOT, env=environment(TOLLWAY_FAULT="chain.stored:hang"), stdin=-1, stdout=-1, stderr=-1,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(task).encode())
    process.stdin.close()

    async def stored() -> bool:
        return await connection.fetchval("SELECT state = 'broadcast' FROM chain.payment WHERE id = $1", one.id) is True

    await until(stored)
    lease = {"lease_seconds": 3.0, "beat_seconds": 0.5} if end == "is deposed" else {}
    async with settling(**lease) as settlements:
        await asyncio.sleep(1)
        assert not settlements.relayers[0].state.leading
        if end == "dies":
            process.kill()
        assert await ended(settlements, one.id) == "confirmed"
    if end == "is deposed":
        assert process.returncode is None
        process.kill()
    await process.wait()
    attempts = await connection.fetchval(
        "SELECT count(*) FROM chain.attempt a JOIN chain.payment p USING (sending_id) WHERE p.id = $1", one.id
    )
    assert attempts == 1
