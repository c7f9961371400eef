"""A signed authorization that came along with the call (x402): reserved before the call, settled by its policy.

`settle_first`: settled before the upstream hears of the call. `before_response`: an answer that is whole within a
moment is kept with its payment and held until that is settled; a longer one cannot be kept before it is there, so its
payment is settled when its head promises an answer, and goes back when the answer then breaks off. `deferred`:
delivered on trust. What its price is read from (`upto`) is read first, as long as the authorization lives.

An authorization whose answer is kept buys that answer again when it is presented again (onchain/claim.py).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway.billing import x402_per_request
from gateway.billing.prepaid_credits import Ending
from gateway.billing.x402_per_request import LEAST_SECONDS
from gateway.catalog.snapshot import AssetPrice
from gateway.errors import Problem, Unavailable
from gateway.payments.evm.settlements import Status
from gateway.proxy.exchange import Exchange, HeaderPairs
from gateway.proxy.idempotency import release_key
from gateway.proxy.meter import Meter
from gateway.proxy.onchain.claim import pending
from gateway.proxy.onchain.declined import Declined
from gateway.proxy.onchain.offers import Sale, rate_in
from gateway.proxy.onchain.payment import CallPayment, response_field
from gateway.proxy.onchain.rail import OnchainRail, Taken
from gateway.proxy.purses.metered import Answer, MeteredPurse
from gateway.upstreams.http.response import UpstreamResponse
from pricing.quote import Quote, quote_of

if TYPE_CHECKING:
    from gateway.proxy.parts import Parts

NOT_BACK = "The payment could not be given back yet; present it again in a moment."


class OnchainPurse(MeteredPurse):
    """Pays with the payment that the call brings along."""

    __slots__ = ("_parts", "_payment", "_rail", "_taken")

    without_key = True
    keeps_refusals = False
    settles_in_keeping = True
    source = "onchain"
    waits_for_chain = True

    def __init__(self, parts: Parts, rail: OnchainRail) -> None:
        self._parts, self._rail = parts, rail
        self._taken: Taken | None = None
        self._payment: CallPayment | None = None

    @property
    def paid(self) -> bool:
        """Return whether the payment is, or is being, reserved."""
        return self._payment is not None

    @property
    def signer(self) -> bytes | None:
        """Return the payer's address."""
        return None if self._payment is None else self._payment.payer

    @property
    def sale(self) -> Sale:
        """Return the offer that was taken up."""
        return self._claimed.sale

    @property
    def price(self) -> AssetPrice:
        """Return the price that is paid."""
        return self.sale.price

    @property
    def held(self) -> int:
        """Return how much was signed."""
        return self.sale.offer.amount

    @property
    def _claimed(self) -> Taken:
        if self._taken is None:
            raise RuntimeError("no payment was claimed")
        return self._taken

    @property
    def _reserved(self) -> CallPayment:
        if self._payment is None:
            raise RuntimeError("no payment was reserved")
        return self._payment

    async def claim(self, exchange: Exchange) -> bool:
        """Take the payment, or answer what it has bought before."""
        self._taken = await self._rail.claim(exchange)
        return self._taken is not None

    async def authorize(self, exchange: Exchange) -> None:
        """Reserve the payment, and settle it first where that is the policy. Raises Declined or another Problem."""
        claimed = self._claimed
        examined = await self._rail.examine(exchange, claimed)
        # From here on it ends with the call, also when the database's answer is lost.
        payment = self._payment = self._rail.payment(exchange, claimed, examined)
        await self._rail.reserve(exchange, claimed, payment, examined)
        if payment.policy == "settle_first":
            await self._settle_first(exchange, payment)
        exchange.meter = _meter_of(exchange, payment.sale)

    async def _settle_first(self, exchange: Exchange, payment: CallPayment) -> None:
        await payment.submit()
        status = await payment.wait()
        if status.state == "confirmed":
            return
        if await payment.give_back(exchange, status.reason or "settlement_timeout") == "cancelled":
            raise Unavailable(
                "Your payment was not settled in time, so the call was not made; the authorization was never sent."
                " Try again."
            )
        raise _not_settled(payment, status)

    async def look(self, exchange: Exchange, answer: UpstreamResponse) -> None:
        """Under `before_response` wait for the whole answer, or settle the payment of one that takes longer.

        Raises Declined when the settlement failed, SettlementPending, Unavailable, or UpstreamError.
        """
        payment, meter = self._reserved, exchange.meter
        if payment.policy != "before_response":
            return
        services = self._parts.services
        seconds = services.settings.x402.gather
        if meter is not None:
            await meter.begin(answer)
            seconds = max(payment.valid_before - time.time() - LEAST_SECONDS, seconds)
        if not await answer.gather(services.answers.keep, seconds):
            await self._settle(exchange, payment)

    async def settle_ahead(self, exchange: Exchange) -> None:
        """Settle a connection's payment before it is accepted; one on trust is submitted, because connections last.

        Raises Declined, SettlementPending or Unavailable.
        """
        payment = self._reserved
        if payment.policy == "deferred":
            await payment.submit()
        elif not payment.submitted:
            await self._settle(exchange, payment)

    async def _settle(self, exchange: Exchange, payment: CallPayment) -> None:
        """Settle a payment whose answer cannot be kept before it is there. Raises Declined or SettlementPending."""
        await payment.submit()
        status = await payment.wait()
        if status.state != "confirmed":
            await payment.give_back(exchange, status.reason or "settlement_timeout")
            raise _not_settled(payment, status)

    async def keep(self, exchange: Exchange, headers: HeaderPairs, body: bytes | None) -> None:
        """Keep the answer with its payment, and hold it until that is settled where nothing is delivered unpaid."""
        payment, meter = self._reserved, exchange.meter
        if meter is not None and payment.policy == "before_response" and not payment.submitted:
            meter.end()
            payment.due = exchange.quote = meter.due
        await self._keep(exchange, payment, headers, body)

    async def _keep(
        self,
        exchange: Exchange,
        payment: CallPayment,
        headers: HeaderPairs,
        body: bytes | None,
        reason: str | None = None,
    ) -> None:
        if payment.due is not None and payment.due.amount == 0:
            await self._give_back(exchange, payment, reason or "delivered")
            return
        if payment.policy == "before_response" and not payment.submitted:
            if body is not None:
                await self._keep_until_settled(exchange, payment, headers, body, reason or "delivered")
                return
            await self._settle(exchange, payment)
        await payment.keep(exchange, headers, body, reason)

    async def _give_back(self, exchange: Exchange, payment: CallPayment, reason: str) -> None:
        """Let a payment go of which nothing is due. Raises Unavailable."""
        if await payment.give_back(exchange, reason) == "waiting":
            raise Unavailable(NOT_BACK)
        await release_key(exchange, self._parts.services.answers, self._parts.services.ledger)

    async def _keep_until_settled(
        self, exchange: Exchange, payment: CallPayment, headers: HeaderPairs, body: bytes, reason: str
    ) -> None:
        """Keep a whole answer with its payment, and wait until that is settled. Raises as `look`."""
        await payment.keep(exchange, headers, body, reason)
        exchange.outcome = "unsettled"
        try:
            status = await payment.wait()
        except Unavailable:
            raise pending(payment.id, payment.services) from None
        if status.state != "confirmed":
            raise _not_settled(payment, status)
        exchange.outcome = "settled"

    def keep_later(self, exchange: Exchange) -> None:
        """Keep the payment of a connection that was opened."""
        self._reserved.keep_later(exchange)

    def interrupted(self, exchange: Exchange) -> None:
        """Keep the payment: the connection was opened."""
        self.keep_later(exchange)

    def at_most(self, quote: Quote) -> Quote:
        """Return what is due: what was signed (`exact`), or what was metered and not more than that (`upto`)."""
        if self.sale.offer.kind.scheme == "exact":
            return self.sale.quote
        return quote_of(min(quote.amount, self.held), self.price.rows.fee_ppm, "rows")

    async def take(self, exchange: Exchange, quote: Quote, reason: str, answer: Answer | None = None) -> HeaderPairs:
        """Have the payment settled for what is due, as its policy says, and keep the answer with it."""
        payment = self._reserved
        if answer is None:
            raise RuntimeError("what is paid by an authorization is answered in one piece")
        exchange.quote = payment.due = quote
        await self._keep(exchange, payment, *answer, reason)
        return [response_field(payment.version, payment.settlement())] if quote.amount else []

    def leave(self, exchange: Exchange, quote: Quote, reason: str) -> None:
        """Do nothing: what was not kept with an answer is given back when the exchange ends."""

    async def end(self, exchange: Exchange, ending: Ending) -> bool:
        """End the payment by the rule, if it has no end yet, and return whether it was given back."""
        payment = self._payment
        if payment is None:
            return await super().end(exchange, ending)
        if not payment.ended:
            decision = x402_per_request.settle(
                ending,
                exchange.status,
                answered=exchange.head_sent,
                submitted=payment.submitted,
                refunded=exchange.refunds.statuses,
                judged=exchange.judged,
            )
            # What the rule keeps was kept with its answer (`keep`); an answer that was not kept has not arrived whole.
            await payment.give_back(exchange, decision.reason)
            await release_key(exchange, self._parts.services.answers, self._parts.services.ledger)
        return exchange.outcome == "refunded"

    def fields(self, exchange: Exchange, *, refunded: bool) -> HeaderPairs:
        """Return what the call cost, and how the payment was settled."""
        payment = self._payment
        return super().fields(exchange, refunded=refunded) if payment is None else payment.fields(refunded=refunded)


def _meter_of(exchange: Exchange, sale: Sale) -> Meter | None:
    """Return what reads the cost of a call that is paid by a sale; None where the price is what was signed."""
    publisher = exchange.sold
    if exchange.meter is None or sale.offer.kind.scheme != "upto":
        return None
    rate = rate_in(sale.price, publisher, exchange.method, exchange.candidates)
    return None if rate is None else Meter(rate, publisher.watch)


def _not_settled(payment: CallPayment, status: Status) -> Problem:
    """Return the answer to a caller whose payment was not settled: the chain's refusal, or that it is still open."""
    if status.state == "failed":
        settlement = payment.settlement()
        return Declined(settlement.reason or "", version=payment.version, settlement=settlement)
    return pending(payment.id, payment.services)
