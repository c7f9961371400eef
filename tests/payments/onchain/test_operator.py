"""What an operator sees and decides: calls that a dead gateway left, and what wallets had on trust and never paid."""

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
from tests.support.world import SEPOLIA_USDC, Shop, World

TOKEN = "an-operator-token-of-length"
PATIENT = {"MONEY_DEAD_AFTER": "600", "SECRETS_OPERATOR_TOKEN": TOKEN}


@pytest_asyncio.fixture(scope="module")
async def gateway(services: Services, database_url: str, chain: Chain) -> AsyncIterator[RunningGateway]:
    """A gateway that takes nobody for dead."""
    running = await start_gateway(services, database_url, **chained(chain, **PATIENT))
    yield running
    await running.stop()


async def test_an_operator_forgives_what_a_wallet_had_on_trust_and_never_paid(
    gateway: RunningGateway, buying: Buying, world: World, upstream: RecordingUpstream, chain: Chain,
    connection: Connection,
) -> None:  # fmt: skip
    shop = await world.publisher(
        PRICE, SEPOLIA_USDC, gateway_fee_percent="10", x402_settlement="deferred", x402_exposure="0.01"
    )
    upstream.forget()
    buyer, path = await buying(PRICE), f"/publishers/{shop.slug}/x"
    required = await buyer.asked(path)
    async with chain.held_blocks():
        header = buyer.payment(required, buyer.sign(required["accepts"][0], seconds=90))
        assert (await buyer.client.get(path, headers=header)).status_code == 200
        await chain.give_away(buyer.wallet, PRICE)

    async def owed() -> bool:
        listed = await gateway.client.get("/operator/debts", headers={"Authorization": f"Bearer {TOKEN}"})
        return [row["payer"] for row in listed.json()["data"]] == [f"{chain.network}:{buyer.address.lower()}"]

    await until(owed)
    await chain.give(buyer.wallet.address, 2 * PRICE)
    payment = await connection.fetchval("SELECT id FROM chain.payment WHERE payer = $1", buyer.wallet.address)
    command = [sys.executable, "-m", "gateway.cli.main", "exchanges"]
    options = {"cwd": ROOT, "env": gateway.environment, "capture_output": True, "text": True}
    assert str(payment) in subprocess.run([*command, "debts"], **options).stdout
    done = subprocess.run([*command, "resolve", str(payment), "forgive", "--note", "paid in cash"], **options)
    assert done.stdout.strip() == "forgiven", done.stderr
    again = await gateway.client.post(
        f"/operator/exchanges/{payment}/resolve", headers={"Authorization": f"Bearer {TOKEN}"},
        json={"decision": "forgive"},
    )  # fmt: skip
    assert again.status_code == 404, "once"
    line = await connection.fetchrow(
        "SELECT decision, verdict, note FROM ledger.resolution WHERE exchange_id = $1", payment
    )
    assert tuple(line) == ("forgive", "forgiven", "paid in cash")
    async with chain.held_blocks():  # trusted again: the answer is there before any block
        assert (await buyer.buy(path)).status_code == 200
    assert await world.earned(shop) in (0, 9_000)


@pytest.mark.parametrize("decision", ["refund", "keep"])
async def test_an_operator_sees_and_ends_a_call_that_a_dead_gateway_left(
    decision: str, services: Services, database_url: str, chain: Chain, buying: Buying, shop: Shop,
    upstream: RecordingUpstream, connection: Connection, world: World,
) -> None:  # fmt: skip
    settings = chained(chain, **PATIENT)
    others = await connection.fetchval("SELECT coalesce(max(id), 0) FROM ledger.worker")
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
        await connection.execute(
            "UPDATE ledger.worker SET stopped_at = now() WHERE stopped_at IS NULL AND id > $1", others
        )
    finally:
        await healed.stop()


async def test_a_call_that_was_paid_on_the_chain_is_found_with_what_it_cost(
    gateway: RunningGateway, buying: Buying, shop: Shop, chain: Chain
) -> None:
    buyer = await buying()
    answer = await buyer.buy(f"/publishers/{shop.slug}/x")
    assert answer.status_code == 200
    path, token = f"/operator/calls/{answer.headers['x-request-id']}", {"Authorization": f"Bearer {TOKEN}"}

    async def found() -> bool:
        call = (await gateway.client.get(path, headers=token)).json().get("data", {})
        return call.get("end") is not None and call["charged_atomic"] != "0"

    await until(found)
    call = (await gateway.client.get(path, headers=token)).json()["data"]
    assert (call["state"], call["charged_atomic"], call["refunded_atomic"]) == ("settled", str(PRICE), "0")
    payment = call["payment"]
    assert (payment["network"], payment["payer"]) == (chain.network, buyer.address.lower())
    assert (payment["amount_atomic"], payment["state"]) == (str(PRICE), "confirmed")
    refused = await gateway.client.post(f"{path}/refund", headers=token, json={"reason": "the answer was empty"})
    assert (refused.status_code, "paid on a chain" in refused.json()["detail"]) == (409, True)
