"""The facilitator: verifies and settles payments that other sellers have received.

One authorization is settled once, and that it was settled is told once, to whoever asked for it first. So a seller
whose buyer presents one payment twenty times serves it once, and a seller that was told `settlement_pending` learns the
end by asking again (official servers do so once). Who fears to lose an answer on its way sends an Idempotency-Key: with
it the answer is told again. Nothing is booked: it is not our money, only our gas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from gateway.database.pool import Database
from gateway.database.statement import Command, Statement
from gateway.errors import Unavailable
from gateway.ids import uuid7
from gateway.payments.evm.encoding import show_address
from gateway.payments.evm.node import Receipt
from gateway.payments.evm.rpc import NoAnswer, RpcError
from gateway.payments.evm.settlements import Booking, Settlements, Status
from gateway.payments.examine import Examined, Examiner, moment, order_of, recall, refused
from gateway.payments.x402 import facilitator
from gateway.payments.x402.answers import Settlement
from gateway.payments.x402.facilitator import Asked, read_request, verify_answer
from gateway.payments.x402.offer import PaymentKinds
from gateway.payments.x402.reasons import PaymentRefused, Reason
from gateway.payments.x402.verify import Verified, verify
from gateway.payments.x402.wire import malformed, parse
from gateway.suspensions import SuspendedWallets

MAX_BODY = 65_536
NOTHING = Booking(kind="none")

Outcome = Literal["settled", "refused", "pending"]


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks: an organization (None: nobody we know), and its Idempotency-Key if it sent one."""

    organization_id: UUID | None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """The SettleResponse, and what it means for the metrics. `spent_for` is the payment, the first time it is told."""

    answer: dict[str, Any]
    outcome: Outcome
    network: str
    spent_for: UUID | None = None


NOTE_REQUESTER = Command(
    """
    INSERT INTO chain.facilitated (payment_id, organization_id, idempotency_key) VALUES ($1, $2, $3)
    ON CONFLICT DO NOTHING
    """
)
ASKED_BY = Statement(
    """
    SELECT told_at IS NULL OR idempotency_key = $3 FROM chain.facilitated
     WHERE payment_id = $1 AND organization_id IS NOT DISTINCT FROM $2
    """,
    bool,
    scalar=True,
)
TELL = Statement(
    """
    UPDATE chain.facilitated SET told_at = coalesce(told_at, now())
     WHERE payment_id = $1 AND organization_id IS NOT DISTINCT FROM $2
       AND (told_at IS NULL OR idempotency_key = $3)
    RETURNING told_at = now()
    """,
    bool,
    scalar=True,
)
# How many payments share the transaction that moved this one's money; 0 when that was not ours.
SHARED = Statement(
    """
    SELECT count(*) FROM chain.payment p
      JOIN chain.attempt a ON a.hash = p.mined_transaction AND a.sending_id = p.sending_id
      JOIN chain.payment o ON o.sending_id = p.sending_id
     WHERE p.id = $1
    """,
    int,
    scalar=True,
)
LAST_SENT = Statement(
    """
    SELECT a.hash FROM chain.payment p JOIN chain.attempt a ON a.sending_id = p.sending_id
     WHERE p.id = $1 ORDER BY a.made_at DESC LIMIT 1
    """,
    bytes,
    scalar=True,
)


class Facilitation:
    """One per worker, whose number `worker` returns. A settlement that takes longer than `wait` seconds is pending."""

    def __init__(
        self, database: Database, settlements: Settlements, kinds: PaymentKinds, examiner: Examiner,
        worker: Callable[[], int | None], wait: float, suspended: SuspendedWallets,
    ) -> None:  # fmt: skip
        self._database = database
        self._settlements = settlements
        self._kinds = kinds
        self._examiner = examiner
        self._worker = worker
        self._wait = wait
        self._suspended = suspended
        self._treasuries = {(name, chain.treasury) for name, chain in settlements.chains.items()}

    def supported(self) -> dict[str, Any]:
        """Return the SupportedResponse: what can be settled here, and by which addresses."""
        signers = {name: chain.signer.address for name, chain in self._settlements.chains.items()}
        return facilitator.supported(self._kinds, signers)

    async def verify(self, body: bytes, requester: Requester) -> dict[str, Any]:
        """Return the VerifyResponse: whether a payment would be settled now. Raises Unavailable."""
        payer: bytes | None = None
        try:
            asked = self._read(body, settling=False)
            payer = asked.terms.payer
            known, verified = await self._verified(asked)
            if known is None:
                await self._examine(verified)
            else:
                await self._still_owed(known, requester)
        except PaymentRefused as refusal:
            return verify_answer(payer, refusal)
        return verify_answer(payer, None)

    async def settle(self, body: bytes, requester: Requester) -> Settled:
        """Move the money, once, and return the SettleResponse. Raises Unavailable; then nothing was begun."""
        asked: Asked | None = None
        try:
            asked = self._read(body, settling=True)
            known, verified = await self._verified(asked)
            if asked.amount == 0:  # an upto payment of which nothing was used
                if known is not None:
                    raise refused(Reason.NONCE_USED)
                return _settled(asked, Settlement(asked.offer.kind.network, asked.terms.payer, amount=0), None)
            if known is None:
                known = await self._claim(verified, requester)
            return await self._end(asked, known, requester)
        except PaymentRefused as refusal:
            return _refusal(asked, body, refusal)

    async def cost(self, payment_id: UUID) -> int:
        """Return what a settled payment has cost us in gas (wei): its part of its transaction. 0 when unknown."""
        status = await self._settlements.status(payment_id)
        shared = await self._database.read(lambda connection: SHARED.one(connection, payment_id))
        if status is None or status.transaction is None or not shared:
            return 0
        chain = self._settlements.chains[status.network]
        try:
            receipt = (await chain.node.receipts([status.transaction]))[0]
        except RpcError:
            return 0
        return receipt.gas_used * receipt.gas_price // shared if isinstance(receipt, Receipt) else 0

    def _read(self, body: bytes, *, settling: bool) -> Asked:
        if len(body) > MAX_BODY:
            raise malformed(f"the request is longer than {MAX_BODY} bytes")
        asked = read_request(parse(body), self._kinds, settling=settling)
        if (asked.offer.kind.network.id, asked.offer.payee) in self._treasuries:
            raise PaymentRefused(Reason.REQUIREMENTS, "payments to this gateway are settled where it sells, not here")
        return asked

    async def _verified(self, asked: Asked) -> tuple[Status | None, Verified]:
        """Return the payment, if it is one, and what became of it if it was claimed before. Raises PaymentRefused."""
        known = await recall(self._settlements, asked.offer.kind, asked.terms)
        if known is None and self._suspended.find(asked.terms.payer) is not None:  # what was begun goes on
            raise PaymentRefused(Reason.PAYER, "this facilitator settles no payments of this wallet")
        return known, verify(asked.taken, asked.terms, [asked.offer], None, moment(asked.terms, known))

    async def _still_owed(self, known: Status, requester: Requester) -> None:
        """Pass when asking for the settlement would be answered with success. Raises PaymentRefused."""
        ours = await self._database.read(
            lambda connection: ASKED_BY.first(connection, known.id, requester.organization_id, requester.key)
        )
        if not ours or known.state == "failed":
            raise refused(known.reason if ours else Reason.NONCE_USED)
        if known.state != "confirmed":
            raise refused(Reason.PENDING)

    async def _examine(self, verified: Verified) -> Examined:
        try:
            return await self._examiner.examine(verified)
        except NoAnswer:
            raise Unavailable("The network's node does not answer; nothing was begun. Try again.") from None

    async def _claim(self, verified: Verified, requester: Requester) -> Status:
        """Claim the authorization for this requester, unless somebody is faster; return whose it is."""
        examined = await self._examine(verified)
        order = order_of(examined.terms, verified.network, uuid7(), NOTHING, worker_id=self._worker())
        reservation = await self._settlements.reserve(order, funds=examined.funds)
        if reservation.status is not None:  # somebody was faster
            return reservation.status
        if reservation.verdict != "reserved":
            raise refused(Reason.FUNDS)
        await self._database.read(
            lambda connection: NOTE_REQUESTER.run(connection, order.id, requester.organization_id, requester.key)
        )
        status = await self._settlements.status(order.id)
        if status is None:
            raise LookupError(f"no payment {order.id}")
        return status

    async def _end(self, asked: Asked, known: Status, requester: Requester) -> Settled:
        """Hand a claimed payment to the relayer, and tell its end to the requester that may hear of it."""
        read = self._database.read
        if not await read(lambda c: ASKED_BY.first(c, known.id, requester.organization_id, requester.key)):
            raise refused(Reason.NONCE_USED)
        if known.state == "reserved":
            amount = asked.amount if asked.terms.method == "permit2_upto" else None
            await self._settlements.submit(known.id, amount=amount)
        status = await self._settlements.wait(known.id, self._wait)
        network, payer = asked.offer.kind.network, asked.terms.payer
        if status.state == "confirmed":
            first = await read(lambda c: TELL.first(c, known.id, requester.organization_id, requester.key))
            if first is None:
                raise refused(Reason.NONCE_USED)
            done = Settlement(network, payer, status.transaction, status.amount)
            return _settled(asked, done, known.id if first else None)
        if status.ended:
            raise refused(status.reason)
        sent = await read(lambda c: LAST_SENT.first(c, known.id))
        pending = Settlement(network, payer, sent, status.amount, Reason.PENDING)
        return Settled(facilitator.settle_answer(asked, pending), "pending", network.id)


def _settled(asked: Asked, settlement: Settlement, spent_for: UUID | None) -> Settled:
    return Settled(facilitator.settle_answer(asked, settlement), "settled", settlement.network.id, spent_for)


def _refusal(asked: Asked | None, body: bytes, refusal: PaymentRefused) -> Settled:
    """Return the SettleResponse of a payment that was not settled."""
    network = asked.offer.kind.network.id if asked is not None else ""
    answer: dict[str, Any] = {
        "success": False,
        "errorReason": str(refusal.reason),
        "errorMessage": refusal.detail,
        "transaction": "",
        "network": network or _said_network(body),
    }
    if asked is not None:
        answer["payer"] = show_address(asked.terms.payer)
    return Settled(answer, "refused", network)


def _said_network(body: bytes) -> str:
    """Return the network that a request names, which the answer must repeat; "" when it cannot be read."""
    try:
        named = parse(body[:MAX_BODY]).get("paymentRequirements")
    except PaymentRefused:
        return ""
    network: object = named.get("network") if isinstance(named, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return network[:64] if isinstance(network, str) else ""
