"""Calls that a dead gateway left, before anybody has reconciled them: an operator sees them, and ends them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from tests.payments.evm.conftest import until
from tests.payments.onchain.buyer import PRICE
from tests.payments.onchain.conftest import Buying, chained
from tests.support.chain import Chain
from tests.support.gateway import ROOT, RunningGateway, start_gateway
from tests.support.services import Services
from tests.support.upstream import RecordingUpstream
from tests.support.world import Shop, World

TOKEN = "an-operator-token-of-length"
PATIENT = {"MONEY_DEAD_AFTER": "600", "SECRETS_OPERATOR_TOKEN": TOKEN}


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str, chain: Chain) -> AsyncIterator[RunningGateway]:
    """A gateway that takes nobody for dead."""
    running = await start_gateway(services, database_url, **chained(chain, **PATIENT))
    yield running
    await running.stop()


@pytest.mark.parametrize("decision", ["refund", "keep"])
async def test_an_operator_sees_and_ends_a_call_that_a_dead_gateway_left(
    decision: str, services: Services, database_url: str, chain: Chain, buying: Buying, shop: Shop,
    upstream: RecordingUpstream, connection: Connection, world: World,
) -> None:  # fmt: skip
    settings = chained(chain, **PATIENT)
    doomed = await start_gateway(services, database_url, **settings)
    buyer = await buying(url=doomed.url)
    call = asyncio.create_task(buyer.buy(f"/publishers/{shop.slug}/hang"))

    async def forwarded() -> bool:
        return upstream.calls == 1

    await until(forwarded)
    await doomed.kill()
    await asyncio.gather(call, return_exceptions=True)
    payment = await connection.fetchval("SELECT id FROM chain.payment WHERE payer = $1", buyer.wallet.address)
    healed = await start_gateway(services, database_url, **settings)
    try:
        listed = await healed.client.get("/operator/exchanges", headers={"Authorization": f"Bearer {TOKEN}"})
        (one,) = [row for row in listed.json()["data"] if row["exchange_id"] == str(payment)]
        assert (one["kind"], one["payer"], one["publisher"]) == (
            "payment", f"{chain.network}:{buyer.address.lower()}", shop.slug
        )  # fmt: skip
        command = [sys.executable, "-m", "gateway.cli.main", "exchanges"]
        told = subprocess.run([*command, "list"], cwd=ROOT, env=healed.environment, capture_output=True, text=True)
        assert str(payment) in told.stdout
        done = subprocess.run(
            [*command, "resolve", str(payment), decision],
            cwd=ROOT,
            env=healed.environment,
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == ("cancelled" if decision == "refund" else "settled"), done.stderr
        expected = 10 * PRICE if decision == "refund" else 9 * PRICE

        async def ended() -> bool:
            earned = 0 if decision == "refund" else 9_000
            return (await buyer.balance(), await world.earned(shop)) == (expected, earned)

        await until(ended)
        await connection.execute("DELETE FROM ledger.answer WHERE status IS NULL")  # its worker counts as alive here
        await connection.execute("UPDATE ledger.worker SET stopped_at = now() WHERE stopped_at IS NULL")
    finally:
        await healed.stop()
