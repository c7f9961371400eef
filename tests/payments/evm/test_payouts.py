"""Payouts on the real chain: paid once, whatever happens on the way, and the books say the same as the token's logs."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import pytest
import pytest_asyncio

from gateway.catalog.assets import asset_id
from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.jobs.bookkeeping import HEALTH
from gateway.payments.evm.encoding import word
from gateway.payments.evm.instructions import TRANSFERRED
from gateway.payments.evm.keystore import Signer
from gateway.payments.evm.node import LogQuery
from gateway.payments.evm.payouts import COUNTS
from gateway.payments.evm.relayer import Relayer
from gateway.payments.evm.transfers import LOOKS
from tests.payments.evm.conftest import Ordering, Worker, ended, until
from tests.support.chain import Chain, executed
from tests.support.dev import tollway
from tests.support.world import Shop, World

EARNED = 9_000


@dataclass
class Till:
    """A shop that has earned EARNED by a payment on the chain, and asks for payouts of it."""

    shop: Shop
    world: World
    chain: Chain
    connection: Connection
    since: int

    async def ask(self, amount: int = EARNED, destination: bytes = b"", *, approval: bool = False) -> UUID:
        payout = uuid7()
        to = destination or (await self.chain.wallet()).address
        organization = await self.connection.fetchval(
            "SELECT organization_id FROM catalog.publisher WHERE id = $1", self.shop.id
        )
        await self.connection.execute(
            "SELECT chain.request_payout($1, $2, $3, $4, $5, $6, $7, $8, 0, '', NULL, $9, $10)",
            payout, organization, self.shop.id, asset_id(self.chain.network, "USDC"), self.chain.network,
            self.chain.usdc, to, amount, approval, uuid7(),
        )  # fmt: skip
        return payout

    async def state(self, payout: UUID) -> str:
        return await self.connection.fetchval("SELECT state FROM chain.payout WHERE id = $1", payout)

    async def reason(self, payout: UUID) -> str:
        return await self.connection.fetchval("SELECT coalesce(reason, '') FROM chain.payout WHERE id = $1", payout)

    async def destination(self, payout: UUID) -> bytes:
        return await self.connection.fetchval("SELECT destination FROM chain.payout WHERE id = $1", payout)

    async def is_in(self, payout: UUID, *states: str, mining: bool = False) -> None:
        """Wait for a state; `mining` brings the blocks that make what is there final."""

        async def there() -> bool:
            if mining:
                await self.chain.mine()
            return await self.state(payout) in states

        await until(there)

    async def times_paid(self, payout: UUID) -> int:
        """Count the token's own logs of what has gone from the treasury to a payout's address."""
        topics = (TRANSFERRED, word(self.chain.treasury), word(await self.destination(payout)))
        query = LogQuery(self.chain.usdc, topics, self.since, await self.chain.head())
        return len(await self.chain.node.logs(query))


@pytest_asyncio.fixture
async def till(
    settling: Worker, order: Ordering, chain: Chain, shop: Shop, world: World, connection: Connection
) -> Till:
    await chain.at_once()
    payer = await chain.wallet(10_000)
    one = order(chain.authorize(payer, chain.treasury, 10_000))
    async with settling() as settlements:
        await settlements.reserve(one)
        await settlements.submit(one.id)
        assert await ended(settlements, one.id) == "confirmed"
    return Till(shop, world, chain, connection, await chain.head())


async def test_a_payout_is_processing_until_its_block_is_final_and_then_booked(till: Till, settling: Worker) -> None:
    async with settling() as settlements:
        payout = await till.ask()
        assert await till.world.earned(till.shop) == 0
        await till.is_in(payout, "processing")
        await until(lambda: _mined(till, payout))
        await until(partial(seen, settlements.relayers[0], (await till.chain.node.head()).hash))
        assert (await till.state(payout), await till.times_paid(payout)) == ("processing", 1)
        await till.is_in(payout, "completed", mining=True)
    assert await till.times_paid(payout) == 1
    told = await till.connection.fetchrow(
        "SELECT e.action, e.metadata FROM audit.entry e WHERE e.resource_id = $1", payout
    )
    assert told["action"] == "payout.complete"
    assert told["metadata"]["amount_atomic"] == str(EARNED)


async def test_what_the_treasury_cannot_pay_waits_with_its_reason_and_holds_up_nobody(
    till: Till, settling: Worker, connection: Connection
) -> None:
    has = await till.chain.usdc_of(till.chain.treasury)
    thief = await till.chain.wallet()
    await till.chain.treasurer_pays(thief.address, has - 5_000)
    large, small = await till.ask(6_000), await till.ask(3_000)
    async with settling(payout_seconds=0.2):
        await till.is_in(small, "completed", mining=True)
        await until(
            lambda: connection.fetchval(
                "SELECT reason LIKE '%0.004 USDC too little%' FROM chain.payout WHERE id = $1", large
            )
        )
        assert await till.state(large) == "queued"
        assert (await HEALTH.one(connection)).payouts_short == 1
        assert {one.state: one.number for one in await COUNTS.all(connection, till.chain.network)}["short"] == 1
        await till.chain.give(till.chain.treasury, has - 5_000)
        await till.is_in(large, "completed", mining=True)
    assert (await HEALTH.one(connection)).payouts_short == 0
    assert (await till.times_paid(large), await till.times_paid(small)) == (1, 1)


async def test_a_token_that_refuses_the_address_gives_the_money_back(till: Till, settling: Worker) -> None:
    payout = await till.ask(destination=till.chain.usdc)  # USDC takes no transfer to itself
    async with settling(payout_seconds=0.01):
        await till.is_in(payout, "failed")
    assert await till.world.earned(till.shop) == EARNED
    assert "5 times" in await till.reason(payout)


async def test_what_waits_for_an_approval_is_not_sent(till: Till, settling: Worker, connection: Connection) -> None:
    held, free = await till.ask(4_000, approval=True), await till.ask(5_000)
    async with settling():
        await till.is_in(free, "completed", mining=True)
        assert await till.state(held) == "queued"
        await connection.execute("UPDATE chain.payout SET approved_by = $2 WHERE id = $1", held, uuid7())
        await till.is_in(held, "completed", mining=True)


async def test_cancelling_and_sending_cannot_both_happen(till: Till, settling: Worker, connection: Connection) -> None:
    payout = await till.ask()
    async with settling():
        cancelled = await connection.fetchval("SELECT chain.return_payout($1, 'cancelled', '')", payout)
        if not cancelled:
            await till.is_in(payout, "completed", mining=True)
        assert not await connection.fetchval("SELECT chain.return_payout($1, 'cancelled', '')", payout)
    assert await till.times_paid(payout) == (0 if cancelled else 1)
    assert await till.world.earned(till.shop) == (EARNED if cancelled else 0)


async def test_a_fork_that_takes_its_block_away_pays_it_once_all_the_same(till: Till, settling: Worker) -> None:
    async with settling():
        payout = await till.ask()
        await until(lambda: _mined(till, payout))
        await till.chain.reorg(1)
        assert await till.times_paid(payout) == 0
        await until(lambda: _mined(till, payout, again=True))
        await till.is_in(payout, "completed", mining=True)
    assert await till.times_paid(payout) == 1


async def _mined(till: Till, payout: UUID, *, again: bool = False) -> bool:
    if again:
        await till.chain.mine()
    return await till.times_paid(payout) == 1


@pytest.mark.slow
async def test_one_that_is_stuck_or_forgotten_is_sent_again_with_the_same_nonce(till: Till, settling: Worker) -> None:
    async with till.chain.held_blocks(), settling(stuck_seconds=0.3, check_seconds=0.2):
        payout = await till.ask()
        attempts = "SELECT array_agg(a.hash) FROM chain.attempt a JOIN chain.payout p USING (sending_id) WHERE p.id = $1 AND NOT void"
        await until(lambda: till.connection.fetchval(f"SELECT cardinality(({attempts})) >= 3", payout))
        for digest in await till.connection.fetchval(attempts, payout):
            if await till.chain.knows(digest):
                await till.chain.forget(digest)
        await till.is_in(payout, "completed", mining=True)
    assert await till.times_paid(payout) == 1


@pytest.mark.slow
async def test_a_nonce_that_was_stolen_is_believed_only_when_no_fork_can_give_it_back(
    till: Till, settling: Worker, connection: Connection
) -> None:
    """Else the first transaction could be mined after all, beside the one that replaced it."""
    async with till.chain.held_blocks(), settling(finality=40) as settlements:
        (relayer,) = settlements.relayers
        payout = await till.ask()
        await till.is_in(payout, "processing")
        first = await connection.fetchval("SELECT sending_id FROM chain.payout WHERE id = $1", payout)
        await till.chain.rpc("anvil_dropAllTransactions")
        await till.chain.steal_nonce()

        async def lost() -> bool:
            await till.chain.mine()
            return await connection.fetchval("SELECT status FROM chain.sending WHERE id = $1", first) == "lost"

        await until(lost)
        for _ in range(2 * LOOKS):
            await till.chain.mine()
            await until(partial(seen, relayer, (await till.chain.node.head()).hash))
        assert await connection.fetchval("SELECT sending_id FROM chain.payout WHERE id = $1", payout) == first
        await till.is_in(payout, "completed", mining=True)
        assert await connection.fetchval("SELECT sending_id FROM chain.payout WHERE id = $1", payout) != first
    assert await till.times_paid(payout) == 1


async def seen(relayer: Relayer, digest: bytes) -> bool:
    """Whether a relayer has acted on a block."""
    return relayer._seen == digest  # pyright: ignore[reportPrivateUsage]


async def test_a_key_that_was_changed_meanwhile_does_not_pay_it_again(till: Till, settling: Worker) -> None:
    secret = secrets.token_bytes(32)
    successor = Signer(secret).address
    await till.chain.rpc("anvil_setBalance", "0x" + successor.hex(), hex(10**18))
    await till.chain.give(successor, EARNED)
    async with settling(finality=12) as settlements:
        payout = await till.ask()
        await until(lambda: _mined(till, payout))
        await until(partial(seen, settlements.relayers[0], (await till.chain.node.head()).hash))
    async with settling(key="0x" + secret.hex()):
        await till.is_in(payout, "completed", "queued", mining=True)
        assert await till.state(payout) == "completed"
    assert await till.times_paid(payout) == 1
    assert await till.chain.usdc_of(successor) == EARNED


async def test_what_the_chain_reverts_is_sent_again_once_that_is_final(till: Till, settling: Worker) -> None:
    has = await till.chain.usdc_of(till.chain.treasury)
    thief = await till.chain.wallet()
    treasurer = Signer(bytes.fromhex(till.chain.signer_key[2:]))
    async with settling(payout_seconds=0.2):
        async with till.chain.held_blocks():
            payout = await till.ask()
            await till.is_in(payout, "processing")
            # Without a nonce of the key's own, and before what it has sent.
            taken = till.chain.authorize(treasurer, thief.address, has)
            await till.chain.transact(thief, till.chain.usdc, executed(taken), tip=10**11)
            await till.chain.mine()
        await till.is_in(payout, "queued", mining=True)
        assert await till.times_paid(payout) == 0
        await till.chain.give(till.chain.treasury, has)
        await till.is_in(payout, "completed", mining=True)
    assert await till.times_paid(payout) == 1


async def run(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(tollway, "payouts", *arguments, TOLLWAY_DATABASE_URL=database_url)


@pytest.mark.slow
async def test_the_operator_looks_at_them_and_ends_what_waits(
    till: Till, settling: Worker, database_url: str, connection: Connection
) -> None:
    waiting = await till.ask(4_000, approval=True)
    line = (await run(database_url, "list")).stdout
    assert str(waiting) in line
    assert "waits for a second member" in line
    await connection.execute(
        "UPDATE chain.payout SET tries = 4, check_at = now() + interval '1 day' WHERE id = $1", waiting
    )
    assert (await run(database_url, "retry", str(waiting))).returncode == 0
    assert await connection.fetchval("SELECT tries = 0 AND check_at <= now() FROM chain.payout WHERE id = $1", waiting)
    assert (await run(database_url, "cancel", str(waiting))).returncode == 0
    assert await till.world.earned(till.shop) == EARNED
    logged = "SELECT action, actor_type FROM audit.entry WHERE resource_id = $1 ORDER BY seq"
    assert [tuple(row) for row in await connection.fetch(logged, waiting)] == [
        ("payout.retry", "operator"), ("payout.cancel", "operator"),
    ]  # fmt: skip
    for what in ("cancel", "retry"):
        again = await run(database_url, what, str(waiting))
        assert (again.returncode, "cancelled" in again.stderr) == (1, True)
    assert (await run(database_url, "cancel", str(uuid7()))).returncode == 1
