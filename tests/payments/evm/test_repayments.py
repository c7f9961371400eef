"""Repayments on the real chain: what goes back to a payer goes back once, whatever a fork makes of it on the way."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import pytest
import pytest_asyncio

from gateway.database.pool import Connection
from gateway.ids import uuid7
from gateway.ledger.payout_rules import PAYOUT_RULES
from gateway.payments.evm.encoding import word
from gateway.payments.evm.instructions import TRANSFERRED
from gateway.payments.evm.keystore import Signer
from gateway.payments.evm.node import Log, LogQuery
from gateway.payments.evm.relayer import Relayer
from gateway.payments.evm.repayments import Repayment
from gateway.payments.evm.settlements import Order
from gateway.payments.evm.transfers import LOOKS
from tests.payments.evm.conftest import Ordering, Worker, ended, until
from tests.payments.evm.test_payouts import seen
from tests.support.chain import Chain, executed
from tests.support.dev import tollway

PAID = 10_000
Owing = Callable[..., Awaitable["list[Debt]"]]


@dataclass
class Debt:
    """A payment that is final and has to go back."""

    payment: Order
    chain: Chain
    connection: Connection
    since: int

    async def state(self) -> str:
        return await self.connection.fetchval(
            "SELECT state::text FROM chain.repayment WHERE payment_id = $1", self.payment.id
        )

    async def sending(self) -> int | None:
        return await self.connection.fetchval(
            "SELECT sending_id FROM chain.repayment WHERE payment_id = $1", self.payment.id
        )

    async def trouble(self) -> str:
        return await self.connection.fetchval(
            "SELECT coalesce(trouble, '') FROM chain.repayment WHERE payment_id = $1", self.payment.id
        )

    async def is_in(self, state: str, *, mining: bool = False) -> None:
        async def there() -> bool:
            if mining:
                await self.chain.mine()
            return await self.state() == state

        await until(there)

    async def times_returned(self) -> int:
        """Count the token's own logs of what has gone from the treasury to the payer."""
        topics = (TRANSFERRED, word(self.chain.treasury), word(self.payment.payer))
        query = LogQuery(self.chain.usdc, topics, self.since, await self.chain.head())
        return len(await self.chain.node.logs(query))

    async def is_returned(self, *, mining: bool = False) -> None:
        async def there() -> bool:
            if mining:
                await self.chain.mine()
            return await self.times_returned() > 0

        await until(there)


@pytest_asyncio.fixture
async def owing(settling: Worker, order: Ordering, chain: Chain, connection: Connection) -> Owing:
    """Makes debts; nobody relays afterwards."""
    await chain.at_once()

    async def owe() -> Debt:
        payer = await chain.wallet(PAID)
        one = order(chain.authorize(payer, chain.treasury, PAID))
        async with settling() as settlements:
            await settlements.reserve(one)
            await settlements.submit(one.id)
            assert await ended(settlements, one.id) == "confirmed"

            async def final() -> bool:
                await chain.mine()
                return await connection.fetchval("SELECT final FROM chain.payment WHERE id = $1", one.id)

            await until(final)
        return Debt(one, chain, connection, await chain.head())

    async def owe_all(count: int = 1) -> list[Debt]:
        debts = [await owe() for _ in range(count)]
        for debt in debts:
            assert await connection.fetchval("SELECT chain.repay($1, 'upstream_5xx')", debt.payment.id) == "owed"
        return debts

    return owe_all


async def test_a_repayment_is_booked_once_its_block_is_final(
    owing: Owing, settling: Worker, connection: Connection
) -> None:
    (debt,) = await owing()
    async with settling() as settlements:
        await debt.is_returned()
        await until(partial(seen, settlements.relayers[0], (await debt.chain.node.head()).hash))
        assert await debt.state() == "broadcast"
        assert await breaks(connection, "UPDATE chain.repayment SET state = 'confirmed' WHERE payment_id = $1", debt)
        await debt.is_in("confirmed", mining=True)
    assert await debt.times_returned() == 1
    assert await breaks(connection, "UPDATE chain.repayment SET state = 'broadcast' WHERE payment_id = $1", debt)
    assert await breaks(connection, "DELETE FROM chain.repayment WHERE payment_id = $1", debt)


async def test_a_fork_that_takes_its_block_away_returns_it_once_all_the_same(owing: Owing, settling: Worker) -> None:
    (debt,) = await owing()
    async with settling(finality=6) as settlements:
        await debt.is_returned()
        await until(partial(seen, settlements.relayers[0], (await debt.chain.node.head()).hash))
        await debt.chain.reorg(1)
        assert await debt.times_returned() == 0
        await debt.is_returned(mining=True)
        await debt.is_in("confirmed", mining=True)
    assert await debt.times_returned() == 1


@pytest.mark.slow
async def test_a_fork_cannot_bring_a_stolen_nonce_back_beside_its_successor(owing: Owing, settling: Worker) -> None:
    (debt,) = await owing()
    chain, connection = debt.chain, debt.connection
    async with settling(finality=40) as settlements:
        async with chain.held_blocks():
            await debt.is_in("broadcast")
            first = await debt.sending()
            raw = await connection.fetchval("SELECT raw FROM chain.attempt WHERE sending_id = $1", first)
            await chain.rpc("anvil_dropAllTransactions")
            before = await chain.head()
            await chain.steal_nonce()

            async def lost() -> bool:
                await chain.mine()
                return await connection.fetchval("SELECT status FROM chain.sending WHERE id = $1", first) == "lost"

            await until(lost)
            await look(settlements.relayers[0], chain, 2 * LOOKS)
            assert (await debt.state(), await debt.sending()) == ("broadcast", first)
            await chain.reorg(await chain.head() - before)  # the thief's block is gone, and the first one is mined
            await chain.rpc("anvil_dropAllTransactions")
            await chain.rpc("eth_sendRawTransaction", "0x" + raw.hex())
        await debt.is_in("confirmed", mining=True)
    assert await debt.times_returned() == 1


@pytest.mark.slow
async def test_one_that_reverts_is_sent_again_only_when_no_fork_can_make_it_succeed(
    owing: Owing, settling: Worker
) -> None:
    (debt,) = await owing()
    chain = debt.chain
    has = await chain.usdc_of(chain.treasury)
    thief, treasurer = await chain.wallet(), Signer(bytes.fromhex(chain.signer_key[2:]))
    async with settling(finality=12, payout_seconds=0.1) as settlements:
        async with chain.held_blocks():
            await debt.is_in("broadcast")
            first = await debt.sending()
            taken = chain.authorize(treasurer, thief.address, has)
            await chain.transact(thief, chain.usdc, executed(taken), tip=10**11)
            await chain.mine()
        await chain.give(chain.treasury, has)  # so that another one could be sent at once
        await look(settlements.relayers[0], chain, 4)
        assert (await debt.state(), await debt.sending(), await debt.times_returned()) == ("broadcast", first, 0)
        await debt.is_in("confirmed", mining=True)
        assert await debt.sending() != first
    assert await debt.times_returned() == 1


async def test_what_the_key_cannot_return_says_why_and_goes_back_when_it_can(
    owing: Owing, settling: Worker, database_url: str
) -> None:
    debts = await owing(2)
    chain = debts[0].chain
    has = await chain.usdc_of(chain.treasury)
    await chain.treasurer_pays((await chain.wallet()).address, has - PAID - 4_000)
    async with settling(payout_seconds=0.2):
        await debts[0].is_in("confirmed", mining=True)
        await until(lambda: says(debts[1], "6000 (atomic) too little"))
        shown = await asyncio.to_thread(tollway, "payments", "list", TOLLWAY_DATABASE_URL=database_url)
        assert re.search(f"{debts[1].payment.id} .* back to 0x.* pending: .* 6000", shown.stdout)
        await chain.give(chain.treasury, has - PAID - 4_000)
        await debts[1].is_in("confirmed", mining=True)
    assert [await debt.times_returned() for debt in debts] == [1, 1]


def test_what_a_token_moved_otherwise_is_neither_made_nor_not_made() -> None:
    token, other, key, payer = (bytes([number]) * 20 for number in range(1, 5))
    one = Repayment(
        id=uuid7(), network="eip155:1", token=token, destination=payer, amount=7, state="broadcast", trouble=None,
        sending_id=1, sending_status="final", sender=key, nonce=0, mined_transaction=b"", block_hash=b"",
    )  # fmt: skip

    def moved(contract: bytes, to: bytes, amount: int) -> Log:
        return Log(contract, (TRANSFERRED, word(key), word(to)), word(amount), b"", 1, b"")

    assert one.made_by([moved(token, payer, 7)])
    assert not one.made_by([])
    assert not one.made_by([moved(other, payer, 7)])
    for logs in ([moved(token, payer, 6)], [moved(token, other, 7)], [moved(token, payer, 6), moved(token, other, 1)]):
        with pytest.raises(ValueError, match="something else"):
            one.made_by(logs)


async def breaks(connection: Connection, harm: str, debt: Debt) -> bool:
    """Say whether the proof sees a harm, which is undone."""
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(harm, debt.payment.id)
    (rule,) = [rule for rule in PAYOUT_RULES if rule.startswith("payments that go back")]
    found = await PAYOUT_RULES[rule].all(connection)
    await transaction.rollback()
    return bool(found) and all(str(debt.payment.id) in one.detail for one in found)


async def says(debt: Debt, words: str) -> bool:
    return words in await debt.trouble()


async def look(relayer: Relayer, chain: Chain, blocks: int) -> None:
    """Mine blocks, each once the relayer has acted on the one before."""
    for _ in range(blocks):
        await chain.mine()
        await until(partial(seen, relayer, (await chain.node.head()).hash))
