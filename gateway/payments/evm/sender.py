"""The sending half of the relayer: from pending payments to transactions in the mempool, and what keeps them there.

The order that makes a crash harmless: the call is tried (estimated), the nonce is taken and the signed transaction
stored in one database transaction, and only then it is broadcast. Whatever was broadcast is in the database, and
sending it again is sending it once. All writes go over the connection that holds the relayer's lock, so a relayer that
has lost the lock can sign nothing any more. A payment that cannot be executed fails alone and takes no nonce.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from gateway.database.pool import Connection
from gateway.faults import ARMED, act
from gateway.payments.evm.checks import outcomes, plain
from gateway.payments.evm.fees import RelayPolicy, gas_limit, offer, raised
from gateway.payments.evm.instructions import Contracts, aggregate, execute
from gateway.payments.evm.keystore import Signer
from gateway.payments.evm.node import Block, Node
from gateway.payments.evm.outbox import (
    ADD_ATTEMPT,
    ADD_SENDING,
    ATTEMPTS_AT,
    NEXT_NONCE,
    NOTE_SENT,
    PENDING,
    SEND,
    Payment,
    Sending,
)
from gateway.payments.evm.payouts import CARRY_PAYOUT, PAYABLE, Payout, Payouts
from gateway.payments.evm.reasons import reverted
from gateway.payments.evm.repayments import CARRY_REPAYMENT, REPAYABLE, Repayment, Repayments
from gateway.payments.evm.rpc import NoAnswer, NodeRefused, RpcError
from gateway.payments.evm.transaction import Call, Fees, Signed, sign
from gateway.payments.evm.transfers import funds

log = logging.getLogger(__name__)

VOID_GAS = 21_000
SAMPLES = 3
PLAIN_GAS = 200_000  # what takes more is no plain transfer
KNOWN = ("already known", "already imported", "known transaction")
TIP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One transaction to be: what it calls, for whom, and whether that is a payment, its return, or a payout."""

    call: Call
    payments: tuple[UUID, ...]
    purpose: Literal["settle", "repay", "payout"] = "settle"


@dataclass(frozen=True, slots=True)
class Refused:
    """A payment whose execution the chain would revert now."""

    payment: Payment
    error: NodeRefused


def over_limit(gas: int) -> NodeRefused:
    """Return the refusal of a call that would burn too much, as some contract wallets can make it do."""
    return NodeRefused(3, f"reverted: needs {gas} gas, which is over the limit")


class Sender:
    """Sends for one key on one network. Not for concurrent use: the relayer's round calls it."""

    def __init__(
        self, network: str, chain_id: int, node: Node, signer: Signer, contracts: Contracts, policy: RelayPolicy,
        repayments: Repayments, payouts: Payouts,
    ) -> None:  # fmt: skip
        self.network = network
        self.chain_id = chain_id
        self.address = signer.address
        self._node = node
        self._signer = signer
        self._contracts = contracts
        self._policy = policy
        self._repayments = repayments
        self._payouts = payouts
        self._tip = (0, datetime.min.replace(tzinfo=UTC))
        self._gas: dict[bytes, int] = {}  # by asset: what a plain payment of it is allowed in a bundle
        self.sent = 0  # transactions, so far
        self.waits_because = ""  # why nothing new is sent; empty while it is

    async def send_new(self, connection: Connection, head: Block, in_flight: int) -> list[Refused]:
        """Send pending payments, repayments and payouts; return the payments that would revert. Raises NoAnswer."""
        room = self._policy.max_in_flight - in_flight
        if room <= 0:
            return []
        payments = await PENDING.all(connection, self.network, room * self._policy.batch)
        returns = await REPAYABLE.all(connection, self.network, self.address, room)
        payouts = await PAYABLE.all(connection, self.network, room)
        if not payments and not returns and not payouts:
            return []
        fees = offer(head.base_fee, await self._market_tip(), self._policy)
        if fees is None:
            self._wait_because(f"gas is over the cap (base fee {head.base_fee})")
            return []
        plans, alone = await self._bundle(payments)
        more, refused = await self._plan(alone[: max(room - len(plans), 0)])
        plans = [*plans, *more, *await self._plan_own(connection, returns, payouts)][:room]
        if plans:
            await self._send(connection, plans, fees)
        return refused

    async def keep_alive(self, connection: Connection, head: Block, sendings: Sequence[Sending]) -> None:
        """Send again what the mempool has dropped, raise the fee of what is stuck, and fill gaps in the nonces."""
        if not sendings:
            return
        now = datetime.now(UTC)
        stuck_since = now - timedelta(seconds=self._policy.stuck_seconds)
        for sending in [one for one in sendings if one.tried_at < stuck_since]:
            await self._raise(connection, head, sending)
        quiet_since = now - timedelta(seconds=self._policy.check_seconds)
        quiet = [one for one in sendings if one.sent_at is None or one.sent_at < quiet_since]
        known = await self._node.known([sending.hash for sending in quiet])
        dropped = [one for one, there in zip(quiet, known, strict=True) if there is False]
        await self._broadcast(connection, [Signed(one.hash, one.raw) for one in dropped])
        await self._fill_gap(connection, head, sendings)

    async def rebroadcast(self, connection: Connection, sendings: Sequence[Sending]) -> None:
        """Hand every open transaction to the node again, lowest nonce first."""
        await self._broadcast(connection, [Signed(one.hash, one.raw) for one in sendings])

    async def _market_tip(self) -> int:
        tip, until = self._tip
        now = datetime.now(UTC)
        if now >= until:
            try:
                tip = await self._node.tip()
            except NodeRefused:  # not every node has the method
                tip = self._policy.min_tip
            self._tip = (tip, now + timedelta(seconds=TIP_SECONDS))
        return tip

    async def _plan_own(
        self, connection: Connection, returns: Sequence[Repayment], payouts: Sequence[Payout]
    ) -> list[Plan]:
        """Choose among what our key sends of its own tokens; what is owed back comes first."""
        if not returns and not payouts:
            return []
        tokens = {one.token for one in (*returns, *payouts)}
        left = await funds(connection, self._node, self.network, self.address, tokens)
        back = await self._repayments.plan(connection, returns, left)
        out = await self._payouts.plan(connection, payouts, left)
        return [
            *(Plan(call, (one,), "repay") for one, call in back),
            *(Plan(call, (one,), "payout") for one, call in out),
        ]

    async def _plan(self, payments: Sequence[Payment]) -> tuple[list[Plan], list[Refused]]:
        """Try every call on its own, so that one that reverts is known before it takes a nonce."""
        calls = [execute(payment, payment.amount, self.address, self._contracts) for payment in payments]
        estimates = await self._node.estimate(self.address, calls)
        if estimates and all(isinstance(estimate, NoAnswer) for estimate in estimates):
            raise NoAnswer("no estimate was answered")
        plans: list[Plan] = []
        refused: list[Refused] = []
        for payment, call, estimate in zip(payments, calls, estimates, strict=True):
            if isinstance(estimate, int) and gas_limit(estimate) <= self._policy.max_gas:
                plans.append(Plan(Call(*call, gas_limit(estimate)), (payment.id,)))
            elif isinstance(estimate, int):
                refused.append(Refused(payment, over_limit(estimate)))
            elif isinstance(estimate, NodeRefused) and reverted(estimate):
                refused.append(Refused(payment, estimate))
        return plans, refused

    async def _bundle(self, payments: Sequence[Payment]) -> tuple[list[Plan], list[Payment]]:
        """Put plain payments together in multicalls; returns them and the payments that must be tried by themselves.

        Those are the ones that a trial of the whole multicall does not pass, and those that were in one before: what
        failed there alone, or took the others' gas, does so at its own expense next time.
        """
        await self._learn_gas(payments)
        together = [one for one in payments if plain(one) and one.tries == 0 and one.asset in self._gas]
        passed: list[Payment] = []
        plans: list[Plan] = []
        for start in range(0, len(together), self._policy.batch) if len(together) > 1 else ():
            part = together[start : start + self._policy.batch]
            calls = [execute(payment, payment.amount, self.address, self._contracts) for payment in part]
            data = aggregate(calls, all_or_nothing=False)
            try:
                tried = outcomes(await self._node.view(self._contracts.multicall3, data), len(part))
            except NodeRefused:
                continue
            good = [place for place, outcome in enumerate(tried) if outcome is not None]
            if len(good) < 2:
                continue
            if len(good) < len(part):
                data = aggregate([calls[place] for place in good], all_or_nothing=False)
            gas = VOID_GAS + sum(self._gas[part[place].asset] for place in good)
            call = Call(self._contracts.multicall3, data, gas)
            plans.append(Plan(call, tuple(part[place].id for place in good)))
            passed += [part[place] for place in good]
        taken = {payment.id for payment in passed}
        return plans, [payment for payment in payments if payment.id not in taken]

    async def _learn_gas(self, payments: Sequence[Payment]) -> None:
        """Estimate some plain payments of each token that is new here: all take about the same, and one may be bad."""
        tried: dict[bytes, list[Payment]] = {}
        for payment in payments if len(payments) > 1 else ():
            if plain(payment) and payment.asset not in self._gas:
                tried.setdefault(payment.asset, []).append(payment)
        some = [payment for ones in tried.values() for payment in ones[:SAMPLES]]
        calls = [execute(payment, payment.amount, self.address, self._contracts) for payment in some]
        for payment, estimate in zip(some, await self._node.estimate(self.address, calls), strict=True):
            if isinstance(estimate, int) and gas_limit(estimate) <= PLAIN_GAS:
                # A transaction's base cost is paid once.
                self._gas[payment.asset] = max(self._gas.get(payment.asset, 0), gas_limit(estimate - VOID_GAS))

    async def _send(self, connection: Connection, plans: Sequence[Plan], fees: Fees) -> None:
        balance, mined = await self._node.account(self.address)
        if not self._can_pay(plans, fees, balance):
            return
        if ARMED == "chain.planned":
            await act()
        signed: list[Signed] = []
        nonce = max(mined, await NEXT_NONCE.one(connection, self.network, self.address))
        for plan in plans:
            made = await self._store(connection, plan, nonce, fees)
            if made is not None:
                signed.append(made)
                nonce += 1
        if ARMED == "chain.stored":
            await act()
        await self._broadcast(connection, signed)
        self.sent += len(signed)
        if ARMED == "chain.sent":
            await act()

    def _can_pay(self, plans: Sequence[Plan], fees: Fees, balance: int) -> bool:
        """Say whether the key has the gas money; without it nothing is signed that could not be mined."""
        enough = balance >= sum(plan.call.gas for plan in plans) * fees.max_fee
        self._wait_because("" if enough else "the relayer's key is out of gas money")
        return enough

    def _wait_because(self, why: str) -> None:
        """Say once why payments wait."""
        if why and not self.waits_because:
            log.error("payments on %s wait: %s", self.network, why)
        self.waits_because = why

    async def _store(self, connection: Connection, plan: Plan, nonce: int, fees: Fees) -> Signed | None:
        """Take a nonce and keep the signed transaction; None when the plan's payments were cancelled meanwhile."""
        call = plan.call
        signed = sign(self._signer, self.chain_id, nonce, call, fees)
        place = (self.network, self.address, nonce, call.target, call.data, call.gas)
        if plan.purpose == "settle":
            patience = timedelta(seconds=self._policy.check_seconds)
            stored = await SEND.one(
                connection, *place, list(plan.payments), patience, signed.hash, signed.raw, fees.max_fee, fees.tip
            )
            return signed if stored else None
        carry = CARRY_REPAYMENT if plan.purpose == "repay" else CARRY_PAYOUT
        try:
            async with connection.transaction():
                sending = await ADD_SENDING.one(connection, *place, plan.purpose)
                if not await carry.run(connection, plan.payments[0], sending):
                    raise LookupError
                await ADD_ATTEMPT.run(connection, signed.hash, sending, signed.raw, fees.max_fee, fees.tip, False)
        except LookupError:
            return None
        return signed

    async def _broadcast(self, connection: Connection, signed: Sequence[Signed]) -> None:
        if not signed:
            return
        answers = await self._node.broadcast([one.raw for one in signed])
        for one, answer in zip(signed, answers, strict=True):
            if isinstance(answer, NodeRefused) and not any(word in answer.message.lower() for word in KNOWN):
                # Used or underpriced nonces are for the watcher and the next raise; nothing is lost by waiting.
                log.info("transaction %s was not taken: %s", one.hash.hex(), answer)
        handed = [one.hash for one, answer in zip(signed, answers, strict=True) if not isinstance(answer, NoAnswer)]
        await NOTE_SENT.run(connection, handed)

    async def _raise(self, connection: Connection, head: Block, sending: Sending) -> None:
        """Replace a stuck transaction by one that pays more; what nobody needs any more by one that does nothing."""
        fees = raised(sending.fees, head.base_fee, await self._market_tip(), self._policy)
        if fees is None:
            self._wait_because(f"nonce {sending.nonce} is stuck at the fee cap")
            return
        void = not sending.wanted
        call = self._void() if void else Call(sending.target, sending.data, sending.gas)
        signed = sign(self._signer, self.chain_id, sending.nonce, call, fees)
        await ADD_ATTEMPT.run(connection, signed.hash, sending.id, signed.raw, fees.max_fee, fees.tip, void)
        log.info("nonce %d on %s is raised to %d wei per gas", sending.nonce, self.network, fees.max_fee)
        await self._broadcast(connection, [signed])

    def _void(self) -> Call:
        return Call(self.address, b"", VOID_GAS)

    async def _fill_gap(self, connection: Connection, head: Block, sendings: Sequence[Sending]) -> None:
        """Send something for each nonce that the chain waits for and that no open sending has."""
        mined = await self._node.next_nonce(self.address)
        for nonce in range(mined, sendings[0].nonce):
            raws = await ATTEMPTS_AT.all(connection, self.network, self.address, nonce)
            answers: list[bytes | RpcError] = await self._node.broadcast(raws) if raws else []
            if any(isinstance(answer, bytes) for answer in answers):
                continue
            fees = offer(head.base_fee, await self._market_tip(), self._policy)
            if fees is None:
                return
            log.warning("nonce %d on %s is filled by a transaction that does nothing", nonce, self.network)
            call = self._void()
            async with connection.transaction():
                sending = await ADD_SENDING.one(
                    connection, self.network, self.address, nonce, call.target, call.data, call.gas, "settle"
                )
                signed = sign(self._signer, self.chain_id, nonce, call, fees)
                await ADD_ATTEMPT.run(connection, signed.hash, sending, signed.raw, fees.max_fee, fees.tip, True)
            await self._broadcast(connection, [signed])
