"""The payment of one call, from its reservation to its end.

It ends once: kept with the call's answer (`keep`), or given back (`give_back`). Both are one transaction of the
database (payments/calls.py). Giving back is made up for when the database is away, and is the reconciler's when this
process dies.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import orjson

from gateway.database.pool import LOST
from gateway.errors import Unavailable
from gateway.payments.calls import GIVE_BACK, Deliveries, Delivery
from gateway.payments.evm.settlements import Status
from gateway.payments.x402 import v1, v2
from gateway.payments.x402.answers import Settlement
from gateway.proxy.effects import perform
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.idempotency import kept_headers
from gateway.proxy.onchain.offers import Sale
from gateway.proxy.settlement import settlement_of
from gateway.services import Services
from gateway.settings import SettlementPolicy
from pricing.money import format_amount
from pricing.quote import Quote

NOT_KEPT = "The answer could not be kept, so it was not delivered. Present the same payment again."


@dataclass(slots=True)
class CallPayment:
    """A payment that is being reserved. `id` is the exchange's; `status` is how it was settled, once that is known.

    `due` is what is settled of an authorization for at most so much (`upto`); None: all of it. It is good until
    `valid_before`, in seconds since 1970.
    """

    services: Services
    deliveries: Deliveries
    id: UUID
    sale: Sale
    version: int
    payer: bytes
    policy: SettlementPolicy
    worker_id: int | None
    submitted: bool = False
    ended: bool = False
    status: Status | None = None
    due: Quote | None = None
    valid_before: int = 0

    def never_was(self) -> None:
        """Note that nothing was reserved."""
        self.ended = True
        self.services.ledger.ended(self.id)

    async def submit(self) -> None:
        """Hand the payment over for settlement. Raises Unavailable."""
        due = self.due
        submitting = self.services.settlements.submit(self.id, amount=due and due.amount, fee=due and due.fee)
        await perform("submit", submitting)
        self.submitted = True

    async def wait(self) -> Status:
        """Wait for the settlement and return its status; it may not have ended when the time is up."""
        waiting = self.services.settlements.wait(self.id, self.services.settings.x402.wait)
        self.status = await perform("settlement", waiting)
        return self.status

    async def keep(
        self, exchange: Exchange, headers: HeaderPairs, body: bytes | None, reason: str | None = None
    ) -> None:
        """Keep the call's answer, record its end and have the payment settled: all of it, or nothing.

        Raises Unavailable when that cannot be done, or not be known: then the caller must not have all of the answer.
        """
        await perform("store", self._keep(exchange, self._answer(exchange, headers, body, reason)))

    async def _keep(self, exchange: Exchange, delivery: Delivery) -> None:
        if await self.deliveries.keep(delivery) == "cancelled":
            raise Unavailable(NOT_KEPT)
        self.ended = self.submitted = True
        self.services.ledger.ended(self.id)
        for relay in self.services.settlements.others.values():
            relay.wake()
        self._count("kept")
        exchange.outcome = "settled"

    def keep_later(self, exchange: Exchange) -> None:
        """Keep it without an answer as soon as the database is back: what was delivered as it came is paid for."""
        delivery = self._answer(exchange, [], None, "delivered")
        self.ended = self.submitted = True
        exchange.outcome = "settled"
        self._count("kept")

        async def work() -> None:
            await self.deliveries.keep(delivery)
            self.services.ledger.ended(self.id)

        self.services.ledger.owe("keeping", self.id, work)

    async def give_back(self, exchange: Exchange, reason: str) -> str:
        """Let the authorization go, or send its money back. Returns what happened (calls.GivenBack)."""
        self.ended = True
        exchange.outcome = "refunded"
        status = exchange.status

        async def work() -> str:
            verdict = await self.services.database.read(
                lambda connection: GIVE_BACK.one(connection, self.id, reason, status)
            )
            self.services.ledger.ended(self.id)
            return verdict

        try:
            verdict = await perform("refund", work())
        except (*LOST, Unavailable):
            self.services.ledger.owe("giving back", self.id, work)
            verdict = "waiting"
        self._count(verdict)
        if verdict in ("kept", "ended"):  # it cannot go back; or it was kept with its answer, and we were not told
            exchange.outcome = "settled"
        return verdict

    def _count(self, outcome: str) -> None:
        self.services.metrics.payment_ended(self.sale.offer.kind.network.id, self.policy, outcome)

    def fields(self, *, refunded: bool) -> HeaderPairs:
        """Return the answer's fields about the payment: what the call cost, and how it was settled."""
        asset = self.sale.price.asset
        amount = 0 if refunded else self._amount
        fields = [(b"x-cost", format_amount(amount, asset.decimals).encode())]
        if not refunded:
            fields.append((b"x-cost-asset", asset.symbol.encode()))
            fields.append(response_field(self.version, self.settlement()))
        return fields

    def settlement(self) -> Settlement:
        """Return how the payment was settled, as clients are told; without a transaction it is still on its way."""
        offer, status = self.sale.offer, self.status
        if status is not None and status.state == "failed":
            return Settlement(offer.kind.network, self.payer, reason=status.reason or "transaction_failed")
        transaction = None if status is None else status.transaction
        return Settlement(offer.kind.network, self.payer, transaction, self._amount)

    @property
    def _amount(self) -> int:
        return self.sale.offer.amount if self.due is None else self.due.amount

    def _answer(self, exchange: Exchange, headers: HeaderPairs, body: bytes | None, reason: str | None) -> Delivery:
        keyed = exchange.keyed
        if keyed is None:
            raise RuntimeError("a call that is paid on a chain has claimed its payment")
        end, due = settlement_of(exchange, reason or exchange.ending), self.due
        pairs = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in kept_headers(headers)]
        return (
            self.id, self.worker_id, keyed.owner_id, keyed.key, exchange.answered, orjson.dumps(pairs), body,
            keyed.request_hasher.digest(), end.reason, end.status, end.bytes_in, end.bytes_out, end.method,
            end.target_hash, end.body_hash, None if due is None else str(due.amount),
            None if due is None else str(due.fee), end.endpoint, end.rows,
        )  # fmt: skip


def response_field(version: int, settlement: Settlement) -> tuple[bytes, bytes]:
    """Return the field that tells a payer how its payment ended, in its version of the protocol."""
    if version == 1:
        return b"x-payment-response", v1.response_header(settlement)
    return b"payment-response", v2.response_header(settlement)
