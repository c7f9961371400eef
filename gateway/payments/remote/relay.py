"""Settlement by an external facilitator: the same outbox (evm/settlements.py), relayed by HTTP instead of a node.

A payment is `broadcast` before it is handed over, so that whatever a crash or silence leaves open is asked for again,
under the same Idempotency-Key; one authorization cannot move money twice, whoever executes it. What is not known is
`unknown` until the facilitator answers or, where the network has a node, the chain shows it. Without a node the
facilitator's word is final: nobody here could see a fork.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from gateway.database.pool import LOST, Database
from gateway.database.statement import Command, Statement
from gateway.errors import Unavailable
from gateway.networks import Network
from gateway.payments.evm import reasons
from gateway.payments.evm.evidence import Evidence
from gateway.payments.evm.instructions import Contracts, is_used, proves, use_question
from gateway.payments.evm.node import Node, Receipt
from gateway.payments.evm.outbox import CANCEL_ORPHANS, CONFIRM, FAIL, FIND_PAYMENT, Payment
from gateway.payments.evm.rpc import NoAnswer, RpcError
from gateway.payments.remote.facilitator import FacilitatorClient

log = logging.getLogger(__name__)

ROUND = 20
POLL_SECONDS = 1.0
HELD = timedelta(seconds=120)  # longer than any try takes: then its worker is gone
LONGEST_WAIT = 600
GRACE = 120  # seconds after which an unused, expired authorization is not executed any more
LOOKBACK_BLOCKS = 43_200  # a day of blocks every two seconds; an authorization is good for an hour at most
NO_BLOCK = bytes(32)

TAKE = Statement(
    """
    WITH due AS (
        SELECT id FROM chain.payment
         WHERE network = $1 AND NOT final
           AND (state = 'pending' OR (state IN ('broadcast', 'unknown', 'failed', 'confirmed') AND check_at <= now()))
         ORDER BY submitted_at LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    UPDATE chain.payment p SET state = CASE WHEN p.state = 'pending' THEN 'broadcast' ELSE p.state END,
           tries = p.tries + 1, check_at = now() + $3::interval
      FROM due WHERE p.id = due.id RETURNING p.id::text
    """,
    UUID,
    scalar=True,
)
NOT_KNOWN = Command(
    """
    UPDATE chain.payment SET state = 'unknown', reason = $2, check_at = now() + $3::interval
     WHERE id = $1 AND NOT final AND state IN ('broadcast', 'unknown', 'confirmed')
    """
)
LOOK_AGAIN = Command("UPDATE chain.payment SET check_at = now() + $2::interval WHERE id = $1")
MAKE_FINAL = Command("UPDATE chain.payment SET final = true WHERE id = $1 AND state = 'confirmed'")


@dataclass(frozen=True, slots=True)
class Remote:
    """One network that a facilitator settles on. `node`, where there is one, only looks; `treasury` has 20 bytes."""

    network: Network
    contracts: Contracts
    treasury: bytes
    node: Node | None
    facilitator: FacilitatorClient


class RemoteRelay:
    """Hands payments over and learns their ends. Any number of workers may run it: each takes other payments."""

    def __init__(self, database: Database, remote: Remote) -> None:
        self.remote = remote
        self._database = database
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look at once: something was submitted."""
        self._woken.set()

    async def run(self) -> None:
        """Relay until cancelled. A database that is away is waited for."""
        while True:
            self._woken.clear()
            try:
                busy = await self._round()
            except (Unavailable, *LOST) as error:
                log.warning("relay to the facilitator of %s: %s", self.remote.network.id, type(error).__name__)
                busy = False
            except Exception:
                log.exception("relay to the facilitator of %s failed; it goes on", self.remote.network.id)
                busy = False
            if not busy:
                try:
                    await asyncio.wait_for(self._woken.wait(), POLL_SECONDS)
                except TimeoutError:
                    continue

    async def _round(self) -> bool:
        async with self._database.acquire() as connection:
            await CANCEL_ORPHANS.one(connection, self.remote.network.id, int(time.time()))
            taken = await TAKE.all(connection, self.remote.network.id, ROUND, HELD)
            found = [await FIND_PAYMENT.one(connection, payment_id) for payment_id in taken]
        await asyncio.gather(*(self._see_to(payment) for payment in found))
        return len(taken) == ROUND

    async def _see_to(self, payment: Payment) -> None:
        try:
            if payment.state == "confirmed":
                await self._recheck(payment)
            elif payment.tries > 1 and await self._seen_on_chain(payment):
                return
            elif payment.state == "failed":
                await self._end_failed(payment)
            else:
                await self._settle(payment)
        except (RpcError, LookupError) as error:
            log.warning("payment %s: %s", payment.id, error)
            await self._not_known(payment, reasons.PENDING)

    async def _settle(self, payment: Payment) -> None:
        outcome = await self.remote.facilitator.settle(payment.id, payment)
        if outcome.verdict == "settled" and outcome.transaction is not None:
            await self._settled(payment, outcome.transaction)
        elif outcome.verdict == "refused" and payment.tries == 1:
            await self._fail(payment, outcome.reason or reasons.TRANSACTION_FAILED, final=False)
        else:  # a refusal after an answer was lost may be for what that try has done
            await self._not_known(payment, outcome.reason or reasons.PENDING)

    async def _settled(self, payment: Payment, transaction: bytes) -> None:
        node = self.remote.node
        if node is None:
            await self._confirm(payment, transaction, 0, NO_BLOCK)
            async with self._database.acquire() as connection:
                await MAKE_FINAL.run(connection, payment.id)
            return
        receipt = (await node.receipts([transaction]))[0]
        if not isinstance(receipt, Receipt):
            raise NoAnswer("the facilitator's transaction is not in a block that our node has")
        if not receipt.succeeded or not proves(payment, receipt.logs):
            raise NoAnswer("the facilitator's transaction does not show this payment")
        await self._confirm(payment, transaction, receipt.block_number, receipt.block_hash)

    async def _seen_on_chain(self, payment: Payment) -> bool:
        """Return whether the chain shows how a payment ended; it is booked then."""
        node = self.remote.node
        if node is None:
            return False
        head = await node.head()
        if is_used(payment, await node.view(*use_question(payment, self.remote.contracts))):
            used = await Evidence(node, LOOKBACK_BLOCKS).find(payment, head)
            receipt = (await node.receipts([used.transaction]))[0] if used is not None else None
            if not isinstance(receipt, Receipt):
                raise NoAnswer("an authorization is used, and the log of it is not found yet")
            if receipt.succeeded and proves(payment, receipt.logs):
                await self._confirm(payment, receipt.transaction, receipt.block_number, receipt.block_hash)
            else:
                await self._fail(payment, reasons.NONCE_USED, final=True)
            return True
        if head.timestamp >= payment.valid_before + GRACE:
            await self._fail(payment, payment.reason or reasons.EXPIRED, final=True)
            return True
        return False

    async def _recheck(self, payment: Payment) -> None:
        """See whether a booked payment's block is still there, and final by now."""
        node = self.remote.node
        if node is None or payment.mined_transaction is None:
            return
        receipt = (await node.receipts([payment.mined_transaction]))[0]
        if not isinstance(receipt, Receipt) or not proves(payment, receipt.logs):
            await self._not_known(payment, reasons.PENDING)
            return
        deep = (await node.head()).number - receipt.block_number >= max(self.remote.network.confirmations, 1)
        async with self._database.acquire() as connection:
            if deep:
                await MAKE_FINAL.run(connection, payment.id)
            else:
                await LOOK_AGAIN.run(connection, payment.id, timedelta(seconds=self.remote.network.block_seconds))

    async def _end_failed(self, payment: Payment) -> None:
        """What was refused and is too old now has failed for good; until then somebody may still execute it."""
        if time.time() > payment.valid_before + GRACE:
            await self._fail(payment, payment.reason or reasons.EXPIRED, final=True)
            return
        async with self._database.acquire() as connection:
            await LOOK_AGAIN.run(connection, payment.id, _pause(payment))

    async def _confirm(self, payment: Payment, transaction: bytes, number: int, block: bytes) -> None:
        async with self._database.acquire() as connection:
            await CONFIRM.one(connection, payment.id, transaction, number, block)
            await LOOK_AGAIN.run(connection, payment.id, timedelta(seconds=self.remote.network.block_seconds))

    async def _fail(self, payment: Payment, reason: str, *, final: bool) -> None:
        async with self._database.acquire() as connection:
            await FAIL.one(connection, payment.id, reason, final, _pause(payment))

    async def _not_known(self, payment: Payment, reason: str) -> None:
        async with self._database.acquire() as connection:
            await NOT_KNOWN.run(connection, payment.id, reason, _pause(payment))


def _pause(payment: Payment) -> timedelta:
    """Return how long to wait before the next look: longer each time."""
    return timedelta(seconds=min(2 ** min(payment.tries, 10), LONGEST_WAIT))
